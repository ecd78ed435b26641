//! Belongs: turning events and problems into text: bars, plain lines, NDJSON, tables.
//! Never: knowing who emitted an event, deciding anything.
//! Start here: `problem.rs`, then `plain.rs`.

mod bars;
mod ended;
mod ndjson;
mod plain;
mod problem;
mod summary;
mod table;

pub use bars::Bars;
pub use ended::ended_text;
pub use ndjson::ndjson;
pub use plain::Plain;
pub use problem::{problem_text, problems_text};
pub use summary::{PhaseTime, phase_times, summary_text};
pub use table::table;

/// A count with its noun: `1 step`, `12 steps`.
pub fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A duration for people: `0.4s`, `12s`, `3m05s`.
pub fn took(millis: u64) -> String {
    match millis {
        0..10_000 => format!("{:.1}s", millis as f64 / 1000.0),
        10_000..60_000 => format!("{}s", (millis + 500) / 1000),
        _ => format!("{}m{:02}s", millis / 60_000, millis % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|n| count(n, "booking")), ["0 bookings", "1 booking", "2 bookings"]);
    }
}

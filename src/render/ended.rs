use super::{count, took};
use crate::core::Outcome;

/// How a run ended, how long it took, and how many of its steps changed something.
pub fn ended_text(outcome: Outcome, changed: u64, unchanged: u64, millis: u64) -> String {
    let word = match outcome {
        Outcome::Failed => "failed",
        Outcome::Skipped => "stopped",
        Outcome::AlreadyDone | Outcome::Changed => "done",
    };
    let were = if unchanged == 1 { "was" } else { "were" };
    let changed = count(changed, "step");
    format!("{word} in {}: {changed} changed something, {unchanged} {were} done already", took(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let text = |changed, unchanged| ended_text(Outcome::Changed, changed, unchanged, 1200);
        assert_eq!(text(1, 0), "done in 1.2s: 1 step changed something, 0 were done already");
        assert_eq!(text(0, 1), "done in 1.2s: 0 steps changed something, 1 was done already");
        assert_eq!(text(33, 18), "done in 1.2s: 33 steps changed something, 18 were done already");
    }
}

use jiff::civil::{Date, DateTime, Time};

use super::{
    clock::{must_be_known, own_zone},
    output,
};
use crate::{
    core::{Code, Problem},
    hub::domain::{Epoch, Local, Zone, local_time},
};

/// The zone that was named, or this computer's.
pub fn zone(named: Option<&Zone>) -> Zone {
    named.cloned().unwrap_or_else(own_zone)
}

/// Reads a start: `14:00` is today's, `2026-11-24T14:00` is local, and one with `Z` or an offset is exact.
///
/// Of a local time that comes twice the earlier is meant, and the note says so; one that does not exist is refused.
pub fn moment(text: &str, named: Option<&Zone>) -> Result<(Epoch, Vec<String>), Problem> {
    if let Ok(at) = text.parse::<Epoch>() {
        return Ok((at, vec![]));
    }
    let bad = || {
        Problem::new(Code::BookWindow, format!("`{}` is not a time", crate::core::shell::printable(text)))
            .hint("Write 14:00, 2026-11-24T14:00 or 2026-11-24T14:00:00Z.")
    };
    if named.is_none() {
        must_be_known()?;
    }
    let zone = zone(named);
    let local: DateTime = match time_of_day(text) {
        Some(time) => today(&zone).to_datetime(time),
        None => local_time(text).ok_or_else(bad)?,
    };
    match zone.read(local) {
        Local::Once(at) => Ok((at, vec![])),
        Local::Twice(at) => Ok((at, vec![format!("{local} comes twice in {zone}; the earlier is meant, {at}")])),
        Local::Never => Err(Problem::new(Code::BookGap, format!("{local} does not exist in {zone}"))),
    }
}

/// As [`moment`], of a slot's start: a day alone would be its midnight, which nobody means.
pub fn start(text: &str, named: Option<&Zone>) -> Result<(Epoch, Vec<String>), Problem> {
    let day: Option<Date> = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
    match day {
        Some(day) => Err(Problem::new(Code::BookWindow, format!("`{text}` is a day without a time"))
            .hint(format!("Write when on that day, as {day}T14:00."))),
        None => moment(text, named),
    }
}

/// A start that is only a time of day: its date is today's.
fn time_of_day(text: &str) -> Option<Time> {
    // jiff finds a time inside of a date and time too, and would then take it for today's; hours it wants in two digits.
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b':');
    let text = if text.find(':') == Some(1) { format!("0{text}") } else { text.to_owned() };
    text.parse::<Time>().ok().filter(|_| digits)
}

fn today(zone: &Zone) -> Date {
    zone.date(Epoch(jiff::Timestamp::now().as_second()))
}

/// How to write the same time of tomorrow, where `text` is a time of today: that may be over.
pub fn tomorrow(text: &str, named: Option<&Zone>) -> Option<String> {
    let next = today(&zone(named)).tomorrow().ok()?.to_datetime(time_of_day(text)?);
    Some(next.strftime("%Y-%m-%dT%H:%M").to_string())
}

/// As [`moment`]; what clocks did to it is said on standard error.
pub fn noted(text: &str, named: Option<&Zone>) -> Result<Epoch, Problem> {
    let (at, notes) = moment(text, named)?;
    notes.iter().for_each(|note| output::say(&format!("note: {note}")));
    Ok(at)
}

/// As [`noted`], where a time may be left out.
pub fn told(text: Option<&str>, named: Option<&Zone>) -> Result<Option<Epoch>, Problem> {
    text.map(|text| noted(text, named)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_know_about_clocks() {
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let at = |text: &str| moment(text, Some(&berlin));
        assert_eq!(at("2026-11-24T14:00").unwrap(), at("2026-11-24T13:00:00Z").unwrap());
        assert_eq!(at("9:05").unwrap(), at("09:05").unwrap());
        assert_eq!(at("2026-03-29T02:30").unwrap_err().code, Code::BookGap);
        let (twice, notes) = at("2026-10-25T02:30").unwrap();
        assert_eq!((twice.to_string().as_str(), notes.len()), ("2026-10-25T00:30:00Z", 1));
        let next = tomorrow("12:00", Some(&berlin)).unwrap();
        assert!(next.ends_with("T12:00") && at(&next).unwrap() > at("12:00").unwrap(), "{next}");
        assert_eq!(tomorrow("2026-11-24T14:00", None), None);
        let day = start("2026-11-24", Some(&berlin)).unwrap_err();
        assert_eq!(day.all_hints(), ["Write when on that day, as 2026-11-24T14:00."]);
        assert_eq!(start("2026-11-24T00:00", Some(&berlin)).unwrap(), at("2026-11-24").unwrap());
        for bad in [
            "",
            "tomorrow",
            "25:00",
            ":00",
            "9:",
            "2026-13-01T00:00",
            "2026-11-24T14:00:00.5Z",
            "2026-11-24T14:00:00.5+08:00",
            "2026-11-24T14:00[Asia/Shanghai]",
        ] {
            assert_eq!(at(bad).err().map(|p| p.code), Some(Code::BookWindow), "{bad}");
        }
    }
}

use jiff::civil::{DateTime, Time};

use super::{clock::own_zone, output};
use crate::{
    core::{Code, Problem},
    hub::domain::{Epoch, Local, Zone},
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
    let zone = zone(named);
    // jiff finds a time inside of a date and time too, and would then take it for today's.
    let time = text.parse::<Time>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit() || b == b':'));
    let local: DateTime = match time {
        Some(time) => zone.local(Epoch(jiff::Timestamp::now().as_second())).date().to_datetime(time),
        None => text.parse().map_err(|_| bad())?,
    };
    match zone.read(local) {
        Local::Once(at) => Ok((at, vec![])),
        Local::Twice(at) => Ok((at, vec![format!("{local} comes twice in {zone}; the earlier is meant, {at}")])),
        Local::Never => Err(Problem::new(Code::BookGap, format!("{local} does not exist in {zone}"))),
    }
}

/// As [`moment`], where a time may be left out; what clocks did to it is said on standard error.
pub fn told(text: Option<&str>, named: Option<&Zone>) -> Result<Option<Epoch>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let (at, notes) = moment(text, named)?;
    notes.iter().for_each(|note| output::say(&format!("note: {note}")));
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_times_know_about_clocks() {
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        let at = |text: &str| moment(text, Some(&berlin));
        assert_eq!(at("2026-11-24T14:00").unwrap(), at("2026-11-24T13:00:00Z").unwrap());
        assert_eq!(at("2026-03-29T02:30").unwrap_err().code, Code::BookGap);
        let (twice, notes) = at("2026-10-25T02:30").unwrap();
        assert_eq!((twice.to_string().as_str(), notes.len()), ("2026-10-25T00:30:00Z", 1));
        for bad in ["", "tomorrow", "25:00", "2026-13-01T00:00", "2026-11-24T14:00:00.5Z"] {
            assert_eq!(at(bad).err().map(|p| p.code), Some(Code::BookWindow), "{bad}");
        }
    }
}

use jiff::civil::{Date, DateTime};

use super::{Lang, Words};
use crate::{
    core::{Code, Problem},
    hub::domain::{Epoch, Local, Window, Zone, local_time},
};

/// Writes moments for a viewer, in their zone and language.
#[derive(Debug, Clone)]
pub struct Civil {
    /// The viewer's zone.
    pub zone: Zone,
    /// The viewer's language.
    pub lang: Lang,
}

impl Civil {
    fn words(&self) -> &'static Words {
        Words::of(self.lang)
    }

    /// A date, as `Mon 23 Nov`.
    pub fn day(&self, date: Date) -> String {
        let words = self.words();
        let weekday = words.get(WEEKDAYS[date.weekday().to_monday_zero_offset() as usize % 7]);
        let month = words.get(MONTHS[(date.month() as usize + 11) % 12]);
        words.say("date", &[("weekday", weekday), ("day", &date.day().to_string()), ("month", month)])
    }

    /// The days from one to another, as `Mon 23 Nov – Sun 29 Nov 2026`; in Chinese the year stands first.
    ///
    /// Where both are of one year it is told once.
    pub fn days(&self, from: Date, to: Date) -> String {
        let both = from.year() != to.year();
        let (first, last) = match self.lang {
            Lang::En => (both, true),
            Lang::Zh => (true, both),
        };
        let say = |date: Date, in_year: bool| {
            let day = self.day(date);
            let year = date.year().to_string();
            if in_year { self.words().say("date_in_year", &[("date", &day), ("year", &year)]) } else { day }
        };
        format!("{} – {}", say(from, first), say(to, last))
    }

    /// The time of day, as `14:30`.
    pub fn time(&self, at: Epoch) -> String {
        let local = self.zone.local(at);
        format!("{:02}:{:02}", local.hour(), local.minute())
    }

    /// Date and time, as `Mon 23 Nov, 14:30`.
    pub fn moment(&self, at: Epoch) -> String {
        let (date, time) = (self.day(self.zone.date(at)), self.time(at));
        self.words().say("moment", &[("date", &date), ("time", &time)])
    }

    /// A window, as `Mon 23 Nov, 14:00–16:00`; the end's date only where it is another day.
    pub fn span(&self, window: Window) -> String {
        // An end at midnight belongs to the day before it.
        let same_day = self.zone.date(window.starts) == self.zone.date(window.ends - 1);
        let end = if same_day { self.time(window.ends) } else { self.moment(window.ends) };
        format!("{}–{end}", self.moment(window.starts))
    }

    /// Only the times of a window, as `14:00–16:00`.
    pub fn times(&self, window: Window) -> String {
        format!("{}–{}", self.time(window.starts), self.time(window.ends))
    }

    /// The window in UTC, as `13:00–15:00 UTC`, with the date where it is another one than the viewer's.
    pub fn utc(&self, window: Window) -> String {
        let utc = Self { zone: Zone::utc(), lang: self.lang };
        let same_day = utc.zone.date(window.starts) == self.zone.date(window.starts);
        let span = if same_day { utc.times(window) } else { utc.span(window) };
        format!("{span} {}", self.words().get("unit_utc"))
    }

    /// A length, as `2 h 30 min`; below a minute it is `0 min`.
    pub fn length(&self, seconds: i64) -> String {
        let minutes = seconds.max(0) / 60;
        let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
        let words = self.words();
        let mut parts = vec![];
        for (n, unit) in [(days, "unit_days"), (hours, "unit_hours"), (minutes, "unit_minutes")] {
            if n > 0 || (unit == "unit_minutes" && parts.is_empty()) {
                parts.push(format!("{n} {}", words.get(unit)));
            }
        }
        parts.truncate(2);
        parts.join(" ")
    }

    /// Whole hours with one digit, as `7.5`.
    pub fn hours(seconds: i64) -> String {
        format!("{:.1}", seconds as f64 / 3600.0)
    }

    /// What a `datetime-local` field shows.
    pub fn field(&self, at: Epoch) -> String {
        let local = self.zone.local(at);
        format!("{}T{:02}:{:02}", local.date(), local.hour(), local.minute())
    }

    /// Reads a `datetime-local` field; a time that happens twice is the earlier, one that never happens is refused.
    pub fn read_field(&self, text: &str) -> Result<Epoch, Problem> {
        let shown: String = text.chars().take(40).flat_map(char::escape_default).collect();
        let local: DateTime = local_time(text)
            .ok_or_else(|| Problem::new(Code::BookWindow, format!("`{shown}` is not a time as 2026-11-23T14:30")))?;
        match self.zone.read(local) {
            Local::Once(at) | Local::Twice(at) => Ok(at),
            Local::Never => {
                Err(Problem::new(Code::BookGap, format!("{shown} does not exist in {}: clocks change", self.zone)))
            }
        }
    }
}

const WEEKDAYS: [&str; 7] = ["weekday_1", "weekday_2", "weekday_3", "weekday_4", "weekday_5", "weekday_6", "weekday_7"];
const MONTHS: [&str; 12] = [
    "month_1", "month_2", "month_3", "month_4", "month_5", "month_6", "month_7", "month_8", "month_9", "month_10",
    "month_11", "month_12",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    fn civil(zone: &str, lang: Lang) -> Civil {
        Civil { zone: zone.parse().unwrap(), lang }
    }

    #[test]
    fn a_window_is_written_in_both_languages_and_in_utc() {
        let window = Window::new(at("2026-11-23T23:00:00Z"), at("2026-11-24T01:30:00Z")).unwrap();
        let berlin = civil("Europe/Berlin", Lang::En);
        assert_eq!(berlin.span(window), "Tue 24 Nov, 00:00–02:30");
        assert_eq!(berlin.utc(window), "Mon 23 Nov, 23:00–Tue 24 Nov, 01:30 UTC");
        let shanghai = civil("Asia/Shanghai", Lang::Zh);
        assert_eq!(shanghai.span(window), "11月24日 周二 07:00–09:30");
        assert_eq!(shanghai.length(9000), "2 小时 30 分钟");
        let until_midnight = Window::new(at("2026-11-23T22:00:00Z"), at("2026-11-24T00:00:00Z")).unwrap();
        assert_eq!(civil("UTC", Lang::En).span(until_midnight), "Mon 23 Nov, 22:00–00:00");
    }

    #[test]
    fn days_are_told_with_their_year_where_readers_expect_it() {
        let (one, two): (Date, Date) = ("2026-11-23".parse().unwrap(), "2026-11-29".parse().unwrap());
        let (en, zh) = (civil("UTC", Lang::En), civil("UTC", Lang::Zh));
        assert_eq!(en.days(one, two), "Mon 23 Nov – Sun 29 Nov 2026");
        assert_eq!(zh.days(one, two), "2026年11月23日 周一 – 11月29日 周日");
        let (one, two) = ("2026-12-28".parse().unwrap(), "2027-01-03".parse().unwrap());
        assert_eq!(en.days(one, two), "Mon 28 Dec 2026 – Sun 3 Jan 2027");
        assert_eq!(zh.days(one, two), "2026年12月28日 周一 – 2027年1月3日 周日");
    }

    #[test]
    fn a_field_is_read_back_and_a_gap_is_refused() {
        let berlin = civil("Europe/Berlin", Lang::En);
        let moment = at("2026-11-23T13:30:00Z");
        assert_eq!(berlin.field(moment), "2026-11-23T14:30");
        assert_eq!(berlin.read_field("2026-11-23T14:30").unwrap(), moment);
        assert_eq!(berlin.read_field("2026-03-29T02:30").unwrap_err().code, Code::BookGap);
        assert_eq!(berlin.read_field("2026-10-25T02:30").unwrap(), at("2026-10-25T00:30:00Z"));
        // One with an offset is another moment than this clock's.
        for bad in ["", "now", "<script>", "2026-13-01T00:00", "2026-11-23T14:30+08:00", "2026-11-23T14:30[Asia/Tokyo]"]
        {
            assert_eq!(berlin.read_field(bad).unwrap_err().code, Code::BookWindow, "{bad}");
        }
    }
}

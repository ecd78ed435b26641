use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::{Civil, Words};
use crate::{
    core::{Code, Problem},
    hub::{
        desk::BookRequest,
        domain::{Course, Epoch, Policy, Server, Window, gcd, local_time},
    },
    profile::Layout,
};

/// What the booking form sends; everything is text until it is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WishForm {
    /// The server; empty is any.
    pub server: String,
    /// The start as a `datetime-local` field in the viewer's zone.
    pub start: String,
    /// The end likewise.
    pub end: String,
    /// The start in seconds: stronger than `start`, and exact also in the hour that comes twice.
    pub starts_at: String,
    /// The end in seconds.
    pub ends_at: String,
    /// The lab; empty is the saved one, else the largest that fits.
    pub layout: String,
    /// In which course; empty is the only one that the person is in.
    pub course: String,
    /// For whom; empty is oneself. A teacher's only.
    pub person: String,
    /// A teacher's reason to go past the rules.
    pub reason: String,
    /// `book` or `wait`; empty is `book`.
    pub act: String,
    /// The idempotency key: a second click is the same booking.
    pub once: String,
}

fn some(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|t| !t.is_empty())
}

fn read<T: std::str::FromStr<Err = String>>(text: &str) -> Result<Option<T>, Problem> {
    some(text).map(str::parse).transpose().map_err(|why| Problem::new(Code::HubInvalid, why))
}

impl WishForm {
    /// What the desk is asked for.
    pub fn request(&self, civil: &Civil) -> Result<BookRequest, Problem> {
        let moment = |seconds: &str, field: &str| match some(seconds) {
            Some(text) => {
                let number = text.parse::<i64>().map_err(|_| "a moment is not a number of seconds".to_owned());
                number.and_then(Epoch::try_from).map_err(|why| Problem::new(Code::BookWindow, why))
            }
            None => civil.read_field(field.trim()),
        };
        let window = Window::new(moment(&self.starts_at, &self.start)?, moment(&self.ends_at, &self.end)?);
        Ok(BookRequest {
            person: read(&self.person)?,
            course: read(&self.course)?,
            server: read(&self.server)?,
            labels: [].into(),
            layout: read(&self.layout)?,
            window: window.map_err(|why| Problem::new(Code::BookWindow, why))?,
            reason: some(&self.reason).map(ToOwned::to_owned),
        })
    }

    /// The form as it is shown first: from `at`, or the next full step, for an hour or what the rules allow.
    pub fn fresh(civil: &Civil, policy: &Policy, now: Epoch, at: Option<Epoch>, server: Option<String>) -> Self {
        let step = policy.grid.seconds();
        let ahead = now + i64::from(policy.notice) * 60;
        let wide = Window { starts: ahead, ends: ahead + 2 * 86_400 };
        let next = policy.grid.lines(&civil.zone, wide).next().unwrap_or(ahead);
        let starts = at.unwrap_or(next);
        let length = 3600.max(step).min(i64::from(policy.longest) * 60);
        Self {
            server: server.unwrap_or_default(),
            start: civil.field(starts),
            end: civil.field(starts + length),
            once: once(),
            ..Self::default()
        }
    }
}

/// A key that only this form has.
pub fn once() -> String {
    hex::encode(rand::random::<[u8; 12]>())
}

/// Whether a server is for one of these courses; without any, all are.
pub(super) fn is_theirs(server: &Server, courses: &[Course]) -> bool {
    courses.is_empty() || courses.iter().any(|course| server.is_for(&course.id))
}

/// A course that can be chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Its name.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its raster in minutes, as the rows of the week name it.
    pub grid: u16,
    /// The step of the fields for it, seconds.
    pub step: i64,
}

/// What the form offers to choose from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choices {
    /// Servers that can be booked: name, what they have, and of the courses below the one that they are for alone.
    pub servers: Vec<(String, String, String)>,
    /// Courses to choose from; none where there is nothing to choose.
    pub courses: Vec<Choice>,
    /// The shipped layouts that some server holds.
    pub layouts: Vec<String>,
    /// The fields' step in seconds, where no course is chosen or no script runs: with it they take what any course does.
    pub step: i64,
    /// How long the longest booking is.
    pub longest: String,
}

impl Choices {
    /// What these servers and the rules of these courses allow in a form as it is shown.
    pub fn new(servers: &[Server], courses: &[Course], form: &WishForm, civil: &Civil) -> Self {
        let size = |s: &Server| format!("{} × {}, {} GiB", s.cores, "CPU", s.memory.0 >> 30);
        let held = |layout: &Layout| servers.iter().any(|s| s.can_hold(*layout));
        let several = if courses.len() > 1 { courses } else { &[] };
        let only = |s: &Server| courses.iter().find(|c| s.course.as_ref() == Some(&c.id)).map(|c| c.id.to_string());
        let base = base(servers, form, civil);
        let step = |policy: &Policy| gcd(policy.grid.seconds(), base);
        let choice = |c: &Course| Choice {
            id: c.id.to_string(),
            title: c.title.clone(),
            grid: c.policy.grid.into(),
            step: step(&c.policy),
        };
        Self {
            servers: servers
                .iter()
                .filter(|s| is_theirs(s, courses))
                .filter(|s| s.largest().is_some())
                .map(|s| (s.id.to_string(), size(s), only(s).unwrap_or_default()))
                .collect(),
            courses: several.iter().map(choice).collect(),
            layouts: Layout::SHIPPED.into_iter().filter(held).map(|l| l.to_string()).collect(),
            step: courses.iter().map(|c| step(&c.policy)).reduce(gcd).unwrap_or_else(|| step(&Policy::default())),
            longest: longest(courses, civil),
        }
    }
}

/// What a step of the fields must divide beside a raster. Browsers count steps from what stands in a field at first, and
/// rasters begin at the server's midnight: a larger step would keep people from times that are good.
fn base(servers: &[Server], form: &WishForm, civil: &Civil) -> i64 {
    let second =
        |time: DateTime| i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    let shown = [&form.start, &form.end].into_iter().filter_map(|text| local_time(text.trim())).map(second);
    let at = civil.read_field(form.start.trim()).ok();
    let apart = |s: &Server| at.map(|at| (second(civil.zone.local(at)) - second(s.zone.local(at))).abs());
    shown.chain(servers.iter().filter_map(apart)).fold(0, gcd)
}

/// How long the longest booking is; of courses that differ in it, in each.
fn longest(courses: &[Course], civil: &Civil) -> String {
    let length = |policy: &Policy| civil.length(i64::from(policy.longest) * 60);
    let length = match courses {
        [] => length(&Policy::default()),
        [one, others @ ..] if others.iter().all(|c| c.policy.longest == one.policy.longest) => length(&one.policy),
        all => {
            let all: Vec<String> = all.iter().map(|c| format!("{} ({})", length(&c.policy), c.title)).collect();
            all.join(" · ")
        }
    };
    Words::of(civil.lang).say("longest_is", &[("length", &length)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::http::pages::Lang;

    fn civil() -> Civil {
        Civil { zone: "Europe/Berlin".parse().unwrap(), lang: Lang::En }
    }

    #[test]
    fn a_form_is_read_in_the_viewers_zone() {
        let form = WishForm {
            server: " one ".into(),
            start: "2026-11-23T14:00".into(),
            end: "2026-11-23T16:00".into(),
            layout: "2x4c8g".into(),
            ..WishForm::default()
        };
        let wish = form.request(&civil()).unwrap();
        assert_eq!(wish.window.starts, "2026-11-23T13:00:00Z".parse().unwrap());
        assert_eq!(wish.window.length(), 7200);
        assert_eq!(wish.server.unwrap().as_str(), "one");
        assert!(wish.reason.is_none() && wish.person.is_none() && wish.course.is_none());
        let course = WishForm { course: "net".into(), ..form.clone() }.request(&civil()).unwrap().course;
        assert_eq!(course.unwrap().as_str(), "net");
        // Seconds are stronger: the second 02:30 of an autumn night.
        let exact = WishForm { starts_at: "1792891800".into(), ends_at: "1792893600".into(), ..form.clone() };
        assert_eq!(exact.request(&civil()).unwrap().window.starts, Epoch(1_792_891_800));
        for (bad, code) in [
            (WishForm { start: "2026-03-29T02:30".into(), ..form.clone() }, Code::BookGap),
            (WishForm { end: form.start.clone(), ..form.clone() }, Code::BookWindow),
            (WishForm { server: "<b>".into(), ..form.clone() }, Code::HubInvalid),
            (WishForm { course: "<b>".into(), ..form.clone() }, Code::HubInvalid),
            (WishForm { layout: "9x".into(), ..form.clone() }, Code::HubInvalid),
            (WishForm { starts_at: "9e99".into(), ..form.clone() }, Code::BookWindow),
            (WishForm { starts_at: "-1".into(), ..form.clone() }, Code::BookWindow),
        ] {
            assert_eq!(bad.request(&civil()).unwrap_err().code, code, "{bad:?}");
        }
    }

    #[test]
    fn a_fresh_form_can_be_sent_as_it_is() {
        let now = "2026-11-23T08:10:00Z".parse().unwrap();
        let form = WishForm::fresh(&civil(), &Policy::default(), now, None, None);
        assert_eq!((form.start.as_str(), form.end.as_str()), ("2026-11-23T09:30", "2026-11-23T10:30"));
        assert!(form.request(&civil()).is_ok());
        assert_ne!(form.once, WishForm::fresh(&civil(), &Policy::default(), now, None, None).once);
    }
}

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use crate::{
    cli::when,
    core::{Code, Problem, yaml},
    hub::{
        desk::{ClassRequest, StudentWishes},
        domain::{CourseId, Epoch, PersonId, Window, Wish, Zone},
    },
    profile::Layout,
};

/// The file of a class plan: what the API takes, but a teacher may write its moments by a clock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassFile {
    course: CourseId,
    layout: Layout,
    minutes: u32,
    slots: u32,
    /// The zone of times without one; this computer's by default.
    #[serde(default)]
    zone: Option<Zone>,
    within: Span,
    #[serde(default)]
    wishes: Vec<Wishes>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wishes {
    person: PersonId,
    wishes: Vec<One>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    within: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    starts: Moment,
    ends: Moment,
}

/// Seconds since 1970, or a time as `book new` reads it.
enum Moment {
    At(Epoch),
    Text(String),
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time as 2026-11-24T14:00, or seconds since 1970")
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Moment, E> {
        Epoch::try_from(seconds).map(Moment::At).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Moment, E> {
        self.visit_i64(i64::try_from(seconds).map_err(E::custom)?)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
        Ok(Moment::Text(text.to_owned()))
    }
}

impl Span {
    /// The window; `place` says where it stands, since a class has many.
    fn window(&self, zone: Option<&Zone>, place: &str, notes: &mut Vec<String>) -> Result<Window, Problem> {
        let at = |problem: Problem| Problem { what: format!("{place}: {}", problem.what), ..problem };
        let mut read = |moment: &Moment| -> Result<Epoch, Problem> {
            match moment {
                Moment::At(at) => Ok(*at),
                Moment::Text(text) => {
                    let (at, more) = when::moment(text, zone)?;
                    notes.extend(more);
                    Ok(at)
                }
            }
        };
        let (starts, ends) = (read(&self.starts).map_err(at)?, read(&self.ends).map_err(at)?);
        Window::new(starts, ends).map_err(|why| at(Problem::new(Code::BookWindow, why)))
    }
}

/// Reads the file of a class plan, YAML or JSON, with what clocks did to its times.
pub fn read(text: &str) -> Result<(ClassRequest, Vec<String>), Problem> {
    zoned(text).map(|(want, notes, _)| (want, notes))
}

/// As [`read`], with the zone that the file names.
pub(super) fn zoned(text: &str) -> Result<(ClassRequest, Vec<String>, Option<Zone>), Problem> {
    let file: ClassFile = serde_yaml::from_str_with_options(text, serde_yaml::options! { with_snippet: false })
        .map_err(|e| {
            let problem =
                Problem::new(Code::Usage, "it is no class plan").hint("Its keys are in docs/guide/course.md.");
            yaml::unread(problem, e)
        })?;
    let (zone, mut notes) = (file.zone.as_ref(), vec![]);
    let within = file.within.window(zone, "within", &mut notes)?;
    let mut wishes = vec![];
    for of in &file.wishes {
        let mut own = vec![];
        for (n, wish) in of.wishes.iter().enumerate() {
            let place = format!("wish {} of {}", n + 1, of.person);
            own.push(Wish { within: wish.within.window(zone, &place, &mut notes)? });
        }
        wishes.push(StudentWishes { person: of.person.clone(), wishes: own });
    }
    let ClassFile { course, layout, minutes, slots, zone, reason, .. } = file;
    Ok((ClassRequest { course, layout, minutes, slots, within, wishes, reason, seen: None }, notes, zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_THE_CLOCK: &str = "
course: k8s
layout: 2x4c8g
minutes: 120
slots: 1
zone: Europe/Berlin
within:
  starts: 2026-11-24T08:00
  ends: 2026-11-27T20:00:00+01:00
wishes:
  - person: amy
    wishes:
      - within: { starts: 2026-11-24T14:00, ends: 2026-11-24T18:00 }
      - within: { starts: 1795606200, ends: 1795617000 }
";

    #[test]
    fn times_are_by_a_clock_or_in_seconds() {
        let (plan, notes) = read(BY_THE_CLOCK).unwrap();
        let window = |from: &str, to: &str| Window { starts: from.parse().unwrap(), ends: to.parse().unwrap() };
        assert_eq!(plan.within, window("2026-11-24T07:00:00Z", "2026-11-27T19:00:00Z"));
        assert_eq!(plan.wishes[0].wishes[0].within, window("2026-11-24T13:00:00Z", "2026-11-24T17:00:00Z"));
        assert_eq!(
            plan.wishes[0].wishes[1].within,
            Window { starts: Epoch(1_795_606_200), ends: Epoch(1_795_617_000) }
        );
        assert!(notes.is_empty(), "{notes:?}");
        // What the API takes is read too, as before.
        let same = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::to_string(&read(&same).unwrap().0).unwrap(), same);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let with = |from: &str, to: &str| {
            assert!(BY_THE_CLOCK.contains(from));
            read(&BY_THE_CLOCK.replacen(from, to, 1)).unwrap_err()
        };
        for (from, to, code, told) in [
            ("ends: 2026-11-24T18:00", "ends: 2026-11-24T13:00", Code::BookWindow, "wish 1 of amy: "),
            ("starts: 2026-11-24T08:00", "starts: tomorrow", Code::BookWindow, "within: `tomorrow`"),
            ("starts: 2026-11-24T08:00", "starts: 2026-03-29T02:30", Code::BookGap, "within: "),
            ("starts: 1795606200", "starts: -1", Code::Usage, "no class plan"),
            ("minutes: 120", "minute: 120", Code::Usage, "no class plan"),
        ] {
            let problem = with(from, to);
            assert!(problem.code == code && problem.what.contains(told), "{to}: {problem}");
        }
        let twice = with("minutes: 120", "minutes: 120\nminutes: 60");
        let told = twice.to_string();
        assert!(told.contains("minutes") && !told.contains("Policy"), "{told}");
        assert_eq!(twice.all_hints(), ["Its keys are in docs/guide/course.md."]);
        let fold = BY_THE_CLOCK.replacen("starts: 2026-11-24T08:00", "starts: 2026-10-25T02:30", 1);
        assert_eq!(
            read(&fold).unwrap().1.len(),
            1,
            "of a time that comes twice the earlier is meant, and that is said"
        );
    }
}

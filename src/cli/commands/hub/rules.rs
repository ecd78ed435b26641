use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use crate::{
    core::{Code, Problem, nearest, shell::printable, yaml},
    hub::domain::Policy,
};

/// The rules of a course: each is a number of this.
const RULES: [(&str, &str); 10] = [
    ("grid", "minutes"),
    ("longest", "minutes"),
    ("person_hours", "hours in any seven days"),
    ("group_hours", "hours in any seven days"),
    ("open_ahead", "bookings"),
    ("waits", "waits"),
    ("notice", "minutes"),
    ("horizon", "days"),
    ("no_show", "minutes"),
    ("offer", "minutes"),
];

/// Reads a file of rules; what it does not name has its default.
pub(super) fn read(file: &Path, text: &str) -> Result<Policy, Problem> {
    let options = serde_yaml::options! { with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|e| {
        let problem = Problem::new(Code::Usage, format!("{} has no rules of a course", file.display()));
        match mistake(text) {
            Some((what, hint)) => problem.detail([what]).hint(hint),
            None => yaml::unread(problem.hint("They are in docs/guide/booking.md: each is a line as longest: 240."), e),
        }
    })
}

/// The first rule that cannot be read, and what to write instead: the parser names neither its key nor its unit.
fn mistake(text: &str) -> Option<(String, String)> {
    let all: BTreeMap<String, Value> = serde_yaml::from_str(text).ok()?;
    let names = RULES.map(|(name, _)| name);
    let defaults = serde_json::to_value(Policy::default()).ok()?;
    all.into_iter().find_map(|(name, value)| {
        let Some((_, unit)) = RULES.iter().find(|(known, _)| *known == name) else {
            let hint = match nearest(&name, &names) {
                Some(meant) => format!("Did you mean `{meant}`?"),
                None => format!("The rules are {}.", names.join(", ")),
            };
            return Some((format!("there is no rule `{}`", printable(&name)), hint));
        };
        let good = value.as_u64().is_some_and(|n| u32::try_from(n).is_ok());
        let hint = format!("Write {name} as a number of {unit}, as {name}: {}.", defaults[&name]);
        (!good).then(|| (format!("{name} is {}", printable(&value.to_string())), hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_known_with_its_unit() {
        let defaults: BTreeMap<String, Value> =
            serde_json::from_value(serde_json::to_value(Policy::default()).unwrap()).unwrap();
        let known = RULES.map(|(name, _)| name);
        assert!(defaults.len() == known.len() && known.iter().all(|name| defaults.contains_key(*name)), "{defaults:?}");
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_unit() {
        let file = Path::new("rules.yaml");
        assert_eq!(read(file, "longest: 180\n").unwrap(), Policy { longest: 180, ..Policy::default() });
        for (text, what, hint) in [
            (
                "open_ahead: 5\nlongest: 3h\n",
                "longest is \"3h\"",
                "Write longest as a number of minutes, as longest: 240.",
            ),
            ("waits: -1\n", "waits is -1", "Write waits as a number of waits, as waits: 5."),
            ("longst: 180\n", "there is no rule `longst`", "Did you mean `longest`?"),
        ] {
            let problem = read(file, text).unwrap_err();
            assert!(problem.code == Code::Usage && problem.detail == [what], "{text}: {problem:?}");
            assert_eq!(problem.all_hints(), [hint], "{text}");
        }
        assert!(read(file, "grid: 7\n").unwrap_err().detail[0].contains("a grid of 7 minutes"));
        for text in ["- longest\n", "waits: 1\nwaits: 2\n"] {
            let problem = read(file, text).unwrap_err();
            assert!(problem.all_hints()[0].contains("docs/guide/booking.md"), "{problem:?}");
            assert!(!problem.to_string().contains("DuplicateKeyPolicy"), "{problem}");
        }
    }
}

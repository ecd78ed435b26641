use std::{collections::BTreeMap, sync::Mutex};

use super::Value;
use crate::core::Secret;

/// The longest that a value may become which is said on several lines, in bytes.
const LONGEST: usize = 1 << 20;

/// Names of hosts and nodes are no longer than this: what is longer, and a part of a value, is a secret by itself.
const NAME: usize = 63;

/// What a step's script gave so far.
#[derive(Debug, Default)]
pub(super) struct Given(Mutex<BTreeMap<&'static str, Secret>>);

impl Given {
    /// Keeps a text of the value's form.
    ///
    /// One that is said on several lines is these with spaces between, where that has the form, too; else the last line
    /// counts.
    pub fn take(&self, value: &Value, text: &str) {
        if (value.is_one)(text)
            && let Ok(mut given) = self.0.lock()
        {
            let before = given.get(value.name).map(|before| format!("{} {text}", before.expose()));
            let both = before.filter(|both| both.len() < LONGEST && (value.is_one)(both));
            given.insert(value.name, Secret::new(both.as_deref().unwrap_or(text)));
        }
    }

    /// What was given, by name.
    pub fn all(self) -> BTreeMap<&'static str, Secret> {
        self.0.into_inner().unwrap_or_default()
    }
}

/// What must not be shown of a value's text: all of it, and what it is made of, which may be shown by itself.
pub(super) fn secrets_of(text: &str) -> impl Iterator<Item = Secret> {
    let parts = text.split([' ', '=']).filter(|part| part.len() > NAME);
    std::iter::once(text).chain(parts).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    static WORDS: Value =
        Value { name: "words", is_one: |text| text.split(' ').all(|word| word.starts_with('w')), by_node: false };
    static ONE: Value = Value { name: "one", is_one: |text| !text.contains(' '), by_node: false };

    #[test]
    fn lines_are_one_value_where_that_has_its_form() {
        let given = Given::default();
        ["w1", "x", "w2 w3"].iter().for_each(|line| given.take(&WORDS, line));
        ["a", "b"].iter().for_each(|line| given.take(&ONE, line));
        let all = given.all();
        assert_eq!((all["words"].expose(), all["one"].expose()), ("w1 w2 w3", "b"));
    }

    #[test]
    fn a_value_does_not_grow_for_ever() {
        let (given, long) = (Given::default(), "w".repeat(LONGEST / 2 + 1));
        given.take(&WORDS, &long);
        given.take(&WORDS, &long);
        assert_eq!(given.all()["words"].expose().len(), long.len());
    }

    #[test]
    fn a_part_is_hidden_and_a_name_is_not() {
        let (name, pem) = ("n".repeat(NAME), "p".repeat(NAME + 1));
        let hidden: Vec<_> = secrets_of(&format!("{name}={pem}==")).map(|s| s.expose().to_owned()).collect();
        assert_eq!(hidden, [format!("{name}={pem}=="), pem]);
    }
}

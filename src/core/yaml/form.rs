use std::{fmt, str::FromStr};

use super::{Node, Place, Value};
use crate::core::{At, Code, Hint, Problem, Problems, nearest};

/// A value and where it was written, if it comes from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Option<Place>,
}

impl<T> Spot<T> {
    /// A value that stands nowhere, as one given by an option.
    pub fn nowhere(value: T) -> Self {
        Self { value, place: None }
    }

    /// The same place with another value.
    pub fn with<U>(&self, value: U) -> Spot<U> {
        Spot { value, place: self.place }
    }
}

/// A reader of one file that notes every mistake and goes on.
///
/// Each method returns `None` after noting what is wrong, so a caller reads all of its keys and asks
/// [`Form::finish`] at the end.
pub struct Form {
    file: String,
    shape: Code,
    problems: Vec<Problem>,
}

/// The keys of one group, read by [`Form::fields`].
pub struct Fields<'n> {
    place: Place,
    group: String,
    pairs: Vec<(&'n str, &'n Node)>,
}

impl Fields<'_> {
    /// Where the group begins.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl<'n> Fields<'n> {
    /// The value of a key that may be left out.
    pub fn optional(&self, key: &str) -> Option<&'n Node> {
        self.pairs.iter().find(|(name, node)| *name == key && !node.is_null()).map(|(_, node)| *node)
    }

    /// The value of a key that must be there; its absence is noted.
    pub fn required(&self, form: &mut Form, key: &str) -> Option<&'n Node> {
        let Some((_, node)) = self.pairs.iter().find(|(name, _)| *name == key) else {
            form.shape(self.place, format!("key `{key}` is missing in {}", self.group));
            return None;
        };
        if node.is_null() {
            form.shape(node.place, format!("key `{key}` has no value"));
            return None;
        }
        Some(node)
    }
}

impl Form {
    /// A reader for `file`; `shape` is the code of unknown keys, missing keys and wrong types.
    pub fn new(file: &str, shape: Code) -> Self {
        Self { file: file.to_owned(), shape, problems: vec![] }
    }

    /// Notes a problem at `place`; the returned reference takes hints.
    pub fn note(&mut self, code: Code, place: Option<Place>, what: impl Into<String>) -> &mut Problem {
        let mut problem = Problem::new(code, short(&what.into(), 400));
        problem.at = place.map(|p| At { file: self.file.clone(), line: p.line, column: p.column });
        self.problems.push(problem);
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Notes a problem of the file's shape.
    pub fn shape(&mut self, place: Place, what: impl Into<String>) -> &mut Problem {
        self.note(self.shape, Some(place), what)
    }

    /// `Err` with everything noted, in the order of the file, or `Ok` when there was nothing.
    pub fn finish(mut self) -> Result<(), Problems> {
        self.problems.sort_by_key(|p| p.at.as_ref().map(|at| (at.line, at.column)));
        Problems::check(self.problems)
    }

    /// The keys of a group, of which only `known` may occur, each once.
    ///
    /// The value of a misspelt key is read as that of the key meant, so that its own mistakes show in the same go.
    pub fn fields<'n>(&mut self, node: &'n Node, group: &str, known: &[&'static str]) -> Option<Fields<'n>> {
        let Value::Map(all) = &node.value else {
            self.shape(node.place, format!("{group} must be a group of keys, not {}", node.kind()));
            return None;
        };
        let mut pairs: Vec<(&str, &Node)> = vec![];
        let mut misspelt = vec![];
        for (key, value) in all {
            let Value::Scalar { text, .. } = &key.value else {
                self.shape(key.place, format!("a key in {group} must be a text, not {}", key.kind()));
                continue;
            };
            if !known.contains(&text.as_str()) {
                misspelt.extend(self.unknown(key.place, text, group, known).map(|meant| (meant, value)));
            } else if pairs.iter().any(|(name, _)| *name == text) {
                self.shape(key.place, format!("key `{text}` stands twice in {group}"));
            } else {
                pairs.push((text, value));
            }
        }
        for (meant, value) in misspelt {
            if !pairs.iter().any(|(name, _)| *name == meant) {
                pairs.push((meant, value));
            }
        }
        Some(Fields { place: node.place, group: group.to_owned(), pairs })
    }

    /// Notes an unknown key; returns the one that was probably meant.
    fn unknown(&mut self, place: Place, key: &str, group: &str, known: &[&'static str]) -> Option<&'static str> {
        let meant = nearest(key, known);
        let hint = match meant {
            Some(meant) => format!("Did you mean `{meant}`?"),
            None => format!("The keys known here: {}.", known.join(", ")),
        };
        self.shape(place, format!("unknown key `{}` in {group}", short(key, 60))).hints.push(Hint(hint));
        meant
    }

    /// The items of a list.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        let Value::List(items) = &node.value else {
            self.shape(node.place, format!("{what} must be a list, not {}", node.kind()));
            return None;
        };
        Some(items)
    }

    /// A text; numbers and truth values count as the text they were written as.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<Spot<String>> {
        match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => {
                Some(Spot { value: text.clone(), place: Some(node.place) })
            }
            _ => {
                self.shape(node.place, format!("{what} must be a text, not {}", node.kind()));
                None
            }
        }
    }

    /// A text that is read as a `T`; what `T` says about a bad one is noted with `code`.
    pub fn parsed<T>(&mut self, node: &Node, what: &str, code: Code) -> Option<Spot<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let text = self.text(node, what)?;
        match text.value.parse() {
            Ok(value) => Some(text.with(value)),
            Err(error) => {
                self.note(code, text.place, format!("{what}: {error}"));
                None
            }
        }
    }

    /// A whole number without quotes.
    pub fn count(&mut self, node: &Node, what: &str) -> Option<Spot<u32>> {
        if let Value::Scalar { text, plain: true } = &node.value
            && let Ok(value) = text.parse()
        {
            return Some(Spot { value, place: Some(node.place) });
        }
        let got = match &node.value {
            Value::Scalar { text, .. } if !node.is_null() => format!("`{}`", short(text, 60)),
            _ => node.kind().to_owned(),
        };
        self.shape(node.place, format!("{what} must be a whole number without quotes, not {got}"));
        None
    }

    /// One of a few words; a bad one is noted with `code` and the nearest good one.
    pub fn choice<T: Copy>(&mut self, node: &Node, what: &str, code: Code, words: &[(&str, T)]) -> Option<Spot<T>> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(text.with(*value));
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let hint = match nearest(&text.value, &known) {
            Some(meant) => format!("Did you mean `{meant}`?"),
            None => format!("Choose one of: {}.", known.join(", ")),
        };
        let wrong = format!("{what} cannot be `{}`: it is {}", short(&text.value, 60), known.join(" or "));
        self.note(code, text.place, wrong).hints.push(Hint(hint));
        None
    }
}

/// The text, or its beginning when a message could not bear all of it.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most).chain("...".chars()).collect() }
}

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Serialize;

use super::{Lang, draw};
use crate::core::Code;

/// Every sentence of the pages in one language.
///
/// The files `templates/hub/words/*.txt` hold a line `key = text` for each; `{name}` is filled in by `say`.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Words(BTreeMap<String, String>);

static ENGLISH: LazyLock<Words> = LazyLock::new(|| Words::read(&draw::file("words/en.txt")));
static CHINESE: LazyLock<Words> = LazyLock::new(|| Words::read(&draw::file("words/zh.txt")));

impl Words {
    /// The catalogue of a language.
    pub fn of(lang: Lang) -> &'static Self {
        match lang {
            Lang::En => &ENGLISH,
            Lang::Zh => &CHINESE,
        }
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        Self(lines.filter_map(|l| l.split_once(" = ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// A sentence; a key that is not known shows itself, which a test keeps from happening.
    pub fn get<'a>(&'a self, key: &'a str) -> &'a str {
        self.0.get(key).map_or(key, String::as_str)
    }

    /// A sentence with its gaps filled.
    pub fn say(&self, key: &str, values: &[(&str, &str)]) -> String {
        filled(self.get(key), values)
    }

    /// What a code means, in this language; in English where the catalogue does not know it.
    pub fn meaning(&self, code: Code) -> String {
        self.0.get(&format!("{code}")).cloned().unwrap_or_else(|| code.meaning().to_owned())
    }

    /// What to do about a code.
    pub fn hint(&self, code: Code) -> String {
        self.0.get(&format!("{code}-HINT")).cloned().unwrap_or_else(|| code.hint().to_owned())
    }
}

/// A sentence with its gaps filled.
pub(super) fn filled(sentence: &str, values: &[(&str, &str)]) -> String {
    let mut rest = sentence;
    let mut said = String::with_capacity(rest.len() + 20);
    // In one pass, so that a value that looks like a gap stays as it is.
    while let Some((before, after)) = rest.split_once('{') {
        said.push_str(before);
        let Some((name, tail)) = after.split_once('}') else {
            said.push('{');
            rest = after;
            continue;
        };
        match values.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => said.push_str(value),
            None => said.extend(["{", name, "}"]),
        }
        rest = tail;
    }
    said.push_str(rest);
    said
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn gaps(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|t| t.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn both_catalogues_say_the_same_things() {
        let (en, zh) = (&Words::of(Lang::En).0, &Words::of(Lang::Zh).0);
        assert_eq!(en.keys().collect::<Vec<_>>(), zh.keys().collect::<Vec<_>>());
        for (key, text) in en {
            assert_eq!(gaps(text), gaps(&zh[key]), "{key}");
            assert!(!text.trim().is_empty() && !zh[key].trim().is_empty(), "{key}");
        }
    }

    #[test]
    fn no_line_is_lost_and_no_key_stands_twice() {
        for lang in Lang::ALL {
            let text = draw::file(&format!("words/{}.txt", lang.as_str()));
            let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')).count();
            assert_eq!(lines, Words::of(lang).0.len(), "{lang:?}");
        }
    }

    #[test]
    fn chinese_is_chinese() {
        // Names, formats and units that are the same in both.
        for (key, text) in &Words::of(Lang::Zh).0 {
            let han = text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert!(han || ["app", "moment", "unit_utc"].contains(&key.as_str()), "{key} = {text}");
        }
    }

    #[test]
    fn every_code_of_the_hub_is_explained() {
        for code in Code::ALL.iter().filter(|c| ["KC-HUB-", "KC-BOOK-"].iter().any(|p| c.as_str().starts_with(p))) {
            for key in [code.as_str().to_owned(), format!("{code}-HINT")] {
                assert!(Words::of(Lang::Zh).0.contains_key(&key), "{key}");
            }
        }
    }

    #[test]
    fn who_is_locked_out_is_told_that_a_teacher_helps_too() {
        assert!(Code::HubLocked.hint().contains("a teacher or an admin"));
        for (lang, teacher) in [(Lang::En, "a teacher or an admin"), (Lang::Zh, "教师或管理员")] {
            assert!(Words::of(lang).hint(Code::HubLocked).contains(teacher), "{lang:?}");
        }
    }

    /// Every `t.key` of a template, and every key that the code asks for, is in the catalogue; and none is left over.
    #[test]
    fn every_key_is_known_and_used() {
        let mut text = draw::names().map(|n| draw::file(&n)).collect::<String>();
        for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/hub/http/pages")).unwrap() {
            text += &std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        }
        let known = &Words::of(Lang::En).0;
        let mut used: BTreeSet<String> = BTreeSet::new();
        for (at, _) in text.match_indices("t.") {
            let before = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
            let key: String = text[at + 2..]
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit())
                .collect();
            let template = text[..at].ends_with("{{ ")
                || text[..at].ends_with("{% if ")
                || text[..at].ends_with("= ")
                || text[..at].ends_with("~ ");
            if !before && template {
                assert!(known.contains_key(&key), "a template uses t.{key}");
                used.insert(key);
            }
        }
        let by_number = ["weekday_", "month_", "state_", "KC-", "role_", "health_", "action_", "fact_"];
        for key in known.keys().filter(|k| !by_number.iter().any(|p| k.starts_with(p))) {
            assert!(used.contains(key) || text.contains(&format!("\"{key}\"")), "nothing uses {key}");
        }
    }

    #[test]
    fn a_value_that_looks_like_a_gap_stays() {
        let words = Words::read("hello = {who} met {whom}, {nobody} {");
        assert_eq!(words.say("hello", &[("who", "{whom}"), ("whom", "<b>")]), "{whom} met <b>, {nobody} {");
    }
}

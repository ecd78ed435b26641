use std::sync::LazyLock;

use super::{Lang, draw, words::filled};

/// English sentences with gaps, each with the Chinese one; in the order of the file.
static CHINESE: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let text = draw::file("words/zh-refusals.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).map(|(en, zh)| (en.to_owned(), zh.to_owned())).collect()
});

/// What a refusal says, in this language; none where the pages know the sentence in English only.
///
/// The desk writes one sentence for programs, logs and people: the pages know the ones that students meet by their form.
pub fn translated(what: &str, lang: Lang) -> Option<String> {
    match lang {
        Lang::En => None,
        Lang::Zh => CHINESE.iter().find_map(|(en, zh)| Some(filled(zh, &gaps(en, what)?))),
    }
}

/// What stands in the gaps of a sentence, when the text is made from it.
fn gaps<'a>(sentence: &'a str, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let mut parts = sentence.split('{').peekable();
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut found = vec![];
    while let Some(part) = parts.next() {
        let (name, next) = part.split_once('}')?;
        let (value, after) = match (next, parts.peek()) {
            (next, Some(_)) => rest.split_once(next)?,
            // The last one goes as far as it can.
            (end, None) => (rest.strip_suffix(end)?, ""),
        };
        found.push((name, value));
        rest = after;
    }
    (rest.is_empty() && found.iter().all(|(_, value)| !value.is_empty())).then_some(found)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// A text with what is inside of its gaps left out.
    fn bare(text: &str) -> String {
        let (mut out, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || "_.:".contains(c)));
            match end.filter(|end| after[*end..].starts_with('}')) {
                Some(end) => {
                    out.push_str("{}");
                    rest = &after[end + 1..];
                }
                None => {
                    out.push('{');
                    rest = after;
                }
            }
        }
        out + rest
    }

    fn sources(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("pages/refusals.rs") {
                all.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn each_sentence_is_one_that_the_hub_says() {
        let mut said = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub"), &mut said);
        let said = bare(&said);
        let names = |text: &str| -> BTreeSet<String> {
            text.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0.to_owned())).collect()
        };
        for (en, zh) in CHINESE.iter() {
            assert!(said.contains(&bare(en)), "nothing says: {en}");
            assert!(names(zh).is_subset(&names(en)), "{zh}");
        }
        assert!(CHINESE.len() > 30);
    }

    #[test]
    fn a_refusal_is_told_in_chinese_where_it_is_known() {
        for (what, want) in [
            ("amy is in several courses: k8s, net", Some("amy 参加了多门课程：k8s, net。")),
            ("amy is in no group of course k8s", Some("amy 不在课程 k8s 的任何小组中。")),
            (
                "server one is in maintenance 10:00–11:00 (UTC): a: b",
                Some("服务器 one 在 10:00–11:00 (UTC) 维护：a: b"),
            ),
            ("server one is quarantined: a process is left", Some("服务器 one 目前不可用：a process is left")),
            (
                "group red would have 9.0 h in seven days, and 8 are allowed",
                Some("小组 red 七天内将使用 9.0 小时，最多允许 8 小时。"),
            ),
            ("only a teacher may do this", Some("只有教师可以执行此操作。")),
            ("only a teacher may do this twice", None),
            (" is not active", None),
            ("{who} is not active", Some("{who} 的账户已停用。")),
            ("", None),
        ] {
            assert_eq!(translated(what, Lang::Zh).as_deref(), want, "{what}");
            assert_eq!(translated(what, Lang::En), None);
        }
    }
}

use std::sync::LazyLock;

use super::{Lang, draw, words::filled};
use crate::hub::domain::{LAB_GONE, NEVER_BEGAN, ServerId};

/// What stands before the server to which a booking was moved; after why it was.
const MOVED: &str = "; moved to ";
/// What stands between what a note says of different times.
const JOINED: &str = "; ";
/// How a note begins that tells of a booking which its agent has lost.
const FORGOTTEN: &str = "its agent knows nothing of booking ";
/// How other notes of the hub begin: of a slot that passed, and of a lab that is gone.
const ITS_OWN: [&str; 3] = ["no agent of server ", NEVER_BEGAN, LAB_GONE];

/// English sentences with gaps, each with the Chinese one; in the order of the file.
static CHINESE: LazyLock<Vec<(String, String)>> = LazyLock::new(|| catalogue("words/zh-refusals.txt"));

/// The sentences of a file, each with the Chinese one.
pub(super) fn catalogue(file: &str) -> Vec<(String, String)> {
    let text = draw::file(file);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).map(|(en, zh)| (en.to_owned(), zh.to_owned())).collect()
}

/// What a refusal says, in this language; none where the pages know the sentence in English only.
///
/// The desk writes one sentence for programs, logs and people: the pages know the ones that students meet by their form.
pub fn translated(what: &str, lang: Lang) -> Option<String> {
    match lang {
        Lang::En => None,
        Lang::Zh => chinese(what),
    }
}

/// A booking's note in this language, where the hub wrote it itself; what people and agents wrote stays as it is.
///
/// A note grows by each move and by what a teacher says, so it may tell of several.
pub fn noted(note: &str, lang: Lang) -> String {
    let own = || match lang {
        Lang::En => None,
        Lang::Zh if note.starts_with(FORGOTTEN) || ITS_OWN.iter().any(|begins| note.starts_with(begins)) => {
            chinese(note)
        }
        Lang::Zh => moved(note),
    };
    own().unwrap_or_else(|| note.to_owned())
}

/// A note that tells of moves, in Chinese, from its last move back to the first.
fn moved(note: &str) -> Option<String> {
    let (at, server, after) = note.rmatch_indices(MOVED).find_map(|(at, _)| {
        let rest = &note[at + MOVED.len()..];
        let (server, after) = rest.split_once(JOINED).unwrap_or((rest, ""));
        server.parse::<ServerId>().is_ok().then_some((at, server, after))
    })?;
    let before = &note[..at];
    // The shortest reason that the hub could have written: what stands before it is of an earlier move, or of a person.
    let mut begins = before.rmatch_indices(JOINED).map(|(i, _)| i + JOINED.len()).chain([0]);
    let reason = begins.find_map(|i| Some((i, chinese(&before[i..])?)));
    let (earlier, why) = match reason {
        Some((0, why)) => (String::new(), why),
        Some((i, why)) => (joined(&before[..i - JOINED.len()]), why),
        None => (String::new(), moved(before).unwrap_or_else(|| before.to_owned())),
    };
    Some(format!("{earlier}{}；已移至 {server}。{after}", why.trim_end_matches('。')))
}

/// What stands before a reason, with what parts them.
fn joined(earlier: &str) -> String {
    moved(earlier).unwrap_or_else(|| format!("{earlier}{JOINED}"))
}

fn chinese(what: &str) -> Option<String> {
    // Where a form is read line by line, what is wrong with one comes after its number.
    if let Some((number, rest)) = what.strip_prefix("line ").and_then(|line| line.split_once(": "))
        && number.parse::<usize>().is_ok()
    {
        return Some(format!("第 {number} 行：{}", chinese(rest)?));
    }
    CHINESE.iter().find_map(|(en, zh)| Some(filled(zh, &gaps(en, what)?)))
}

/// What stands in the gaps of a sentence, when the text is made from it.
pub(super) fn gaps<'a>(sentence: &'a str, text: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
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

    use super::{super::Words, *};
    use crate::core::Code;

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

    /// Where pages and what they ask of the desk, the gate and the store refuse something.
    const PAGES: [&str; 24] = [
        "desk/book.rs",
        "desk/caller.rs",
        "desk/change.rs",
        "desk/class.rs",
        "desk/extend.rs",
        "desk/fit.rs",
        "desk/reason.rs",
        "desk/rehouse.rs",
        "desk/rules.rs",
        "desk/waitlist.rs",
        "domain/policy.rs",
        "gate/certificate.rs",
        "http/certificate.rs",
        "http/guard.rs",
        "http/pages/actions.rs",
        "http/pages/assets.rs",
        "http/pages/civil.rs",
        "http/pages/class.rs",
        "http/pages/entry.rs",
        "http/pages/keys.rs",
        "http/pages/sign_in.rs",
        "http/pages/teacher.rs",
        "http/session.rs",
        "store/bookings.rs",
    ];

    /// What of it no page shows: rules of a course are set by the command line alone.
    const NOT_THERE: &str = "{} is {}: use {} to {} {}";

    /// The sentences that a source makes problems with; a defect's are for who mends it.
    fn sentences(source: &str) -> Vec<String> {
        let own = source.split("#[cfg(test)]").next().unwrap();
        let made = own.split("Problem::new(").skip(1).filter(|rest| !rest.trim_start().starts_with("Code::Internal"));
        let made = made.filter_map(|rest| rest.split_once(',').map(|(_, text)| text));
        let texts = made.chain(own.split("let what = ").skip(1));
        let quoted = |text: &str| {
            let text = text.trim_start();
            let text = text.strip_prefix("format!(").unwrap_or(text).trim_start();
            Some(text.strip_prefix('"')?.split_once('"')?.0.to_owned())
        };
        texts.filter_map(quoted).collect()
    }

    #[test]
    fn what_pages_refuse_is_told_in_chinese() {
        let known: BTreeSet<String> = CHINESE.iter().map(|(en, _)| bare(en)).collect();
        let (mut missing, mut seen) = (vec![], 0);
        for file in PAGES {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub").join(file);
            let found = sentences(&fs::read_to_string(path).unwrap());
            seen += found.len();
            missing.extend(found.into_iter().map(|text| bare(&text)).filter(|text| !known.contains(text)));
        }
        missing.retain(|text| text != NOT_THERE);
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(seen > 60, "{seen} sentences were found");
    }

    #[test]
    fn every_code_that_a_page_can_show_has_both_languages() {
        let mut said = String::new();
        for part in ["desk", "domain", "store", "http"] {
            sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub").join(part), &mut said);
        }
        let shown: Vec<Code> =
            Code::ALL.iter().copied().filter(|code| said.contains(&format!("Code::{code:?}"))).collect();
        assert!(shown.len() > 30 && shown.contains(&Code::GateKey) && shown.contains(&Code::Internal), "{shown:?}");
        let han = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        for code in shown {
            for (lang, want) in [(Lang::En, false), (Lang::Zh, true)] {
                let words = Words::of(lang);
                assert_eq!((han(&words.meaning(code)), han(&words.hint(code))), (want, want), "{code}");
            }
        }
    }

    #[test]
    fn a_note_of_the_hub_is_told_in_chinese_and_that_of_a_person_as_it_is() {
        let mut said = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub/desk"), &mut said);
        assert!(said.contains(&format!("{{why}}{MOVED}{{}}")) && said.contains(FORGOTTEN));
        for (note, want) in [
            ("server one is away: fan; moved to berlin", "服务器 one 目前不可用：fan；已移至 berlin。"),
            (
                "server one is in maintenance 10:00–11:00 (UTC): a; moved to b; moved to two",
                "服务器 one 在 10:00–11:00 (UTC) 维护：a; moved to b；已移至 two。",
            ),
            ("no key of amy is here; moved to two", "no key of amy is here；已移至 two。"),
            ("exam; server one is away: fan; moved to two", "exam; 服务器 one 目前不可用：fan；已移至 two。"),
            (
                "server one is away: fan; moved to two; server two is away: disk; moved to three",
                "服务器 one 目前不可用：fan；已移至 two。服务器 two 目前不可用：disk；已移至 three。",
            ),
            ("server one is away: fan; moved to two; exam", "服务器 one 目前不可用：fan；已移至 two。exam"),
            ("x; moved to two; no key is here; moved to three", "x；已移至 two。no key is here；已移至 three。"),
            (
                "its agent knows nothing of booking b1 any more, as after a reinstallation",
                "代理已不认识预约 b1，例如重新安装之后。",
            ),
            (NEVER_BEGAN, "服务器没有开启此时段，不计入用量。"),
            (
                "no agent of server one was ever heard, so it opened to nobody; it does not count",
                "从未收到服务器 one 的代理的消息，此时段没有向任何人开放，不计入用量。",
            ),
            (
                "the lab that was saved on one is gone: it begins with a fresh one",
                "保存在 one 上的环境已不存在：此时段将使用全新的环境。",
            ),
            ("amy is not active", "amy is not active"),
            ("the desk is broken; moved to another room", "the desk is broken; moved to another room"),
            ("", ""),
        ] {
            assert_eq!(noted(note, Lang::Zh), want);
            assert_eq!(noted(note, Lang::En), note);
        }
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
            ("server one is away: a fan: loud", Some("服务器 one 目前不可用：a fan: loud")),
            ("server one is quarantined", Some("服务器 one 已被隔离，管理员会处理。")),
            (
                "group red would have 9.0 h in seven days, and 8 are allowed",
                Some("小组 red 七天内将使用 9.0 小时，最多允许 8 小时。"),
            ),
            ("only a teacher may do this", Some("只有教师可以执行此操作。")),
            ("only a teacher may do this twice", None),
            ("booking b1 is not yours", Some("预约 b1 不是您的。")),
            ("booking b1 is bob's", Some("预约 b1 属于 bob。")),
            ("booking b1 is cancelled", Some("预约 b1 目前的状态不允许此操作。")),
            ("this hub has no keys of a gate", Some("此平台没有签发证书的密钥。")),
            ("a key of amy is longer than 4096 characters", Some("amy 的某个公钥超过 4096 个字符。")),
            ("line 2: amy is in no group", Some("第 2 行：amy 不在任何小组中。")),
            ("line 2: nonsense", None),
            (" is not active", None),
            ("{who} is not active", Some("{who} 的账户已停用。")),
            ("", None),
        ] {
            assert_eq!(translated(what, Lang::Zh).as_deref(), want, "{what}");
            assert_eq!(translated(what, Lang::En), None);
        }
    }
}

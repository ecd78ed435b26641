use std::sync::LazyLock;

use serde::Serialize;

use super::{
    Lang,
    refusals::{catalogue, gaps},
    words::filled,
};

/// The parts of a reason and what joins them in Chinese. What joins longer parts comes first.
const JOINTS: [(&str, &str); 4] = [("; ", "；"), (": ", "："), (", and ", "，"), (", ", "，")];

/// Parts of the reasons of a class plan, each with the Chinese one.
static CHINESE: LazyLock<Vec<(String, String)>> = LazyLock::new(|| catalogue("words/zh-reasons.txt"));

/// A piece of a reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Piece {
    pub text: String,
    /// Whether it is English on a page that is not.
    pub foreign: bool,
}

impl Piece {
    fn own(text: impl Into<String>) -> Self {
        Self { text: text.into(), foreign: false }
    }

    fn foreign(text: &str) -> Self {
        Self { text: text.to_owned(), foreign: true }
    }
}

/// Why somebody has the slot that they have in a class plan, in this language as far as the pages know it.
pub(super) fn reasons(why: &str, lang: Lang) -> Vec<Piece> {
    match lang {
        Lang::En => vec![Piece::own(why)],
        Lang::Zh => chinese(why).unwrap_or_else(|| vec![Piece::foreign(why)]),
    }
}

/// None where no part of it is known.
fn chinese(why: &str) -> Option<Vec<Piece>> {
    if let Some(said) = CHINESE.iter().find_map(|(en, zh)| told(en, zh, why)) {
        return Some(vec![Piece::own(said)]);
    }
    JOINTS.iter().find_map(|(joint, sign)| {
        let (first, rest) = why.split_once(*joint)?;
        let (left, right) = (chinese(first), chinese(rest));
        if left.is_none() && right.is_none() {
            return None;
        }
        let mut all = left.unwrap_or_else(|| vec![Piece::foreign(first)]);
        all.push(Piece::own(*sign));
        all.extend(right.unwrap_or_else(|| vec![Piece::foreign(rest)]));
        Some(all)
    })
}

/// A part in Chinese. What stands in a gap is one number or name: else it would swallow the part before it.
fn told(en: &str, zh: &str, part: &str) -> Option<String> {
    let values = gaps(en, part)?;
    let whole = values.iter().all(|(_, value)| !value.contains(' '));
    whole.then(|| filled(zh, &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_stays_english_and_no_more() {
        let shown = |why: &str| {
            let piece = |p: &Piece| if p.foreign { format!("[{}]", p.text) } else { p.text.clone() };
            reasons(why, Lang::Zh).iter().map(piece).collect::<String>()
        };
        for (why, want) in [
            ("had 1.5 h before; wish 2 was free", "此前已有 1.5 小时；第 2 个愿望空闲"),
            ("had 1.5 h before; by lot, or not", "此前已有 1.5 小时；[by lot, or not]"),
            ("by lot, no wishes", "[by lot]，没有提出愿望"),
            ("had <0.0 h>; by lot", "[had <0.0 h>; by lot]"),
            ("", "[]"),
        ] {
            assert_eq!(shown(why), want);
            assert_eq!(reasons(why, Lang::En), [Piece::own(why)]);
        }
    }
}

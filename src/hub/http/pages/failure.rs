use serde::Serialize;

use super::{
    super::{Refused, refusal::is_private},
    Civil, Lang, Words, draw,
    refusals::translated,
    visit::Frame,
};
use crate::{
    core::{Code, Problem},
    hub::domain::Epoch,
};

/// A problem as pages show it: what the code means in the viewer's language, and the exact sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trouble {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What it means.
    pub meaning: String,
    /// What failed.
    pub what: String,
    /// Whether that is English, because the pages do not know the sentence in the viewer's language.
    pub english: bool,
    /// Evidence.
    pub lines: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
    /// Whether signing in helps.
    pub sign_in: bool,
}

impl Trouble {
    /// Moments are told by the viewer's clock.
    pub fn new(problem: &Problem, status: u16, civil: &Civil) -> Self {
        let words = Words::of(civil.lang);
        let told = civil.zone.told(&problem.what);
        let own = translated(&told, civil.lang);
        let lines = problem.detail.iter();
        let mut hints = vec![words.hint(problem.code)];
        // Hints of their own are English and exact: they stand beside the translated one.
        hints.extend(problem.hints.iter().filter_map(|h| on_page(&civil.zone.told(&h.0), civil.lang)));
        Self {
            status,
            code: problem.code.to_string(),
            meaning: words.meaning(problem.code),
            english: own.is_none(),
            what: own.unwrap_or(told),
            lines: if is_private(problem.code) { vec![] } else { lines.map(|line| civil.zone.told(line)).collect() },
            hints,
            sign_in: problem.code == Code::HubSignIn,
        }
    }
}

/// How the commands begin that hints of the hub name.
const COMMANDS: [&str; 3] = ["kubecamp book ", "kubecamp hub ", "kubecamp login"];

/// A hint for somebody at a browser: what is to be done, without the command that does it; none where that is all.
fn on_page(hint: &str, lang: Lang) -> Option<String> {
    match hint.split_once(": kubecamp ") {
        Some((way, _)) => Some(translated(way, lang).unwrap_or_else(|| format!("{way}."))),
        None if COMMANDS.iter().any(|command| hint.contains(command)) => None,
        None => Some(hint.to_owned()),
    }
}

/// The page that says why a request was refused.
pub fn problem_page(refused: &Refused, reader: &Civil, now: Epoch) -> String {
    let status = refused.status().as_u16();
    let troubles: Vec<Trouble> = refused.problems.iter().map(|p| Trouble::new(p, status, reader)).collect();
    let page = draw::draw("problem.html", Words::of(reader.lang), &Frame::of(reader, "/", now), &troubles);
    // The last resort cannot fail, and holds nothing of the request.
    page.unwrap_or_else(|_| format!("<!doctype html><title>kubecamp</title><h1>{}</h1>", refused.problem().code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_on_a_page_name_no_command() {
        for (hint, en, zh) in [
            (
                "Nobody needs to wait for it: kubecamp book new.",
                Some("Nobody needs to wait for it."),
                Some("无需候补。"),
            ),
            ("kubecamp hub server list shows the servers.", None, None),
            ("End it with kubecamp book release ID, and wait.", None, None),
            ("Use a newer kubecamp.", Some("Use a newer kubecamp."), Some("Use a newer kubecamp.")),
        ] {
            assert_eq!((on_page(hint, Lang::En).as_deref(), on_page(hint, Lang::Zh).as_deref()), (en, zh));
        }
    }

    #[test]
    fn a_refusal_speaks_the_viewers_language_and_time() {
        let what = "server one is taken at 2026-11-24T14:00:00Z to 2026-11-24T15:00:00Z";
        let problem = Problem::new(Code::BookConflict, what).hint("Until 2026-11-24T13:30:00Z at most.");
        let shown = |zone: &str, lang| Trouble::new(&problem, 409, &Civil { zone: zone.parse().unwrap(), lang });
        let zh = shown("Asia/Shanghai", Lang::Zh);
        assert_eq!(zh.what, "服务器 one 在 2026-11-24 22:00–23:00 (Asia/Shanghai) 已被占用。");
        let en = shown("Europe/Berlin", Lang::En);
        assert_eq!(en.what, "server one is taken at 2026-11-24 15:00–16:00 (Europe/Berlin)");
        assert!(en.english && !zh.english);
        assert_eq!(en.hints[1], "Until 2026-11-24 14:30 (Europe/Berlin) at most.");
        let draw = |trouble: &Trouble| {
            let frame = Frame::open(Lang::Zh, "/", Epoch(0));
            draw::draw("problem.html", Words::of(Lang::Zh), &frame, &[trouble]).unwrap()
        };
        assert!(draw(&en).contains("<p lang=\"en\">server one") && draw(&zh).contains("<p>服务器 one"));
        let berlin = Civil { zone: "Europe/Berlin".parse().unwrap(), lang: Lang::En };
        let page = problem_page(&Refused::from(problem), &berlin, Epoch(0));
        assert!(page.contains("at 2026-11-24 15:00–16:00 (") && page.contains("Until 2026-11-24 14:30 ("), "{page}");
    }
}

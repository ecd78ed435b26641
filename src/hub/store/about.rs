use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::AuditRow;
use crate::hub::domain::{Epoch, Window};

/// One thing that the detail of an audit row tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A sentence, and what stands in its gap.
    Said(Word, String),
    /// From when to when.
    Time(Window),
}

macro_rules! words {
    ($($word:ident $key:literal $english:literal;)*) => {
        /// A sentence about a row, with a gap `{it}`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Word {
            $(#[doc = $english] $word,)*
        }

        impl Word {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$word,)*];

            /// What catalogues call it.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$word => $key,)* }
            }

            /// The sentence in English.
            pub const fn english(self) -> &'static str {
                match self { $(Self::$word => $english,)* }
            }
        }
    };
}

words! {
    Person "fact_person" "for {it}";
    FromPerson "fact_from_person" "from {it}";
    Server "fact_server" "on {it}";
    FromServer "fact_from_server" "from server {it}";
    Link "fact_link" "sign-in link";
    Api "fact_api" "API token";
    Session "fact_session" "browser session";
    Feed "fact_feed" "calendar address";
    Agent "fact_agent" "token of an agent";
    Count "fact_count" "{it} of them";
    Name "fact_name" "called {it}";
    Role "fact_role" "role {it}";
    Keys "fact_keys" "SSH keys: {it}";
    Changed "fact_changed" "changed: {it}";
    Course "fact_course" "of course {it}";
    Members "fact_members" "members: {it}";
    Address "fact_address" "at {it}";
    Cores "fact_cores" "cores: {it}";
    Memory "fact_memory" "memory: {it}";
    Mode "fact_mode" "mode {it}";
    Health "fact_health" "now {it}";
    Work "fact_work" "maintenance {it}";
    Offset "fact_offset" "{it} s off";
    Revision "fact_revision" "its agent had revision {it}";
    Booking "fact_booking" "booking {it}";
    Account "fact_account" "account {it}";
    Step "fact_step" "step {it}";
    Lab "fact_lab" "lab {it}";
    Layout "fact_layout" "of {it}";
    MakesLabs "fact_makes_labs" "makes labs: {it}";
}

/// What is read of a row's detail.
struct Detail<'a>(&'a Value);

impl Detail<'_> {
    /// What stands under a name, where that is a text or a number.
    fn said(&self, word: Word, name: &str) -> Option<Fact> {
        scalar(&self.0[name]).map(|text| Fact::Said(word, text))
    }

    fn time(&self) -> Option<Fact> {
        let at = |name: &str| self.0[name].as_i64().map(Epoch);
        Window::new(at("starts")?, at("ends")?).ok().map(Fact::Time)
    }

    /// What kind of token it is.
    fn token(&self) -> Option<Fact> {
        let word = match self.0["kind"].as_str()? {
            "link" => Word::Link,
            "api" => Word::Api,
            "session" => Word::Session,
            "feed" => Word::Feed,
            "agent" => Word::Agent,
            _ => return None,
        };
        Some(Fact::Said(word, String::new()))
    }

    /// How many there are in a list.
    fn many(&self, word: Word, name: &str) -> Option<Fact> {
        self.0[name].as_array().map(|all| Fact::Said(word, all.len().to_string()))
    }

    fn list(&self, word: Word, name: &str) -> Option<Fact> {
        let all: Vec<String> = self.0[name].as_array()?.iter().filter_map(scalar).collect();
        (!all.is_empty()).then(|| Fact::Said(word, all.join(", ")))
    }

    /// Which fields were changed: those of one value with both of it.
    fn changed(&self) -> Option<Fact> {
        let field = |(name, both): (&String, &Value)| match (scalar(&both[0]), scalar(&both[1])) {
            (None, None) => name.clone(),
            (before, after) => {
                let [before, after] = [before, after].map(|value| value.unwrap_or_else(|| "-".to_owned()));
                format!("{name} {before} -> {after}")
            }
        };
        let all: Vec<String> = self.0[CHANGED].as_object()?.iter().map(field).collect();
        (!all.is_empty()).then(|| Fact::Said(Word::Changed, all.join(", ")))
    }
}

impl AuditRow {
    /// Whom and what it concerns beside its subject, by its action, in the order in which that is told.
    pub fn about(&self) -> Vec<Fact> {
        let detail = Detail(&self.detail);
        let facts = match self.action.as_str() {
            "token.add" | "token.revoke" => vec![detail.token(), person(&detail), server(&detail)],
            action if action.starts_with("token.revoke-") => vec![detail.said(Word::Count, "count")],
            "person.add" => somebody(&detail),
            "person.change" => changed_or(&detail, somebody),
            "group.add" => vec![detail.said(Word::Course, "course")],
            "group.remove" => vec![detail.said(Word::Course, "course"), detail.list(Word::Members, "members")],
            "course.add" => titled(&detail),
            "course.change" => changed_or(&detail, titled),
            "server.add" | "server.remove" => machine(&detail),
            "server.change" => changed_or(&detail, machine),
            "server.health" => vec![detail.said(Word::Health, "health")],
            "server.makes-labs" => vec![detail.said(Word::MakesLabs, "makes")],
            "server.labs-gone" => vec![detail.said(Word::Count, "labs")],
            "server.host-keys" => vec![detail.many(Word::Keys, "keys")],
            "server.maintenance" | "server.maintenance-end" => {
                vec![detail.said(Word::Work, "id"), Detail(&self.detail["window"]).time()]
            }
            "server.clock" => vec![detail.said(Word::Offset, "offset")],
            "server.revision" => vec![detail.said(Word::Revision, "agent")],
            "agent.unclean" | "agent.clean" => vec![detail.said(Word::Booking, "booking")],
            "agent.stray" => vec![detail.said(Word::Account, "account")],
            "agent.set-aside" => vec![server(&detail), detail.said(Word::Step, "step")],
            "agent.lab-kept" => {
                vec![person(&detail), detail.said(Word::Lab, "name"), detail.said(Word::Layout, "layout")]
            }
            "hook.add" => vec![detail.said(Word::Address, "host")],
            "booking.left" => left(&Detail(&self.detail["booking"])),
            _ => slot(&detail),
        };
        facts.into_iter().flatten().collect()
    }

    /// As [`Self::about`] in one English line; `time` writes windows.
    pub fn told(&self, time: impl Fn(Window) -> String) -> String {
        let said = |fact: Fact| match fact {
            Fact::Said(word, it) => word.english().replace("{it}", &it),
            Fact::Time(window) => time(window),
        };
        self.about().into_iter().map(said).collect::<Vec<_>>().join(", ")
    }
}

fn person(detail: &Detail<'_>) -> Option<Fact> {
    detail.said(Word::Person, "person")
}

fn server(detail: &Detail<'_>) -> Option<Fact> {
    detail.said(Word::Server, "server")
}

/// Of a change of a booking, and of who joins or leaves a group or has a lab no more.
fn slot(detail: &Detail<'_>) -> Vec<Option<Fact>> {
    let (giver, former) = (detail.said(Word::FromPerson, "from_person"), detail.said(Word::FromServer, "from_server"));
    vec![person(detail), giver, server(detail), former, detail.time()]
}

/// Of a booking that left a person or a server, as it was for them.
fn left(booking: &Detail<'_>) -> Vec<Option<Fact>> {
    let time = Detail(&booking.0["window"]).time();
    vec![booking.said(Word::Booking, "id"), person(booking), server(booking), time]
}

fn somebody(detail: &Detail<'_>) -> Vec<Option<Fact>> {
    vec![detail.said(Word::Name, "name"), detail.said(Word::Role, "role"), detail.many(Word::Keys, "keys")]
}

fn titled(detail: &Detail<'_>) -> Vec<Option<Fact>> {
    vec![detail.said(Word::Name, "title")]
}

fn machine(detail: &Detail<'_>) -> Vec<Option<Fact>> {
    vec![
        detail.said(Word::Address, "address"),
        detail.said(Word::Cores, "cores"),
        detail.said(Word::Memory, "memory"),
        detail.said(Word::Mode, "mode"),
    ]
}

/// What was changed; of a row that an older hub wrote what it was afterwards.
fn changed_or(detail: &Detail<'_>, whole: fn(&Detail<'_>) -> Vec<Option<Fact>>) -> Vec<Option<Fact>> {
    match detail.0.get(CHANGED) {
        Some(_) => vec![detail.changed()],
        None => whole(detail),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Where a detail says what was changed.
const CHANGED: &str = "changed";
/// What differs with every change, or is changed elsewhere.
const UNTOLD: [&str; 3] = ["version", "revision", "groups"];

/// The detail of a change: all as it is `after`, and under `changed` each field that differs, with both values where a field
/// has one value.
pub(super) fn changed(before: &impl Serialize, after: &impl Serialize) -> Value {
    let (before, mut after) = (json!(before), json!(after));
    let mut found = BTreeMap::new();
    differing("", &before, &after, &mut found);
    if let Some(fields) = after.as_object_mut() {
        fields.insert(CHANGED.to_owned(), Value::Object(found.into_iter().collect::<Map<_, _>>()));
    }
    after
}

fn differing(above: &str, before: &Value, after: &Value, found: &mut BTreeMap<String, Value>) {
    let Some(fields) = after.as_object() else { return };
    for (name, next) in fields.iter().filter(|(name, _)| !UNTOLD.contains(&name.as_str())) {
        let (had, path) = (&before[name.as_str()], format!("{above}{name}"));
        match next {
            _ if had == next => {}
            Value::Object(_) => differing(&format!("{path}."), had, next, found),
            Value::Array(_) => drop(found.insert(path, Value::Null)),
            _ => drop(found.insert(path, json!([had, next]))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    fn row(action: &str, detail: Value) -> AuditRow {
        AuditRow {
            id: 1,
            moment: Epoch(1),
            actor: "person:tom".into(),
            action: action.into(),
            subject: "x:y".into(),
            from_state: None,
            to_state: None,
            version: None,
            reason: None,
            detail,
        }
    }

    /// Each action with a detail as the hub writes it, and what is told of that.
    fn told() -> Vec<(&'static str, Value, &'static str)> {
        let slot = json!({ "person": "amy", "server": "one", "place": 0, "starts": 60, "ends": 120 });
        let given = json!({ "person": "bob", "from_person": "amy", "server": "one", "starts": 60, "ends": 120 });
        let moved = json!({ "person": "amy", "from_server": "two", "server": "one", "starts": 60, "ends": 120 });
        let gone = json!({ "booking": { "id": "b1", "person": "amy", "server": "one", "window": { "starts": 60, "ends": 120 } } });
        let work = json!({ "id": 3, "server": "one", "window": { "starts": 60, "ends": 120 }, "reason": "fan" });
        let machine =
            json!({ "address": "192.0.2.7", "cores": 8, "memory": "32GiB", "mode": "shared", "health": "away" });
        let token = |kind: &str| json!({ "kind": kind, "person": "amy", "server": null });
        let mut all = vec![
            ("token.add", token("link"), "sign-in link, for amy"),
            ("token.add", token("session"), "browser session, for amy"),
            ("token.add", json!({ "kind": "agent", "person": null, "server": "one" }), "token of an agent, on one"),
            ("token.revoke", token("api"), "API token, for amy"),
            ("token.revoke", Value::Null, ""),
            ("token.revoke-all", json!({ "count": 2 }), "2 of them"),
            ("token.revoke-feed", json!({ "count": 1 }), "1 of them"),
            (
                "person.add",
                json!({ "name": "Amy", "role": "student", "keys": ["x"] }),
                "called Amy, role student, SSH keys: 1",
            ),
            (
                "person.change",
                json!({ "name": "Amy", "changed": { "keys": null, "role": ["student", "teacher"] } }),
                "changed: keys, role student -> teacher",
            ),
            (
                "person.change",
                json!({ "name": "Amy", "role": "student", "keys": [] }),
                "called Amy, role student, SSH keys: 0",
            ),
            ("group.add", json!({ "course": "k8s" }), "of course k8s"),
            ("group.remove", json!({ "course": "k8s", "members": ["amy", "bob"] }), "of course k8s, members: amy, bob"),
            ("group.join", json!({ "person": "amy" }), "for amy"),
            ("group.leave", json!({ "person": "amy" }), "for amy"),
            ("course.add", json!({ "title": "Kubernetes" }), "called Kubernetes"),
            (
                "course.change",
                json!({ "title": "K", "changed": { "policy.longest": [120, 240] } }),
                "changed: policy.longest 120 -> 240",
            ),
            ("server.add", machine.clone(), "at 192.0.2.7, cores: 8, memory: 32GiB, mode shared"),
            ("server.remove", machine.clone(), "at 192.0.2.7, cores: 8, memory: 32GiB, mode shared"),
            ("server.change", json!({ "changed": { "course": [null, "k8s"] } }), "changed: course - -> k8s"),
            ("server.health", machine, "now away"),
            ("server.makes-labs", json!({ "makes": false }), "makes labs: false"),
            ("server.labs-gone", json!({ "labs": 2 }), "2 of them"),
            ("server.host-keys", json!({ "keys": ["x", "y"] }), "SSH keys: 2"),
            ("server.maintenance", work.clone(), "maintenance 3, 60-120"),
            ("server.maintenance-end", work, "maintenance 3, 60-120"),
            ("server.clock", json!({ "offset": -7 }), "-7 s off"),
            ("server.revision", json!({ "agent": 9, "hub": 4, "issued": 4 }), "its agent had revision 9"),
            ("agent.unclean", json!({ "booking": "b1" }), "booking b1"),
            ("agent.clean", json!({ "booking": "b1" }), "booking b1"),
            ("agent.plan-refused", Value::Null, ""),
            ("agent.plan-taken", Value::Null, ""),
            ("agent.stray", json!({ "account": "amy" }), "account amy"),
            ("agent.set-aside", json!({ "server": "one", "step": "opened", "number": 4 }), "on one, step opened"),
            (
                "agent.lab-kept",
                json!({ "person": "amy", "server": "one", "name": "gate-amy", "layout": "2x4c8g" }),
                "for amy, lab gate-amy, of 2x4c8g",
            ),
            ("agent.lab-dropped", json!({ "person": "amy" }), "for amy"),
            ("hook.add", json!({ "host": "example.org" }), "at example.org"),
            ("hook.remove", Value::Null, ""),
            ("booking.left", gone, "booking b1, for amy, on one, 60-120"),
            ("booking.give", given, "for bob, from amy, on one, 60-120"),
            ("booking.move", moved, "for amy, on one, from server two, 60-120"),
        ];
        let plain = |action: &&'static str| (*action, slot.clone(), "for amy, on one, 60-120");
        all.extend(SLOTS.iter().map(plain));
        all
    }

    /// What is done to a booking; the agent's are by the state too.
    const SLOTS: [&str; 28] = [
        "booking.lab-gone",
        "clerk.take-back",
        "booking.new",
        "booking.override",
        "booking.wait",
        "booking.offer",
        "booking.accept",
        "booking.cancel",
        "booking.release",
        "booking.extend",
        "booking.logged-in",
        "booking.quarantine",
        "agent.arming",
        "agent.missed",
        "agent.quarantined",
        "agent.refused",
        "agent.withdrawn",
        "clerk.closed",
        "clerk.delay",
        "clerk.lapse",
        "clerk.move",
        "clerk.never-began",
        "clerk.no-show",
        "clerk.offer-over",
        "clerk.relieve",
        "clerk.strand",
        "clerk.wait-over",
        "agent.active",
    ];

    /// What looks like an action in the sources, and is an event.
    const EVENTS: [&str; 6] =
        ["booking.moved", "booking.refused", "booking.stranded", "server.changed", "server.removed", "server.stray"];

    #[test]
    fn each_action_says_whom_and_what_it_concerns() {
        for (action, detail, want) in told() {
            let said = row(action, detail).told(|window| format!("{}-{}", window.starts.0, window.ends.0));
            assert_eq!(said, want, "{action}");
        }
        assert_eq!(row("clerk.of-tomorrow", json!([1, { "person": 2 }])).told(|_| String::new()), "");
    }

    fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, all),
                false => all.push(path),
            }
        }
    }

    #[test]
    fn no_action_is_left_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub");
        let mut files = vec![];
        ["store", "desk", "clerk"].iter().for_each(|part| sources(&root.join(part), &mut files));
        let known: BTreeSet<&str> = told().iter().map(|(action, ..)| *action).chain(EVENTS).collect();
        let mut seen = BTreeSet::new();
        for file in files.iter().filter(|file| !file.ends_with("about.rs")) {
            let text = fs::read_to_string(file).unwrap_or_default();
            // Texts between quotes: every second part.
            for quoted in text.split('"').map(str::to_owned) {
                let (kind, verb) = quoted.split_once('.').unwrap_or_default();
                let is_verb = !verb.is_empty() && verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                let kinds = ["agent", "booking", "clerk", "course", "group", "hook", "person", "server", "token"];
                if is_verb && kinds.contains(&kind) {
                    assert!(known.contains(quoted.as_str()), "{}: {quoted}", file.display());
                    seen.insert(quoted.clone());
                }
            }
        }
        assert!(seen.len() > 40, "{seen:?}");
    }

    #[test]
    fn a_change_says_what_differs() {
        let before = json!({ "id": "one", "version": 1, "keys": ["a"], "course": null, "policy": { "grid": 15, "longest": 60 } });
        let after = json!({ "id": "one", "version": 2, "keys": ["b"], "course": "k8s", "policy": { "grid": 15, "longest": 90 } });
        let detail = changed(&before, &after);
        let want = json!({ "course": [null, "k8s"], "keys": null, "policy.longest": [60, 90] });
        assert_eq!((&detail["changed"], &detail["id"]), (&want, &json!("one")));
        assert_eq!(changed(&after, &after)["changed"], json!({}));
        assert_eq!(
            row("server.change", detail).told(|_| String::new()),
            "changed: course - -> k8s, keys, policy.longest 60 -> 90"
        );
    }
}

//! The house: a room imports only rooms with smaller numbers, the hub keeps an order of its own, files stay short, and public
//! items are summed up.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms and their numbers, as in docs/design/0001-house.md.
const ROOMS: &[(&str, u8)] = &[
    ("core", 0),
    ("profile", 1),
    ("inventory", 1),
    ("netstate", 1),
    ("transport", 1),
    ("render", 1),
    ("host", 2),
    ("bundle", 2),
    ("machine", 2),
    ("engine", 3),
    ("phases", 4),
    ("flows", 5),
    ("hub", 6),
    ("cli", 7),
];

/// Parts of the hub, from the inside out, and those that each knows, as in docs/design/0006-hub.md.
const HUB: &[(&str, &[&str])] = &[
    // Files for the hub's user alone.
    ("private", &[]),
    // Words and rules: values in, values out.
    ("domain", &[]),
    // What runs on a server; it never sees the database, nor the hub that has one.
    ("gate", &["private"]),
    // The databases and every statement.
    ("store", &["private", "domain"]),
    // The use cases: who may do what.
    ("desk", &["domain", "gate", "store"]),
    // What happens by itself.
    ("clerk", &["domain", "store", "desk"]),
    // What is served.
    ("http", &["private", "domain", "gate", "store", "desk", "clerk"]),
];

/// Crates that one part of the hub uses, and nothing else in the program.
const CRATES: &[(&str, &str)] = &[("rusqlite", "store"), ("sqlx", "store"), ("axum", "http")];

/// A file of the program or of its tests.
struct Source {
    /// Where it lies below its folder.
    inner: PathBuf,
    text: String,
}

impl Source {
    /// Its module: `src/hub/desk/book.rs` is `["hub", "desk", "book"]`, `src/hub/desk/mod.rs` is `["hub", "desk"]`.
    fn module(&self) -> Vec<String> {
        let path = self.inner.with_extension("");
        path.iter().map(|name| name.to_str().unwrap().to_owned()).filter(|name| name != "mod").collect()
    }

    /// Every module or item that it names by `crate` or `super`, from the crate's root on.
    fn names(&self) -> Vec<Vec<String>> {
        let mut found = vec![];
        for head in ["crate::", "super::"] {
            // Of `super::super::` only the first begins a path.
            for (at, _) in self.text.match_indices(head).filter(|(at, _)| !self.text[..*at].ends_with("super::")) {
                let mut module = self.module();
                if self.text[..at].contains("\nmod tests {") {
                    module.push("tests".to_owned());
                }
                let mut paths = vec![];
                written_out(&self.text[at..], "", &mut paths);
                found.extend(paths.iter().map(|path| from_the_root(&module, path)));
            }
        }
        found
    }
}

/// Adds the path at the beginning of a text to those that were found, each one of a group like `a::{b, c::{d, e}}` by
/// itself, and returns what comes after.
fn written_out<'a>(text: &'a str, before: &str, found: &mut Vec<String>) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_:*".contains(c))).unwrap_or(text.len());
    let (own, rest) = text.split_at(end);
    let whole = format!("{before}{own}");
    let Some(mut rest) = rest.strip_prefix('{').filter(|_| own.ends_with("::")) else {
        found.push(whole);
        return rest;
    };
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        let after = written_out(rest, &whole, found);
        // Past an `as`, to the next one or the end.
        let Some(next) = after.find([',', '}']) else { return "" };
        rest = after[next..].strip_prefix(',').unwrap_or(&after[next..]);
    }
}

/// What a path means in a module.
fn from_the_root(module: &[String], path: &str) -> Vec<String> {
    let steps: Vec<&str> = path.split("::").collect();
    let ups = steps.iter().take_while(|step| **step == "super").count();
    let kept = if ups == 0 { 0 } else { module.len().saturating_sub(ups) };
    let rest = steps[ups.max(1)..].iter().map(|step| (*step).to_owned());
    module[..kept].iter().cloned().chain(rest).collect()
}

/// The files of a folder of this repository.
fn sources(folder: &str) -> Vec<Source> {
    fn add(root: &Path, dir: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                add(root, &path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inner = path.strip_prefix(root).unwrap().to_owned();
                found.push(Source { inner, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = vec![];
    add(&root, &root, &mut found);
    assert!(found.len() > 50, "{folder} is not here: {} files", found.len());
    found
}

fn number(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, n)| *n)
}

#[test]
fn a_path_is_read_as_the_compiler_reads_it() {
    let text = "use crate::{core::Code, hub::{self, domain::{Epoch as E, Window}}};\n\
                mod tests {\n    use super::super::{store::Store, wish};\n}\n";
    let source = Source { inner: "hub/desk/book.rs".into(), text: text.to_owned() };
    let names: Vec<String> = source.names().iter().map(|path| path.join("::")).collect();
    let outside = ["core::Code", "hub::self", "hub::domain::Epoch", "hub::domain::Window"];
    let inside = ["hub::desk::store::Store", "hub::desk::wish"];
    assert_eq!(names, [outside.as_slice(), &inside].concat());
    assert_eq!(Source { inner: "hub/desk/mod.rs".into(), text: String::new() }.module(), ["hub", "desk"]);
}

#[test]
fn a_room_imports_only_lower_ones() {
    let mut wrong = vec![];
    for source in sources("src") {
        let room = source.module()[0].clone();
        let Some(own) = number(&room) else {
            assert!(matches!(room.as_str(), "lib" | "main"), "{room} is not a room of the house");
            continue;
        };
        for path in source.names() {
            match path.first().and_then(|other| number(other)) {
                Some(n) if path[0] != room && n >= own => {
                    wrong.push(format!("{} imports {}", source.inner.display(), path[0]));
                }
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_part_of_the_hub_knows_only_those_further_in() {
    let names: Vec<&str> = HUB.iter().map(|(name, _)| *name).collect();
    for (n, (part, knows)) in HUB.iter().enumerate() {
        assert!(knows.iter().all(|other| names[..n].contains(other)), "{part} stands before what it knows");
    }
    let (mut wrong, mut used) = (vec![], BTreeSet::new());
    for source in sources("src") {
        let module = source.module();
        let [hub, part, ..] = module.as_slice() else { continue };
        if hub != "hub" {
            continue;
        }
        let (part, knows) = HUB.iter().find(|(name, _)| name == part).unwrap_or_else(|| panic!("{part} is no part"));
        for path in source.names() {
            let Some(other) = path.get(1).filter(|other| path[0] == "hub" && names.contains(&other.as_str())) else {
                continue;
            };
            if other != part && !knows.contains(&other.as_str()) {
                wrong.push(format!("{} knows {}", source.inner.display(), path.join("::")));
            }
            used.insert((*part, other.clone()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let idle = HUB.iter().flat_map(|(part, knows)| knows.iter().map(move |other| (*part, (*other).to_owned())));
    let idle: Vec<_> = idle.filter(|arrow| !used.contains(arrow)).collect();
    assert!(idle.is_empty(), "no file makes use of this any more, so it is to be forbidden: {idle:?}");
}

#[test]
fn a_database_is_asked_in_the_store_alone_and_http_is_spoken_in_http_alone() {
    let mut wrong = vec![];
    for (name, part) in CRATES {
        let uses = |line: &str| !line.trim_start().starts_with("//") && line.contains(&format!("{name}::"));
        let users: Vec<_> = sources("src").into_iter().filter(|source| source.text.lines().any(uses)).collect();
        assert!(!users.is_empty(), "nobody uses {name} any more");
        let home = format!("hub/{part}");
        wrong.extend(users.into_iter().map(|user| user.inner).filter(|file| !file.starts_with(&home)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_too_long() {
    let all = ["src", "tests"].into_iter().flat_map(sources);
    let long: Vec<_> = all.filter(|file| file.text.lines().count() > 500).map(|file| file.inner).collect();
    assert!(long.is_empty(), "over 500 lines: {long:?}");
}

/// Whether more follows the first sentence of a paragraph.
fn has_more(paragraph: &str) -> bool {
    let ends =
        paragraph.match_indices(['.', '!', '?']).map(|(at, mark)| (&paragraph[..at], &paragraph[at + mark.len()..]));
    ends.into_iter().any(|(before, after)| {
        let after = after.strip_prefix(['`', ')', '"', '\'']).unwrap_or(after);
        let is_short = ["e.g", "i.e", "etc"].iter().any(|word| before.ends_with(word));
        let begins = |c: char| c.is_ascii_uppercase() || "`\"'[(".contains(c);
        !is_short && after.starts_with(' ') && after.trim_start().starts_with(begins)
    })
}

#[test]
fn a_sentence_ends_where_readers_see_its_end() {
    for whole in ["One.", "One, e.g. `this`.", "Whether `a.b` is?", "Of v1.36 and 3.10 too."] {
        assert!(!has_more(whole), "{whole}");
    }
    for more in ["One. Two.", "`one`. `Two` too.", "One? [`Two`].", "(One.) Two."] {
        assert!(has_more(more), "{more}");
    }
}

#[test]
fn what_is_public_is_summed_up_in_one_sentence() {
    let mut seen = 0;
    for source in sources("src") {
        let lines: Vec<_> = source.text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub")) {
            // Help and documents of the API are shown as they are written.
            let above = lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
            let above: Vec<_> = above.collect();
            if above.iter().any(|l| {
                l.starts_with("#[")
                    && ["utoipa", "Args", "Parser", "Subcommand", "Schema"].iter().any(|w| l.contains(w))
            }) || !["fn ", "struct ", "enum ", "trait ", "type ", "const ", "static ", "mod "]
                .iter()
                .any(|word| line.contains(word))
            {
                continue;
            }
            let docs = above.iter().rev().filter_map(|line| line.strip_prefix("///"));
            let summary: Vec<_> = docs.map(str::trim).take_while(|line| !line.is_empty()).collect();
            seen += usize::from(!summary.is_empty());
            assert!(!has_more(&summary.join(" ")), "{}: {line}\n{}", source.inner.display(), summary.join("\n"));
        }
    }
    assert!(seen > 500, "{seen}");
}

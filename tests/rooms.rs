//! The house: a room imports only rooms with smaller numbers, and files stay short.

use std::{
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

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn number(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, n)| *n)
}

/// Every `crate::room` that a text names, also inside `crate::{a, b::c}`.
fn imports(text: &str) -> Vec<String> {
    let mut rooms = vec![];
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut word) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => rooms.push(std::mem::take(&mut word)),
                c if depth == 0 => word.push(c),
                _ => {}
            }
        }
        rooms.push(word);
    }
    rooms
        .iter()
        .map(|r| r.trim().split("::").next().unwrap_or_default().trim().to_owned())
        .filter(|r| !r.is_empty())
        .collect()
}

#[test]
fn a_room_imports_only_lower_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    files(&root, &mut all);
    let mut wrong = vec![];
    for file in all {
        let inner = file.strip_prefix(&root).unwrap();
        let room = inner.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own) = number(room) else {
            assert!(matches!(room, "lib.rs" | "main.rs"), "{room} is not a room of the house");
            continue;
        };
        for other in imports(&fs::read_to_string(&file).unwrap()) {
            match number(&other) {
                Some(n) if other != room && n >= own => wrong.push(format!("{} imports {other}", inner.display())),
                _ => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_too_long() {
    let mut all = vec![];
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let long: Vec<_> = all.iter().filter(|f| fs::read_to_string(f).unwrap().lines().count() > 500).collect();
    assert!(long.is_empty(), "over 500 lines: {long:?}");
}

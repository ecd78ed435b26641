use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use russh::keys::PublicKey;
use sha1::Sha1;

use crate::core::{Code, Problem};

/// What the first word of a line may say about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// An ordinary host key.
    None,
    /// A key that may sign host certificates.
    Authority,
    /// A key that must not be used any more.
    Revoked,
}

/// One line of a known_hosts file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) marker: Marker,
    hosts: Hosts,
    pub(super) key: PublicKey,
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    /// HMAC-SHA1 of the one name.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
    /// Patterns with `*`, `?` and a leading `!`.
    Patterns(Vec<String>),
}

impl Entry {
    /// Whether the line speaks of `name`, given in lower case and with its port as known_hosts files write it.
    pub(super) fn is_for(&self, name: &str) -> bool {
        match &self.hosts {
            Hosts::Hashed { salt, hash } => Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mut mac| {
                mac.update(name.as_bytes());
                mac.verify_slice(hash).is_ok()
            }),
            Hosts::Patterns(patterns) => {
                let mut found = false;
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        Some(not) if matches(not, name) => return false,
                        None if matches(pattern, name) => found = true,
                        _ => {}
                    }
                }
                found
            }
        }
    }

    /// The place of the line, for people.
    pub(super) fn place(&self) -> String {
        format!("{} line {}", self.file.display(), self.line)
    }
}

/// Reads a known_hosts file; a missing one is empty, any other failure is an error.
pub(super) fn read(file: &Path) -> Result<Vec<Entry>, Problem> {
    match std::fs::read(file) {
        // Comments may be in whatever encoding, which ssh does not mind either.
        Ok(bytes) => Ok(parse(&String::from_utf8_lossy(&bytes), file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => {
            let what = format!("cannot read the known hosts in {}", file.display());
            Err(Problem::new(Code::LocalFile, what).because(error))
        }
    }
}

/// Reads the lines that make sense; others speak of key types that we cannot use anyway.
pub(super) fn parse(text: &str, file: &Path) -> Vec<Entry> {
    text.lines().enumerate().filter_map(|(i, line)| entry(line, file, i + 1)).collect()
}

/// The keys that the text of a known_hosts file has for `name`, as public lines; revoked ones are left out.
pub fn known_keys(text: &str, name: &str) -> Vec<String> {
    let entries = parse(text, Path::new("known_hosts"));
    let good = entries.iter().filter(|e| e.marker == Marker::None && e.is_for(name));
    good.filter_map(|e| e.key.to_openssh().ok()).collect()
}

fn entry(line: &str, file: &Path, number: usize) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace().peekable();
    let marker = match *words.peek()? {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::Authority,
        word if word.starts_with(['#', '@']) => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        words.next();
    }
    let hosts = hosts(words.next()?)?;
    let key = PublicKey::from_openssh(&format!("{} {}", words.next()?, words.next()?)).ok()?;
    Some(Entry { marker, hosts, key, file: file.to_owned(), line: number })
}

fn hosts(word: &str) -> Option<Hosts> {
    let Some(hashed) = word.strip_prefix("|1|") else {
        return Some(Hosts::Patterns(word.to_lowercase().split(',').map(str::to_owned).collect()));
    };
    let (salt, hash) = hashed.split_once('|')?;
    Some(Hosts::Hashed { salt: STANDARD.decode(salt).ok()?, hash: STANDARD.decode(hash).ok()? })
}

/// Matches `*` (anything) and `?` (one character); everything else, brackets too, means itself.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to take up again when what follows the last `*` does not fit.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE";

    fn one(hosts: &str) -> Entry {
        let found = parse(&format!("{hosts} {KEY} comment\n"), Path::new("k"));
        assert_eq!(found.len(), 1, "{hosts}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn plain_names_ports_wildcards_and_negation() {
        assert!(one("Alpha,10.0.0.1").is_for("alpha"));
        assert!(one("alpha,10.0.0.1").is_for("10.0.0.1"));
        assert!(!one("alpha").is_for("[alpha]:2222"));
        assert!(one("[alpha]:2222").is_for("[alpha]:2222"));
        assert!(!one("[alpha]:2222").is_for("[alpha]:22222"));
        assert!(one("*.lab.example,!bad.lab.example").is_for("n1.lab.example"));
        assert!(!one("*.lab.example,!bad.lab.example").is_for("bad.lab.example"));
        assert!(!one("!bad").is_for("good"), "a negation alone matches nothing");
        assert!(one("10.0.?.*").is_for("10.0.7.123"));
        assert!(one("fe80::1").is_for("fe80::1"));
    }

    #[test]
    fn hashed_names() {
        // Made by ssh-keygen -H for `localhost`.
        let salt = STANDARD.encode([7u8; 20]);
        let mut mac = Hmac::<Sha1>::new_from_slice(&[7; 20]).unwrap();
        mac.update(b"[localhost]:2200");
        let line = format!("|1|{salt}|{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert!(one(&line).is_for("[localhost]:2200"));
        assert!(!one(&line).is_for("localhost"));
    }

    #[test]
    fn markers_lines_and_nonsense() {
        let text = format!(
            "# comment\n\n@revoked * {KEY}\n@cert-authority *.x {KEY}\n@odd x {KEY}\nx ssh-ed25519 broken\nx\n1024 35 9\ny {KEY}\n"
        );
        let found = parse(&text, Path::new("/k"));
        let seen: Vec<_> = found.iter().map(|e| (e.marker, e.line)).collect();
        assert_eq!(seen, [(Marker::Revoked, 3), (Marker::Authority, 4), (Marker::None, 9)]);
        assert_eq!(found[2].place(), "/k line 9");
    }

    #[test]
    fn missing_is_empty_but_unreadable_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("none")).unwrap().is_empty());
        assert_eq!(read(dir.path()).unwrap_err().code, Code::LocalFile);
    }

    #[test]
    fn a_comment_in_another_encoding_hides_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, [b"# B\xfcro\nhost ".as_slice(), KEY.as_bytes(), b" B\xfcro\n"].concat()).unwrap();
        let found = read(&file).unwrap();
        assert!(found.len() == 1 && found[0].line == 2 && found[0].is_for("host"), "{found:?}");
    }

    proptest! {
        #[test]
        fn globs_agree_with_a_slow_matcher(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn slow(p: &[u8], n: &[u8]) -> bool {
                match (p.first(), n.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => slow(&p[1..], n) || (!n.is_empty() && slow(p, &n[1..])),
                    (Some(b'?'), Some(_)) => slow(&p[1..], &n[1..]),
                    (Some(a), Some(b)) if a == b => slow(&p[1..], &n[1..]),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_line_panics(line in "\\PC{0,80}") {
            let _ = parse(&line, Path::new("k"));
        }
    }
}

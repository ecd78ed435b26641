//! What each fuzz target does with its bytes. The normal tests include this file too and feed it random bytes, so
//! that it always compiles and holds; `cargo fuzz run NAME` searches on.

use std::io::Write;

use kubecamp::{
    bundle::Bundle,
    core::{Code, Quiet, shell::quote},
    engine::parse_journal,
    host::{Facts, Traces, scan::Scan},
    inventory,
    machine::AptSources,
    profile::{self, Lab},
    transport::ssh::{Spec, known_keys},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A part of the input for each of two readers, split at the first zero byte.
fn halves(bytes: &[u8]) -> (String, String) {
    let at = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len() / 2);
    (text(&bytes[..at]), text(&bytes[at..]))
}

/// A profile is read and makes a lab that can be written and read again, or every problem says where.
pub fn profile(bytes: &[u8]) {
    match profile::parse(&text(bytes), "fuzz.yaml") {
        Ok(profile) => {
            if let Ok(lab) = Lab::new("fuzz".parse().expect("a good name"), profile) {
                let again = lab.to_yaml().and_then(|yaml| Lab::from_yaml(&yaml));
                assert_eq!(again.expect("a written lab reads back"), lab);
            }
        }
        Err(problems) => assert!(problems.iter().all(|p| p.code != Code::Internal)),
    }
}

/// A hosts file is read, or every problem says where.
pub fn hosts_file(bytes: &[u8]) {
    if let Err(problems) = inventory::parse(&text(bytes), "fuzz.yaml") {
        assert!(problems.iter().all(|p| p.code != Code::Internal));
    }
}

/// Only a whole bundle opens, whose names are plain words; nothing else panics or takes memory by a number in the file.
pub fn bundle(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a writable file");
    if let Ok(bundle) = Bundle::open(file.path()) {
        let _ = bundle.verify(&Quiet);
        for member in bundle.members() {
            let words = member.install.iter().chain(&member.images).chain([&member.name]);
            assert!(words.into_iter().all(|word| quote(word) == *word), "{member:?}");
            assert!(!member.name.contains('/'), "{member:?}");
        }
    }
}

/// Facts of a hostile host.
pub fn facts(bytes: &[u8]) {
    let facts = Facts::parse(&text(bytes));
    let _ = (facts.arch(), facts.cgroup(), facts.has_sys_resource(), facts.number("memory"), facts.is_container());
    if let Some(ip) = facts.address() {
        assert!(facts.link_of(ip).is_some(), "the address is one of the host's");
    }
}

/// Two scans: what differs between them is told once, and a scan does not differ from itself.
pub fn scan(bytes: &[u8]) {
    let (before, after) = halves(bytes);
    let (before, after) = (Scan::parse(&before), Scan::parse(&after));
    let traces = Traces { networks: vec!["10.244.0.0/16".parse().expect("a network")], ..Traces::default() };
    assert_eq!(before.differences(&before, &traces), Default::default());
    let found = before.differences(&after, &traces);
    assert!(found.residues.iter().all(|d| !found.others.contains(d)));
    let _ = after.leftovers(&traces);
}

/// A known_hosts file and a name.
pub fn known_hosts(bytes: &[u8]) {
    let (name, file) = halves(bytes);
    let _ = known_keys(&file, &name);
}

/// A host as a user writes it: what is read is written and read back the same.
pub fn host_spec(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(spec) = Spec::parse(&text) {
        assert!(!spec.host.starts_with('-') && !spec.host.contains(char::is_whitespace));
        assert_eq!(Spec::parse(&spec.to_string()).expect("a written host reads back"), spec);
    }
    if let Err(problems) = inventory::entries(&[text]) {
        assert!(problems.iter().all(|p| p.code == Code::HostSpec));
    }
}

/// A run log, perhaps cut off.
pub fn journal(bytes: &[u8]) {
    let events = parse_journal(&text(bytes));
    let _ = (kubecamp::render::phase_times(&events), kubecamp::render::summary_text(&events, true));
}

/// apt's two formats of sources.
pub fn apt_sources(bytes: &[u8]) {
    let (lines, stanzas) = halves(bytes);
    let _ = AptSources::parse(&lines, &stanzas).main("trixie");
}

/// One target's body.
pub type Body = fn(&[u8]);

/// Every body by the name of its target.
#[allow(dead_code, reason = "the targets use one body each")]
pub const ALL: &[(&str, Body)] = &[
    ("profile", profile),
    ("hosts_file", hosts_file),
    ("bundle", bundle),
    ("facts", facts),
    ("scan", scan),
    ("known_hosts", known_hosts),
    ("host_spec", host_spec),
    ("journal", journal),
    ("apt_sources", apt_sources),
];

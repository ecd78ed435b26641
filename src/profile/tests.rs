//! Whole files in, every problem of them out.

use proptest::prelude::*;

use super::*;
use crate::core::{Bytes, Code, Problems};

/// The problems as a user would count them: place, code, sentence, hints.
fn told(problems: &Problems) -> String {
    let line = |p: &crate::core::Problem| {
        let at = p.at.as_ref().map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
        let hints: Vec<String> = p.hints.iter().map(|h| format!("\n      hint: {}", h.0)).collect();
        format!("{at} {} {}{}", p.code, p.what, hints.concat())
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn refused(text: &str) -> String {
    told(&parse(text, "my.yaml").unwrap_err())
}

/// The shipped three-node profile with one text replaced by another.
fn changed(from: &str, to: &str) -> String {
    let text = shipped_text("3x2c4g").unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

#[test]
fn shipped_profiles_are_what_their_names_say() {
    for name in shipped() {
        let profile = load(&name).unwrap();
        assert_eq!(profile.layout.to_string(), name);
        assert_eq!(profile.nodes.len(), profile.layout.nodes as usize);
        for node in &profile.nodes {
            assert_eq!(node.size(), profile.layout.size(), "{name} {}", node.name);
            assert_eq!(node.disk, Bytes::gib(30));
        }
        assert_eq!(profile.kubernetes, "v1.36.3");
        assert_eq!(parse(&to_yaml(&profile).unwrap(), "again").unwrap(), profile);
        let text = shipped_text(&name).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=profile.schema.json\n"));
        // The commented example must be right once its # are taken away.
        let with_mirrors =
            text.replace("mirrors: []\n", "").replace("# mirrors:", "mirrors:").replace("\n#   ", "\n   ");
        assert_eq!(parse(&with_mirrors, "mirrors").unwrap().mirrors.len(), 2);
    }
}

#[test]
fn every_mistake_of_a_shape_is_told_at_once() {
    insta::assert_snapshot!(refused(SHAPES));
}

const SHAPES: &str = "\
layuot: 3x2c
kubernetes: 1.36
nodes:
  - name: CP
    role: controlplane
    cores: \"2\"
    memory: 4G
    disk:
    colour: blue
  - worker-1
  - {name: worker-2, role: worker, cores: -2, memory: [4], disk: 30GiB, disk: 40GiB}
network:
  pods: 10.244.1.0/16
  services: fd00::/108
proxy: nftables
mirrors: https://mirror.example
[a]: b
";

#[test]
fn every_impossible_value_is_told_at_once() {
    insta::assert_snapshot!(refused(VALUES));
}

const VALUES: &str = "\
layout: 3x1c2g
kubernetes: v1.30.2
nodes:
  - {name: cp, role: worker, cores: 1, memory: 2GiB, disk: 20GiB}
  - {name: here, role: worker, cores: 1, memory: 1GiB, disk: 30GiB}
  - {name: cp, role: worker, cores: 2, memory: 4GiB, disk: 30GiB}
  - {name: a-name-of-thirty-three-letters-xx, role: worker, cores: 2, memory: 4GiB, disk: 30GiB}
network: {pods: 10.96.0.0/23, services: 10.0.0.0/8, cni: calico}
proxy: {mode: nftables}
mirrors:
  - registry: https://registry.k8s.io
    endpoints: [mirror.example, 'ftp://mirror.example', 'https://me:secret@mirror.example']
  - {registry: docker.io, endpoints: ['https://mirror.example/v2?x=1']}
  - {registry: docker.io, endpoints: []}
";

#[test]
fn single_mistakes_point_at_their_place() {
    let cases = [
        ("mode: nftables", "mode: userspace", "47:9 KC-PROFILE-INVALID mode `userspace` was removed"),
        ("mode: nftables", "mode: kernelspace", "exists on Windows nodes only"),
        ("mode: nftables", "mode: nftable", "hint: Did you mean `nftables`?"),
        ("role: worker ", "role: control-plane ", "a second control plane: only one is supported for now"),
        ("v1.36.3", "v1.25.0", "hint: kubecamp brings up v1.34 to v1.37."),
        ("v1.36.3", "latest", "`latest` is not a version: write it as `v1.36.3`"),
        ("v1.36.3", "", "key `kubernetes` has no value"),
        ("10.96.0.0/16", "10.244.128.0/20", "services 10.244.128.0/20 overlaps pods 10.244.0.0/16"),
        ("10.244.0.0/16", "10.244.0.0/23", "pods 10.244.0.0/23 has no /24 for each of 3 nodes"),
        ("10.244.0.0/16", "127.0.0.0/16", "holds loopback addresses"),
        ("10.244.0.0/16", "0.0.0.0/0", "pods 0.0.0.0/0 holds unspecified addresses (0.0.0.0/8)"),
        ("10.96.0.0/16", "10.96.0.0/25", "is not between /12 and /24"),
        ("layout: 3x2c4g", "layout: 2x4c8g", "layout 2x4c8g has 2 nodes, and 3 are listed"),
        ("layout: 3x2c4g", "layout: big", "`big` is not a layout"),
        ("memory: 4GiB", "memory: 3GiB", "node `cp` has 3GiB memory: layout 3x2c4g asks 4GiB"),
        ("cores: 2", "cores: 1", "node `cp` has 1 core: layout 3x2c4g asks 2"),
        ("disk: 30GiB", "disk: 29GiB", "node `cp` has 29GiB disk: every node needs 30GiB"),
        ("name: worker-2", "name: worker-1", "two nodes are called `worker-1`, first in line"),
        ("network:", "netwrok:", "hint: Did you mean `network`?"),
        ("mirrors: []", "mirrors: [", "this is not YAML"),
    ];
    for (from, to, expected) in cases {
        let told = refused(&changed(from, to));
        assert!(told.contains(expected), "{to}:\n{told}\nlacks {expected}");
        assert!(told.chars().next().is_some_and(|c| c.is_ascii_digit()), "no place: {told}");
    }
}

#[test]
fn messages_stay_short_whatever_the_file_holds() {
    let long = "x".repeat(100_000);
    for (from, to) in [("layout:", format!("{long}:")), ("name: cp", format!("name: {long}")), ("3x2c4g", long.clone())]
    {
        let told = refused(&changed(from, &to));
        assert!(told.len() < 3000, "{}", told.len());
    }
}

#[test]
fn files_of_other_systems_are_read() {
    let text = shipped_text("3x2c4g").unwrap();
    let profile = parse(&text, "unix").unwrap();
    assert_eq!(parse(&text.replace('\n', "\r\n"), "crlf").unwrap(), profile);
    assert_eq!(parse(&format!("\u{feff}{text}"), "bom").unwrap(), profile);
    assert_eq!(parse(&format!("\u{feff}{}", text.replace('\n', "\r\n")), "both").unwrap(), profile);
    let crlf = changed("v1.36.3", "v9.9.9").replace('\n', "\r\n");
    assert!(refused(&crlf).starts_with("13:13 "));
    // No editor counts the mark as a column.
    let bare = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let misspelt = bare.trim_start().replacen("layout:", "lay:", 1);
    assert_eq!(refused(&format!("\u{feff}{misspelt}")), refused(&misspelt));
}

#[test]
fn hostile_files_end_soon() {
    let all = 1 << 20;
    for piece in [
        "[",
        "{",
        "- ",
        "a: ",
        "&a ",
        "*a ",
        "? ",
        "x\n",
        "x: y\n",
        "- {name: a}\n",
        "\"",
        "|\n",
        "#\n",
        "---\n",
        "!x ",
        "[a, ",
    ] {
        let start = std::time::Instant::now();
        let _ = refused(&piece.repeat(all / piece.len()));
        let _ = refused(&format!("nodes:\n{}", piece.repeat(all / piece.len())));
        assert!(start.elapsed().as_secs() < 20, "{piece:?} took {:?}", start.elapsed());
    }
}

#[test]
fn larger_nodes_than_the_layout_are_allowed() {
    let profile = parse(&changed("memory: 4GiB", "memory: 6144MiB"), "my.yaml").unwrap();
    assert_eq!(profile.nodes[0].memory, Bytes::gib(6));
}

#[test]
fn what_is_no_profile_at_all_is_refused() {
    for (text, expected) in [
        ("", "1:1 KC-PROFILE-SYNTAX the profile is empty"),
        ("# nothing\n", "the profile is empty"),
        ("- a\n", "the profile must be a group of keys, not a list"),
        ("hello", "the profile must be a group of keys, not a text"),
        ("a: b\n c: d", "this is not YAML"),
        ("a: *b", "this is not YAML"),
    ] {
        let told = refused(text);
        assert!(told.contains(expected), "{text:?}: {told}");
    }
}

#[test]
fn profiles_are_found_by_name_or_path() {
    let unknown = load("3x2c4").unwrap_err();
    assert_eq!(unknown.iter().next().unwrap().code, Code::ProfileUnknown);
    assert!(told(&unknown).contains("Did you mean `3x2c4g`?"));
    // A layout, but none that is shipped.
    let unknown = told(&load("4x2c4g").unwrap_err());
    let words = ["KC-PROFILE-UNKNOWN", "Shipped are 1x4c12g, 2x4c8g, 3x2c4g.", "kubecamp profile show", "--profile"];
    assert!(words.iter().all(|word| unknown.contains(word)), "{unknown}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.yaml");
    let name = path.to_str().unwrap();
    std::fs::write(&path, changed("v1.36.3", "v1.37.2")).unwrap();
    assert_eq!(load(name).unwrap().kubernetes, "v1.37.2");
    std::fs::write(&path, changed("v1.36.3", "v9.9.9")).unwrap();
    assert!(load(name).unwrap_err().to_string().contains(&format!("{name}:13:13: ")));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load(name).unwrap_err().to_string().contains("not UTF-8"));
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(load(name).unwrap_err().to_string().contains("longer than 1 MiB"));
    assert_eq!(load(dir.path().to_str().unwrap()).unwrap_err().iter().next().unwrap().code, Code::LocalFile);
}

/// Every problem of a file must have a place in it.
fn all_placed(result: Result<Profile, Problems>, text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = result {
        for problem in problems.iter() {
            let at = problem.at.as_ref();
            prop_assert!(at.is_some_and(|at| at.line >= 1 && at.column >= 1), "{problem} in {text:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        all_placed(parse(&text, "any"), &text)?;
    }

    #[test]
    fn any_yaml_like_text_is_read_or_refused(words in prop::collection::vec(
        prop::sample::select(vec!["layout", "nodes", ": ", ":\n", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "&a ", "*a ",
            "'", "\"", "|\n", ">", "#", "---\n", "...", "!x ", "? ", "1", "~", "<<", "\t", "%", "@", "ü"]), 0..60)) {
        let text = words.concat();
        all_placed(parse(&text, "any"), &text)?;
    }

    #[test]
    fn a_mutated_profile_is_read_or_refused(start in any::<prop::sample::Index>(), length in 0usize..40, insert in "[ -~\\n]{0,8}") {
        let text = shipped_text("2x4c8g").unwrap();
        let start = start.index(text.len());
        let end = (start + length).min(text.len());
        let mutated = format!("{}{insert}{}", &text[..start], &text[end..]);
        all_placed(parse(&mutated, "mutated"), &mutated)?;
    }

    #[test]
    fn a_dropped_line_is_noticed_where_it_matters(index in any::<prop::sample::Index>()) {
        let text = to_yaml(&load("3x2c4g").unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let dropped = index.index(lines.len());
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(i, _)| *i != dropped).map(|(_, line)| *line).collect();
        let optional = lines[dropped].starts_with("mirrors");
        prop_assert_eq!(parse(&rest.join("\n"), "dropped").is_ok(), optional, "without {}", lines[dropped]);
    }
}

/// Kubernetes v1.26 is the version that removed it; no text may name another.
#[test]
fn every_text_names_the_same_version_that_removed_userspace_mode() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = ["src", "docs", "profiles", "templates"].map(|f| root.join(f)).to_vec();
    let (mut told, mut wrong) = (0, vec![]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // This file names other versions to say that they are wrong.
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter(|l| l.contains("userspace") && l.contains("1.2"));
            for line in lines.filter(|_| !path.ends_with("profile/tests.rs")) {
                told += 1;
                if !line.contains("removed") || !line.contains("v1.26") || line.contains("1.25") {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(told >= 3 && wrong.is_empty(), "{told} {wrong:#?}");
}

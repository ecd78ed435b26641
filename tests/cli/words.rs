//! What the built binary says to somebody who does not know it yet.

use std::{fs, process::Command};

use crate::support::home::{kubecamp, write_lab};

#[test]
fn without_a_command_the_help_is_shown_and_no_mistake() {
    let home = tempfile::tempdir().unwrap();
    let said = kubecamp(home.path(), &[]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    let help = kubecamp(home.path(), &["-h"]);
    assert_eq!((help.code, help.out.trim_end()), (0, said.err.trim_end()));
    assert!(said.err.contains("kubecamp [OPTIONS] <COMMAND>") && !said.err.contains("error"), "{}", said.err);
}

#[test]
fn a_noun_without_a_verb_shows_its_help_and_no_mistake() {
    let home = tempfile::tempdir().unwrap();
    for noun in ["bundle", "machine", "machine engine", "profile", "run", "book", "hub", "hub user", "hub server"] {
        let words: Vec<_> = noun.split(' ').collect();
        let said = kubecamp(home.path(), &words);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{noun}: {}", said.err);
        assert!(said.err.contains(&format!("Usage: kubecamp {noun} [OPTIONS] <COMMAND>")), "{noun}: {}", said.err);
        let help = kubecamp(home.path(), &[&words[..], &["-h"]].concat());
        assert_eq!((help.code, help.out.trim_end()), (0, said.err.trim_end()), "{noun}");
        // A flag is no verb.
        let flagged = kubecamp(home.path(), &[&words[..], &["--plain"]].concat());
        assert_eq!((flagged.code, flagged.err), (2, said.err), "{noun}");
    }
}

#[test]
fn runs_are_those_of_a_lab_that_there_is() {
    let home = tempfile::tempdir().unwrap();
    let state = serde_json::json!({"format": 1, "place": "local", "bundle": null});
    let lab = write_lab(home.path(), "lab", "1x4c12g", &state);
    let listed = kubecamp(home.path(), &["run", "list", "-o", "json"]);
    assert_eq!((listed.code, listed.out.trim()), (0, "[]"), "{}", listed.err);
    for (args, words) in [
        (&["run", "show"][..], &["KC-USAGE", "the lab lab has no runs yet", "hint: "][..]),
        (&["run", "show", "../../x"], &["KC-USAGE", "the lab lab has no run ../../x", "hint: kubecamp run list"]),
        (&["run", "list", "--name", "nix"], &["KC-LAB-UNKNOWN", "no lab called nix", "status --all"]),
    ] {
        let said = kubecamp(home.path(), args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}: {}", said.err);
        assert!(words.iter().all(|word| said.err.contains(word)), "{args:?}: {}", said.err);
    }
    // What a lab leaves when it is forgotten.
    fs::remove_file(lab.join("lab.yaml")).unwrap();
    let event = r#"{"run":"r","seq":1,"at":"2026-11-23T17:45:00Z","kind":{"type":"note","on":null,"text":"x"}}"#;
    fs::create_dir(lab.join("runs")).unwrap();
    fs::write(lab.join("runs/r.ndjson"), event).unwrap();
    assert_eq!(kubecamp(home.path(), &["run", "list"]).code, 0);
    // Programs get the steps where they are asked for, and the array of phases as ever where they are not.
    let shown = |args: &[&str]| -> serde_json::Value {
        let said = kubecamp(home.path(), &[&["run", "show", "-o", "json"][..], args].concat());
        serde_json::from_str(&said.out).unwrap()
    };
    assert!(shown(&[]).is_array());
    let whole = shown(&["--steps"]);
    assert!(whole["run"] == "r" && whole["outcome"].is_null() && whole["steps"].is_array(), "{whole}");
}

/// What stands in the files that people copy: its commands exist, and the schema that they name can be had.
#[test]
fn shipped_profiles_name_only_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let shipped = kubecamp::profile::shipped();
    assert!(!shipped.is_empty());
    for name in shipped {
        let text = kubecamp(home.path(), &["profile", "show", &name]).out;
        let mut commands =
            text.split("kubecamp ").skip(1).map(|rest| rest.split(['\n', ',', '>']).next().unwrap()).peekable();
        assert!(commands.peek().is_some(), "{text}");
        for command in commands {
            let words: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
            let said = kubecamp(home.path(), &words);
            assert_eq!(said.code, 0, "{name}: {command}: {}", said.err);
        }
        let schema = text.lines().next().unwrap().rsplit('=').next().unwrap();
        assert!(text.contains(&format!("kubecamp profile schema > {schema}\n")), "{text}");
    }
    let schema = kubecamp(home.path(), &["profile", "schema"]);
    assert_eq!(
        (schema.code, schema.out.as_str()),
        (0, include_str!("../../profiles/profile.schema.json")),
        "{}",
        schema.err
    );
}

#[test]
fn each_command_has_a_manual_page() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("share/man1");
    let said = kubecamp(home.path(), &["man", "--dir", folder.to_str().unwrap()]);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    let reference = include_str!("../../docs/reference/cli.md");
    let commands: Vec<_> = reference.lines().filter_map(|line| line.strip_prefix("## kubecamp ")).collect();
    assert!(commands.len() > 40, "{commands:?}");
    for command in commands {
        let page = folder.join(format!("kubecamp-{}.1", command.replace(' ', "-")));
        assert!(fs::read_to_string(&page).unwrap().contains(".TH "), "{}", page.display());
    }
    let alone = kubecamp(home.path(), &["man"]);
    assert!(alone.code == 0 && alone.out.contains(".TH ") && folder.join("kubecamp.1").exists(), "{}", alone.err);
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let said = kubecamp(home.path(), &["man", "--dir", file.to_str().unwrap()]);
    assert!(said.code == 2 && said.err.contains("KC-LOCAL-FILE"), "{}", said.err);
}

#[test]
fn lists_are_found_by_either_name() {
    let home = tempfile::tempdir().unwrap();
    for noun in ["machine", "profile", "run", "book", "hub user", "hub token", "hub group", "hub course", "hub server"]
    {
        for verb in ["ls", "list"] {
            let words: Vec<_> = noun.split(' ').chain([verb, "--help"]).collect();
            let said = kubecamp(home.path(), &words);
            assert_eq!(said.code, 0, "{words:?}: {}", said.err);
        }
    }
}

#[test]
fn a_result_that_cannot_be_written_is_no_success() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["profile", "show", "3x2c4g"][..],
        &["profile", "list", "-o", "json"],
        &["completions", "bash"],
        &["--version"],
        &["--help"],
    ] {
        let run = |to: std::process::Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
            command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("KUBECAMP_HOME", home.path());
            let out = command.args(args).stdin(std::process::Stdio::null()).stdout(to).output().unwrap();
            (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
        };
        let (code, err) = run(fs::File::options().write(true).open("/dev/full").unwrap().into());
        assert_eq!(code, 2, "{args:?}: {err}");
        let hint = if args.contains(&"json") { "\"hints\":[\"Free some space" } else { "hint: Free some space" };
        for word in ["KC-LOCAL-FILE", "standard output", "No space left on device", hint] {
            assert!(err.contains(word), "{args:?}: {err}");
        }
        // Whoever read it has seen enough, as head has.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(writer.into()), (0, String::new()), "{args:?}");
    }
}

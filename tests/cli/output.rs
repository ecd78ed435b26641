//! What goes to standard output and what to standard error, for people and for programs.

use std::{fs, process::Stdio};

use kubecamp::core::{Arch, Event, EventKind};

use crate::support::home::{Home, UNREACHABLE, VERSION};

/// Nothing can be said about machines that do not run, so the plan says what it takes for granted.
#[test]
fn a_plan_says_that_it_assumes_new_machines() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    let args = ["plan", "--local", "--layout", "1x4c12g", "--allow-undersized", "--bundle", &bundle, "-o", "json"];
    let ended = home.run(&args);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("assumes new machines"), "{}", ended.err);
    let steps: Vec<serde_json::Value> = serde_json::from_str(&ended.out).unwrap();
    let assumed = |on: &str| steps.iter().filter(|s| s["on"] == on).map(|s| s["assumed"].clone()).collect::<Vec<_>>();
    assert!(!assumed("cp").is_empty() && assumed("cp").iter().all(|a| a == true), "{}", ended.out);
    assert!(assumed("here").iter().all(|a| a == false), "{}", ended.out);
    // What the machines' image brings is not to do there.
    let image = ["binaries", "runtime", "images", "images-later"];
    let brought = |step: &serde_json::Value| image.iter().any(|phase| step["phase"] == *phase);
    assert!(image.iter().all(|phase| steps.iter().any(|step| step["phase"] == *phase)), "{}", ended.out);
    for step in steps.iter().filter(|step| step["on"] == "cp") {
        assert_eq!(step["done"], brought(step), "{step}");
    }
    let waits = |step: &serde_json::Value| step["depends_on"].as_array().unwrap().iter().any(|on| on == "here/make");
    assert!(steps.iter().all(|step| waits(step) == (step["on"] == "cp")), "{}", ended.out);
    assert!(steps.iter().any(|step| step["on"] == "here" && step["step"] == "make"), "{}", ended.out);
    assert!(!ended.err.contains("machine engine start"), "it would show no machine of this lab: {}", ended.err);
}

/// What the doctor finds depends on the computer; that each finding is whole and the exit code fits does not.
#[test]
fn the_doctor_looks_at_this_computer_and_the_labs_hosts() {
    let home = Home::new();
    let look = |home: &Home| {
        let ended = home.run(&["doctor", "-o", "json"]);
        let found: Vec<serde_json::Value> = serde_json::from_str(&ended.out).expect(&ended.err);
        for finding in found.iter().filter(|f| f["level"] != "ok") {
            let hinted = finding["hints"].as_array().is_some_and(|h| !h.is_empty());
            assert!(hinted && finding["code"].as_str().unwrap().starts_with("KC-"), "{finding}");
        }
        let problem = found.iter().any(|f| f["level"] == "problem");
        assert_eq!(ended.code != 0, problem, "{}", ended.out);
        (ended.code, found)
    };
    let (_, found) = look(&home);
    let checks =
        ["size", "packages", "kvm", "namespaces", "engine", "labs", "cache", "machines", "bundle", "upstream", "go"];
    assert_eq!(found.iter().map(|f| f["check"].as_str().unwrap()).collect::<Vec<_>>(), checks);
    assert_eq!(fs::read_dir(home.0.path().join("data")).map_or(0, Iterator::count), 0, "it changes nothing");
    // A file where the labs should be.
    fs::write(home.0.path().join("data"), "x").unwrap();
    let (code, found) = look(&home);
    let labs = found.iter().find(|f| f["check"] == "labs").unwrap();
    assert!(code == 2 && labs["code"] == "KC-LOCAL-FILE" && labs["level"] == "problem", "{labs}");
    fs::remove_file(home.0.path().join("data")).unwrap();
    home.unreachable_lab();
    let cached = home.0.path().join("cache/bundles");
    fs::create_dir_all(&cached).unwrap();
    let (code, found) = look(&home);
    let unreachable = found.iter().filter(|f| f["code"] == "KC-HOST-UNREACHABLE");
    assert_eq!(unreachable.map(|f| f["on"].as_str().unwrap()).collect::<Vec<_>>(), ["cp", "worker-1", "worker-2"]);
    assert!(code == 4 || code == 5, "unreachable hosts, or no way to a bundle: {code}");
    let table = home.run(&["doctor"]);
    assert!(table.out.contains("STATE") && table.out.contains("hint: reach: "), "{}", table.out);
}

#[test]
fn events_are_the_only_thing_on_standard_output() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    let ended = home.run(&[&["up", "--output-events", "ndjson", "--bundle", &bundle], UNREACHABLE].concat());
    assert_eq!(ended.code, 4);
    let events: Vec<Event> = ended.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(events.len() >= 3, "{}", ended.out);
    assert!(events.iter().zip(1..).all(|(e, n)| e.seq == n));
    let failures: Vec<_> = events
        .iter()
        .filter_map(|e| if let EventKind::Failure { problem } = &e.kind { Some(problem) } else { None })
        .collect();
    assert!(!failures.is_empty() && failures.iter().all(|p| !p.hints.is_empty()), "{}", ended.out);
    assert!(ended.err.contains("KC-HOST-UNREACHABLE"));
}

#[test]
fn without_a_terminal_lines_are_plain() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    for args in [
        [&["up", "--bundle", &bundle], UNREACHABLE].concat(),
        vec!["bundle", "inspect", &bundle],
        vec!["up", "--help"],
        vec!["up", "--nope"],
    ] {
        let ended = home.run(&args);
        assert!(!ended.err.contains('\x1b') && !ended.out.contains('\x1b'), "{args:?}\n{}", ended.err);
    }
}

#[test]
fn data_is_on_standard_output_alone() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    for format in ["table", "wide", "json", "yaml"] {
        let ended = home.run(&["bundle", "inspect", &bundle, "-o", format]);
        assert!(ended.code == 0 && ended.out.contains("kubelet") && ended.err.is_empty(), "{}", ended.err);
    }
    let json = home.run(&["bundle", "inspect", &bundle, "-o", "json"]).out;
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    let verified = home.run(&["bundle", "verify", &bundle]);
    assert!(verified.code == 0 && verified.out.contains("every digest is right"), "{}", verified.err);
}

/// Every read that offers `-o`: a wide table has what the plain one has, and more.
#[test]
fn wide_is_wider() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    home.unreachable_lab();
    home.run(&["reset", "--yes"]);
    for args in [
        &["bundle", "inspect", &bundle][..],
        &["status", "--all"],
        &["status"],
        &["profile", "list"],
        &["doctor"],
        &["machine", "list"],
        &["run", "list"],
        &["run", "show"],
    ] {
        let heading = |format: &str| {
            let ended = home.run(&[args, &["-o", format]].concat());
            // The doctor tells by its exit code that the lab's hosts are out of reach.
            assert_eq!(ended.code == 0, args != ["doctor"], "{args:?} {}", ended.err);
            let line = ended.out.lines().find(|l| l.chars().next().is_some_and(char::is_uppercase) && !l.contains(','));
            line.unwrap_or_else(|| panic!("{args:?} has no heading: {}", ended.out)).to_owned()
        };
        let words = |text: String| text.split("  ").map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect();
        let (table, wide): (Vec<String>, Vec<String>) = (words(heading("table")), words(heading("wide")));
        assert!(wide.starts_with(&table) && wide.len() > table.len(), "{args:?}: {table:?} and {wide:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    for args in [
        vec!["bundle", "inspect", &bundle],
        vec!["completions", "bash"],
        vec!["man"],
        vec!["--help"],
        [&["up", "--output-events", "ndjson", "--bundle", &bundle], UNREACHABLE].concat(),
    ] {
        let mut child = home.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert!(!err.contains("panicked") && ended.status.code().is_some(), "{args:?}\n{err}");
    }
}

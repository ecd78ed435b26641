//! What is asked before it is done: where nobody can answer, nothing is done.

use std::{fs, path::PathBuf, process::Command};

use kubecamp::core::{Arch, Event};

use crate::support::{
    home::{Home, VERSION},
    skip,
};

#[test]
fn a_question_without_a_terminal_is_a_no() {
    let home = Home::new();
    home.unreachable_lab();
    let ended = home.run(&["reset"]);
    assert_eq!(ended.code, 130);
    assert!(ended.err.contains("KC-DECLINED") && ended.err.contains("--yes"), "{}", ended.err);
}

/// A computer on which nothing is installed: the list is shown, and nobody is there to agree to it.
#[test]
fn packages_are_listed_and_not_installed_unasked() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    let shim = home.file("dpkg-query", b"#!/bin/sh\n");
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    let args = ["up", "--local", "--layout", "1x4c12g", "--allow-undersized", "--bundle", &bundle];
    let path = format!("{}:/usr/bin:/bin", home.0.path().display());
    let out = home.command(&args).env("PATH", path).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(130) && out.stdout.is_empty(), "{err}");
    for word in ["KC-DECLINED", "needs packages on this computer", "mmdebstrap", "hint: Use --yes"] {
        assert!(err.contains(word), "{err}");
    }
    assert_eq!(home.labs(), [""; 0].map(PathBuf::from));
}

/// A computer on which nothing is installed: what installs it names the lab that was asked about, for programs too.
#[test]
fn the_doctors_hints_name_the_lab() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let shim = home.file("dpkg-query", b"#!/bin/sh\n");
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", home.0.path().display());
    for (args, words) in [
        (&["doctor", "-o", "json"][..], "kubecamp up "),
        (&["doctor", "-o", "json", "--name", "team7"], "kubecamp --name team7 up "),
        (&["doctor", "--name", "team7"], "kubecamp --name team7 up "),
    ] {
        let out = home.command(args).env("PATH", &path).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains(words), "{args:?}: {text}");
    }
}

/// Stopping the engine ends machines: asked for where something of it runs, and only there.
#[test]
fn stopping_the_engine_asks_first() {
    let home = Home::new();
    let stop = ["machine", "engine", "stop"];
    let idle = home.run(&stop);
    assert!(idle.code == 0 && !idle.err.contains("KC-DECLINED"), "{}", idle.err);
    // A process of an engine that does not answer any more.
    let folder = home.0.path().join("data/engine");
    fs::create_dir_all(&folder).unwrap();
    let mut left = Command::new("sleep").arg("600").spawn().unwrap();
    let stat = fs::read_to_string(format!("/proc/{}/stat", left.id())).unwrap();
    let begun = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
    fs::write(folder.join("outbound.pid"), format!("{} {begun}", left.id())).unwrap();
    let asked = home.run(&stop);
    assert_eq!((asked.code, asked.out.as_str()), (130, ""), "{}", asked.err);
    for word in ["KC-DECLINED", "labs", "hint: Use --yes"] {
        assert!(asked.err.contains(word), "{}", asked.err);
    }
    assert!(left.try_wait().unwrap().is_none(), "nothing was ended");
    if rustix::process::geteuid().is_root() {
        let events = home.run(&[&stop[..], &["--yes", "--output-events", "ndjson"]].concat());
        assert_eq!(events.code, 0, "{}", events.err);
        let events: Vec<Event> = events.out.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
        assert!(!events.is_empty());
        left.wait().unwrap();
    } else {
        skip("the end of an engine by --yes: it takes root");
    }
    let _ = left.kill();
    let _ = left.wait();
}

#[test]
fn a_lab_whose_hosts_are_gone_for_good_can_be_forgotten() {
    let home = Home::new();
    home.unreachable_lab();
    let ended = home.run(&["down", "--yes"]);
    assert!(ended.code == 4 && ended.err.contains("hint: If it is gone for good"), "{}", ended.err);
    // Without a terminal nobody says yes, and the question names what stays behind.
    let ended = home.run(&["down", "--forget-unreachable"]);
    assert_eq!((ended.code, home.labs().len()), (130, 1), "{}", ended.err);
    let ended = home.run(&["down", "--forget-unreachable", "--yes"]);
    assert_eq!((ended.code, home.labs().len()), (0, 0), "{}", ended.err);
    for node in ["cp", "worker-1", "worker-2"] {
        assert!(ended.err.contains(&format!("KC-HOST-UNREACHABLE on {node}")), "{}", ended.err);
    }
    assert!(ended.err.contains("the host was not reset"), "{}", ended.err);
}

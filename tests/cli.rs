//! The built binary on bad input: a code, a place, a hint, a documented exit code, and nothing half-done.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use assert_cmd::cargo::CommandCargoExt;
use kubecamp::{
    core::{Arch, Event},
    engine::Lock,
};

use crate::support::tiny_bundle::tiny_bundle;

const VERSION: &str = "v1.36.3";

/// A home folder of its own, and a cleared environment.
struct Home(tempfile::TempDir);

/// What one call gave.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("kubecamp").unwrap();
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.0.path());
        command.env("KUBECAMP_HOME", self.0.path()).current_dir(self.0.path()).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        let out = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: out.status.code().unwrap(), out: text(out.stdout), err: text(out.stderr) }
    }

    fn file(&self, name: &str, text: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn bundle(&self, version: &str, arch: Arch) -> String {
        let path = self.0.path().join(format!("{version}-{arch}.bundle"));
        tiny_bundle(&path, version, arch);
        path.display().to_string()
    }

    fn lab(&self, name: &str) -> PathBuf {
        self.0.path().join("data/labs").join(name)
    }

    fn labs(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.0.path().join("data/labs")).into_iter().flatten().flatten();
        folders.map(|e| e.path()).filter(|p| p.join("lab.yaml").exists()).collect()
    }

    /// Panics unless the call is refused with this exit code and these words, printing no data and making no lab.
    fn refuses(&self, args: &[&str], code: i32, words: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{args:?}\n{}", ended.err);
        for word in words {
            assert!(ended.err.contains(word), "{args:?} does not say `{word}`:\n{}", ended.err);
        }
        assert!(ended.err.contains("hint: ") || ended.err.contains("--help"), "{args:?} has no hint:\n{}", ended.err);
        assert_eq!(self.labs(), [""; 0].map(PathBuf::from), "{args:?}");
        ended
    }
}

const UNREACHABLE: &[&str] =
    &["--host", "root@127.0.0.1:1", "--host", "root@127.0.0.1:2", "--host", "root@127.0.0.1:3"];

#[test]
fn a_wrong_command_line() {
    let home = Home::new();
    for (args, words) in [
        (&["up", "--nope"][..], &["error: KC-USAGE", "--nope", "hint: ", "kubecamp up --help"][..]),
        (&["frobnicate"], &["KC-USAGE", "frobnicate"]),
        (&["statu"], &["KC-USAGE", "status"]),
        (&["bundle", "build", "-o"], &["KC-USAGE", "kubecamp bundle build --help"]),
        (&["up"], &["KC-USAGE", "--local"]),
        (&["plan"], &["KC-USAGE", "--local"]),
        (&["up", "--name", "Bad Name", "--local"], &["Bad Name", "lower-case"]),
        (&["up", "--local", "--host", "a"], &["cannot be used with"]),
        (&["up", "--local", "--layout", "5x"], &["--layout"]),
        (&["up", "--local", "--proxy-mode", "userspace"], &["removed from kube-proxy in Kubernetes v1.26"]),
        (&["up", "--local", "--output-events", "json"], &["ndjson"]),
        (
            &["up", "--host", "root@192.0.2.1", "--kubernetes", "1.36"],
            &["KC-PROFILE-INVALID", "hint: Write it with all three numbers, as in --kubernetes v1.36.3."],
        ),
        (&["bundle", "build", "--arch", "sparc"], &["amd64 or arm64"]),
        (&["bundle", "build", "--replace", "nonsense"], &["KC-USAGE", "MODULE=DIR"]),
        (&["run", "show"], &["KC-LAB-UNKNOWN", "no lab called lab", "kubecamp up"]),
        (&["run", "show", "../../x"], &["KC-LAB-UNKNOWN"]),
        (&["run", "list", "--name", "nix"], &["KC-LAB-UNKNOWN", "no lab called nix"]),
    ] {
        home.refuses(args, 2, words);
    }
}

#[test]
fn the_private_engine_is_not_taken_for_the_users_incus() {
    let home = Home::new();
    let engine = home.0.path().join("data/engine/incus");
    fs::create_dir_all(&engine).unwrap();
    for (name, value) in [("INCUS_DIR", engine.clone()), ("INCUS_SOCKET", engine.join("unix.socket"))] {
        let out = home.command(&["machine", "list"]).env(name, value).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && out.stdout.is_empty(), "{err}");
        assert!(err.contains("KC-USAGE") && err.contains(name) && err.contains("hint: Run it without"), "{err}");
    }
}

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
    copy_lab(&home.lab("lab"));
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
fn an_unknown_lab() {
    let home = Home::new();
    for args in [&["status"][..], &["reset", "--yes"], &["down", "--yes"], &["ssh", "cp"], &["kubectl", "get", "nodes"]]
    {
        let all = [&["--name", "team9"], args].concat();
        home.refuses(
            &all,
            2,
            &["KC-LAB-UNKNOWN", "no lab called team9", "There is none yet: kubecamp --name team9 up"],
        );
    }
    let all = home.run(&["status", "--all", "-o", "json"]);
    assert_eq!((all.code, all.out.trim()), (0, "[]"));
}

#[test]
fn hosts_that_are_none() {
    let home = Home::new();
    home.refuses(&["up", "--host", "a b", "--host", "root@:22"], 2, &["`a b`", "`root@:22`", "KC-HOST-SPEC"]);
    home.refuses(&["up", "--host", "a", "--host", "a"], 2, &["given twice"]);
    home.refuses(&["up", "--layout", "3x2c4g", "--host", "a"], 2, &["KC-HOST-COUNT", "3 nodes, and 1 host"]);
    home.refuses(&["up", "--layout", "1x4c12g", "--host", "a", "--host", "b"], 2, &["KC-HOST-COUNT"]);
    let four = ["up", "--host", "a", "--host", "b", "--host", "c", "--host", "d"];
    home.refuses(&four, 2, &["KC-HOST-COUNT", "No shipped layout has 4 nodes", "--profile my.yaml"]);
    let two = home.file("two.yaml", b"hosts:\n- address: 127.0.0.1\n  port: 1\n- address: 127.0.0.1\n  port: 2\n");
    let ended = home.refuses(&["up", "--hosts", &two], 4, &["KC-HOST-UNREACHABLE on cp", "KC-HOST-UNREACHABLE on"]);
    assert!(!ended.err.contains("worker-2"), "two hosts are a layout of two: {}", ended.err);
    home.refuses(&["up", "--hosts", "/nope.yaml"], 2, &["KC-LOCAL-FILE", "/nope.yaml"]);
    let file = home.file("hosts.yaml", b"hosts:\n- address: 'a b'\n- adress: c\n");
    home.refuses(&["up", "--hosts", &file], 2, &["KC-HOSTS-FILE", "hosts.yaml:2:", "hosts.yaml:3:"]);
}

#[test]
fn a_profile_with_several_mistakes() {
    let home = Home::new();
    let good = home.run(&["profile", "show", "3x2c4g"]);
    assert_eq!((good.code, good.err.as_str()), (0, ""));
    let bad = good.out.replace("v1.36.3", "v1.2").replace("10.96.0.0/16", "10.244.0.0/16").replace("worker-2", "cp");
    let file = home.file("bad.yaml", bad.as_bytes());
    for args in
        [&["profile", "check", &file][..], &["up", "--profile", &file, "--host", "a", "--host", "b", "--host", "c"]]
    {
        let ended = home.refuses(args, 2, &["KC-PROFILE-INVALID", "v1.2", "10.244.0.0/16", "hint: "]);
        let places = ended.err.lines().filter(|l| l.contains("bad.yaml:")).count();
        assert!(places >= 3, "each mistake has its line and column:\n{}", ended.err);
    }
    home.refuses(&["profile", "check", "nope.yaml"], 2, &["KC-PROFILE-UNKNOWN"]);
    home.refuses(&["profile", "show", "9x9"], 2, &["KC-PROFILE-UNKNOWN"]);
}

#[test]
fn every_unreachable_host_is_named_and_no_lab_is_left() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    let args = [&["up", "--bundle", &bundle], UNREACHABLE].concat();
    for _ in 0..2 {
        home.refuses(&args, 4, &["KC-HOST-UNREACHABLE on cp", "on worker-1", "on worker-2"]);
    }
    // Another try may name other hosts and another layout: the lab never was.
    home.refuses(&["up", "--bundle", &bundle, "--host", "root@127.0.0.1:9"], 4, &["KC-HOST-UNREACHABLE on cp"]);
    let ended = home.run(&[&["plan", "--bundle", &bundle], UNREACHABLE].concat());
    assert_eq!((ended.code, ended.out.as_str()), (4, ""));
}

#[test]
fn a_wrong_bundle_is_refused_before_anything_else() {
    let home = Home::new();
    let (native, other) =
        if cfg!(target_arch = "aarch64") { (Arch::Arm64, Arch::Amd64) } else { (Arch::Amd64, Arch::Arm64) };
    let whole = fs::read(home.bundle(VERSION, native)).unwrap();
    let kubelet = place_of(&whole, "bin/kubelet.zst");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let altered = home.file("altered", &flipped(kubelet.start + kubelet.len() / 2));
    for (file, code) in [
        (home.file("garbage", &[b'x'; 5000]), "KC-BUNDLE-FORMAT"),
        (home.file("cut", &whole[..whole.len() / 2]), "KC-BUNDLE-BROKEN"),
        (home.file("padding", &flipped(kubelet.end)), "KC-BUNDLE-BROKEN"),
        (altered.clone(), "KC-BUNDLE-BROKEN"),
        (home.bundle("v1.35.4", native), "KC-BUNDLE-VERSION"),
        (home.file("empty", b""), "KC-BUNDLE-BROKEN"),
    ] {
        for command in ["up", "plan"] {
            for place in [UNREACHABLE, &["--local", "--allow-undersized"]] {
                let ended = home.refuses(&[&[command, "--bundle", &file], place].concat(), 5, &[code]);
                assert!(!ended.err.contains("KC-HOST") && !home.lab("lab").exists(), "{}", ended.err);
            }
        }
    }
    let verified = home.0.path().join("cache/bundles/verified");
    assert!(!verified.exists(), "nothing wrong is remembered as whole");
    let foreign = home.bundle(VERSION, other);
    for command in ["up", "plan"] {
        home.refuses(&[command, "--local", "--allow-undersized", "--bundle", &foreign], 5, &["KC-BUNDLE-ARCH"]);
        // Hosts may have another CPU than this computer: only they can tell.
        home.refuses(&[&[command, "--bundle", &foreign], UNREACHABLE].concat(), 4, &["KC-HOST-UNREACHABLE"]);
    }
    assert_eq!(fs::read_dir(verified).unwrap().count(), 1, "what was read through is not read again");
    for verb in ["inspect", "verify"] {
        let ended = home.refuses(&["bundle", verb, "/nope"], 2, &["KC-LOCAL-FILE", "cannot read /nope"]);
        assert!(!ended.err.contains("bundle build"), "{}", ended.err);
        home.refuses(&["bundle", verb], 5, &["KC-BUNDLE-FORMAT", "hint: Build it: kubecamp bundle build."]);
    }
    home.refuses(&["bundle", "verify", &altered], 5, &["KC-BUNDLE-BROKEN", "the stored bytes of `kubelet`"]);
}

/// Where the content of a bundle's member is, as its tar header says.
fn place_of(bundle: &[u8], member: &str) -> std::ops::Range<usize> {
    let mut archive = tar::Archive::new(bundle);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let entry = entries.find(|entry| *entry.path_bytes() == *member.as_bytes()).unwrap();
    let begin = entry.raw_file_position() as usize;
    begin..begin + entry.size() as usize
}

#[test]
fn two_at_once_on_one_lab() {
    let home = Home::new();
    let bundle = home.bundle(VERSION, Arch::Amd64);
    let held = Lock::take(&home.lab("lab")).unwrap();
    let args = [&["up", "--bundle", &bundle], UNREACHABLE].concat();
    home.refuses(&args, 9, &["KC-LAB-BUSY", &format!("process {}", std::process::id())]);
    home.refuses(&[&args[..], &["--name", "other"]].concat(), 4, &["KC-HOST-UNREACHABLE"]);
    drop(held);
    home.refuses(&args, 4, &["KC-HOST-UNREACHABLE"]);
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
    copy_lab(&home.lab("lab"));
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

#[test]
fn a_question_without_a_terminal_is_a_no() {
    let home = Home::new();
    copy_lab(&home.lab("lab"));
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
    }
    let _ = left.kill();
    let _ = left.wait();
}

#[test]
fn a_reset_names_every_host_that_it_cannot_reach() {
    let home = Home::new();
    copy_lab(&home.lab("lab"));
    let ended = home.run(&["reset", "--yes"]);
    assert_eq!(ended.code, 4, "{}", ended.err);
    for node in ["cp", "worker-1", "worker-2"] {
        assert!(ended.err.contains(&format!("KC-HOST-UNREACHABLE on {node}")), "{}", ended.err);
    }
    assert_eq!(home.labs().len(), 1, "a lab that was not reset stays known");
    for command in ["reset", "down"] {
        let ended = home.run(&[command, "--yes"]);
        let log = ended.err.lines().find_map(|l| l.trim().strip_prefix("run log: ")).expect(&ended.err);
        assert!(fs::read_to_string(log).unwrap().contains("run-started"), "{log}");
        assert!(ended.err.contains("run the same command again"), "{}", ended.err);
    }
}

#[test]
fn a_lab_whose_hosts_are_gone_for_good_can_be_forgotten() {
    let home = Home::new();
    copy_lab(&home.lab("lab"));
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

/// Another profile or other hosts than those of a lab that is up.
#[test]
fn a_lab_that_is_up_is_not_replaced() {
    let home = Home::new();
    copy_lab(&home.lab("lab"));
    let ended = home.run(&["up", "--layout", "1x4c12g", "--host", "root@127.0.0.1:9"]);
    assert!(ended.code == 2 && ended.err.contains("KC-LAB-DIFFERS"), "{}", ended.err);
}

#[test]
fn a_lab_keeps_the_bundle_that_it_was_made_from() {
    let home = Home::new();
    copy_lab(&home.lab("lab"));
    let state = home.lab("lab").join("state.json");
    let text = fs::read_to_string(&state).unwrap().replace("null", "\"/gone/patched.bundle\"");
    fs::write(&state, text).unwrap();
    let other = home.bundle(VERSION, Arch::Amd64);
    for command in ["up", "plan"] {
        let ended = home.run(&[command]);
        assert!(ended.code == 2 && ended.err.contains("cannot read /gone/patched.bundle"), "{}", ended.err);
        assert!(ended.err.contains("hint: The lab lab was made from it. Name another with --bundle"), "{}", ended.err);
        let named = home.run(&[command, "--bundle", "/gone/patched.bundle"]);
        assert!(named.code == 2 && !named.err.contains("was made from it"), "{}", named.err);
        // What the hint says helps.
        let other = home.run(&[command, "--bundle", &other]);
        assert!(other.code == 4 && other.err.contains("KC-HOST-UNREACHABLE"), "{}", other.err);
    }
}

/// Writes the folder of a lab on three hosts that nobody can reach.
fn copy_lab(folder: &Path) {
    let profile = kubecamp::profile::load("3x2c4g").unwrap();
    let lab = kubecamp::profile::Lab::new("lab".parse().unwrap(), profile).unwrap();
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("lab.yaml"), lab.to_yaml().unwrap()).unwrap();
    let host =
        |node: &str, port: u16| serde_json::json!([node, {"address": "127.0.0.1", "user": "root", "port": port}]);
    let hosts = [host("cp", 1), host("worker-1", 2), host("worker-2", 3)];
    let state = serde_json::json!({"format": 1, "place": {"hosts": hosts}, "bundle": null});
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
}

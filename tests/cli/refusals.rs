//! Bad input: a code, a place, a hint, a documented exit code, and nothing half-done.

use std::fs;

use kubecamp::{core::Arch, engine::Lock};

use crate::support::home::{Home, UNREACHABLE, VERSION};

#[test]
fn a_wrong_command_line_is_told_with_what_would_be_right() {
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

#[test]
fn an_unknown_lab_is_told_with_how_to_make_one() {
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
fn hosts_that_are_none_or_too_few_or_too_many_are_refused() {
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
fn each_mistake_of_a_profile_is_told_with_its_place() {
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
fn of_two_at_once_on_one_lab_the_second_is_refused() {
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
fn a_reset_names_every_host_that_it_cannot_reach() {
    let home = Home::new();
    home.unreachable_lab();
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

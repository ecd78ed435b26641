//! What the built binary makes of labs that it finds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kubecamp::core::{Arch, Event};

use crate::support::{
    home::{Home, VERSION, kubecamp, write_lab},
    tiny_bundle::tiny_bundle,
};

/// Writes the folder of a lab on a host that nobody can reach.
fn lab(home: &Path, name: &str, bundle: Option<&Path>) -> PathBuf {
    let hosts = serde_json::json!([["cp", {"address": "127.0.0.1", "user": "root", "port": 1}]]);
    let bundle = bundle.map(|file| file.display().to_string());
    write_lab(home, name, "1x4c12g", &serde_json::json!({"format": 1, "place": {"hosts": hosts}, "bundle": bundle}))
}

/// The state of a lab on machines of an engine that does not run.
fn asleep(home: &Path) -> serde_json::Value {
    serde_json::json!({"format": 1, "place": "local", "engine": {"private": home.join("nix")}, "bundle": null})
}

#[test]
fn a_kubectl_for_another_cpu_is_not_run() {
    let home = tempfile::tempdir().unwrap();
    let (here, other) =
        if cfg!(target_arch = "aarch64") { (Arch::Arm64, Arch::Amd64) } else { (Arch::Amd64, Arch::Arm64) };
    let bundle = home.path().join("other.bundle");
    tiny_bundle(&bundle, VERSION, other);
    fs::write(lab(home.path(), "lab", Some(&bundle)).join("kubeconfig"), "").unwrap();
    let said = kubecamp(home.path(), &["kubectl", "get", "nodes"]);
    assert_eq!((said.code, said.out.as_str()), (5, ""), "{}", said.err);
    for word in ["KC-BUNDLE-ARCH", "kubecamp ssh cp -- kubectl", "kubecamp bundle build --kubernetes v1.36.3"] {
        assert!(said.err.contains(word), "{}", said.err);
    }
    // What the hint says helps; this one's kubectl is only a text, but it is for this CPU.
    let bundles = home.path().join("cache/bundles");
    fs::create_dir_all(&bundles).unwrap();
    tiny_bundle(&bundles.join(format!("kubecamp-{VERSION}-{here}.bundle")), VERSION, here);
    let said = kubecamp(home.path(), &["kubectl", "get", "nodes"]);
    assert!(!said.err.contains("KC-BUNDLE-ARCH"), "{}", said.err);
    assert!(fs::read_dir(home.path().join("cache/bin")).unwrap().count() == 1);
}

/// As an earlier kubecamp may have copied it from a control plane where somebody else is root.
#[test]
fn a_kubeconfig_that_names_a_program_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let touched = home.path().join("touched");
    let user = serde_json::json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "touch",
        "args": [touched],
        "interactiveMode": "Never",
    }});
    let conf = serde_json::json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": "x", "user": user}]});
    fs::write(lab(home.path(), "team7", None).join("kubeconfig"), conf.to_string()).unwrap();
    let said = kubecamp(home.path(), &["--name", "team7", "kubectl", "get", "nodes"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    for word in ["KC-LOCAL-FILE", "hint: Run kubecamp --name team7 up again"] {
        assert!(said.err.contains(word), "{}", said.err);
    }
    assert!(!touched.exists());
}

/// The wrong kubectl would be run silently, or a problem told of a program that the user never asked for.
#[test]
fn a_kubectl_is_had_also_where_the_labs_bundle_is_gone() {
    let home = tempfile::tempdir().unwrap();
    fs::write(lab(home.path(), "lab", Some(Path::new("/gone.bundle"))).join("kubeconfig"), "").unwrap();
    let with_path = |folder: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kubecamp"));
        command.env_clear().env("PATH", home.path().join(folder)).env("KUBECAMP_HOME", home.path());
        command.current_dir(home.path()).args(["kubectl", "version"]).stdin(std::process::Stdio::null());
        let out = command.output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, err) = with_path("none");
    assert!(code == 2 && err.contains("KC-LOCAL-FILE") && err.contains("/gone.bundle"), "{err}");
    assert!(err.contains("up --bundle FILE") && !err.contains("--yes"), "{err}");
    let own = home.path().join("bin/kubectl");
    fs::create_dir(home.path().join("bin")).unwrap();
    fs::write(&own, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (_, err) = with_path("bin");
    assert!(err.contains("the lab's kubectl, v1.36.3") && err.contains(&own.display().to_string()), "{err}");
    // The usual bundle of the same version is as good.
    let arch = if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::Amd64 };
    let bundles = home.path().join("cache/bundles");
    fs::create_dir_all(&bundles).unwrap();
    tiny_bundle(&bundles.join(format!("kubecamp-{VERSION}-{arch}.bundle")), VERSION, arch);
    let (_, err) = with_path("bin");
    assert!(!err.contains("at hand"), "{err}");
    assert_eq!(fs::read_dir(home.path().join("cache/bin")).unwrap().count(), 1);
}

#[test]
fn a_damaged_lab_hides_none_of_the_others() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), "good", None);
    let text = fs::read_to_string(lab(home.path(), "other", None).join("lab.yaml")).unwrap();
    let impossible = text.replace("role: control-plane", "role: worker");
    for (damaged, word) in [("profile: [\n".to_owned(), ""), (impossible, "control plane")] {
        let file = lab(home.path(), "broken", None).join("lab.yaml");
        fs::write(&file, damaged).unwrap();
        let said = kubecamp(home.path(), &["status", "--all"]);
        let labs: Vec<_> = said.out.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!((said.code, labs), (2, vec!["good", "other"]), "{}", said.err);
        let told = format!("error: KC-LOCAL-FILE: {} is damaged\n", file.display());
        assert!(said.err.starts_with(&told) && !said.err.contains("\\x0a"), "{}", said.err);
        assert!(said.err.contains("hint: Mend the file"), "{}", said.err);
        assert!(said.err.lines().any(|line| line.starts_with("  ") && line.contains(word)), "{}", said.err);
        let one = kubecamp(home.path(), &["status", "--name", "broken"]);
        assert_eq!((one.code, one.err), (2, said.err));
    }
}

/// A newer kubecamp may have stricter rules than the one that made the lab.
#[test]
fn a_lab_that_would_be_brought_up_no_more_is_seen_and_reset() {
    let home = tempfile::tempdir().unwrap();
    let file = lab(home.path(), "lab", None).join("lab.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(VERSION, "v1.33.1")).unwrap();
    let said = kubecamp(home.path(), &["status", "--all"]);
    assert!(said.code == 0 && said.out.contains("v1.33.1"), "{}{}", said.out, said.err);
    for args in [&["up"][..], &["plan"], &["machine", "make"]] {
        let said = kubecamp(home.path(), args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}: {}", said.err);
        assert!(said.err.contains("KC-PROFILE-INVALID") && said.err.contains("v1.33.1"), "{args:?}: {}", said.err);
    }
    // It comes as far as the host.
    let said = kubecamp(home.path(), &["reset", "--yes"]);
    assert!(said.err.contains("KC-HOST-UNREACHABLE"), "{}", said.err);
}

/// On a host without a record of its own, reset would take what was there before for the lab's.
#[test]
fn a_reset_that_cannot_read_its_records_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = lab(home.path(), "lab", None);
    fs::write(folder.join("before.json"), "{\"cp\": \"link").unwrap();
    for args in [["reset", "--yes"], ["down", "--yes"]] {
        let said = kubecamp(home.path(), &args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{args:?}: {}", said.err);
        assert!(
            said.err.contains("before.json is damaged") && said.err.contains("hint: Mend the file"),
            "{}",
            said.err
        );
        assert!(folder.join("lab.yaml").exists());
    }
    assert!(kubecamp(home.path(), &["status"]).err.contains("before.json is damaged"));
    // What the hint says helps: it comes as far as the host.
    fs::rename(folder.join("before.json"), folder.join("before.json.bad")).unwrap();
    let said = kubecamp(home.path(), &["reset", "--yes"]);
    assert!(said.err.contains("KC-HOST-UNREACHABLE"), "{}", said.err);
}

#[test]
fn a_folder_of_labs_that_cannot_be_read_is_no_empty_one() {
    let home = tempfile::tempdir().unwrap();
    let said = kubecamp(home.path(), &["status", "--all"]);
    assert_eq!(said.code, 0, "{}", said.err);
    fs::write(home.path().join("data"), "x").unwrap();
    let said = kubecamp(home.path(), &["status", "--all"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    assert!(said.err.contains("KC-LOCAL-FILE") && said.err.contains("data/labs"), "{}", said.err);
}

#[test]
fn a_node_that_the_lab_has_not_got_is_told_with_those_that_it_has() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), "lab", None);
    for args in [&["ssh", "nope"][..], &["cp", "file", "nope:/root/file"]] {
        let said = kubecamp(home.path(), args);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
        assert!(said.err.contains("KC-USAGE: the lab has no node nope"), "{}", said.err);
        assert!(said.err.contains("hint: Its nodes are cp."), "{}", said.err);
    }
}

#[test]
fn who_takes_cp_for_scp_is_told_how_to_have_a_file_of_a_node() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), "team7", None);
    let said = kubecamp(home.path(), &["--name", "team7", "cp", "cp:/etc/hosts", "."]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    assert!(said.err.contains("kubecamp --name team7 ssh cp -- cat /etc/hosts > FILE"), "{}", said.err);
    let said = kubecamp(home.path(), &["--name", "team7", "cp", "nope:/etc/hosts", "."]);
    assert!(said.code == 2 && said.err.contains("hint: Write it as cp:/root/file."), "{}", said.err);
}

#[test]
fn a_lab_that_is_not_up_is_not_called_unknown() {
    let home = tempfile::tempdir().unwrap();
    // Without its bundle, too: that is not what is missing first.
    lab(home.path(), "team7", Some(Path::new("/gone.bundle")));
    let said = kubecamp(home.path(), &["--name", "team7", "kubectl", "get", "nodes"]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    assert!(said.err.contains("KC-LAB-NOT-UP: the lab team7 was reset"), "{}", said.err);
    assert!(said.err.contains("hint: Run kubecamp --name team7 up first."), "{}", said.err);
}

/// It reports, and what it reports of is no failure of it.
#[test]
fn status_of_a_host_out_of_reach_says_why_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), "lab", None);
    let said = kubecamp(home.path(), &["status"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("unreachable") && !said.out.contains("KC-"), "{}", said.out);
    assert!(said.err.contains("error: KC-HOST-UNREACHABLE on cp") && said.err.contains("hint: "), "{}", said.err);
    let said = kubecamp(home.path(), &["status", "-o", "json"]);
    let nodes: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(nodes[0]["state"] == "unreachable" && nodes[0]["reached"] == false, "{}", said.out);
    assert!(nodes[0]["problem"].as_str().unwrap().contains("KC-HOST-UNREACHABLE"), "{}", said.out);
    assert!(nodes[0]["hints"].as_array().is_some_and(|hints| !hints.is_empty()), "{}", said.out);
}

/// The commonest sight after a restart of the computer.
#[test]
fn status_shows_machines_whose_engine_does_not_run() {
    let home = tempfile::tempdir().unwrap();
    write_lab(home.path(), "team7", "3x2c4g", &asleep(home.path()));
    let said = kubecamp(home.path(), &["status", "--name", "team7"]);
    assert_eq!((said.code, said.out.matches("not running").count()), (0, 3), "{}{}", said.out, said.err);
    assert_eq!(said.err.matches("KC-ENGINE-START").count(), 1, "{}", said.err);
    assert!(said.err.contains("kubecamp up --name team7"), "{}", said.err);
    let said = kubecamp(home.path(), &["status", "--name", "team7", "-o", "json"]);
    let nodes: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, nodes.len()), (0, 3), "{}", said.out);
    for node in nodes {
        assert!(node["state"] == "not running" && node["hints"][0].as_str().unwrap().contains("team7"), "{node}");
    }
}

/// What is hinted at is typed, and then means the lab that was asked about.
#[test]
fn hints_name_the_lab_that_was_asked_about() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), "team7", None);
    write_lab(home.path(), "local", "1x4c12g", &asleep(home.path()));
    for (args, hint) in [
        (&["machine", "make", "--name", "team7", "--layout", "1x4c12g"][..], "kubecamp --name team7 down."),
        (&["kubectl", "--name", "team7", "get", "nodes"], "kubecamp --name team7 up"),
        (&["up", "--name", "local", "--host", "root@127.0.0.1:1"], "kubecamp --name local down."),
    ] {
        let said = kubecamp(home.path(), args);
        assert!(said.code == 2 && said.err.contains(hint), "{args:?}: {}", said.err);
    }
}

#[test]
fn status_of_a_host_that_cannot_be_resolved_hides_none_of_the_others() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config");
    fs::write(&config, "Host odd\n  ProxyCommand nc %h %p\n").unwrap();
    let hosts = serde_json::json!([
        ["cp", {"address": "127.0.0.1", "user": "root", "port": 1}],
        ["worker-1", {"address": "odd"}],
        ["worker-2", {"address": "127.0.0.1", "user": "root", "port": 2}],
    ]);
    let state = serde_json::json!({"format": 1, "place": {"hosts": hosts}, "bundle": null});
    write_lab(home.path(), "lab", "3x2c4g", &state);
    let said = kubecamp(home.path(), &["status", "-F", config.to_str().unwrap()]);
    assert_eq!((said.code, said.out.matches("unreachable").count()), (0, 3), "{}{}", said.out, said.err);
    let row = said.out.lines().find(|line| line.starts_with("worker-1")).unwrap();
    assert!(row.contains("odd"), "{row}");
    assert!(said.err.contains("KC-HOST-SPEC on worker-1") && said.err.contains("ProxyCommand"), "{}", said.err);
    assert!(said.err.contains("KC-HOST-UNREACHABLE on cp"), "{}", said.err);
}

#[test]
fn a_result_beside_events_is_none_of_them() {
    let home = tempfile::tempdir().unwrap();
    let bundle = home.path().join("a.bundle");
    tiny_bundle(&bundle, VERSION, Arch::Amd64);
    let verify = ["bundle", "verify", bundle.to_str().unwrap()];
    let said = kubecamp(home.path(), &verify);
    assert!(said.code == 0 && said.out.contains("every digest is right"), "{}{}", said.out, said.err);
    let said = kubecamp(home.path(), &[&verify[..], &["--output-events", "ndjson"]].concat());
    assert!(said.code == 0 && said.err.contains("every digest is right"), "{}{}", said.out, said.err);
    assert!(!said.out.contains("every digest is right"), "{}", said.out);
    for line in said.out.lines() {
        serde_json::from_str::<Event>(line).unwrap();
    }
}

#[test]
fn what_a_check_finds_is_read_by_scripts_too() {
    let home = tempfile::tempdir().unwrap();
    let bundle = home.path().join("a.bundle");
    tiny_bundle(&bundle, VERSION, Arch::Amd64);
    let json = |args: &[&str]| -> serde_json::Value {
        let said = kubecamp(home.path(), &[args, &["-o", "json"]].concat());
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    };
    let whole = json(&["bundle", "verify", bundle.to_str().unwrap()]);
    assert!(
        whole["kubernetes"] == VERSION && whole["arch"] == "amd64" && whole["members"].as_u64() > Some(0),
        "{whole}"
    );
    let good = json(&["profile", "check", "3x2c4g"]);
    assert_eq!(good["nodes"], serde_json::json!(["cp", "worker-1", "worker-2"]), "{good}");
    let engine = json(&["machine", "engine", "status"]);
    assert!(engine["running"] == false && engine["traces"] == serde_json::json!([]), "{engine}");
}

#[test]
fn an_empty_variable_is_as_good_as_none_and_a_wrong_one_is_named() {
    let home = tempfile::tempdir().unwrap();
    let with = |name: &str, value: &str, args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kubecamp"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("KUBECAMP_HOME", home.path()).env(name, value);
        let out = command.current_dir(home.path()).args(args).stdin(std::process::Stdio::null()).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    for name in ["KUBECAMP_LAB", "KUBECAMP_HUB", "KUBECAMP_HUB_CA", "KUBECAMP_DATABASE"] {
        let (code, err) = with(name, "", &["completions", "bash"]);
        assert_eq!((code, err.as_str()), (0, ""), "{name}");
        let (_, err) = with(name, "", &["book", "ls"]);
        assert!(!err.contains("KC-USAGE: invalid value"), "{name}: {err}");
    }
    let (code, err) = with("KUBECAMP_LAB", "Bad Name", &["status"]);
    assert!(code == 2 && err.contains("Bad Name") && err.contains("variable KUBECAMP_LAB"), "{err}");
    let (_, err) = with("KUBECAMP_LAB", "team7", &["status", "--name", "Bad Name"]);
    assert!(err.contains("Bad Name") && !err.contains("KUBECAMP_LAB"), "{err}");
    // A folder beside is one for the next command in another folder, too.
    lab(&home.path().join("here"), "lab", None);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kubecamp"));
    command.env_clear().env("KUBECAMP_HOME", "here").current_dir(home.path()).args(["status", "--all", "-o", "json"]);
    let labs: Vec<serde_json::Value> = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert!(Path::new(labs[0]["folder"].as_str().unwrap()).is_absolute(), "{labs:?}");
}

/// Another profile or other hosts than those of a lab that is up.
#[test]
fn a_lab_that_is_up_is_not_replaced() {
    let home = Home::new();
    home.unreachable_lab();
    let ended = home.run(&["up", "--layout", "1x4c12g", "--host", "root@127.0.0.1:9"]);
    assert!(ended.code == 2 && ended.err.contains("KC-LAB-DIFFERS"), "{}", ended.err);
}

#[test]
fn a_lab_keeps_the_bundle_that_it_was_made_from() {
    let home = Home::new();
    home.unreachable_lab();
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

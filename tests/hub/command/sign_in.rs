//! Signing in and out: links, keys, and what is kept of them.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::hub::camp::{Camp, hour, key_pair, kubecamp};

#[test]
fn a_link_signs_the_first_admin_in_once() {
    let camp = Camp::start();
    let link = camp.ok(&["hub", "admin-link", "ann"]);
    camp.login_by_link(&link);
    let none = camp.run_with(&["book", "new", &hour(2)], "");
    assert!(none.code == 2 && none.err.contains("There is no course yet"), "{}", none.err);
    let plan = camp.run_with(&["book", "plan", "/nowhere.yaml"], "");
    assert!(plan.code == 2 && plan.err.contains("KC-LOCAL-FILE"), "{}", plan.err);
    let kept = camp.home.path().join("config/hub.json");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let again = camp.run_with(&["login", "--hub", &camp.url, "--link"], &link);
    assert_eq!(again.code, 13, "a link is good once: {}", again.err);
    assert!(again.err.contains("it was used") && !again.err.contains("Sign in again"), "{}", again.err);
}

#[test]
fn a_key_that_was_added_by_a_link_signs_its_owner_in_and_nobody_else() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
    let (key, public) = key_pair(camp.home.path(), "key");
    camp.import(&format!("amy,Amy,red,UTC,{public}\nbob,Bob,red\n"));
    let bob = camp.run_with(&["hub", "user", "link", "bob"], "");
    assert!(bob.err.contains(&format!("kubecamp login --hub {} --link", camp.url)), "{}", bob.err);
    let bob = bob.out;

    camp.ok(&["login", "--as", "amy", "--identity", &key]);
    let nobody = camp.run_with(&["login", "--hub", &camp.url], "");
    assert!(nobody.code == 2 && nobody.err.contains("--as LOGIN"), "there is no USER: {}", nobody.err);
    let denied = camp.run_with(&["hub", "user", "list"], "");
    assert_eq!(denied.code, 13, "{}", denied.err);

    let (bobs, _) = key_pair(camp.home.path(), "bobs");
    let typo = camp.run_with(&["login", "--hub", &camp.url, "--link", "--add-key", "/nonexistent"], &bob);
    assert!(typo.code != 0 && typo.err.contains("/nonexistent.pub"), "the link is not used up: {}", typo.err);
    let added = camp.run_with(&["login", "--hub", &camp.url, "--link", "--add-key", &bobs], &bob);
    assert!(added.code == 0 && added.err.contains("Added the key"), "{}", added.err);
    let again = camp.run_with(&["login", "--as", "bob", "--identity", &bobs, "--add-key", &format!("{bobs}.pub")], "");
    assert!(again.code == 0 && again.err.contains("knows the key"), "{}", again.err);
    let other = camp.run_with(&["login", "--as", "amy", "--identity", &bobs], "");
    assert_eq!(other.code, 13, "{}", other.err);
    assert!(other.err.contains("(SHA256:") && other.err.contains("--as LOGIN"), "{}", other.err);
}

#[test]
fn a_token_of_the_environment_that_is_not_good_is_named_and_keeps_nobody_from_a_login() {
    let camp = Camp::start();
    let (key, _) = camp.amys_slot();
    let run = |args: &[&str]| {
        let ended = kubecamp(camp.home.path(), args).env("KUBECAMP_HUB_TOKEN", "kct_bad").output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, told) = run(&["book", "ls"]);
    assert!(code == Some(13) && told.contains("unset it") && told.contains("KUBECAMP_HUB_TOKEN"), "{told}");
    assert!(!told.contains("Sign in again"), "it would not help: {told}");
    fs::remove_file(camp.home.path().join("config/hub.json")).unwrap();
    let (code, told) = run(&["login", "--hub", &camp.url, "--as", "amy", "--identity", &key]);
    assert!(code == Some(0) && told.contains("as amy (student)"), "{told}");
    assert!(told.contains("KUBECAMP_HUB_TOKEN is set"), "{told}");
    camp.ok(&["book", "ls"]);
}

#[test]
fn a_sign_in_ends_at_the_hub_and_here() {
    let mut camp = Camp::start();
    let (key, _) = camp.amys_slot();
    let kept = camp.home.path().join("config/hub.json");
    let token = || {
        let kept: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
        kept["token"].as_str().unwrap().to_owned()
    };
    let by = |token: &str| {
        let mut asked = kubecamp(camp.home.path(), &["book", "ls", "--hub", &camp.url]);
        asked.env("KUBECAMP_HUB_TOKEN", token).output().unwrap().status.code()
    };
    let ids = || -> Vec<String> {
        let all = camp.json(&["hub", "token", "ls"]);
        all.as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    };
    // That of a laptop that is lost, and one of another computer.
    let (lost, id) = (token(), ids());
    assert_eq!(id.len(), 1, "{id:?}");
    camp.ok(&["login", "--as", "amy", "--identity", &key]);
    let own = token();
    let listed = camp.ok(&["hub", "token", "ls"]);
    assert!(ids().len() == 2 && listed.contains(&id[0]) && listed.contains("MADE (UTC)"), "{listed}");
    assert!(!listed.contains("kct_"), "{listed}");
    camp.ok(&["hub", "token", "revoke", &id[0]]);
    assert_eq!((by(&lost), by(&own), ids().len()), (Some(13), Some(0), 1));
    for (args, code, told) in [
        (&["hub", "token", "revoke", id[0].as_str()][..], 2, "no such token"),
        (&["hub", "token", "revoke", own.as_str()], 2, "kubecamp hub token ls"),
        (&["hub", "token", "ls", "--person", "ann"], 13, "KC-HUB-DENIED"),
        (&["logout", "--hub", "https://other.example.org"], 0, "No sign-in at https://other.example.org"),
    ] {
        let ended = camp.run_with(args, "");
        assert!(ended.code == code && ended.err.contains(told), "{args:?}: {}", ended.err);
    }

    let out = camp.run_with(&["logout"], "");
    assert!(out.code == 0 && out.err.contains("Signed out at unix:") && !kept.exists(), "{}", out.err);
    assert_eq!(by(&own), Some(13), "the hub knows");
    let again = camp.run_with(&["logout"], "");
    assert!(again.code == 0 && again.err.contains("No sign-in is kept"), "{}", again.err);
    camp.ok(&["login", "--hub", &camp.url, "--as", "amy", "--identity", &key]);
    camp.hub.kill().unwrap();
    camp.hub.wait().unwrap();
    let away = camp.run_with(&["logout"], "");
    assert!(away.code == 4 && away.err.contains("kubecamp logout --force") && kept.exists(), "{}", away.err);
    let no_way = ["logout", "--hub-ca", "/nowhere/ca.pem"];
    let told = camp.run_with(&no_way, "");
    assert!(told.code == 2 && told.err.contains("kubecamp logout --force") && kept.exists(), "{}", told.err);
    let other = [no_way.as_slice(), &["--force", "--hub", "https://other.example.org"]].concat();
    let other = camp.run_with(&other, "");
    assert!(other.code == 0 && other.err.contains("No sign-in at") && kept.exists(), "{}", other.err);
    let whole = fs::read(&kept).unwrap();
    for (text, args) in [
        (&whole[..], &["logout", "--force"][..]),
        (&whole[..], &["logout", "--force", "--hub-ca", "/nowhere/ca.pem"]),
        (b"{", &["logout", "--force"]),
    ] {
        fs::write(&kept, text).unwrap();
        let forced = camp.run_with(args, "");
        assert!(forced.code == 0 && forced.err.contains("was not told") && !kept.exists(), "{args:?} {}", forced.err);
    }
}

#[test]
fn a_damaged_sign_in_is_told_and_not_taken_for_none() {
    let home = tempfile::tempdir().unwrap();
    let kept = home.path().join("config/hub.json");
    fs::create_dir(home.path().join("config")).unwrap();
    fs::write(&kept, "{").unwrap();
    let run = |args: &[&str]| {
        let ended = kubecamp(home.path(), args).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, told) = run(&["--yes", "hub", "unenroll", "root@127.0.0.1:1", "--server", "one"]);
    let named = told.contains("KC-LOCAL-FILE") && told.contains("kubecamp logout --force");
    assert!(code == Some(2) && named && !told.contains("nobody is signed in"), "{told}");
}

#[test]
fn a_link_is_told_by_the_address_that_people_open() {
    let camp = Camp::start_with(&["--public-url", "https://hub.example.org/"]);
    let first = "kubecamp login --hub https://hub.example.org --link";
    let began = std::time::Instant::now();
    while !fs::read_to_string(camp.home.path().join("hub.log")).unwrap_or_default().contains(first) {
        assert!(began.elapsed().as_secs() < 30, "the first admin is sent elsewhere");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    camp.sign_in_as_admin();
    camp.ok(&["hub", "user", "add", "amy", "--full-name", "Amy"]);
    let made = camp.run_with(&["hub", "user", "link", "amy"], "");
    assert!(made.out.starts_with("https://hub.example.org/sign-in#kct_"), "{}", made.out);
    assert!(made.err.contains("kubecamp login --hub https://hub.example.org --link"), "{}", made.err);
    camp.login_by_link(&made.out);
    assert_eq!(camp.run_with(&["hub", "user", "list"], "").code, 13, "it is amy who is signed in");
    let feed = camp.run_with(&["book", "ics"], "");
    assert!(feed.out.starts_with("https://hub.example.org/calendar/kct_"), "{}", feed.out);
    assert!(feed.code == 0 && !feed.err.contains("--public-url"), "{}", feed.err);
}

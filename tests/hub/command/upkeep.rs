//! What an admin sets up and changes: courses, servers, maintenance, people.

use std::fs;

use serde_json::Value;

use crate::hub::camp::{Camp, hour, key_pair, kubecamp};

#[test]
fn a_roster_is_imported_whole_and_a_wrong_one_is_told_by_its_lines() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
    let (_, public) = key_pair(camp.home.path(), "key");
    let said = camp.import(&format!("login,name,group,zone,key\namy,Amy,red,UTC,{public}\nbob,Bob,red\n"));
    assert_eq!(said, "2 added, 0 changed, 0 as they were\n");
    let roster = camp.home.path().join("roster.csv");
    fs::write(&roster, "amy,Amy,red\nBAD,,\n").unwrap();
    let wrong = camp.run_with(&["hub", "course", "import", "k8s", roster.to_str().unwrap()], "");
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("KC-HUB-ROSTER") && wrong.err.contains("line 2"), "{}", wrong.err);
    let unknown = camp.run_with(&["hub", "user", "set", "eve", "--enable"], "");
    assert!(unknown.code == 2 && unknown.err.contains("kubecamp hub user list"), "{}", unknown.err);
    assert!(camp.ok(&["hub", "doctor"]).starts_with("0 bookings"));
}

#[test]
fn the_rules_of_a_course_stay_until_others_are_given() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
    let rules = camp.home.path().join("rules.yaml");
    let rules = rules.to_str().unwrap();
    fs::write(rules, "longest: 180\nopen_ahead: 5\n").unwrap();
    let ruled = camp.json(&["hub", "course", "set", "k8s", "--policy", rules]);
    assert_eq!((ruled["title"].as_str(), &ruled["policy"]["longest"]), (Some("Kubernetes"), &180.into()));
    let new = camp.run_with(&["hub", "course", "set", "k9s", "--policy", rules], "");
    assert!(new.code == 2 && new.err.contains("no course k9s") && new.err.contains("--title"), "{}", new.err);
    let nothing = camp.run_with(&["hub", "course", "set", "k8s"], "");
    assert!(nothing.code == 2 && nothing.err.contains("--title"), "{}", nothing.err);
    let renamed = camp.json(&["hub", "course", "set", "k8s", "--title", "Kubernetes II"]);
    assert_eq!(
        (&renamed["version"], &renamed["policy"]["longest"], &renamed["policy"]["open_ahead"]),
        (&3.into(), &180.into(), &5.into())
    );
    fs::write(rules, "longest: 3h\n").unwrap();
    let wrong = camp.run_with(&["hub", "course", "set", "k8s", "--title", "Kubernetes", "--policy", rules], "");
    assert!(wrong.code == 2 && wrong.err.contains("longest as a number of minutes"), "{}", wrong.err);
}

#[test]
fn of_a_server_only_what_is_named_is_changed() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    let one = ["hub", "server", "add", "one", "--address", "192.0.2.7", "--cores", "8", "--memory", "32GiB"];
    let added = camp.run_with(&one, "");
    assert!(
        added.code == 0 && added.err.contains("kubecamp hub enroll HOST --server one --hub URL-THAT"),
        "{}",
        added.err
    );
    let small = ["hub", "server", "add", "tiny", "--address", "192.0.2.8", "--cores", "4", "--memory", "8GiB"];
    let small = camp.run_with(&small, "");
    assert!(small.code == 2 && small.err.contains("server tiny of 4c 8GiB holds no lab"), "{}", small.err);
    let set =
        camp.json(&["hub", "server", "set", "one", "--buffer", "20", "--label", "gpu", "--zone", "Europe/Berlin"]);
    assert_eq!((&set["buffer"], &set["labels"][0], &set["cores"]), (&1200.into(), &"gpu".into(), &8.into()));
    let (plain, wide) = (camp.ok(&["hub", "server", "list"]), camp.ok(&["hub", "server", "list", "-o", "wide"]));
    assert!(!plain.contains("gpu") && wide.contains("LABELS") && wide.contains("gpu"), "{wide}");
    assert_eq!(camp.json(&["hub", "server", "set", "one", "--disk", "500GiB"])["disk"], "500GiB");
    assert!(camp.ok(&["hub", "server", "list"]).contains("8c 32GiB, 500GiB disk"));
    assert_eq!(camp.json(&["hub", "server", "set", "one", "--no-disk"])["disk"], Value::Null);
    assert_eq!(camp.run_with(&["hub", "server", "set", "one"], "").code, 2, "nothing is named");
    let same = camp.run_with(&["hub", "server", "set", "one", "--opening", "always"], "");
    assert!(same.code == 0 && !same.err.contains("outside"), "{}", same.err);
    assert!(camp.ok(&["hub", "server", "list"]).contains("192.0.2.7"));
    assert!(camp.ok(&["hub", "server", "keys"]).contains("ssh-ed25519 "));
}

#[test]
fn maintenance_is_announced_listed_and_ended() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.add_server("one", "192.0.2.7");
    // By a clock, which is UTC here.
    let [from, to] = [hour(48), hour(50)].map(|at| at.trim_end_matches('Z').to_owned());
    let closed = ["hub", "server", "maintenance", "one", "--from", &from, "--to", &to, "--reason", "new disk"];
    assert_eq!(camp.ok(&closed), "maintenance 1\n");
    assert!(camp.ok(&["hub", "server", "maintenance", "--list"]).contains("new disk"));
    let again = camp.run_with(&closed, "");
    assert!(again.code == 2 && again.err.contains("by maintenance 1 already"), "{}: {}", again.code, again.err);
    let later = hour(51);
    let over = ["hub", "server", "maintenance", "one", "--from", &from, "--to", &later, "--reason", "a fan"];
    let over = camp.run_with(&over, "");
    assert!(over.code == 0 && over.err.contains("maintenance 1 of one overlaps it"), "{}", over.err);
    camp.ok(&["hub", "server", "maintenance", "--end", "2"]);
    for (from, to, told) in [
        (&*to, &*from, " is not before "),
        ("2020-11-24T08:00", "2020-11-24T18:00", "2020-11-24 08:00–18:00 (UTC) is over already"),
    ] {
        let wrong = ["hub", "server", "maintenance", "one", "--from", from, "--to", to, "--reason", "new disk"];
        let wrong = camp.run_with(&wrong, "");
        assert!(wrong.code == 2 && wrong.err.contains(told), "{}", wrong.err);
        assert!(wrong.err.contains("KC-BOOK-WINDOW") && !wrong.err.contains("the body"), "{}", wrong.err);
    }
    let other = camp.run_with(&["hub", "server", "maintenance", "two", "--end", "1"], "");
    assert!(other.code == 2 && other.err.contains("is one of one, and not of two"), "{}", other.err);
    camp.ok(&["hub", "server", "maintenance", "one", "--end", "1"]);
    assert_eq!(camp.json(&["hub", "server", "maintenance", "one", "--list"]).as_array().unwrap().len(), 0);
}

#[test]
fn somebody_in_a_course_is_changed_disabled_and_let_in_again() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
    camp.add_server("one", "192.0.2.7");
    camp.import("amy,Amy,red\n");
    let class = camp.home.path().join("class.yaml");
    let times = format!("within:\n  starts: {}\n  ends: {}\n", hour(24), hour(30));
    fs::write(&class, format!("course: k8s\nlayout: 1x4c12g\nminutes: 60\nslots: 1\n{times}")).unwrap();
    assert_eq!(camp.json(&["book", "plan", class.to_str().unwrap()])["given"], 1);
    let amy = camp.json(&["hub", "user", "set", "amy", "--full-name", "Amy Pond", "--zone", "Asia/Shanghai"]);
    assert_eq!((amy["name"].as_str(), amy["zone"].as_str()), (Some("Amy Pond"), Some("Asia/Shanghai")));
    camp.ok(&["book", "plan", class.to_str().unwrap(), "--book"]);
    let asked = camp.run_with(&["hub", "user", "disable", "amy"], "");
    assert!(asked.code != 0 && asked.err.contains("KC-DECLINED") && asked.err.contains(" on one"), "{}", asked.err);
    let all = camp.json(&["hub", "user", "list"]);
    let amy = all.as_array().unwrap().iter().find(|person| person["id"] == "amy").unwrap();
    assert_eq!(amy["active"], true, "nothing was changed");
    let closed = camp.run_with(&["--yes", "hub", "user", "disable", "amy"], "");
    assert!(closed.code == 0 && closed.err.contains("given up: b"), "{}", closed.err);
    assert_eq!(camp.json(&["hub", "user", "disable", "amy"])["active"], false, "there is nothing to lose any more");
    assert_eq!(camp.json(&["hub", "user", "set", "amy", "--enable"])["active"], true);
}

#[test]
fn what_is_ahead_is_counted_for_who_changes_its_server_and_keeps_it() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
    camp.add_server("one", "192.0.2.7");
    camp.ok(&["hub", "server", "set", "one", "--label", "gpu"]);
    camp.import("amy,Amy,red\n");
    let link = camp.json(&["hub", "user", "link", "amy"])["token"].as_str().unwrap().to_owned();
    camp.login_by_link(&link);
    assert_eq!(camp.json(&["book", "free", "--for", "1h", "--label", "gpu"]).as_array().unwrap().len(), 10);
    let label = camp.run_with(&["book", "free", "--for", "1h", "--label", "ssd"], "");
    assert!(label.code == 2 && label.err.contains("There are: gpu."), "{}", label.err);
    let weekly = camp.run_with(&["book", "new", &hour(24), "--for", "1h", "--weeks", "2", "-o", "json"], "");
    let made: Value = serde_json::from_str(&weekly.out).unwrap_or_else(|_| panic!("{}", weekly.err));
    let series = made[0]["series"].as_str().unwrap();
    assert!(weekly.err.contains(&format!("kubecamp book cancel {series}")), "{}", weekly.err);
    assert!(camp.ok(&["book", "ls", "-o", "wide"]).contains(series));
    camp.sign_in_as_admin();
    camp.ok(&["hub", "course", "set", "net", "--title", "Networks"]);
    for (args, told) in [
        (&["--course", "net"][..], Some("Ahead on one of other courses, and left as booked: 2 bookings.")),
        (&["--course", "k8s"], None),
        (&["--any-course"], None),
    ] {
        let set = camp.run_with(&[["hub", "server", "set", "one"].as_slice(), args].concat(), "");
        assert!(set.code == 0 && told.is_none_or(|told| set.err.contains(told)), "{args:?}: {}", set.err);
        assert_eq!(set.err.contains("other courses"), told.is_some(), "{args:?}: {}", set.err);
    }
    let away = camp.run_with(&["hub", "server", "health", "one", "away", "--reason", "new disk"], "");
    assert!(away.code == 0 && away.err.contains("Ahead on one: 2 bookings."), "{}", away.err);
    camp.ok(&["hub", "server", "health", "one", "healthy", "--reason", "it is in"]);
    let (from, to) = (hour(24), hour(25));
    let work = ["hub", "server", "maintenance", "one", "--from", &from, "--to", &to, "--reason", "a fan"];
    let work = camp.run_with(&work, "");
    assert!(work.code == 0 && work.err.contains("In that time: 1 booking."), "{}", work.err);
    let asked = camp.run_with(&["hub", "group", "remove", "red"], "");
    assert!(asked.code != 0 && asked.err.contains("KC-DECLINED"), "{}", asked.err);
    assert!(asked.err.contains("Group red has 1 member: amy."), "{}", asked.err);
    for args in [&["hub", "server", "remove", "one"][..], &["--yes", "hub", "group", "remove", "red"]] {
        let held = camp.run_with(args, "");
        assert!(held.code == 10 && held.err.contains("KC-BOOK-STATE"), "{}", held.err);
    }
    let gone = camp.json(&["book", "cancel", series, "--reason", "the course ends"]);
    assert_eq!(gone.as_array().unwrap().len(), 2);
    camp.ok(&["hub", "server", "remove", "one"]);
    camp.ok(&["--yes", "hub", "group", "remove", "red"]);
    assert_eq!(camp.json(&["hub", "server", "list"]).as_array().unwrap().len(), 0);
    assert_eq!(camp.json(&["hub", "group", "list"]).as_array().unwrap().len(), 0);
    camp.ok(&["hub", "doctor"]);
}

/// Nobody answers at that port, so the gate stays; what the hub hears of one that goes is in `live_hub`.
#[test]
fn a_server_that_does_not_let_its_gate_be_taken_off_is_sold_on() {
    let camp = Camp::start();
    let leave = || {
        let ended = camp.run_with(&["--yes", "hub", "unenroll", "root@127.0.0.1:1", "--server", "one"], "");
        assert!(ended.code != 0 && !ended.err.contains("has no gate"), "{}", ended.err);
        assert!(ended.err.contains("kubecamp hub server health one away --reason unenrolled"), "{}", ended.err);
        ended.err
    };
    let told = leave();
    assert!(told.contains("nobody is signed in"), "{told}");
    camp.sign_in_as_admin();
    camp.add_server("one", "192.0.2.7");
    let told = leave();
    assert!(
        told.contains(&format!("The hub {} was told nothing, since nothing was changed on one", camp.url)),
        "{told}"
    );
    let one = &camp.json(&["hub", "server", "list"])[0];
    assert_eq!((&one["health"], &one["health_note"]), (&"healthy".into(), &Value::Null));
}

#[test]
fn a_configuration_that_the_agent_would_not_read_is_refused_before_anybody_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        fs::write(home.path().join(name), text).unwrap();
        home.path().join(name).display().to_string()
    };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgQFc8zDQmswu6VtXXF9tinN/YQnqJ0ftWy5q5ssAmI\n";
    let key = at("admin.pub", key);
    for more in ["evict_limit: 60\n", "group: others\n", "poll: 1\n"] {
        let more = at("more.yaml", more);
        let hub = ["--yes", "hub", "enroll", "root@127.0.0.1:1", "--server", "one", "--hub", "https://127.0.0.1:1"];
        let files = ["--admin-key", &key, "--agent-config", &more];
        let ended = kubecamp(home.path(), &[hub.as_slice(), files.as_slice()].concat()).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(2) && told.contains("KC-GATE-CONFIG"), "{told}");
    }
}

//! What somebody in a course does with slots: finding, booking, moving, giving and giving up, and the way in by ssh.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use serde_json::Value;

use crate::hub::camp::{Camp, hour, key_pair, kubecamp};

/// A course of five hours a person with the server one; the keys of amy, who is signed in, and of bob.
fn course_of_five_hours(camp: &Camp) -> [String; 2] {
    camp.sign_in_as_admin();
    let policy = camp.home.path().join("policy.yaml");
    fs::write(&policy, "open_ahead: 2\nperson_hours: 5\n").unwrap();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes", "--policy", policy.to_str().unwrap()]);
    camp.add_server("one", "192.0.2.7");
    let [(amy, hers), (bob, his)] = ["amy", "bob"].map(|login| key_pair(camp.home.path(), login));
    camp.import(&format!("amy,Amy,red,UTC,{hers}\nbob,Bob,red,UTC,{his}\n"));
    camp.ok(&["login", "--as", "amy", "--identity", &amy]);
    [amy, bob]
}

#[test]
fn a_student_books_extends_and_keeps_what_nothing_speaks_against() {
    let camp = Camp::start();
    course_of_five_hours(&camp);
    assert_eq!(camp.json(&["book", "free", "--for", "1h"]).as_array().unwrap().len(), 10);
    let (start, later) = (hour(2), hour(6));
    let slot = &camp.json(&["book", "new", &start, "--for", "2h"])[0];
    let id = slot["id"].as_str().unwrap();
    assert!(camp.ok(&["book", "ls"]).contains(id));
    assert!(camp.ok(&["book", "ls", "-o", "wide"]).contains("VERSION"));
    assert!(camp.ok(&["book", "ls", "-o", "yaml"]).contains("state: booked"));
    assert_eq!(camp.json(&["book", "extend", id, "--by", "30m"])[0]["version"], 2);
    let odd = camp.run_with(&["book", "extend", id, "--by", "10m"], "");
    assert!(odd.code == 2 && odd.err.contains("Extend it by full steps of 30 minutes."), "{}", odd.err);
    assert!(camp.json(&["book", "move", id]).as_array().unwrap().is_empty(), "its server takes it");
    let well = camp.run_with(&["book", "move", id], "");
    assert!(well.code == 0 && well.out.is_empty() && well.err.contains("cancel it and book another"), "{}", well.err);
    let well = camp.run_with(&["book", "move", id, &later], "");
    assert!(well.code == 10 && well.err.contains("nothing is known against the server"), "{}", well.err);
    let quota = camp.run_with(&["book", "new", &later, "--for", "3h"], "");
    assert_eq!(quota.code, 11, "{}", quota.err);
    let feed = camp.run_with(&["book", "ics"], "");
    assert!(feed.out.contains("/calendar/kct_") && feed.out.ends_with("/slots.ics\n"), "{}", feed.out);
    assert!(feed.code == 0 && feed.err.contains("--public-url https://NAME"), "no calendar reads it: {}", feed.err);
    let released = camp.run_with(&["book", "release", id], "");
    assert!(released.code == 0 && released.out.contains("cancelled"), "{}", released.err);
    assert!(released.err.contains(&format!("{id}: it had not begun, so it is cancelled")), "{}", released.err);
}

#[test]
fn what_can_never_be_booked_is_told_with_the_rule_that_forbids_it() {
    let camp = Camp::start();
    course_of_five_hours(&camp);
    for (args, code, told) in [
        (&["--label", "none"][..], 2, "no server has the label `none`"),
        (&["--for", "17m"], 2, "17 minutes are not full steps of 30"),
        (&["--for", "5h"], 2, "300 minutes are more than the 240 allowed"),
        (&["--layout", "2x4c10g"], 2, "no server makes a lab of 2x4c10g"),
        (&["--most", "0"], 2, "--most"),
        (&["--from", "2027-12-24T10:00", "--zone", "Europe/Berlin"], 0, "from Fri 2027-12-24 10:00"),
        (&["--from", "2027-12-24T10:00:00Z"], 0, "No slot of 120 minutes is free"),
    ] {
        let none = camp.run_with(&[["book", "free"].as_slice(), args].concat(), "");
        assert!(none.code == code && none.err.contains(told), "{args:?}: {}", none.err);
    }
    for (length, told) in [("17m", "Give a length of 30m."), ("100m", "Give a length of 90m or 120m.")] {
        let odd = camp.run_with(&["book", "free", "--for", length], "");
        assert!(odd.code == 2 && odd.err.contains(told) && !odd.err.contains("as at 14:00"), "{length}: {}", odd.err);
    }
    let nowhere = camp.run_with(&["book", "ls", "--server", "nope"], "");
    assert!(nowhere.code == 2 && nowhere.err.contains("there is no server nope"), "{}", nowhere.err);
    let none = camp.run_with(&["book", "new", &hour(6), "--weeks", "0"], "");
    assert!(none.code == 2 && none.err.contains("1..=52"), "{}", none.err);
    let closed = camp.run_with(&["book", "new", "2027-12-24T10:00:00Z"], "");
    assert_eq!(closed.code, 12, "{}", closed.err);
    let grid = camp.run_with(&["book", "new", "2027-12-24T10:07:00Z"], "");
    assert_eq!(grid.code, 2, "{}", grid.err);
}

#[test]
fn a_taken_slot_is_told_with_three_others_by_the_readers_clock() {
    let camp = Camp::start();
    let [_, bob] = course_of_five_hours(&camp);
    let start = hour(2);
    camp.ok(&["book", "new", &start, "--for", "2h"]);
    camp.ok(&["login", "--as", "bob", "--identity", &bob]);
    let taken = camp.run_with(&["book", "new", &start, "--for", "1h"], "");
    assert_eq!(taken.code, 10, "{}", taken.err);
    assert_eq!(taken.err.matches("free: ").count(), 3, "{}", taken.err);
    assert_eq!(taken.err.matches(" (UTC)").count(), 4, "moments are told by this computer's clock: {}", taken.err);
    assert!(camp.ok(&["book", "ls"]).contains("STARTS (UTC)"));
    let zone = ["--for", "1h", "--zone", "Asia/Shanghai"];
    assert!(camp.ok(&["book", "ls", "--zone", "Asia/Shanghai"]).contains("STARTS (Asia/Shanghai)"));
    assert!(camp.ok(&[["book", "free"].as_slice(), &zone].concat()).contains("STARTS (Asia/Shanghai)"));
    let taken = camp.run_with(&[["book", "new", start.as_str()].as_slice(), &zone].concat(), "");
    assert!(taken.code == 10 && taken.err.matches(" (Asia/Shanghai)").count() == 4, "{}", taken.err);
    let told = camp.run_with(&["book", "new", &start, "--for", "1h", "-o", "json"], "");
    let told: Value = serde_json::from_str(&told.err).unwrap_or_else(|_| panic!("{}", told.err));
    let told = &told["problems"][0];
    assert_eq!(
        (told["code"].as_str(), told["alternatives"].as_array().map(Vec::len)),
        (Some("KC-BOOK-CONFLICT"), Some(3))
    );
    assert!(camp.ok(&["book", "wait", &start, "--for", "1h"]).contains("waitlisted"));
}

#[test]
fn what_was_given_away_is_its_new_holders_alone() {
    let camp = Camp::start();
    let [amy, bob] = course_of_five_hours(&camp);
    camp.ok(&["login", "--as", "bob", "--identity", &bob]);
    let slot = camp.json(&["book", "new", &hour(8), "--for", "1h"])[0]["id"].as_str().unwrap().to_owned();
    assert!(camp.ok(&["book", "give", &slot, "--to", "amy"]).contains("amy"));
    let theirs = camp.run_with(&["book", "cancel", &slot], "");
    assert_eq!(theirs.code, 13, "{}", theirs.err);
    camp.ok(&["login", "--as", "amy", "--identity", &amy]);
    assert!(camp.ok(&["book", "cancel", &slot]).contains("cancelled"));
    let later = hour(6);
    for start in [&[][..], &[later.as_str()]] {
        let args = [["book", "move", slot.as_str()].as_slice(), start].concat();
        let over = camp.run_with(&args, "");
        assert!(over.code == 10 && over.err.contains("is cancelled"), "{args:?}: {}", over.err);
    }
}

#[test]
fn a_clock_that_is_not_the_users_reads_no_time() {
    let home = tempfile::tempdir().unwrap();
    let at = |zone: &str, more: &[&str]| {
        let hub = ["--hub", "unix:/nowhere/hub.sock"];
        let mut asked = kubecamp(home.path(), &[["book", "new"].as_slice(), more, &hub].concat());
        let ended = asked.env("TZ", zone).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for zone in ["CET-1CEST", "UTC-5", "Nonsense/Zone"] {
        let (code, told) = at(zone, &["14:00"]);
        assert!(code == Some(2) && told.contains(zone) && told.contains("--zone"), "{zone}: {told}");
        for well in [&["2027-11-24T14:00:00Z"][..], &["14:00", "--zone", "Europe/Berlin"]] {
            assert_eq!(at(zone, well).0, Some(4), "that hub is not there: {zone} {well:?}");
        }
    }
    for zone in ["UTC", "Etc/UTC", "UTC0", "GMT0", "Europe/Berlin", ""] {
        assert_eq!(at(zone, &["14:00"]).0, Some(4), "{zone:?}");
    }
}

#[test]
fn what_plain_ssh_needs_for_a_slot_is_kept_and_given() {
    let camp = Camp::start();
    let (key, id) = camp.amys_slot();
    let ssh = ["book", "ssh", &id, "--identity", &key];
    let with = |more: &[&str]| camp.run_with(&[ssh.as_slice(), more].concat(), "");
    let shown = with(&["--config"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let folder = camp.home.path().join("data/slots").join(&id);
    for name in ["key-cert.pub", "known_hosts", "ssh_config"] {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::read_to_string(folder.join("ssh_config")).unwrap(), shown.out);
    let certificate = folder.join("key-cert.pub");
    let told = Command::new("ssh-keygen").arg("-L").arg("-f").arg(&certificate).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains(&format!("slot-{id}")), "{told:?}");

    let public = format!("{key}.pub");
    let by_public = camp.ok(&["book", "ssh", &id, "--identity", &public, "--config"]);
    assert_eq!(by_public, shown.out, "either half names the key");

    // Two hours before it begins there is nobody to log in to.
    let early = with(&["--", "true"]);
    assert_eq!(early.code, 14, "{}", early.err);
    for word in ["KC-BOOK-EARLY", " begins ", " (UTC)", "on one: a lab of 1x4c12g", "--config"] {
        assert!(early.err.contains(word), "{word}: {}", early.err);
    }

    // What ssh itself makes of it.
    let file = camp.home.path().join("slot.conf");
    let written = with(&["--write", file.to_str().unwrap()]);
    assert!(written.code == 0 && written.err.contains(&format!("kubecamp-{id}")), "{}", written.err);
    let read = Command::new("ssh").arg("-G").arg("-F").arg(&file).arg(format!("kubecamp-{id}")).output().unwrap();
    let read = String::from_utf8(read.stdout).unwrap();
    let (theirs, mine) = (format!("certificatefile {}", certificate.display()), format!("identityfile {key}"));
    for line in ["hostname 192.0.2.7", "port 2222", "user amy", "identitiesonly yes", &theirs, &mine] {
        assert!(read.lines().any(|l| l == line), "{line}: {read}");
    }
    let first = fs::read_to_string(&certificate).unwrap();
    let longer = camp.run_with(&["book", "extend", &id, "--by", "30m"], "");
    assert!(longer.code == 0 && longer.err.contains("kept here is good until"), "{}", longer.err);
    assert_ne!(fs::read_to_string(&certificate).unwrap(), first, "and every configuration goes on with it");
    fs::remove_file(&certificate).unwrap();
    let elsewhere = camp.run_with(&["book", "extend", &id, "--by", "30m"], "");
    assert!(elsewhere.err.contains(&format!("Run kubecamp book ssh {id} again for one until ")), "{}", elsewhere.err);
    fs::write(&file, "Host mine\n").unwrap();
    assert_eq!(with(&["--write", file.to_str().unwrap()]).code, 2, "a file of the user's own is not replaced");
    assert_eq!(fs::read_to_string(&file).unwrap(), "Host mine\n");
    assert_eq!(with(&["--config", "--", "true"]).code, 2, "either a configuration or a command");
}

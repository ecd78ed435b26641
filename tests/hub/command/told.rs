//! What the command line tells of a hub where nothing went wrong, and something is not as somebody believes.

use std::fs;

use crate::hub::camp::{Camp, hour, serve_once};

#[test]
fn a_slot_is_moved_to_whatever_time_is_free() {
    let camp = Camp::start();
    let (_, id) = camp.amys_slot();
    camp.sign_in_as_admin();
    camp.add_server("two", "192.0.2.8");
    let (from, to) = (hour(1), hour(6));
    for server in ["two", "one"] {
        camp.ok(&["hub", "server", "maintenance", server, "--from", &from, "--to", &to, "--reason", "a fan"]);
    }
    let closed = camp.run_with(&["book", "move", &id, &hour(3), "--reason", "a fan"], "");
    assert!(closed.code == 10 && closed.err.contains("no server is free for booking"), "{}", closed.err);
    assert!(closed.err.contains("(UTC)"), "by this computer's clock: {}", closed.err);
    let odd = camp.run_with(&["book", "move", &id, &hour(3).replace(":00:00Z", ":07:00Z"), "--reason", "a fan"], "");
    assert!(odd.code == 2 && odd.err.contains("Begin at ") && odd.err.contains("(UTC)"), "{}", odd.err);
    // Not one of the three that are nearest.
    let moved = camp.ok(&["book", "move", &id, &hour(20), "--reason", "a fan"]);
    assert!(moved.contains("booked"), "{moved}");
}

#[test]
fn the_doctor_tells_that_nothing_can_be_written() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "doctor"]);
    let file = camp.home.path().join("data/hub/hub.db");
    fs::rename(&file, file.with_extension("away")).unwrap();
    let lost = camp.run_with(&["hub", "course", "set", "k8s", "--title", "Kubernetes"], "");
    assert!(lost.code == 4 && lost.err.contains("removed or replaced"), "{}", lost.err);
    let found = camp.run_with(&["hub", "doctor"], "");
    assert!(found.code == 4 && found.err.contains("KC-HUB-DATABASE"), "{}", found.err);
    fs::rename(file.with_extension("away"), &file).unwrap();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
}

#[test]
fn a_database_that_is_made_anew_is_told_and_beside_old_keys_asked_about() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().display();
    let said = |name: &str| {
        let database = format!("sqlite://{folder}/{name}");
        serve_once(home.path(), &["hub", "serve", "--listen", "127.0.0.1:0", "--database", &database]).0
    };
    let first = said("hub.db");
    assert!(first.contains("hub.db is a new one, and empty") && !first.contains("keys"), "{first}");
    let again = said("hub.db");
    assert!(again.contains("listens on") && !again.contains("a new one"), "{again}");
    let typo = said("hbu.db");
    assert!(typo.contains("hbu.db is a new one") && typo.contains("is --database the right one?"), "{typo}");
}

#[test]
fn an_admin_who_is_made_by_a_link_is_told() {
    let camp = Camp::start();
    let made = |login: &str| camp.run_with(&["hub", "admin-link", login], "").err;
    let first = made("ann");
    assert!(first.contains("Made the admin ann.") && !first.contains("disable"), "{first}");
    assert!(!made("ann").contains("Made"), "she is there");
    let typo = made("anm");
    assert!(typo.contains("Made the new admin anm.") && typo.contains("kubecamp hub user disable anm"), "{typo}");
}

#[test]
fn a_key_of_two_people_is_told() {
    let camp = Camp::start();
    let (key, _) = camp.amys_slot();
    camp.sign_in_as_admin();
    let public = format!("{key}.pub");
    let dan = camp.run_with(&["hub", "user", "add", "dan", "--full-name", "Dan", "--key", &public], "");
    assert!(dan.code == 0 && dan.err.contains("dan has an SSH key that amy has too"), "{}", dan.err);
    assert!(camp.ok(&["hub", "doctor"]).contains("amy and dan have one SSH key"));
    let own = camp.run_with(&["hub", "user", "set", "amy", "--full-name", "Amy B"], "");
    assert!(own.code == 0 && own.err.contains("amy has an SSH key that dan has too"), "{}", own.err);
}

#[test]
fn an_audit_of_nothing_says_how_to_ask() {
    let camp = Camp::start();
    camp.sign_in_as_admin();
    let none = camp.run_with(&["hub", "audit", "--most", "0"], "");
    assert!(none.code == 2 && none.err.contains("1..=1000"), "{}", none.err);
    for wrong in [["--subject", "ann"], ["--actor", "nobody"]] {
        let none = camp.run_with(&[["hub", "audit"].as_slice(), &wrong].concat(), "");
        assert!(none.code == 0 && none.err.contains("--subject is booking:ID"), "{wrong:?}: {}", none.err);
    }
    camp.ok(&["hub", "user", "add", "dan", "--full-name", "Dan"]);
    camp.ok(&["hub", "user", "link", "dan"]);
    for format in ["table", "wide"] {
        let rows = camp.ok(&["hub", "audit", "--subject", "person:dan", "-o", format]);
        assert!(rows.contains("sign-in link, for dan") && rows.contains("person.add"), "{rows}");
    }
    for feed in ["first", "second"] {
        camp.ok(&["book", "ics"]);
        let rows = camp.run_with(&["hub", "audit", "--subject", "person:ann"], "");
        assert!(rows.err.is_empty() && !rows.out.contains("token.revoke-all"), "{feed}: {}", rows.out);
        assert_eq!(rows.out.matches("token.revoke-feed").count(), usize::from(feed == "second"), "{}", rows.out);
    }
}

#[test]
fn refusals_and_hints_say_what_is_meant() {
    let camp = Camp::start();
    let (key, id) = camp.amys_slot();
    let other = camp.run_with(&["book", "new", &hour(8), "--person", "ann"], "");
    assert!(other.code == 13 && other.err.contains("only a teacher can book for somebody else"), "{}", other.err);
    camp.sign_in_as_admin();
    assert!(camp.ok(&["hub", "course", "list"]).contains("  GRID  "));
    camp.ok(&["hub", "course", "set", "net", "--title", "Networks"]);
    let moved = camp.run_with(&["hub", "server", "set", "one", "--course", "net"], "");
    assert!(moved.err.contains("left as booked: 1 booking.") && moved.err.contains("--server one;"), "{}", moved.err);
    camp.ok(&["hub", "server", "set", "one", "--course", "k8s"]);
    let start = camp.json(&["book", "ls", "--all"])[0]["window"]["starts"].as_i64().unwrap();
    let start = jiff::Timestamp::from_second(start).unwrap().to_string();
    let args = ["book", "wait", &start, "--for", "1h", "--course", "k8s"];
    let waits = camp.json(&args)[0]["id"].as_str().unwrap().to_owned();
    let longer = camp.run_with(&["book", "extend", &waits, "--by", "30m"], "");
    assert!(longer.code == 10 && longer.err.contains("only what is booked can be made longer"), "{}", longer.err);
    let yes = camp.run_with(&["book", "accept", &waits], "");
    assert!(yes.code == 10 && yes.err.contains("only what is offered can be accepted"), "{}", yes.err);
    let weekly = ["--weeks", "6", "--person", "amy", "--course", "k8s", "--reason", "a seminar"];
    let far = camp.run_with(&[&["book", "new", &hour(9)][..], &weekly].concat(), "");
    assert_eq!(far.code, 12, "{}", far.err);
    let weeks: Vec<_> =
        far.err.lines().filter(|line| line.contains("28 days ahead") && !line.contains("KC-")).collect();
    let once = |line: &&str| line.matches(':').count() == 1;
    assert!(!weeks.is_empty() && weeks.iter().all(once), "each says its time once: {}", far.err);
    camp.ok(&["login", "--as", "amy", "--identity", &key]);
    assert!(!camp.run_with(&["book", "ls"], "").err.contains(&waits), "not her wait; hers is {id}");
}

#[test]
fn an_admin_quarantines_a_server_by_hand() {
    let camp = Camp::start();
    let (key, _) = camp.amys_slot();
    camp.sign_in_as_admin();
    let set = camp.run_with(&["hub", "server", "health", "one", "quarantined", "--reason", "a miner of bob's"], "");
    assert!(set.code == 0 && set.err.contains("Ahead on one: 1 booking."), "{}", set.err);
    assert!(camp.ok(&["hub", "server", "list", "-o", "wide"]).contains("a miner of bob's"));
    camp.ok(&["login", "--as", "amy", "--identity", &key]);
    let refused = camp.run_with(&["book", "new", &hour(8)], "");
    assert!(refused.code == 12 && refused.err.contains("is quarantined"), "{}", refused.err);
    assert!(!refused.err.contains("miner"), "{}", refused.err);
}

#[test]
fn a_hint_that_is_typed_as_it_stands_works() {
    let camp = Camp::start();
    let (key, id) = camp.amys_slot();
    for (args, code, told) in [
        (&["hub", "token", "revoke", "t0"][..], 2, "kubecamp hub token ls"),
        (&["book", "extend", "s7k2", "--by", "30m"], 2, "kubecamp book ls -o wide"),
        (&["book", "cancel", "b7k2"], 2, "kubecamp book ls "),
        (&["hub", "course", "set", "k8s", "--title", "Mine"], 13, "Ask an admin."),
        (&["book", "give", &id, "--to", "amy"], 2, "--to LOGIN"),
    ] {
        let ended = camp.run_with(args, "");
        assert!(ended.code == code && ended.err.contains(told), "{args:?}: {}", ended.err);
        assert!(!ended.err.contains("Correct the value named"), "{args:?}: {}", ended.err);
    }
    let later = hour(6);
    let nothing = camp.run_with(&["hub", "course", "set", "k8s"], "");
    assert!(nothing.code == 2 && nothing.err.contains("--policy FILE"), "{}", nothing.err);
    let free = camp.run_with(&["book", "wait", &later, "--for", "1h"], "");
    assert!(free.code == 10 && free.err.contains(&format!("kubecamp book new {later} --for 60m")), "{}", free.err);
    camp.sign_in_as_admin();
    let unsaid = camp.run_with(&["book", "new", &later], "");
    assert!(unsaid.code == 2 && unsaid.err.contains("--course COURSE"), "{}", unsaid.err);
    let roster = camp.home.path().join("roster.csv");
    fs::write(&roster, "amy,Amy,red\n\nann,Ann,red\n").unwrap();
    let admin = camp.run_with(&["hub", "course", "import", "k8s", roster.to_str().unwrap()], "");
    assert!(admin.code == 2 && admin.err.contains("line 3: ann is an admin;"), "{}", admin.err);
    let private = camp.run_with(&["hub", "user", "add", "tom", "--full-name", "Tom", "--key", &key], "");
    assert!(private.code == 2 && private.err.contains(&format!("Name {key}.pub.")), "{}", private.err);
}

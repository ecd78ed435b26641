//! What the command line tells of a hub where nothing went wrong, and something is not as somebody believes.

use std::fs;

use super::command::{Camp, hour};

#[test]
fn a_slot_is_moved_to_whatever_time_is_free() {
    let camp = Camp::start();
    let (_, id) = camp.amys_slot();
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
    camp.ok(&["hub", "server", "add", "two", "--address", "192.0.2.8", "--cores", "8", "--memory", "32GiB"]);
    let (from, to) = (hour(1), hour(6));
    for server in ["two", "one"] {
        camp.ok(&["hub", "server", "maintenance", server, "--from", &from, "--to", &to, "--reason", "a fan"]);
    }
    let closed = camp.run_with(&["book", "move", &id, &hour(3), "--reason", "a fan"], "");
    assert!(closed.code == 10 && closed.err.contains("no server is free for booking"), "{}", closed.err);
    assert!(closed.err.contains("(UTC)"), "by this computer's clock: {}", closed.err);
    // Not one of the three that are nearest.
    let moved = camp.ok(&["book", "move", &id, &hour(20), "--reason", "a fan"]);
    assert!(moved.contains("booked"), "{moved}");
}

#[test]
fn the_doctor_tells_that_nothing_can_be_written() {
    let camp = Camp::start();
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
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

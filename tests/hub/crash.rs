//! kill -9 of a process that books, cancels and moves slots on: whatever it was doing, the records hold together.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use kubecamp::hub::{
    desk::{Caller, Desk, Edit, Heartbeat, Report},
    store::Store,
};

use super::world::{NOW, WHOLE, agent, at, book, camp, clerk, generous, healthy, who, wish};

pub(super) const DATABASE: &str = "KUBECAMP_TEST_CRASH_DATABASE";
/// Which round a child is of, where rounds differ.
pub(super) const ROUND: &str = "KUBECAMP_TEST_CRASH_ROUND";

/// One of the ignored tests as a process of its own, which is read.
pub(super) fn child(test: &str, url: &str, round: usize) -> Command {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    child.env(DATABASE, url).env(ROUND, round.to_string()).stdout(Stdio::piped());
    child
}

/// Runs one of the ignored tests as a process, and kills it as soon as it has printed so many lines about its changes.
pub(super) fn killed_after(test: &str, url: &str, round: usize, lines: usize) {
    let mut child = child(test, url, round).stderr(Stdio::null()).spawn().unwrap();
    let told = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = told.map_while(Result::ok).filter(|line| line.starts_with("chang")).take(lines).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(seen, lines, "the child stopped by itself in round {round}");
}

pub async fn killed_in_a_loop(desk: &Desk, url: &str, times: u64) {
    camp(desk, &generous()).await;
    let mut changes = 0;
    for n in 0..times {
        // Killed after another number of changes each time, so at another kind of step.
        killed_after("hub::crash::child_that_is_killed", url, 0, 3 + n as usize * 2);
        healthy(desk).await;
        let audit = desk.doctor(&Caller::Console, NOW).await.unwrap().audit;
        assert!(audit > changes, "nothing was changed before the kill");
        changes = audit;
    }
    // A hub that starts again drives on what lies open.
    clerk(desk).settle(at(1_000_000)).await.unwrap();
    healthy(desk).await;
}

#[ignore = "run by the test above, as the process that is killed"]
#[expect(clippy::print_stdout, reason = "the parent counts these lines")]
#[tokio::test]
async fn child_that_is_killed() {
    let Ok(url) = env::var(DATABASE) else { return };
    let desk = Desk::new(Store::open(&url).await.unwrap());
    let clerk = clerk(&desk);
    let server = "one".parse().unwrap();
    let changed = || println!("\nchanged");
    loop {
        // The next hour that nobody has.
        let free = desk
            .free(
                &who("amy"),
                NOW,
                &serde_json::from_value(serde_json::json!({
                    "layout": "1x4c12g", "minutes": 30, "most": 1, "within": { "starts": at(0), "ends": at(40_000) },
                }))
                .unwrap(),
            )
            .await
            .unwrap();
        let from = (free[0].window.starts - NOW) / 60;
        let booking = book(&desk, "amy", from, from + 30).await;
        changed();
        let plan = desk.plan_for(&agent("one"), NOW, &server).await.unwrap();
        let beat = Heartbeat { revision: plan.revision, clock: NOW, tick_age: None };
        desk.heartbeat(&agent("one"), NOW, &server, &beat).await.unwrap();
        // A killed one may have left the server occupied: its agent goes on and proves it clean.
        let occupant = desk.server(&Caller::Console, NOW, &server).await.unwrap().occupant;
        let mut number = desk.audit(&Caller::Console, NOW, None, None, 1).await.unwrap()[0].id * 100;
        for id in occupant.into_iter().chain([booking.id.clone()]) {
            for step in WHOLE {
                number += 1;
                let report = Report { number, booking: id.clone(), step, moment: NOW, note: None, account: None };
                desk.report(&agent("one"), NOW, &server, &[report]).await.unwrap();
                changed();
            }
        }
        let next = desk.book(&who("bob"), NOW, None, &wish(Some("one"), from + 60, from + 90)).await;
        if let Ok(next) = next {
            changed();
            desk.cancel(&who("bob"), NOW, None, &next.id, &Edit::default()).await.unwrap();
            changed();
        }
        clerk.settle(NOW).await.unwrap();
    }
}

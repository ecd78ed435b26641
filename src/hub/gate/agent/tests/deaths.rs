use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::sim::{Death, Post, T0, journaled, slot};
use crate::hub::gate::{
    Plan, ReportKind, Slot, SlotState, Wanted,
    agent::{Halted, Ink, InkError},
};

/// Two slots back to back and one that is cancelled in its midst; `from` is the second to go on from.
async fn story(post: &mut Post, from: &mut i64) -> Result<(), Halted> {
    let mut third = slot("3", "kct-a", 320, 900);
    let plan = |third| [slot("1", "kct-a", 40, 100), slot("2", "kct-b", 110, 200), third];
    let mut moments = vec![0, 60, 105, 150, 250, 350, 351, 420];
    moments.retain(|m| *m >= *from);
    for moment in moments {
        *from = moment;
        if moment <= 250 {
            post.plan(1, &plan(third.clone()))?.unwrap();
        }
        if moment == 351 {
            third.wanted = Wanted::Cancelled;
            post.plan(2, &plan(third.clone()))?.unwrap();
        }
        post.until(moment).await?;
        post.hear()?;
    }
    Ok(())
}

#[tokio::test]
async fn killed_at_every_line_it_goes_on_right() {
    let mut whole = Post::new();
    story(&mut whole, &mut 0).await.unwrap();
    whole.right();
    let lines = journaled(&whole);
    assert!(lines > 50, "{lines}");
    for death in [Death::Before, Death::Torn, Death::After] {
        for at in 0..lines {
            let mut post = Post::new();
            let (mut from, mut deaths) = (0, 0);
            let mut mortal = Some((at, death));
            loop {
                let born = post.reborn(mortal.take());
                let lived = match born {
                    Ok(()) => story(&mut post, &mut from).await,
                    Err(halted) => Err(halted),
                };
                match lived {
                    Ok(()) => break,
                    Err(Halted) => deaths += 1,
                }
                // A restart takes its time.
                post.sim.pass(700);
            }
            assert_eq!(deaths, 1, "{death:?} at line {at}");
            judge(&post, &format!("{death:?} at line {at}"));
        }
    }
}

/// Everything is as if nothing had happened.
fn judge(post: &Post, when: &str) {
    let server = post.sim.at();
    assert!(server.wrongs.is_empty(), "{when}: {:#?}", server.wrongs);
    assert!(server.doors.values().all(String::is_empty), "{when}: {:?}", server.doors);
    assert!(server.processes.is_empty() && server.cron.is_empty() && server.labs.is_empty(), "{when}");
    assert!(server.files.is_empty(), "{when}: {:?}", server.files);
    assert_eq!(server.saved.len(), 2, "{when}");
    drop(server);
    for booking in ["1", "2", "3"] {
        let states = post.states(booking);
        assert!(states.windows(2).all(|w| w[0] <= w[1]), "{when}: {booking} went {states:?}");
        assert!(
            states.contains(&SlotState::Active) && states.last() == Some(&SlotState::Done),
            "{when}: {booking} {states:?}"
        );
    }
}

/// A slot whose lab does not come up, and the next one.
async fn failure(post: &mut Post) -> Result<(), Halted> {
    post.plan(1, &[slot("1", "kct-a", 40, 100), slot("2", "kct-b", 110, 200)])?.unwrap();
    post.until(300).await?;
    post.hear()
}

#[tokio::test]
async fn killed_at_every_line_of_a_lab_that_fails_the_next_is_served() {
    let mut whole = Post::new();
    whole.sim.at().broken.insert("arm kct-a".into());
    failure(&mut whole).await.unwrap();
    for death in [Death::Before, Death::Torn, Death::After] {
        for at in 0..journaled(&whole) {
            let mut post = Post::new();
            post.sim.at().broken.insert("arm kct-a".into());
            let mut mortal = Some((at, death));
            loop {
                let lived = match post.reborn(mortal.take()) {
                    Ok(()) => failure(&mut post).await,
                    Err(halted) => Err(halted),
                };
                if lived.is_ok() {
                    break;
                }
                post.sim.pass(700);
            }
            post.right();
            let when = format!("{death:?} at line {at}");
            assert!(!post.states("1").contains(&SlotState::Active), "{when}");
            assert!(!post.sim.at().saved.contains("kct-a"), "{when}");
            for booking in ["1", "2"] {
                assert_eq!(post.states(booking).last(), Some(&SlotState::Done), "{when}: {booking}");
            }
            assert!(post.states("2").contains(&SlotState::Active), "{when}");
        }
    }
}

/// A journal whose disk is full while the flag says so.
struct Full(Box<dyn Ink>, Arc<AtomicBool>);

impl Ink for Full {
    fn write(&mut self, line: &[u8]) -> Result<(), InkError> {
        match self.1.load(Ordering::SeqCst) {
            true => Err(InkError::Disk(std::io::ErrorKind::StorageFull.into())),
            false => self.0.write(line),
        }
    }
}

fn on_disk_of(post: &mut Post, full: &Arc<AtomicBool>) {
    let full = Arc::clone(full);
    post.rewire(|journal| journal.through(|ink| Box::new(Full(ink, full))));
}

#[tokio::test]
async fn a_full_disk_opens_nothing_and_still_ends() {
    let full = Arc::new(AtomicBool::new(false));
    let mut post = Post::new();
    on_disk_of(&mut post, &full);
    post.plan(1, &[slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 300)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    assert!(post.is_open("kct-a"));
    full.store(true, Ordering::SeqCst);
    post.until(150).await.unwrap();
    assert!(!post.is_open("kct-a") && post.sim.at().processes.is_empty(), "the end needs no disk");
    assert!(!post.is_open("kct-b"), "a start does");
    full.store(false, Ordering::SeqCst);
    post.until(155).await.unwrap();
    assert!(post.is_open("kct-b"));
    let known = post.agent.ledger();
    post.reborn(None).unwrap();
    assert_eq!(post.agent.ledger(), known, "what was owed is written");
    post.right();
}

/// The save itself and the journal run out of the same disk. The holder is out, the lab stays as it is, and nobody else
/// gets the place until an admin cleared it: also when the agent is killed before it could write down what failed.
#[tokio::test]
async fn a_disk_that_fills_up_during_a_save_is_quarantined_and_throws_nothing_away() {
    for killed in [false, true] {
        let full = Arc::new(AtomicBool::new(false));
        let mut post = Post::new();
        on_disk_of(&mut post, &full);
        let slots = [slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 500)];
        post.plan(1, &slots).unwrap().unwrap();
        post.until(99).await.unwrap();
        full.store(true, Ordering::SeqCst);
        post.sim.at().broken.insert("save kct-a".into());
        post.until(120).await.unwrap();
        if killed {
            on_disk_of(&mut post, &full);
            assert!(post.agent.recall_plan().unwrap().is_none());
            post.until(130).await.unwrap();
        }
        let kept = |post: &Post, when: &str| {
            assert_eq!(post.agent.ledger().slots["1"].state(), SlotState::Quarantined, "{when}, killed: {killed}");
            assert!(!post.is_open("kct-a") && !post.is_open("kct-b"), "{when}, killed: {killed}");
            let server = post.sim.at();
            assert!(server.processes.is_empty() && server.labs.contains_key("kct-a"), "{when}, killed: {killed}");
            assert!(!server.did.contains(&"reset kct-a".to_owned()), "{when}, killed: {killed}");
        };
        kept(&post, "while it is full");
        full.store(false, Ordering::SeqCst);
        post.until(140).await.unwrap();
        kept(&post, "when there is room again");
        post.reborn(None).unwrap();
        post.until(150).await.unwrap();
        kept(&post, "after a restart");
        post.sim.at().broken.clear();
        let mut plan = Plan::new("s1", 2, T0, T0 + 10_000);
        (plan.slots, plan.cleared) = (slots.to_vec(), vec!["1".into()]);
        post.give(&plan).unwrap().unwrap();
        post.until(170).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1").last(), Some(&SlotState::Done), "killed: {killed}");
        assert!(post.is_open("kct-b") && post.sim.at().saved.contains("kct-a"), "killed: {killed}");
        post.right();
    }
}

#[tokio::test]
async fn of_what_had_begun_in_a_journal_that_is_gone_the_hub_hears() {
    for (wanted, ends) in [(Wanted::Open, -10), (Wanted::Released, 1000), (Wanted::Overridden, 1000)] {
        let mut post = Post::new();
        post.plan(1, &[Slot { wanted, ..slot("1", "kct-a", -100, ends) }]).unwrap().unwrap();
        post.until(5).await.unwrap();
        post.hear().unwrap();
        let missed = ReportKind::Missed { booking: "1".into() };
        assert_eq!(post.told.iter().filter(|told| **told == missed).count(), 1, "{wanted:?}");
        assert!(post.states("1").is_empty() && !post.is_open("kct-a"), "{wanted:?}");
        post.right();
    }
}

/// What the hub heard while the disk was full is forgotten with the process; what comes after it is told all the same.
#[tokio::test]
async fn numbers_that_only_the_hub_remembers_are_not_given_twice() {
    let full = Arc::new(AtomicBool::new(false));
    let mut post = Post::new();
    on_disk_of(&mut post, &full);
    let slots = [slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 3000)];
    post.plan(1, &slots).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.hear().unwrap();
    full.store(true, Ordering::SeqCst);
    post.until(200).await.unwrap();
    // Each plan is a report, so the hub knows many numbers that are not on the disk.
    for revision in 2..40 {
        post.plan(revision, &slots).unwrap().unwrap();
    }
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Done), "the hub hears of the end without a disk");
    full.store(false, Ordering::SeqCst);
    on_disk_of(&mut post, &full);
    assert!(post.agent.recall_plan().unwrap().is_none());
    post.until(210).await.unwrap();
    assert!(post.is_open("kct-b"));
    post.hear().unwrap();
    assert_eq!(post.states("2"), [SlotState::Arming, SlotState::Active]);
    post.right();
}

/// The door is shut before anything is written down: a slot does not wait for a slow disk, nor for the next process.
#[tokio::test]
async fn a_death_at_the_end_leaves_the_door_shut() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 40, 100)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.reborn(Some((0, Death::Before))).unwrap();
    assert_eq!(post.until(110).await, Err(Halted));
    assert!(!post.is_open("kct-a"));
    post.right();
}

#[tokio::test]
async fn a_lab_that_does_not_come_back_after_a_restart_is_tried_again() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 40, 900)]).unwrap().unwrap();
    post.until(60).await.unwrap();
    assert!(post.is_open("kct-a"));
    let tries = |post: &Post| post.sim.at().did.iter().filter(|did| *did == "revive kct-a").count();
    assert_eq!(tries(&post), 0, "what runs is left alone");
    post.sim.at().broken.insert("revive kct-a".into());
    post.reborn(None).unwrap();
    post.until(100).await.unwrap();
    assert_eq!(tries(&post), 1, "not again and again");
    post.until(200).await.unwrap();
    let before = tries(&post);
    assert!((2..=4).contains(&before), "{before}");
    post.sim.at().broken.clear();
    post.until(300).await.unwrap();
    assert_eq!(tries(&post), before + 1, "and no more once it is up");
    assert!(post.is_open("kct-a"));
    post.until(920).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Done));
    post.right();
}

/// As where the hand-over of another lab has ended an engine that hung, and begun it anew.
#[tokio::test]
async fn a_lab_whose_machines_were_ended_with_all_others_is_started_again() {
    let mut post = Post::new();
    post.sim.at().era = Some("1".into());
    post.plan(1, &[slot("1", "kct-a", 40, 900)]).unwrap().unwrap();
    post.until(60).await.unwrap();
    let tries = |post: &Post| post.sim.at().did.iter().filter(|did| *did == "revive kct-a").count();
    assert_eq!(tries(&post), 0, "what runs is left alone");
    for (era, until, wanted) in [(None, 70, 1), (Some("2"), 80, 2), (Some("2"), 200, 2)] {
        post.sim.at().era = era.map(str::to_owned);
        post.until(until).await.unwrap();
        assert_eq!(tries(&post), wanted, "at {until}");
    }
    // Once more while it is being started.
    post.sim.at().era = Some("3".into());
    post.agent.tick().await.unwrap();
    post.sim.at().era = Some("4".into());
    post.until(300).await.unwrap();
    assert_eq!(tries(&post), 4);
    assert!(post.is_open("kct-a"));
    post.right();
}

/// Armed some minutes before its slot begins, a lab may be stopped before its holder comes.
#[tokio::test]
async fn a_lab_that_was_stopped_before_its_door_opened_is_started_again() {
    for killed in [true, false] {
        let mut post = Post::new();
        post.sim.at().era = Some("1".into());
        post.plan(1, &[slot("1", "kct-a", 40, 900)]).unwrap().unwrap();
        post.until(20).await.unwrap();
        let did = |post: &Post, what: &str| post.sim.at().did.iter().filter(|did| *did == what).count();
        assert_eq!((did(&post, "arm kct-a"), did(&post, "revive kct-a")), (1, 0), "killed: {killed}");
        assert!(!post.is_open("kct-a"));
        if killed {
            post.reborn(None).unwrap();
        } else {
            post.sim.at().era = Some("2".into());
        }
        post.until(60).await.unwrap();
        assert_eq!((did(&post, "arm kct-a"), did(&post, "revive kct-a")), (1, 1), "killed: {killed}");
        assert!(post.is_open("kct-a"));
        post.right();
    }
}

/// The start of a lab that goes on as its slot ends unopened is not taken for a step of its end.
#[tokio::test]
async fn a_slot_that_does_not_open_while_its_lab_is_started_again_ends() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    post.sim.at().era = Some("2".into());
    post.agent.tick().await.unwrap();
    assert!(post.sim.at().did.contains(&"revive kct-a".to_owned()));
    post.sim.at().broken.insert("account kct-a".into());
    post.sim.pass(1000);
    post.until(400).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Done));
    assert!(!post.states("1").contains(&SlotState::Active));
    assert_eq!(post.states("2").last(), Some(&SlotState::Done));
    post.right();
}

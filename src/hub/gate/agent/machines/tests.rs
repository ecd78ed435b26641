use std::{collections::BTreeMap, sync::Mutex};

use super::*;
use crate::{
    core::{NodeId, Report},
    engine::Lock,
    machine::{Kind, MachineSpec},
    profile::{self, Lab},
};

mod homes;

/// Machines that exist only here: their state, and what was done to them.
#[derive(Default)]
struct Shelf {
    machines: Mutex<BTreeMap<(LabName, NodeId), State>>,
    did: Mutex<Vec<String>>,
    labs: Mutex<BTreeMap<LabName, Lab>>,
    /// Whether nobody can read what is stored of a lab.
    unreadable: Mutex<bool>,
    /// How often the next `up` fail.
    broken: Mutex<u32>,
    /// Whether those say that the engine hangs.
    hangs: Mutex<bool>,
    unwanted: Mutex<bool>,
    lacking: Mutex<Vec<Problem>>,
    /// What is free of the machines' disk, in GiB.
    free: Mutex<Option<u64>>,
    ways: Folder,
}

/// A folder of the test's.
struct Folder(tempfile::TempDir);

impl Default for Folder {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Shelf {
    /// The server restarts: no machine runs.
    fn restart(&self) {
        self.machines.lock().unwrap().values_mut().for_each(|state| *state = State::Stopped);
    }
    fn say(&self, what: String) {
        self.did.lock().unwrap().push(what);
    }
    fn note(&self, what: &str, node: &NodeId) {
        self.say(format!("{what} {node}"));
    }
    fn set(&self, lab: &LabName, node: &NodeId, state: State) {
        self.machines.lock().unwrap().insert((lab.clone(), node.clone()), state);
    }
    fn did(&self) -> Vec<String> {
        std::mem::take(&mut *self.did.lock().unwrap())
    }
}

#[async_trait]
impl Provider for Shelf {
    fn describe(&self) -> String {
        "a shelf".into()
    }
    async fn ensure(&self, spec: &MachineSpec, _: &dyn Report) -> Result<Machine, Problem> {
        self.set(&spec.lab, &spec.node, State::Running);
        Ok(machine(&spec.lab, &spec.node, State::Running))
    }
    async fn list(&self, lab: Option<&LabName>) -> Result<Vec<Machine>, Problem> {
        let all = self.machines.lock().unwrap().clone();
        Ok(all.iter().filter(|((l, _), _)| lab == Some(l)).map(|((l, n), s)| machine(l, n, *s)).collect())
    }
    async fn get(&self, lab: &LabName, node: &NodeId) -> Result<Option<Machine>, Problem> {
        Ok(self.list(Some(lab)).await?.into_iter().find(|m| m.node == *node))
    }
    async fn remove(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem> {
        self.note("remove", node);
        self.machines.lock().unwrap().remove(&(lab.clone(), node.clone()));
        Ok(())
    }
    async fn stop(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem> {
        self.note("stop", node);
        self.set(lab, node, State::Stopped);
        Ok(())
    }
    async fn snapshot(&self, _: &LabName, node: &NodeId, name: &str) -> Result<(), Problem> {
        self.note(name, node);
        Ok(())
    }
    async fn restore(&self, _: &LabName, node: &NodeId, _: &str) -> Result<(), Problem> {
        self.note("restore", node);
        Ok(())
    }
    async fn publish(&self, _: &LabName, _: &NodeId, _: &str) -> Result<(), Problem> {
        Ok(())
    }
    async fn has_image(&self, _: &str) -> Result<bool, Problem> {
        Ok(false)
    }
    async fn drop_image(&self, _: &str) -> Result<(), Problem> {
        Ok(())
    }
    async fn space(&self) -> Result<Option<(Bytes, Bytes)>, Problem> {
        let free = *self.free.lock().unwrap();
        Ok(free.map(|gib| (Bytes::gib(gib), Bytes::gib(200))))
    }
}

fn machine(lab: &LabName, node: &NodeId, state: State) -> Machine {
    let name = format!("{lab}-{node}");
    let kind = Kind::Container;
    let address = Some([10, 115, 0, if node.as_str() == "cp" { 2 } else { 3 }].into());
    Machine {
        name,
        lab: lab.clone(),
        node: node.clone(),
        kind,
        state,
        address,
        netns: None,
        host_keys: vec!["key".into()],
    }
}

/// A maker of labs that puts their machines on the shelf.
#[async_trait]
impl Labs for Shelf {
    fn known(&self, lab: &LabName) -> Result<Option<Lab>, Problem> {
        let known = self.labs.lock().unwrap().get(lab).cloned();
        let refused = known.is_some() && *self.unreadable.lock().unwrap();
        if refused { Err(Problem::new(Code::GateHandOver, "it is of format 99")) } else { Ok(known) }
    }
    async fn alone(&self, _: &LabName) -> Result<Option<Lock>, Problem> {
        Ok(None)
    }
    async fn up(&self, lab: &LabName, layout: &str) -> Result<(), Problem> {
        self.say(format!("up {layout}"));
        // Others come to their turn meanwhile.
        tokio::task::yield_now().await;
        let known = self.known(lab)?.unwrap_or_else(|| Lab::new(lab.clone(), profile::load(layout).unwrap()).unwrap());
        self.labs.lock().unwrap().insert(lab.clone(), known.clone());
        known.nodes().iter().for_each(|node| self.set(lab, &node.name, State::Running));
        let mut left = self.broken.lock().unwrap();
        if *left > 0 {
            *left -= 1;
            let code = if *self.hangs.lock().unwrap() { Code::EngineHangs } else { Code::GateHandOver };
            return Err(Problem::new(code, format!("broken, and {left} to come")));
        }
        Ok(())
    }
    async fn down(&self, lab: &LabName) -> Result<(), Problem> {
        let is_kept = fs::read_dir(self.ways.0.path()).unwrap().next().is_some();
        self.say(if is_kept { "down while it counts as saved" } else { "down" }.into());
        self.labs.lock().unwrap().remove(lab);
        self.machines.lock().unwrap().retain(|(of, _), _| of != lab);
        Ok(())
    }
    async fn is_unwanted(&self, _: &Slot) -> Result<bool, Problem> {
        Ok(*self.unwanted.lock().unwrap())
    }
    async fn heed(&self, _: &Slot) -> Result<(), Problem> {
        *self.unwanted.lock().unwrap() = false;
        Ok(())
    }
    async fn hand(
        &self,
        _: &Slot,
        _: &LabName,
        machines: &[Machine],
        trouble: Option<&Problem>,
    ) -> Result<Vec<Problem>, Problem> {
        let nodes: Vec<_> = machines.iter().map(|m| m.node.to_string()).collect();
        let why = trouble.map(|p| format!(" although {}", p.what)).unwrap_or_default();
        self.say(format!("hand {}{why}", nodes.join(" ")));
        Ok(self.lacking.lock().unwrap().clone())
    }
}

fn on(shelf: &Arc<Shelf>) -> Machines {
    let provider = Arc::clone(shelf);
    let source: Source = Box::new(move |_| {
        let provider = Arc::clone(&provider) as Arc<dyn Provider>;
        Box::pin(std::future::ready(Ok(Ground { provider, place: None })))
    });
    Machines::of(Arc::clone(shelf) as Arc<dyn Labs>, source, shelf.ways.0.path().to_owned())
}

fn slot(layout: &str) -> Slot {
    Slot { layout: Some(layout.into()), ..Slot::new("1", "kct_a", 0, 10) }
}

#[tokio::test]
async fn a_lab_is_kept_stopped_and_comes_back() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let two = slot("2x4c8g");
    machines.prove(&two).await.unwrap();
    assert!(!machines.saves(&two), "there is no lab yet");
    machines.arm(&two).await.unwrap();
    assert_eq!(shelf.did(), ["up 2x4c8g", "hand cp worker-1"]);
    assert!(machines.saves(&two));
    let lab = lab_of("kct_a").unwrap().to_string();
    let kept = |layout: &str| -> BTreeMap<String, Option<Kept>> {
        [("kct_a".to_owned(), Some(Kept { lab: lab.clone(), layout: layout.into() }))].into()
    };
    assert_eq!(machines.kept(), kept("2x4c8g"));
    let addresses: Vec<_> = machines.reach()["kct_a"].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.115.0.2", "10.115.0.3"]);
    assert_eq!(machines.prove(&two).await.unwrap_err().code, Code::GateHandOver);
    machines.save(&two).await.unwrap();
    assert_eq!(shelf.did(), ["stop cp", "stop worker-1", "kubecamp-saved cp", "kubecamp-saved worker-1"]);
    machines.reset(&two).await.unwrap();
    machines.prove(&two).await.unwrap();
    assert_eq!(shelf.did(), Vec::<String>::new(), "what is stopped stays so");
    machines.arm(&two).await.unwrap();
    assert_eq!(shelf.did(), ["up 2x4c8g", "hand cp worker-1"]);
    // A slot of another layout begins anew.
    machines.arm(&slot("1x4c12g")).await.unwrap();
    assert_eq!(shelf.did(), ["down", "up 1x4c12g", "hand cp"]);
    assert_eq!(machines.kept(), kept("1x4c12g"));
    machines.halt(&two).await.unwrap();
    assert_eq!((shelf.did(), machines.kept()), (vec!["stop cp".to_owned()], kept("1x4c12g")));
    machines.arm(&Slot { layout: None, ..two }).await.unwrap();
    assert_eq!(shelf.did(), Vec::<String>::new(), "a slot may be for the account alone");
}

#[tokio::test]
async fn a_lab_that_does_not_come_up_goes_back_to_its_snapshot_and_is_never_thrown_away() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let one = slot("1x4c12g");
    machines.arm(&one).await.unwrap();
    machines.save(&one).await.unwrap();
    shelf.did();
    *shelf.broken.lock().unwrap() = 1;
    machines.arm(&one).await.unwrap();
    assert_eq!(shelf.did(), ["up 1x4c12g", "restore cp", "up 1x4c12g", "hand cp"]);
    *shelf.broken.lock().unwrap() = 2;
    machines.arm(&one).await.unwrap();
    let as_it_is = "hand cp although broken, and 0 to come";
    assert_eq!(shelf.did(), ["up 1x4c12g", "restore cp", "up 1x4c12g", as_it_is]);
    // Without an engine neither a snapshot nor another try helps, and nobody waits for them.
    (*shelf.hangs.lock().unwrap(), *shelf.broken.lock().unwrap()) = (true, 1);
    assert_eq!(machines.arm(&one).await.unwrap_err().code, Code::EngineHangs);
    assert_eq!(shelf.did(), ["up 1x4c12g"]);
    // Unless its holder says so.
    *shelf.unwanted.lock().unwrap() = true;
    machines.arm(&one).await.unwrap();
    assert_eq!(shelf.did(), ["down", "up 1x4c12g", "hand cp"]);
}

#[tokio::test]
async fn a_lab_that_nobody_has_had_begins_anew() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let one = slot("1x4c12g");
    *shelf.broken.lock().unwrap() = 1;
    assert!(machines.arm(&one).await.unwrap_err().what.contains("0 to come"));
    assert!(machines.kept().is_empty(), "what is half made is no saved lab");
    *shelf.broken.lock().unwrap() = 1;
    machines.arm(&one).await.unwrap();
    assert_eq!(shelf.did(), ["up 1x4c12g", "up 1x4c12g", "down", "up 1x4c12g", "hand cp"]);
}

#[tokio::test]
async fn a_lab_that_cannot_be_read_is_never_taken_for_none() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let one = slot("1x4c12g");
    machines.arm(&one).await.unwrap();
    shelf.did();
    *shelf.unreadable.lock().unwrap() = true;
    assert!(machines.save(&one).await.is_err() && machines.prove(&one).await.is_err() && machines.saves(&one));
    assert!(machines.reset(&one).await.unwrap_err().what.contains("format 99"), "its place is nobody's");
    assert_eq!(shelf.did(), ["stop cp"], "once, and it is not saved");
    assert!(machines.prove(&one).await.is_err() && machines.arm(&one).await.is_err());
    assert!(machines.retire("kct_a").await.is_err());
    let there: BTreeMap<String, Option<Kept>> = [("kct_a".to_owned(), None)].into();
    assert_eq!((shelf.did(), machines.kept()), (vec![], there));
    *shelf.unreadable.lock().unwrap() = false;
    machines.arm(&one).await.unwrap();
    assert_eq!(shelf.did(), ["up 1x4c12g", "hand cp"]);
}

#[tokio::test]
async fn a_lab_that_is_retired_is_gone_and_its_holder_begins_anew() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let one = slot("1x4c12g");
    machines.arm(&one).await.unwrap();
    machines.save(&one).await.unwrap();
    shelf.did();
    for _ in 0..2 {
        // Twice, as after a death of the agent.
        machines.retire("kct_a").await.unwrap();
        assert_eq!(shelf.did(), ["down"], "it counts as saved no more before it goes");
        assert!(machines.kept().is_empty() && machines.reach().is_empty() && shelf.machines.lock().unwrap().is_empty());
    }
    machines.arm(&one).await.unwrap();
    assert_eq!(shelf.did(), ["up 1x4c12g", "hand cp"]);
}

#[test]
fn a_disk_that_is_nearly_full_takes_no_new_lab() {
    let room = |free| has_room(2, 0, 0, (Bytes::gib(free), Bytes::gib(200)), 14);
    room(8).unwrap();
    let full = room(7).unwrap_err();
    assert!(full.what.contains("has 7GiB of 200GiB left, and a new lab needs 8GiB"), "{full}");
    assert_eq!((full.code, full.detail), (Code::GateHandOver, vec!["labs that are kept here: 14".to_owned()]));
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_lab_in_place_of_a_smaller_one_either() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    *shelf.free.lock().unwrap() = Some(7);
    let full = machines.arm(&slot("2x4c8g")).await.unwrap_err();
    assert!(full.what.contains("has 7GiB of 200GiB left, and a new lab needs 8GiB"), "{full}");
    machines.arm(&slot("1x4c12g")).await.unwrap();
    assert_eq!(shelf.did(), ["up 1x4c12g", "hand cp"]);
    // The one machine that goes gives back what it has: one GiB too little.
    *shelf.free.lock().unwrap() = Some(3);
    let full = machines.arm(&slot("2x4c8g")).await.unwrap_err();
    assert!(full.what.contains("has 3GiB of 200GiB left, and a new lab needs 8GiB"), "{full}");
    assert_eq!(full.detail[1], "the lab in whose place it comes would give 4GiB back, and stays");
    assert_eq!(shelf.did(), Vec::<String>::new(), "a refusal throws nothing away");
    assert_eq!(machines.kept()["kct_a"].as_ref().unwrap().layout, "1x4c12g");
    *shelf.free.lock().unwrap() = Some(4);
    machines.arm(&slot("2x4c8g")).await.unwrap();
    assert_eq!(shelf.did(), ["down", "up 2x4c8g", "hand cp worker-1"]);
}

#[tokio::test]
async fn labs_that_are_made_at_the_same_moment_do_not_get_the_same_room() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    *shelf.free.lock().unwrap() = Some(12);
    let (one, two) = (lab_of("kct_a").unwrap(), lab_of("kct_b").unwrap());
    let room = machines.room_for(&one, "2x4c8g", 0).await.unwrap();
    let full = machines.room_for(&two, "2x4c8g", 0).await.err().unwrap();
    assert!(full.what.contains("has 12GiB of 200GiB left, and a new lab needs 8GiB"), "{full}");
    assert_eq!(full.detail[1], "labs that are being made need 8GiB of it");
    drop(machines.room_for(&two, "1x4c12g", 0).await.unwrap());
    drop(room);
    machines.arm(&slot("2x4c8g")).await.unwrap();
    drop(machines.room_for(&two, "2x4c8g", 0).await.unwrap());
    assert!(entries(&machines.making).is_empty(), "what is made is seen on the disk");
}

#[tokio::test]
async fn an_engine_that_hangs_as_it_starts_holds_up_no_other_lab() {
    let shelf = Arc::new(Shelf::default());
    *shelf.free.lock().unwrap() = Some(12);
    let (hung, other) = (lab_of("kct_a").unwrap(), lab_of("kct_b").unwrap());
    let (provider, waits) = (Arc::clone(&shelf), hung.clone());
    let source: Source = Box::new(move |lab: LabName| {
        let (provider, waits) = (Arc::clone(&provider) as Arc<dyn Provider>, lab == waits);
        Box::pin(async move {
            if waits {
                within(Duration::from_millis(20), std::future::pending()).await?;
            }
            Ok::<_, Problem>(Ground { provider, place: None })
        })
    });
    let machines = Machines::of(Arc::clone(&shelf) as Arc<dyn Labs>, source, shelf.ways.0.path().to_owned());
    let mut late = std::pin::pin!(machines.room_for(&hung, "2x4c8g", 0));
    tokio::select! {
        biased;
        _ = &mut late => panic!("nothing has started"),
        room = machines.room_for(&other, "2x4c8g", 0) => drop(room.unwrap()),
        () = std::future::ready(()) => panic!("it is held up"),
    }
    let problem = late.await.err().unwrap();
    assert!(problem.code == Code::EngineHangs && problem.what.contains("did not start"), "{problem}");
    assert!(entries(&machines.making).is_empty(), "what does not begin takes no room");
    let refused = machines.arm(&slot("1x4c12g")).await.unwrap_err();
    assert_eq!((refused.code, shelf.did()), (Code::EngineHangs, vec![]), "it is not tried twice");
}

#[tokio::test]
async fn a_lab_whose_making_was_cut_off_counts_while_it_is_made_again() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let two = slot("2x4c8g");
    *shelf.broken.lock().unwrap() = 1;
    assert!(machines.arm(&two).await.is_err());
    *shelf.free.lock().unwrap() = Some(12);
    let other = lab_of("kct_b").unwrap();
    let (made, room) = tokio::join!(machines.arm(&two), machines.room_for(&other, "2x4c8g", 0));
    made.unwrap();
    assert_eq!(room.err().unwrap().detail[1], "labs that are being made need 8GiB of it");
    drop(machines.room_for(&other, "2x4c8g", 0).await.unwrap());
    assert!(entries(&machines.making).is_empty());
}

#[tokio::test]
async fn who_asked_for_a_fresh_lab_and_found_no_room_has_still_asked() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let one = slot("1x4c12g");
    machines.arm(&one).await.unwrap();
    shelf.did();
    *shelf.unwanted.lock().unwrap() = true;
    *shelf.free.lock().unwrap() = Some(8);
    let others = machines.room_for(&lab_of("kct_b").unwrap(), "2x4c8g", 0).await.unwrap();
    *shelf.free.lock().unwrap() = Some(0);
    let full = machines.arm(&one).await.unwrap_err();
    assert!(full.what.contains("a new lab needs 4GiB"), "{full}");
    assert_eq!(shelf.did(), Vec::<String>::new());
    drop(others);
    for did in [vec!["down", "up 1x4c12g", "hand cp"], vec!["up 1x4c12g", "hand cp"]] {
        machines.arm(&one).await.unwrap();
        assert_eq!(shelf.did(), did, "asking counts once");
    }
}

#[tokio::test]
async fn what_a_restart_of_the_server_stopped_is_started_and_what_runs_is_left_alone() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let two = slot("2x4c8g");
    machines.revive(&two).await.unwrap();
    machines.arm(&two).await.unwrap();
    shelf.did();
    machines.revive(&two).await.unwrap();
    assert_eq!(shelf.did(), Vec::<String>::new());
    shelf.restart();
    machines.revive(&two).await.unwrap();
    assert_eq!(shelf.did(), ["up 2x4c8g", "hand cp worker-1"]);
}

#[tokio::test]
async fn nobody_in_the_midst_of_a_slot_loses_a_lab_by_a_restart() {
    let shelf = Arc::new(Shelf::default());
    let machines = on(&shelf);
    let two = slot("2x4c8g");
    machines.arm(&two).await.unwrap();
    shelf.did();
    // It goes back to no snapshot, and is not made anew for who wishes that for the next slot.
    shelf.restart();
    (*shelf.broken.lock().unwrap(), *shelf.unwanted.lock().unwrap()) = (1, true);
    machines.revive(&two).await.unwrap();
    assert_eq!(shelf.did(), ["up 2x4c8g", "hand cp worker-1 although broken, and 0 to come"]);
    shelf.restart();
    machines.revive(&two).await.unwrap();
    assert_eq!(shelf.did(), ["up 2x4c8g", "hand cp worker-1"]);
    assert!(*shelf.unwanted.lock().unwrap(), "the wish stays");
}

#[test]
fn every_account_has_a_lab_of_its_own() {
    assert_eq!(lab_of("kct-a").unwrap().as_str(), "gate-kct-a");
    let long = "a".repeat(32);
    for account in ["a_b", long.as_str(), "a-"] {
        assert!(lab_of(account).unwrap().as_str().starts_with("gate-x"), "{account}");
    }
    assert_ne!(lab_of("a_b").unwrap(), lab_of("a-b").unwrap());
}

#[test]
fn what_is_only_the_holders_matter_is_known_before_anything_begins() {
    let machines = on(&Arc::new(Shelf::default()));
    let key = crate::hub::gate::HubKey::generate("x").unwrap().public_line().unwrap();
    let good = Slot { key: Some(key), ..slot("2x4c8g") };
    machines.fit(&good).unwrap();
    machines.fit(&Slot::new("1", "kct-a", 0, 10)).unwrap();
    machines.fit(&Slot { key: None, ..good.clone() }).unwrap();
    let more_keys = vec!["nonsense".into(), good.key.clone().unwrap()];
    machines.fit(&Slot { key: Some("nonsense".into()), more_keys, ..good.clone() }).unwrap();
    for bad in
        [Slot { key: Some("nonsense".into()), ..good.clone() }, Slot { layout: Some("9x9c9g".into()), ..good.clone() }]
    {
        assert_eq!(machines.fit(&bad).unwrap_err().code, Code::GateHandOver, "{bad:?}");
    }
}

#[tokio::test]
async fn a_hand_over_that_comes_to_no_end_fails_at_its_limit() {
    let shelf = Arc::new(Shelf::default());
    on(&shelf).arm(&slot("1x4c12g")).await.unwrap();
    // As with a daemon that takes connections and answers none.
    let mute: Source = Box::new(|_| Box::pin(std::future::pending()));
    let ways = shelf.ways.0.path().to_owned();
    let machines = Machines::of(Arc::clone(&shelf) as Arc<dyn Labs>, mute, ways).limited(Duration::from_millis(50));
    let one = slot("1x4c12g");
    for (what, ended) in [
        ("saving the lab of kct_a", machines.save(&one).await),
        ("stopping the lab of kct_a", machines.reset(&one).await),
        ("proving that nothing runs of the lab of kct_a", machines.prove(&one).await),
    ] {
        let problem = ended.unwrap_err();
        assert!(problem.code == Code::GateHandOver && problem.what.starts_with(what), "{problem}");
    }
}

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::sim::{Post, Sim, T0, slot};
use crate::{
    core::{Code, Problem},
    hub::gate::{
        Accepted, Events, Heartbeat, HeartbeatAnswer, HubKey, Plan, ReportKind, SignedPlan, SlotState, Wanted,
        agent::{HubLink, Link, serve},
    },
};

/// A hub that has a newer plan and cannot give it, as one that is too long.
#[derive(Default)]
struct Planless {
    told: Mutex<Vec<ReportKind>>,
}

#[async_trait]
impl HubLink for Planless {
    async fn plan(&self) -> Result<SignedPlan, Problem> {
        Err(Problem::new(Code::GateLink, "there is none to give"))
    }

    async fn events(&self, events: &Events) -> Result<Accepted, Problem> {
        self.told.lock().unwrap().extend(events.events.iter().map(|report| report.kind.clone()));
        Ok(Accepted { accepted: events.events.iter().map(|report| report.seq).max().unwrap_or(0) })
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Problem> {
        Ok(HeartbeatAnswer { clock: heartbeat.clock, revision: heartbeat.revision + 1 })
    }
}

#[tokio::test]
async fn a_hub_that_has_no_plan_to_give_is_told_what_became_of_the_slots() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
    post.until(110).await.unwrap();
    let (hub, said) = (Arc::new(Planless::default()), Mutex::new(vec![]));
    let link = Link { hub: hub.clone(), poll: Duration::from_millis(10), server: "s1".into() };
    let stop = CancellationToken::new();
    let say = |line: &str| said.lock().unwrap().push(line.to_owned());
    let active = |kind: &ReportKind| matches!(kind, ReportKind::State { state: SlotState::Active, .. });
    let heard = || hub.told.lock().unwrap().iter().any(active);
    let is_said = || said.lock().unwrap().iter().any(|line: &String| line.contains("there is none to give"));
    let watch = async {
        let both = async {
            while !heard() || !is_said() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(20), both).await;
        stop.cancel();
        came
    };
    let world = Arc::new(post.sim.clone());
    let (served, came) = tokio::join!(serve(post.agent, world, Some(link), &say, &stop), watch);
    served.unwrap();
    came.expect("the hub hears of the slot, and the log of the plan");
}

/// A hub that notes how long ago the agent's last tick was. Each heartbeat takes ten seconds of the server's time.
struct Watching {
    sim: Sim,
    ages: Mutex<Vec<Option<i64>>>,
    stop: CancellationToken,
}

#[async_trait]
impl HubLink for Watching {
    async fn plan(&self) -> Result<SignedPlan, Problem> {
        Err(Problem::new(Code::GateLink, "there is none to give"))
    }

    async fn events(&self, events: &Events) -> Result<Accepted, Problem> {
        Ok(Accepted { accepted: events.events.iter().map(|report| report.seq).max().unwrap_or(0) })
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Problem> {
        self.sim.pass(10_000);
        let mut ages = self.ages.lock().unwrap();
        ages.push(heartbeat.tick_age);
        // More than the agent's end of the channel holds.
        if ages.len() == 40 {
            self.stop.cancel();
        }
        Ok(HeartbeatAnswer { clock: heartbeat.clock, revision: heartbeat.revision })
    }
}

/// How long ago the last tick was by each of forty heartbeats.
async fn ages_of(hangs: bool) -> Vec<i64> {
    let mut post = Post::new();
    if hangs {
        post.sim.at().broken.insert("hang".into());
        post.plan(1, &[slot("1", "kct-a", 20, 2000)]).unwrap().unwrap();
    }
    let stop = CancellationToken::new();
    let hub = Arc::new(Watching { sim: post.sim.clone(), ages: Mutex::default(), stop: stop.clone() });
    let link = Link { hub: hub.clone(), poll: Duration::from_millis(5), server: "s1".into() };
    let world = Arc::new(post.sim.clone());
    let say = |_: &str| {};
    let serving = serve(post.agent, world, Some(link), &say, &stop);
    // One that hangs in a tick hears of no end.
    let served = async {
        tokio::select! {
            served = serving => served.unwrap(),
            () = stop.cancelled() => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("heartbeats go on");
    let ages = hub.ages.lock().unwrap();
    ages.iter().map(|age| age.expect("each says it")).take(40).collect()
}

#[tokio::test]
async fn the_hub_hears_for_how_long_an_agent_hangs() {
    let ages = ages_of(true).await;
    assert_eq!(ages, (0..40).map(|beat| beat * 10_000).collect::<Vec<_>>());
    let ages = ages_of(false).await;
    assert!(ages.iter().all(|age| *age < 60_000), "{ages:?}");
}

/// A hub whose plans are signed with other keys than those of which the agent knows; it notes what the agent says of them.
struct Rekeyed {
    said: Mutex<Option<String>>,
    stop: CancellationToken,
}

#[async_trait]
impl HubLink for Rekeyed {
    async fn plan(&self) -> Result<SignedPlan, Problem> {
        Plan::new("s1", 1, T0, T0 + 72 * 3600).sign(&HubKey::generate("renewed")?)
    }

    async fn events(&self, events: &Events) -> Result<Accepted, Problem> {
        Ok(Accepted { accepted: events.events.iter().map(|report| report.seq).max().unwrap_or(0) })
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Problem> {
        if heartbeat.refused.is_some() {
            self.said.lock().unwrap().clone_from(&heartbeat.refused);
            self.stop.cancel();
        }
        Ok(HeartbeatAnswer { clock: heartbeat.clock, revision: heartbeat.revision })
    }
}

#[tokio::test]
async fn the_hub_hears_why_its_plan_is_not_taken() {
    let (post, stop) = (Post::new(), CancellationToken::new());
    let hub = Arc::new(Rekeyed { said: Mutex::default(), stop: stop.clone() });
    let link = Link { hub: hub.clone(), poll: Duration::from_millis(5), server: "s1".into() };
    let world = Arc::new(post.sim.clone());
    let say = |_: &str| {};
    let serving = serve(post.agent, world, Some(link), &say, &stop);
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("the hub hears of it").unwrap();
    let said = hub.said.lock().unwrap().clone().unwrap();
    assert!(!said.is_empty() && !said.contains('\n'), "{said}");
}

#[test]
fn an_agent_that_does_not_say_when_its_last_tick_was_is_understood() {
    let old = r#"{"server": "s1", "revision": 3, "clock": 1790000000000, "holding": [], "version": "0.1.0"}"#;
    let mut beat: Heartbeat = serde_json::from_str(old).unwrap();
    assert_eq!(beat.tick_age, None);
    assert!(!serde_json::to_string(&beat).unwrap().contains("tick_age"));
    assert_eq!((beat.refused.as_ref(), beat.makes_labs), (None, None));
    beat.makes_labs = Some(false);
    (beat.tick_age, beat.refused) = (Some(1000), Some("it has expired".into()));
    assert_eq!(serde_json::from_str::<Heartbeat>(&serde_json::to_string(&beat).unwrap()).unwrap(), beat);
}

#[tokio::test]
async fn the_terminals_of_a_slot_that_is_taken_from_its_holder_are_told_why() {
    for (wanted, what) in [
        (Wanted::Overridden, Some("ended")),
        (Wanted::Cancelled, Some("cancelled")),
        // Who gave it back knows, and who never came has none.
        (Wanted::Released, None),
        (Wanted::NoShow, None),
    ] {
        let mut post = Post::new();
        let mut one = slot("1", "kct-a", 0, 1000);
        post.plan(1, std::slice::from_ref(&one)).unwrap().unwrap();
        post.until(50).await.unwrap();
        (one.wanted, one.why) = (wanted, Some("fire\x1b drill".into()));
        post.plan(2, &[one]).unwrap().unwrap();
        post.until(60).await.unwrap();
        let text = |what: &str| {
            let why = "fire\\x1b drill. Your processes here are ended now; your lab is saved.";
            format!("kct-a: kubecamp: your slot was {what}: {why}")
        };
        assert_eq!(post.sim.at().warned, Vec::from_iter(what.map(text)), "{wanted:?}");
    }
}

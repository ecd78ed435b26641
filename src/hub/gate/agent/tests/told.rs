use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::sim::{Post, slot};
use crate::{
    core::{Code, Problem},
    hub::gate::{
        Accepted, Events, Heartbeat, HeartbeatAnswer, ReportKind, SignedPlan, SlotState,
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

//! A hub and agents of different versions: what one does not know of the other keeps nothing else from being heard.

use kubecamp::hub::{desk::Caller, domain::State};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::hub::{
    served::{Hub, refused},
    world::{NOW, book},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_a_newer_agent_keeps_no_other_from_being_heard() {
    let hub = Hub::start().await;
    let console = Caller::Console;
    let agent = hub.agent("one").await;
    let booking = book(&hub.desk, "amy", 0, 60).await.id;
    let report =
        |seq: u64, state: &str| json!({ "seq": seq, "at": NOW, "kind": "state", "booking": booking, "state": state });
    let newer = json!({ "seq": 3, "at": "a moment", "kind": "of-a-newer-agent", "what": [1, 2] });
    let all = [report(1, "arming"), report(2, "of-a-newer-agent"), newer, report(4, "active")];
    let told = hub.post("/api/v1/agent/events", &agent, &json!({ "server": "one", "events": all })).await;
    assert_eq!(told.json::<Value>().await.unwrap(), json!({ "accepted": 4 }));
    assert_eq!(hub.desk.booking(&console, NOW, &booking).await.unwrap().state, State::Active);
    // Where it is the last the agent goes on too.
    let last = json!({ "server": "one", "events": [report(5, "of-a-newer-agent")] });
    let told = hub.post("/api/v1/agent/events", &agent, &last).await;
    assert_eq!(told.json::<Value>().await.unwrap(), json!({ "accepted": 5 }));
    // Nobody can say what the hub has of reports without numbers.
    let bare =
        json!({ "server": "one", "events": [report(6, "ending"), { "at": NOW, "kind": "accepted", "revision": 1 }] });
    let (_, code, _) = refused(hub.post("/api/v1/agent/events", &agent, &bare).await).await;
    assert_eq!(code, "KC-HUB-INVALID");
    assert_eq!(hub.desk.booking(&console, NOW, &booking).await.unwrap().state, State::Active, "nothing of it is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_agent_that_holds_what_the_hub_does_not_know_lives() {
    let hub = Hub::start().await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let agent = hub.agent("one").await;
    let holding = json!([["b1", "of-a-newer-agent"], ["b2", "active"]]);
    let beat =
        json!({ "server": "one", "revision": 0, "clock": NOW.0 * 1000, "holding": holding, "version": "99.0.0" });
    let heard = hub.post("/api/v1/agent/heartbeat", &agent, &beat).await;
    assert_eq!(heard.status(), StatusCode::OK);
    assert_eq!(hub.desk.server(&console, NOW, &one).await.unwrap().seen, Some(NOW));
}

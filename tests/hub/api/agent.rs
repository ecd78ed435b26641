//! What agents tell the hub and hear from it.

use kubecamp::hub::{
    desk::{Caller, Edit},
    domain::{BookingId, Health, State},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::hub::{
    served::{Hub, refused},
    world::{NOW, at, book, clerk, who},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_that_its_quarantine_was_cleared() {
    let hub = Hub::start().await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let agent = hub.agent("one").await;
    let booking = book(&hub.desk, "amy", 0, 60).await;
    for (n, state) in ["arming", "quarantined"].into_iter().enumerate() {
        let event = json!({ "seq": n + 1, "at": NOW, "kind": "state", "booking": booking.id, "state": state });
        let told = hub.post("/api/v1/agent/events", &agent, &json!({ "server": "one", "events": [event] })).await;
        assert_eq!(told.json::<Value>().await.unwrap()["accepted"], n + 1);
    }
    let plan = async || -> Value {
        let signed = hub.get("/api/v1/agent/plan", &agent).await;
        serde_json::from_str(signed["plan"].as_str().unwrap()).unwrap()
    };
    assert!(plan().await.get("cleared").is_none());
    hub.desk.set_health(&console, NOW, None, &one, Health::Healthy, "looked after").await.unwrap();
    assert_eq!(plan().await["cleared"], json!([booking.id]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_hears_so_of_bookings_that_were_over_too() {
    let hub = Hub::start().await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let agent = hub.agent("one").await;
    let (absent, given_up) = (book(&hub.desk, "amy", 0, 60).await.id, book(&hub.desk, "bob", 90, 150).await.id);
    let tell = async |seq: u64, booking: &BookingId, state: &str| {
        let event = json!({ "seq": seq, "at": NOW, "kind": "state", "booking": booking, "state": state });
        let told = hub.post("/api/v1/agent/events", &agent, &json!({ "server": "one", "events": [event] })).await;
        assert_eq!(told.json::<Value>().await.unwrap()["accepted"], seq);
    };
    tell(1, &absent, "arming").await;
    tell(2, &absent, "active").await;
    clerk(&hub.desk).settle(at(15)).await.unwrap();
    assert_eq!(hub.desk.booking(&console, at(15), &absent).await.unwrap().state, State::NoShow);
    // The agent has begun this one, and the hub hears of it when it is cancelled already.
    hub.desk.cancel(&who("bob"), at(86), None, &given_up, &Edit::default()).await.unwrap();
    // Nor does anybody forget the place of what this database does not know.
    let unknown = BookingId::from_random([7; 8]);
    let plan = async || -> Value {
        let signed = hub.get("/api/v1/agent/plan", &agent).await;
        serde_json::from_str(signed["plan"].as_str().unwrap()).unwrap()
    };
    for (seq, booking) in [&absent, &given_up, &unknown].into_iter().enumerate() {
        hub.desk.set_health(&console, NOW, None, &one, Health::Healthy, "fit").await.unwrap();
        tell(seq as u64 + 3, booking, "quarantined").await;
        let health = hub.desk.server(&console, NOW, &one).await.unwrap().health;
        assert_eq!((health, plan().await.get("cleared")), (Health::Quarantined, None), "{booking}");
    }
    hub.desk.set_health(&console, NOW, None, &one, Health::Healthy, "looked after").await.unwrap();
    let mut all = [absent, given_up, unknown];
    all.sort();
    assert_eq!(plan().await["cleared"], json!(all));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_saved_lab_hears_where_it_is() {
    let hub = Hub::start().await;
    let agent = hub.agent("one").await;
    let kept = |seq: u64, account: &str| {
        let (kind, lab) = ("lab-kept", "gate-lab");
        json!({ "seq": seq, "at": NOW, "kind": kind, "account": account, "lab": lab, "layout": "2x4c8g" })
    };
    let events = json!({ "server": "one", "events": [kept(1, "amy"), kept(2, "stranger")] });
    let told = hub.post("/api/v1/agent/events", &agent, &events).await.json::<Value>().await.unwrap();
    assert_eq!(told["accepted"], 2, "{told}");
    let (amy, bob) = (hub.token("amy").await, hub.token("bob").await);
    let labs = hub.get("/api/v1/labs", &amy).await;
    assert_eq!(
        (labs.as_array().unwrap().len(), &labs[0]["server"], &labs[0]["layout"]),
        (1, &json!("one"), &json!("2x4c8g"))
    );
    for (layout, begins) in [
        ("2x4c8g", json!({ "begins": "saved" })),
        ("1x4c12g", json!({ "begins": "anew", "instead_of": "2x4c8g" })),
        ("3x2c4g", json!({ "begins": "anew", "instead_of": "2x4c8g" })),
    ] {
        let path = format!("/api/v1/free?minutes=60&most=1&layout={layout}");
        assert_eq!(hub.get(&path, &amy).await[0]["lab"], begins, "{layout}");
        assert_eq!(hub.get(&path, &bob).await[0]["lab"], Value::Null, "{layout}");
    }
    let (status, code, _) = refused(hub.ask(Method::GET, "/api/v1/labs?person=amy", &bob).send().await.unwrap()).await;
    assert_eq!((status, code.as_str()), (403, "KC-HUB-DENIED"));
    let gone = json!({ "seq": 3, "at": NOW, "kind": "lab-dropped", "account": "amy" });
    let told = hub.post("/api/v1/agent/events", &agent, &json!({ "server": "one", "events": [gone] })).await;
    assert!(told.status().is_success());
    assert_eq!(hub.get("/api/v1/labs", &amy).await, json!([]));
}

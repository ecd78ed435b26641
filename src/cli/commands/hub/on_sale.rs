use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    cli::hub_client::HubClient,
    core::{Code, LabName, Problem, shell::printable},
    hub::domain::{Health, Server},
    render::count,
};

/// Why the hub has a server out of use whose gate was taken off.
const UNENROLLED: &str = "unenrolled";

/// What to say where the hub was told nothing: nobody is signed in, or the server let nobody in.
pub(super) fn untold(hub: Option<&HubClient>, server: &LabName) -> String {
    let by_hand = by_hand(server);
    match hub.map(HubClient::hub) {
        None => format!(
            "No hub is told, since nobody is signed in at one: its hub goes on selling {server}. As an admin there: \
             {by_hand}"
        ),
        Some(at) => format!(
            "The hub {at} was told nothing, since nothing was changed on {server}. Where that is gone for good: {by_hand}"
        ),
    }
}

fn by_hand(server: &LabName) -> String {
    format!("kubecamp hub server health {server} away --reason {UNENROLLED}")
}

/// Has the hub sell no more time of a server that loses its gate; says what became of that, and never fails: the gate goes
/// in any case.
pub(super) async fn end(hub: Option<&HubClient>, server: &LabName) -> String {
    let Some(hub) = hub else { return untold(None, server) };
    let there = match look(hub, server).await {
        Ok(there) if there.health == Health::Healthy => set(hub, server, Health::Away, UNENROLLED).await,
        other => other,
    };
    let at = hub.hub();
    match there {
        Ok(there) => format!("The hub {at} sells no time of {server}: it is {} there.", there.health.as_str()),
        Err(problem) if problem.code == Code::HubUnknown => format!("The hub {at} has no server {server}."),
        Err(problem) => {
            let (why, by_hand) = (printable(&problem.what), by_hand(server));
            format!("The hub {at} goes on selling {server}: {why}. As an admin there: {by_hand}")
        }
    }
}

/// Has the hub sell time again of a server that it has out of use for nothing but the loss of its gate; says so, or why it
/// sells none.
pub(super) async fn begin(hub: &HubClient, server: &LabName) -> Option<String> {
    let there = look(hub, server).await.ok()?;
    match (there.health, there.health_note.as_deref()) {
        (Health::Healthy, _) => return None,
        (Health::Away, Some(UNENROLLED)) => {}
        (health, note) => {
            let (is, why) = (health.as_str(), printable(note.unwrap_or("no reason was given")));
            let by_hand = format!("kubecamp hub server health {server} healthy --reason TEXT");
            return Some(format!(
                "The hub sells no time of {server}: it is {is} there, {why}. When it is fit: {by_hand}"
            ));
        }
    }
    Some(match set(hub, server, Health::Healthy, "enrolled").await {
        Ok(_) => format!("The hub sells time of {server} again."),
        Err(problem) => {
            let why = printable(&problem.what);
            let by_hand = format!("kubecamp hub server health {server} healthy --reason enrolled");
            format!("At the hub {server} is still out of use: {why}. As an admin there: {by_hand}")
        }
    })
}

/// Has the hub promise none of the labs any more that went with a server's gate; what there is to say of that.
pub(super) async fn forget_labs(hub: &HubClient, server: &LabName) -> Option<String> {
    let (at, path) = (hub.hub(), format!("/api/v1/servers/{server}/labs"));
    match hub.send::<Value>(Method::DELETE, &path, &json!({}), None).await {
        Ok(gone) => match gone["labs"].as_u64()? {
            0 => None,
            labs => Some(format!("The hub {at} has forgotten what was saved there: {}.", count(labs, "lab"))),
        },
        Err(problem) if problem.code == Code::HubUnknown => None,
        Err(problem) => {
            let why = printable(&problem.what);
            Some(format!("The hub {at} still promises the labs that were saved on {server}: {why}."))
        }
    }
}

async fn look(hub: &HubClient, server: &LabName) -> Result<Server, Problem> {
    hub.get(&format!("/api/v1/servers/{server}")).await
}

async fn set(hub: &HubClient, server: &LabName, health: Health, reason: &str) -> Result<Server, Problem> {
    let path = format!("/api/v1/servers/{server}/health");
    hub.send(Method::POST, &path, &json!({ "health": health, "reason": reason }), None).await
}

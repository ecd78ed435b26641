use std::collections::BTreeSet;

use crate::{
    cli::{hub_client::HubClient, output},
    hub::domain::{Booking, Server, ServerId},
};

/// Says on stderr which of these servers nobody enrolled yet, and which make no labs.
///
/// It is only told: what fails here is no failure.
pub(super) async fn say_unfit<'a>(client: &HubClient, named: impl Iterator<Item = &'a ServerId>) {
    let named: BTreeSet<&ServerId> = named.collect();
    let all = servers(client, &named).await;
    let lines = [unenrolled(&all, &named), logins(&all, &named)];
    lines.iter().flatten().for_each(|line| output::say(line));
}

/// As [`say_unfit`], only which of them make no labs: of what is booked, whose table shows a layout.
pub(super) async fn say_logins<'a>(client: &HubClient, named: impl Iterator<Item = &'a ServerId>) {
    let named: BTreeSet<&ServerId> = named.collect();
    let all = servers(client, &named).await;
    logins(&all, &named).iter().for_each(|line| output::say(line));
}

/// All servers, where some are named; none where the hub does not tell.
async fn servers(client: &HubClient, named: &BTreeSet<&ServerId>) -> Vec<Server> {
    if named.is_empty() { vec![] } else { client.get("/api/v1/servers").await.unwrap_or_default() }
}

/// What is said of those that make no labs; none where there is none.
fn logins(all: &[Server], named: &BTreeSet<&ServerId>) -> Option<String> {
    let bare = all.iter().filter(|server| server.makes_labs == Some(false) && named.contains(&server.id));
    let bare: Vec<&str> = bare.map(|server| server.id.as_str()).collect();
    (!bare.is_empty()).then(|| format!("note: no labs are made on {}: a slot there is a login.", bare.join(", ")))
}

/// Whether the server of a slot makes no labs.
///
/// It is only told: what fails here is no failure.
pub(super) async fn is_login(client: &HubClient, booking: &Booking) -> bool {
    let Some(server) = &booking.server else { return false };
    let there = client.get::<Server>(&format!("/api/v1/servers/{server}")).await;
    there.is_ok_and(|there| there.makes_labs == Some(false))
}

/// What is said of those that nobody enrolled; none where there is none.
fn unenrolled(all: &[Server], named: &BTreeSet<&ServerId>) -> Option<String> {
    let strange = all.iter().filter(|server| server.is_strange() && named.contains(&server.id));
    let strange: Vec<&str> = strange.map(|server| server.id.as_str()).collect();
    let until = "until an admin enrolls it, a slot there opens to nobody";
    (!strange.is_empty()).then(|| format!("note: no agent was ever heard of {}: {until}.", strange.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_unfit_is_named() {
        let server = |id: &str, issued: i64, makes_labs: Option<bool>| -> Server {
            serde_json::from_value(json!({
                "id": id, "address": "h", "course": null, "cores": 8, "memory": "32GiB", "labels": [],
                "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
                "health_note": null, "occupant": null, "revision": 1, "issued": issued, "acked": 0, "seen": null,
                "clock_offset": 0, "makes_labs": makes_labs, "version": 1,
            }))
            .unwrap()
        };
        let all = [server("big", 0, None), server("one", 1, Some(false)), server("two", 1, Some(true))];
        let named = |ids: &[&str]| -> Vec<ServerId> { ids.iter().map(|id| id.parse().unwrap()).collect() };
        let said = |ids: &[&str]| unenrolled(&all, &named(ids).iter().collect());
        let bare = |ids: &[&str]| logins(&all, &named(ids).iter().collect());
        assert_eq!((said(&["one"]), said(&[])), (None, None));
        assert_eq!(bare(&["big", "two"]), None);
        let login = "note: no labs are made on one: a slot there is a login.";
        assert_eq!(bare(&["one", "two"]).as_deref(), Some(login));
        let why = "until an admin enrolls it, a slot there opens to nobody.";
        assert_eq!(said(&["big", "one"]), Some(format!("note: no agent was ever heard of big: {why}")));
    }
}

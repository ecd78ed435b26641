use std::collections::BTreeSet;

use crate::{
    cli::{hub_client::HubClient, output},
    hub::domain::{Server, ServerId},
};

/// Says on stderr which of these servers nobody enrolled yet. It is only told: what fails here is no failure.
pub(super) async fn say_unenrolled<'a>(client: &HubClient, named: impl Iterator<Item = &'a ServerId>) {
    let named: BTreeSet<&ServerId> = named.collect();
    if named.is_empty() {
        return;
    }
    let all: Vec<Server> = client.get("/api/v1/servers").await.unwrap_or_default();
    if let Some(line) = unenrolled(&all, &named) {
        output::say(&line);
    }
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
    fn only_what_nobody_enrolled_is_named() {
        let server = |id: &str, issued: i64| -> Server {
            serde_json::from_value(json!({
                "id": id, "address": "h", "course": null, "cores": 8, "memory": "32GiB", "labels": [],
                "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
                "health_note": null, "occupant": null, "revision": 1, "issued": issued, "acked": 0, "seen": null,
                "clock_offset": 0, "version": 1,
            }))
            .unwrap()
        };
        let all = [server("big", 0), server("one", 1), server("two", 0)];
        let said = |named: &[&str]| {
            let named: Vec<ServerId> = named.iter().map(|id| id.parse().unwrap()).collect();
            unenrolled(&all, &named.iter().collect())
        };
        assert_eq!((said(&["one"]), said(&[])), (None, None));
        let why = "until an admin enrolls it, a slot there opens to nobody.";
        assert_eq!(said(&["big", "one"]), Some(format!("note: no agent was ever heard of big: {why}")));
    }
}

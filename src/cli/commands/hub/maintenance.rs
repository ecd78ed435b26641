use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{super::Context, manage::rows, servers::ELSEWHERE};
use crate::{
    cli::{
        args::{HubArgs, MaintenanceArgs},
        clock::{local, own_zone, zoned},
        hub_client::HubClient,
        output, when,
    },
    core::{Code, Problem, shell::printable},
    hub::{
        domain::{Booking, Epoch, Maintenance, ServerId, Window, Zone},
        http::Clock,
    },
    render::count,
};

/// So long the hub has to move what it can: it looks each second, but not in the first half minute of its own.
const PATIENCE: Duration = Duration::from_secs(3);

/// `kubecamp hub server maintenance`.
pub(super) async fn maintenance(cx: &Context, args: MaintenanceArgs) -> Result<(), Problem> {
    match args.end {
        _ if args.list => list(cx, &args.hub, args.server.as_ref()).await,
        Some(number) => end(cx, &args.hub, args.server.as_ref(), number).await,
        None => close(cx, args).await,
    }
}

async fn list(cx: &Context, hub: &HubArgs, server: Option<&ServerId>) -> Result<(), Problem> {
    let mut all = ahead(&HubClient::new(&cx.places, &hub.at)?).await?;
    all.retain(|m| server.is_none_or(|s| m.server == *s));
    let row = |m: &Maintenance| {
        let reason = printable(&m.reason).to_string();
        vec![m.id.to_string(), m.server.to_string(), local(m.window.starts), local(m.window.ends), reason]
    };
    let from = zoned("FROM");
    output::value(hub.output, &all, |_| rows(&["NUMBER", "SERVER", &from, "TO", "WHY"], &all, row))
}

async fn end(cx: &Context, hub: &HubArgs, server: Option<&ServerId>, number: i64) -> Result<(), Problem> {
    let client = HubClient::new(&cx.places, &hub.at)?;
    let known = ahead(&client).await?;
    if let Some(server) = server {
        must_be_of(server, number, &known)?;
    }
    let path = format!("/api/v1/maintenance/{number}");
    client.send::<()>(Method::DELETE, &path, &json!({}), None).await?;
    output::say(&ended(number, &known, Clock::system().now()));
    Ok(())
}

/// What became of a maintenance that was ended: one that had not begun is not over.
fn ended(number: i64, known: &[Maintenance], now: Epoch) -> String {
    let had_begun = known.iter().find(|m| m.id == number).is_none_or(|m| m.window.starts <= now);
    format!("Maintenance {number} {}.", if had_begun { "is over" } else { "does not take place" })
}

async fn close(cx: &Context, args: MaintenanceArgs) -> Result<(), Problem> {
    let MaintenanceArgs { server, from, to, zone, reason, hub, .. } = args;
    // The command line asks for all four where it neither lists nor ends.
    let server = server.map(|s| s.to_string()).unwrap_or_default();
    let window = between(&from.unwrap_or_default(), &to.unwrap_or_default(), zone.as_ref())?;
    let path = format!("/api/v1/servers/{server}/maintenance");
    let body = json!({ "window": window, "reason": reason });
    let client = HubClient::new(&cx.places, &hub.at)?;
    // Before: a moment later the hub has moved some.
    let mut hit = then(&client, window).await.unwrap_or_default();
    hit.retain(|b| b.state.is_unbegun() && b.server.as_ref().is_some_and(|s| s.as_str() == server));
    let made: Value = client.send(Method::POST, &path, &body, None).await?;
    output::value(hub.output, &made, |_| format!("maintenance {}\n", made["maintenance"]["id"]))?;
    let booked = made["booked"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if booked > 0 {
        let booked = count(booked as u64, "booking");
        output::say(&format!("In that time: {booked}. The hub moves each now to {ELSEWHERE}."));
        settled(&client, window, &hit, &server).await.iter().for_each(|line| output::say(line));
    }
    // It is only told: what fails here is no failure.
    let others = ahead(&client).await.unwrap_or_default();
    if let Ok(new) = serde_json::from_value::<Maintenance>(made["maintenance"].clone()) {
        overlaps(&new, &others).iter().for_each(|line| output::say(line));
    }
    Ok(())
}

/// Says with which others of its server a maintenance overlaps: each ends by itself, and the server opens after the last.
fn overlaps(new: &Maintenance, others: &[Maintenance]) -> Vec<String> {
    let touches = |m: &&Maintenance| m.id != new.id && m.server == new.server && m.window.overlaps(new.window);
    let line = |m: &Maintenance| {
        let (number, from, to) = (m.id, local(m.window.starts), local(m.window.ends));
        let reason = printable(&m.reason);
        format!("note: maintenance {number} of {} overlaps it, {from} to {to}: {reason}", new.server)
    };
    others.iter().filter(touches).map(line).collect()
}

/// What is booked in a window; none where the hub does not say. It is only told of: what fails here is no failure.
async fn then(client: &HubClient, window: Window) -> Option<Vec<Booking>> {
    let (from, to) = (window.starts.0.to_string(), window.ends.0.to_string());
    let params = [("from", Some(from)), ("to", Some(to)), ("open", Some("true".to_owned()))];
    client.find("/api/v1/bookings", &params).await.ok()
}

/// What becomes of the bookings that a maintenance hits, a line each, and how many the hub has not looked at yet.
async fn settled(client: &HubClient, window: Window, hit: &[Booking], server: &str) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let all = then(client, window).await;
        let found: Vec<Option<String>> = hit.iter().map(|b| became(b, all.as_deref()?)).collect();
        let open = found.iter().filter(|line| line.is_none()).count();
        if open > 0 && Instant::now() < until {
            sleep(Duration::from_millis(500)).await;
            continue;
        }
        let mut lines: Vec<String> = found.into_iter().flatten().collect();
        if open > 0 {
            let open = count(open as u64, "booking");
            lines.push(format!("Not settled yet: {open}. Look later: kubecamp book ls --all --server {server}"));
        }
        return lines;
    }
}

/// What became of a booking by now; none where nothing did.
fn became(before: &Booking, all: &[Booking]) -> Option<String> {
    let became = match all.iter().find(|b| b.id == before.id) {
        None => "it is over".to_owned(),
        Some(b) if b.server != before.server => {
            let to = b.server.as_ref().map_or_else(|| "no server".to_owned(), ToString::to_string);
            format!("moved to {to}")
        }
        Some(b) if b.stranded.is_some() => "it stays, as no other server is free then; its holder is told".to_owned(),
        Some(_) => return None,
    };
    let (id, person, window) = (&before.id, &before.person, before.window);
    Some(printable(&own_zone().told(&format!("{id} of {person}, {window}: {became}"))))
}

/// The time of a maintenance. One that ends before it begins the hub would refuse too, but in words for programs.
fn between(from: &str, to: &str, zone: Option<&Zone>) -> Result<Window, Problem> {
    Window::new(when::noted(from, zone)?, when::noted(to, zone)?).map_err(|why| {
        Problem::new(Code::BookWindow, when::zone(zone).told(&why))
            .hint("Give the earlier time as --from and the later one as --to.")
    })
}

/// When servers are closed from now on.
async fn ahead(client: &HubClient) -> Result<Vec<Maintenance>, Problem> {
    let ahead = Window { starts: Clock::system().now(), ends: Epoch::LAST };
    let params = [("from", Some(ahead.starts.0.to_string())), ("to", Some(ahead.ends.0.to_string()))];
    client.find("/api/v1/maintenance", &params).await
}

/// Refuses to end another server's maintenance than that of the one named. Of a number that is not there the hub tells.
fn must_be_of(server: &ServerId, number: i64, all: &[Maintenance]) -> Result<(), Problem> {
    match all.iter().find(|m| m.id == number && m.server != *server) {
        None => Ok(()),
        Some(other) => {
            let what = format!("maintenance {number} is one of {}, and not of {server}", other.server);
            Err(Problem::new(Code::HubInvalid, what).hint("See kubecamp hub server maintenance --list."))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Args;

    fn is_taken(args: &[&str]) -> bool {
        let args = ["kubecamp", "hub", "server", "maintenance"].iter().chain(args).copied();
        Args::try_parse_from(args).is_ok()
    }

    #[test]
    fn what_overlaps_is_told() {
        let of = |id, server: &str, starts, ends| Maintenance {
            id,
            server: server.parse().unwrap(),
            window: Window { starts: Epoch(starts), ends: Epoch(ends) },
            reason: "a fan".into(),
        };
        let new = of(3, "one", 600, 1200);
        let others = [of(1, "one", 0, 600), of(2, "one", 0, 601), of(4, "two", 600, 1200), new.clone()];
        let told = overlaps(&new, &others);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("note: maintenance 2 of one overlaps it, ") && told[0].ends_with(": a fan"));
    }

    #[test]
    fn what_became_of_a_booking_is_told_once_it_is_known() {
        let booking = |server: &str, stranded: Option<i64>| -> Booking {
            serde_json::from_value(json!({
                "id": "b1", "server": server, "person": "amy", "course": "k8s", "layout": "2x4c8g",
                "window": { "starts": 1000, "ends": 2000 }, "busy_until": 2000, "state": "booked", "since": 0,
                "version": 1, "created": 0, "updated": 0, "charged": 1000, "lapses": 0, "stranded": stranded,
            }))
            .unwrap()
        };
        let before = booking("one", None);
        let told = |all: &[Booking]| became(&before, all);
        assert_eq!(told(std::slice::from_ref(&before)), None);
        assert!(told(&[booking("two", None)]).unwrap().ends_with(": moved to two"));
        let stays = told(&[booking("one", Some(1000))]).unwrap();
        assert!(stays.starts_with("b1 of amy, ") && stays.contains("no other server is free"), "{stays}");
        assert!(told(&[]).unwrap().ends_with(": it is over"));
    }

    #[test]
    fn a_maintenance_that_had_not_begun_is_not_over() {
        let (server, reason) = ("one".parse().unwrap(), "disk".to_owned());
        let all = [Maintenance { id: 2, server, window: Window { starts: Epoch(10), ends: Epoch(20) }, reason }];
        assert_eq!(ended(2, &all, Epoch(9)), "Maintenance 2 does not take place.");
        assert_eq!(ended(2, &all, Epoch(10)), "Maintenance 2 is over.");
    }

    #[test]
    fn maintenance_is_made_listed_or_ended() {
        let (from, to) = ("2026-11-24T14:00:00Z", "2026-11-24T16:00:00Z");
        assert!(is_taken(&["one", "--from", from, "--to", to, "--reason", "disk"]));
        let local = ["one", "--from", "08:00", "--to", "2026-12-01T18:00", "--zone", "Asia/Shanghai"];
        assert!(is_taken(&[local.as_slice(), &["--reason", "disk"]].concat()));
        assert!(is_taken(&["--list"]) && is_taken(&["one", "--list"]));
        assert!(is_taken(&["--end", "3"]));
        assert!(is_taken(&["one", "--end", "3"]), "it is checked to be one of that server");
        let berlin: Zone = "Europe/Berlin".parse().unwrap();
        assert_eq!(between("2026-11-24T15:00", to, Some(&berlin)).unwrap().length(), 2 * 3600);
        let turned = between("2026-11-24T18:00", from, Some(&berlin)).unwrap_err();
        assert_eq!(turned.code, Code::BookWindow);
        assert_eq!(turned.what, "2026-11-24 18:00 is not before 2026-11-24 15:00 (Europe/Berlin)");
        for bad in [&["one"][..], &["--end", "3", "--list"]] {
            assert!(!is_taken(bad), "{bad:?}");
        }
    }
}

use reqwest::Method;
use serde_json::{Value, json};

use super::{super::Context, manage::rows, servers::ELSEWHERE};
use crate::{
    cli::{
        args::{HubArgs, MaintenanceArgs},
        clock::{local, zoned},
        hub_client::HubClient,
        output, when,
    },
    core::{Code, Problem, shell::printable},
    hub::{
        domain::{Epoch, Maintenance, ServerId, Window, Zone},
        http::Clock,
    },
    render::count,
};

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
    let made: Value = HubClient::new(&cx.places, &hub.at)?.send(Method::POST, &path, &body, None).await?;
    output::value(hub.output, &made, |_| format!("maintenance {}\n", made["maintenance"]["id"]))?;
    let booked = made["booked"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    if booked > 0 {
        let booked = count(booked as u64, "booking");
        output::say(&format!("In that time: {booked}. The hub moves each now to {ELSEWHERE}."));
    }
    Ok(())
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

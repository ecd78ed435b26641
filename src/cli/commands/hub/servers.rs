use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::Context, maintenance};
use crate::{
    cli::{
        args::{HubArgs, NewServerArgs, ServerChange, ServerCommand},
        clock::{local, own_zone, zoned},
        hub_client::HubClient,
        output,
    },
    core::{Problem, shell::printable},
    hub::{
        desk::NewServer,
        domain::{Booking, Course, Epoch, Health, Server, ServerId, State, Window},
        gate,
        http::Clock,
    },
    render::{count, table},
};

/// A server that was changed, and how many bookings lie outside of its opening hours by now, or are of other courses.
#[derive(Deserialize)]
struct Changed {
    #[serde(flatten)]
    server: Server,
    #[serde(default)]
    outside: usize,
    #[serde(default)]
    foreign: usize,
}

/// Servers as a table. Its heading names the zone in which agents were heard.
fn shown(all: &[Server], wide: bool) -> String {
    let heard = zoned("AGENT");
    let heading = ["SERVER", "HEALTH", "MODE", "SIZE", "ADDRESS", "OPEN", "ZONE", heard.as_str()];
    let mut rows = vec![output::columns(wide, heading, ["COURSE", "LABELS", "BUFFER", "WHY"])];
    rows.extend(all.iter().map(|s| output::columns(wide, row(s), more(s))));
    table(&rows)
}

/// When the agent was heard, and what is wrong with that: the hub sells the server's time all the same.
fn agent(s: &Server, now: Epoch) -> String {
    let Some(seen) = s.seen else { return "never".to_owned() };
    let silent = if s.is_silent(now) { ", not heard since" } else { "" };
    let clock = if s.is_clock_off() { format!(", clock {:+} s", s.clock_offset) } else { String::new() };
    format!("{}{silent}{clock}", local(seen))
}

fn row(s: &Server) -> Vec<String> {
    let strange = s.health == Health::Healthy && s.is_strange();
    let health = if strange { "not enrolled" } else { s.health.as_str() }.to_owned();
    let disk = s.disk.map_or_else(String::new, |disk| format!(", {disk} disk"));
    let size = format!("{}c {}{disk}", s.cores, s.memory);
    vec![
        s.id.to_string(),
        health,
        s.mode.as_str().into(),
        size,
        s.address.clone(),
        s.opening.to_string(),
        s.zone.to_string(),
        agent(s, Clock::system().now()),
    ]
}

/// What a wide table shows besides: for which course it is, what a booking can ask of it, and why it is out of use.
fn more(s: &Server) -> [String; 4] {
    let dash = || "-".to_owned();
    let labels: Vec<&str> = s.labels.iter().map(String::as_str).collect();
    let why = s.health_note.as_deref().filter(|_| s.health != Health::Healthy);
    [
        s.course.as_ref().map_or_else(dash, ToString::to_string),
        if labels.is_empty() { dash() } else { labels.join(",") },
        format!("{}m", (s.buffer + 59) / 60),
        why.map_or_else(dash, |why| printable(&own_zone().told(why))),
    ]
}

fn show(hub: &HubArgs, server: &Server) -> Result<(), Problem> {
    output::value(hub.output, server, |wide| shown(std::slice::from_ref(server), wide))
}

/// `kubecamp hub server`.
pub(super) async fn server(cx: &Context, command: ServerCommand) -> Result<(), Problem> {
    match command {
        ServerCommand::List { hub } => list(cx, &hub).await,
        ServerCommand::Add(args) => add(cx, args).await,
        ServerCommand::Set { server, change, hub } => set(cx, &server, change, &hub).await,
        ServerCommand::Remove { server, hub } => remove(cx, &server, &hub).await,
        ServerCommand::Health { server, health, reason, hub } => set_health(cx, &server, health, &reason, &hub).await,
        ServerCommand::Maintenance(args) => maintenance::maintenance(cx, args).await,
        ServerCommand::Token { server, hub } => token(cx, &server, &hub).await,
        ServerCommand::Keys { hub } => keys(cx, &hub).await,
    }
}

async fn list(cx: &Context, hub: &HubArgs) -> Result<(), Problem> {
    let all: Vec<Server> = HubClient::new(&cx.places, &hub.at)?.get("/api/v1/servers").await?;
    output::value(hub.output, &all, |wide| shown(&all, wide))
}

async fn add(cx: &Context, args: NewServerArgs) -> Result<(), Problem> {
    let new = NewServer {
        id: args.server,
        address: args.address,
        course: args.course,
        cores: args.cores,
        memory: args.memory,
        disk: args.disk,
        labels: args.label.into_iter().collect(),
        opening: args.opening,
        zone: args.zone,
        buffer: i64::from(args.buffer) * 60,
        mode: args.mode,
    };
    let client = HubClient::new(&cx.places, &args.hub.at)?;
    let made: Server = client.send(Method::POST, "/api/v1/servers", &new, None).await?;
    show(&args.hub, &made)?;
    say_doubts(&client, &made).await;
    if made.is_strange() {
        to_enroll(&made.id, client.hub(), client.authority().is_some()).iter().for_each(|line| output::say(line));
    }
    Ok(())
}

/// How a new server is enrolled at a hub that this computer asks at `hub`, with an authority of its own or without.
fn to_enroll(id: &ServerId, hub: &str, has_authority: bool) -> Vec<String> {
    let mut lines = vec![format!("{id} is not enrolled yet: it can be booked, but until then nobody gets in.")];
    let is_only_here = hub.starts_with("unix:") || gate::loopback_port(hub).is_some();
    let at = if is_only_here { "URL-THAT-THE-SERVER-REACHES" } else { hub };
    lines.push(format!("kubecamp hub enroll HOST --server {id} --hub {at}"));
    if is_only_here {
        lines.push(format!("{hub} is the hub for this computer alone: a server that asks there asks itself."));
    }
    if has_authority {
        lines.push("Its agent knows the hub by the authority of your sign-in; --hub-ca FILE names another.".to_owned());
    }
    lines
}

async fn set(cx: &Context, server: &ServerId, change: ServerChange, hub: &HubArgs) -> Result<(), Problem> {
    let (client, path) = (HubClient::new(&cx.places, &hub.at)?, format!("/api/v1/servers/{server}"));
    let there: Server = client.get(&path).await?;
    let seen = there.version;
    let after: Changed = client.send(Method::PUT, &path, &changed(there, change), Some(seen)).await?;
    show(hub, &after.server)?;
    say_doubts(&client, &after.server).await;
    left_as_booked(&after).iter().for_each(|line| output::say(line));
    Ok(())
}

/// Which bookings a change left where they no longer belong.
fn left_as_booked(after: &Changed) -> Vec<String> {
    let (mut lines, id) = (vec![], &after.server.id);
    if after.outside > 0 {
        let outside = count(after.outside as u64, "booking");
        lines.push(format!("Outside of the opening hours of {id}, and left as booked: {outside}."));
    }
    if after.foreign > 0 {
        let foreign = count(after.foreign as u64, "booking");
        lines.push(format!("Ahead on {id} of other courses, and left as booked: {foreign}."));
    }
    if !lines.is_empty() {
        let cancel = format!("kubecamp book ls --all --server {id}; book cancel");
        lines.push(format!("Cancel those that cannot take place: {cancel}."));
    }
    lines
}

async fn remove(cx: &Context, server: &ServerId, hub: &HubArgs) -> Result<(), Problem> {
    let path = format!("/api/v1/servers/{server}");
    HubClient::new(&cx.places, &hub.at)?.send::<()>(Method::DELETE, &path, &json!({}), None).await?;
    output::say(&format!(
        "Server {server} is removed. While its gate stands it lets nobody in: kubecamp hub unenroll takes it off."
    ));
    Ok(())
}

async fn set_health(
    cx: &Context,
    server: &ServerId,
    health: Health,
    reason: &str,
    hub: &HubArgs,
) -> Result<(), Problem> {
    let client = HubClient::new(&cx.places, &hub.at)?;
    // Before: a moment later the hub has moved some.
    let hit = if health != Health::Healthy { hit(&client, server).await? } else { vec![] };
    let (path, body) = (format!("/api/v1/servers/{server}/health"), json!({ "health": health, "reason": reason }));
    show(hub, &client.send(Method::POST, &path, &body, None).await?)?;
    hit.iter().for_each(|line| output::say(line));
    Ok(())
}

async fn token(cx: &Context, server: &ServerId, hub: &HubArgs) -> Result<(), Problem> {
    let path = format!("/api/v1/servers/{server}/agent-token");
    let made: Value = HubClient::new(&cx.places, &hub.at)?.secret(&path, &json!({})).await?;
    output::value(hub.output, &made, |_| format!("{}\n", made["token"].as_str().unwrap_or_default()))
}

async fn keys(cx: &Context, hub: &HubArgs) -> Result<(), Problem> {
    let keys: Value = HubClient::new(&cx.places, &hub.at)?.get("/api/v1/gate").await?;
    let line = |name: &str| keys[name].as_str().unwrap_or_default().to_owned();
    output::value(hub.output, &keys, |_| {
        table(&[vec!["user CA".to_owned(), line("user_ca")], vec!["plan key".to_owned(), line("plan_key")]])
    })
}

/// Says of a server what the hub takes, and hardly anybody means. It is only told: what fails here is no failure.
async fn say_doubts(client: &HubClient, server: &Server) {
    let all: Vec<Server> = client.get("/api/v1/servers").await.unwrap_or_default();
    let courses: Vec<Course> = client.get("/api/v1/courses").await.unwrap_or_default();
    doubts(server, &all, &courses, Clock::system().now()).iter().for_each(|line| output::say(line));
}

fn doubts(server: &Server, all: &[Server], courses: &[Course], now: Epoch) -> Vec<String> {
    let id = &server.id;
    let twins = all.iter().filter(|other| other.id != *id && other.address == server.address);
    let mut lines: Vec<String> =
        twins.map(|other| format!("note: {id} and {} have one address: time of it is sold twice.", other.id)).collect();
    // Two weeks, since in one a night may be in which clocks change.
    let range = Window { starts: now, ends: now + 14 * 86_400 };
    for course in courses.iter().filter(|course| server.is_for(&course.id)) {
        let grid = course.policy.grid;
        if !server.opening.has_step(&server.zone, grid, range) {
            let (minutes, course) = (u16::from(grid), &course.id);
            lines.push(format!("note: no step of {minutes} minutes of course {course} lies in the hours of {id}."));
        }
    }
    lines
}

/// The server as it is to be; what is not named stays.
fn changed(there: Server, to: ServerChange) -> NewServer {
    let labels = match (to.no_labels, to.label.is_empty()) {
        (true, _) => [].into(),
        (false, true) => there.labels,
        (false, false) => to.label.into_iter().collect(),
    };
    NewServer {
        id: there.id,
        address: to.address.unwrap_or(there.address),
        course: if to.any_course { None } else { to.course.or(there.course) },
        cores: to.cores.unwrap_or(there.cores),
        memory: to.memory.unwrap_or(there.memory),
        disk: if to.no_disk { None } else { to.disk.or(there.disk) },
        labels,
        opening: to.opening.unwrap_or(there.opening),
        zone: to.zone.unwrap_or(there.zone),
        buffer: to.buffer.map_or(there.buffer, |minutes| i64::from(minutes) * 60),
        mode: to.mode.unwrap_or(there.mode),
    }
}

/// Where the hub moves what a server does not take.
pub(super) const ELSEWHERE: &str = "a server that is free then; where none is, it stays and its holder is told";

/// What it means for those who have booked a server that it goes out of use.
async fn hit(client: &HubClient, server: &ServerId) -> Result<Vec<String>, Problem> {
    let params = [("server", Some(server.to_string())), ("open", Some("true".to_owned()))];
    let all: Vec<Booking> = client.find("/api/v1/bookings", &params).await?;
    Ok(hit_lines(server, &all))
}

fn hit_lines(server: &ServerId, all: &[Booking]) -> Vec<String> {
    let how_many = |states: [State; 2]| all.iter().filter(|b| states.contains(&b.state)).count();
    let (mut lines, ahead) = (vec![], how_many([State::Booked, State::Delayed]));
    if ahead > 0 {
        let ahead = count(ahead as u64, "booking");
        let when = "what begins within a day at once and the others a day before";
        lines.push(format!("Ahead on {server}: {ahead}. The hub moves {when}, to {ELSEWHERE}."));
    }
    let running = how_many([State::Arming, State::Active]);
    if running > 0 {
        lines.push(format!("{} there now: what has begun goes on to its end.", count(running as u64, "slot")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Args, Command, HubCommand};

    fn parsed(args: &[&str]) -> Result<ServerCommand, ()> {
        let args = ["kubecamp", "hub", "server"].iter().chain(args).copied();
        match Args::try_parse_from(args).map_err(drop)?.command {
            Command::Hub(HubCommand::Server(command)) => Ok(command),
            _ => Err(()),
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let there: Server = serde_json::from_value(json!({
            "id": "one", "address": "192.0.2.1", "course": "k8s", "cores": 8, "memory": "32GiB", "labels": ["gpu"],
            "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
            "health_note": null, "occupant": null, "revision": 1, "issued": 0, "acked": 0, "seen": null,
            "clock_offset": 0, "version": 3,
        }))
        .unwrap();
        let to = |args: &[&str]| match parsed(&[["set", "one"].as_slice(), args].concat()) {
            Ok(ServerCommand::Set { change, .. }) => changed(there.clone(), change),
            _ => panic!("{args:?}"),
        };
        let same = NewServer {
            id: there.id.clone(),
            address: there.address.clone(),
            course: there.course.clone(),
            cores: 8,
            memory: there.memory,
            disk: None,
            labels: there.labels.clone(),
            opening: there.opening.clone(),
            zone: there.zone.clone(),
            buffer: 600,
            mode: there.mode,
        };
        assert_eq!(to(&["--buffer", "20"]), NewServer { buffer: 1200, ..same.clone() });
        let large = Some(crate::core::Bytes::gib(500));
        assert_eq!(to(&["--disk", "500GiB"]), NewServer { disk: large, ..same.clone() });
        let bare = NewServer { labels: [].into(), course: None, ..same.clone() };
        assert_eq!(to(&["--no-labels", "--any-course"]), bare);
        assert_eq!(to(&["--label", "ssd"]), NewServer { labels: ["ssd".to_owned()].into(), ..same });
        assert!(parsed(&["set", "one"]).is_err(), "nothing would change");
    }

    #[test]
    fn no_server_is_told_to_ask_a_hub_at_its_own_loopback() {
        let told = |hub: &str, ca| to_enroll(&"one".parse().unwrap(), hub, ca).join("\n");
        let far = told("https://hub.example.org", false);
        assert!(far.ends_with("kubecamp hub enroll HOST --server one --hub https://hub.example.org"), "{far}");
        for here in ["http://127.0.0.1:8420", "unix:/run/hub.sock"] {
            let told = told(here, false);
            assert!(told.contains("--hub URL-THAT-THE-SERVER-REACHES\n") && !told.contains("--hub-ca"), "{told}");
        }
        assert!(told("https://hub.example.org", true).contains("--hub-ca FILE"));
    }

    #[test]
    fn what_hardly_anybody_means_is_told() {
        let server = |id: &str, address: &str, opening: &str| -> Server {
            serde_json::from_value(json!({
                "id": id, "address": address, "course": null, "cores": 8, "memory": "32GiB", "labels": [],
                "opening": opening, "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
                "health_note": null, "occupant": null, "revision": 1, "issued": 0, "acked": 0, "seen": null,
                "clock_offset": 0, "version": 1,
            }))
            .unwrap()
        };
        let policy = crate::hub::domain::Policy::default();
        let course = Course { id: "k8s".parse().unwrap(), title: "x".into(), policy, version: 1 };
        let told = |one: &Server, all: &[Server]| {
            doubts(one, all, std::slice::from_ref(&course), Epoch(1_795_420_800)).join("\n")
        };
        let (one, two) = (server("one", "192.0.2.1", "always"), server("two", "192.0.2.1", "mon 08:10-08:20"));
        assert_eq!(told(&one, std::slice::from_ref(&one)), "");
        assert!(told(&one, &[one.clone(), two.clone()]).contains("one and two have one address"));
        assert!(told(&two, &[]).contains("no step of 30 minutes of course k8s lies in the hours of two"));
        assert_eq!(told(&server("two", "192.0.2.2", "mon 08:10-09:00"), &[one]), "");
    }

    #[test]
    fn a_server_whose_agent_is_silent_or_has_another_time_says_so() {
        let seen = Epoch(1_795_420_800);
        let mut server: Server = serde_json::from_value(json!({
            "id": "one", "address": "h", "course": null, "cores": 8, "memory": "32GiB", "labels": [],
            "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
            "health_note": null, "occupant": null, "revision": 1, "issued": 0, "acked": 0, "seen": null,
            "clock_offset": 456, "version": 1,
        }))
        .unwrap();
        assert_eq!(agent(&server, seen), "never", "nothing is known of its clock");
        assert_eq!(row(&server)[1], "not enrolled");
        server.health = Health::Away;
        assert_eq!(row(&server)[1], "away");
        (server.health, server.issued) = (Health::Healthy, 1);
        assert_eq!(row(&server)[1], "healthy", "its agent has a plan");
        server.seen = Some(seen);
        assert!(agent(&server, seen + 120).ends_with(", clock +456 s"), "{}", agent(&server, seen + 120));
        server.clock_offset = -2;
        assert_eq!(agent(&server, seen + 120), local(seen));
        assert_eq!(agent(&server, seen + 121), format!("{}, not heard since", local(seen)));
    }

    #[test]
    fn a_wide_table_says_for_whom_a_server_is_and_why_it_is_out_of_use() {
        let mut server: Server = serde_json::from_value(json!({
            "id": "one", "address": "h", "course": null, "cores": 8, "memory": "32GiB", "labels": [],
            "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": "healthy",
            "health_note": "it is in", "occupant": null, "revision": 1, "issued": 0, "acked": 0, "seen": null,
            "clock_offset": 0, "version": 1,
        }))
        .unwrap();
        assert_eq!(more(&server), ["-", "-", "10m", "-"]);
        server.course = Some("k8s".parse().unwrap());
        server.labels = ["gpu", "ssd"].map(str::to_owned).into();
        (server.health, server.health_note) = (Health::Away, Some("a fan\u{1b}".into()));
        assert_eq!(more(&server), ["k8s", "gpu,ssd", "10m", "a fan\\x1b"]);
        let (plain, wide) = (shown(std::slice::from_ref(&server), false), shown(std::slice::from_ref(&server), true));
        assert!(!plain.contains("gpu") && wide.contains("gpu,ssd") && wide.contains("WHY"), "{wide}");
    }
}

//! Belongs: `kubecamp book`: from arguments to the hub's API, and its answer as a table.
//! Never: what the hub decides.
//! Start here: `book` below.

mod class_file;
mod door;
mod hours;
mod on_server;
mod show;
mod ssh;

pub use class_file::read as class_plan;
use reqwest::Method;
use serde_json::{Value, json};

use self::{
    on_server::{say_logins, say_unfit},
    show::{bookings, frees, losses, none_free, out_of_use, plan_text, remarks, unserved},
};
use super::Context;
use crate::{
    cli::{
        args::{BookCommand, CancelArgs, ChangeArgs, FreeArgs, HubArgs, LsArgs, OneOrAll, WishArgs},
        clock::{own_zone, tell_in},
        hub_client::HubClient,
        output::{self, Format},
        when,
    },
    core::{
        Code, Problem, Problems,
        shell::{join, printable},
        yaml,
    },
    hub::{
        desk::{BookRequest, Elsewhere, Placed},
        domain::{
            Beginning, Booking, BookingId, ClassPlan, Course, Epoch, Free, Person, PersonId, SavedLab, Server,
            ServerId, State, Weekly, Window, Zone,
        },
        http::Clock,
    },
};

/// `kubecamp book`.
pub(super) async fn book(cx: &Context, command: BookCommand) -> Result<u8, Problems> {
    if let Some(zone) = command.zone() {
        tell_in(zone);
    }
    match command {
        BookCommand::Ssh(args) => return ssh::ssh(cx, args).await,
        BookCommand::Ls(args) => list(cx, args).await?,
        BookCommand::Free(args) => free(cx, args).await?,
        BookCommand::New { wish, weeks } => new(cx, wish, weeks).await?,
        BookCommand::Wait(wish) => wait(cx, &wish).await?,
        BookCommand::Cancel(change) => cancel(cx, change).await?,
        BookCommand::Release(change) => release(cx, &change).await?,
        BookCommand::Give { change, to } => give(cx, &change, &to).await?,
        BookCommand::Extend { change, by } => extend(cx, change, by).await?,
        BookCommand::Move { change, start, server, zone } => {
            relocate(cx, &change, start.as_deref(), server, zone.as_ref()).await?;
        }
        BookCommand::Accept { id, hub } => accept(cx, &id, &hub).await?,
        BookCommand::Ics { hub } => ics(cx, &hub).await?,
        BookCommand::Plan { file, book, reason, hub } => plan(cx, &file, book, reason, &hub).await?,
    }
    Ok(0)
}

async fn list(cx: &Context, args: LsArgs) -> Result<(), Problem> {
    let LsArgs { all, past, server, zone: _, hub } = args;
    let client = HubClient::new(&cx.places, &hub.at)?;
    let me = client.get::<Person>("/api/v1/me").await?.id;
    let person = (!all).then(|| me.to_string());
    let (open, server) = ((!past).then(|| "true".to_owned()), server.map(|s| s.to_string()));
    let params = [("person", person.clone()), ("open", open), ("server", server.clone())];
    let found: Vec<Booking> = client.find("/api/v1/bookings", &params).await?;
    bookings(hub.output, &found)?;
    remarks(&found, &me);
    say_held_up(&client, &found, &me).await;
    let usable = found.iter().filter(|b| b.person == me && b.state.is_usable());
    say_logins(&client, usable.filter_map(|b| b.server.as_ref())).await;
    if !all && !past {
        let now = Epoch(jiff::Timestamp::now().as_second());
        // What a server let pass is over by the time that it is known.
        let lately = now - Booking::TOLD;
        let params = [("person", person), ("from", Some(lately.0.to_string())), ("server", server)];
        // The data is written: what fails here is no failure.
        losses(&client.find::<Vec<Booking>>("/api/v1/bookings", &params).await.unwrap_or_default(), now);
    }
    Ok(())
}

async fn free(cx: &Context, args: FreeArgs) -> Result<(), Problem> {
    let from = when::told(args.from.as_deref(), args.zone.as_ref())?;
    let params = [
        ("minutes", Some(args.minutes.to_string())),
        ("server", args.server.as_ref().map(ToString::to_string)),
        ("layout", args.layout.map(|l| l.to_string())),
        ("labels", Some(args.label.join(",")).filter(|l| !l.is_empty())),
        ("from", from.map(|f| f.0.to_string())),
        ("most", Some(args.most.to_string())),
        ("course", args.course.map(|c| c.to_string())),
    ];
    let client = HubClient::new(&cx.places, &args.hub.at)?;
    let found: Vec<Free> = client.find("/api/v1/free", &params).await?;
    frees(args.hub.output, &found)?;
    say_unfit(&client, found.iter().map(|free| &free.server)).await;
    if found.is_empty() {
        output::say(&none_free(args.minutes, from, Clock::system().now()));
        // It is only told: what fails here is no failure.
        let mut servers: Vec<Server> = client.get("/api/v1/servers").await.unwrap_or_default();
        servers.retain(|server| args.server.as_ref().is_none_or(|named| server.id == *named));
        out_of_use(&servers).iter().for_each(|line| output::say(line));
    }
    Ok(())
}

async fn wait(cx: &Context, wish: &WishArgs) -> Result<(), Problem> {
    let (request, _) = request(wish)?;
    let waits = one(cx, &wish.hub, Method::POST, "/api/v1/waits", &json!(request), None).await;
    waits.map_err(|problem| refused(problem, wish))?;
    output::say("You are asked when it becomes free: book ls says until when, and how to take it.");
    Ok(())
}

async fn cancel(cx: &Context, change: CancelArgs) -> Result<(), Problem> {
    let CancelArgs { id, reason, seen, hub } = change;
    match id {
        OneOrAll::One(id) => {
            let body = json!({ "reason": reason });
            let after = act(cx, &ChangeArgs { id, reason, seen, hub }, "cancel", body).await?;
            // On a silent server it only ends, and is not cancelled.
            remarks(std::slice::from_ref(&after), &after.person);
            Ok(())
        }
        OneOrAll::All(id) => {
            let (path, body) = (format!("/api/v1/series/{id}/cancel"), json!({ "reason": reason, "version": seen }));
            let gone: Vec<Booking> =
                HubClient::new(&cx.places, &hub.at)?.send(Method::POST, &path, &body, None).await?;
            bookings(hub.output, &gone)
        }
    }
}

async fn release(cx: &Context, change: &ChangeArgs) -> Result<(), Problem> {
    let after = act(cx, change, "release", json!({ "reason": change.reason })).await?;
    // Who meant another slot, which runs, shall see it while this one can be booked again.
    if after.state == State::Cancelled {
        output::say(&format!("{}: it had not begun, so it is cancelled.", after.id));
    }
    remarks(std::slice::from_ref(&after), &after.person);
    Ok(())
}

async fn give(cx: &Context, change: &ChangeArgs, to: &PersonId) -> Result<(), Problem> {
    act(cx, change, "give", json!({ "to": to, "reason": change.reason })).await.map(drop)
}

async fn extend(cx: &Context, change: ChangeArgs, by: u32) -> Result<(), Problem> {
    let client = HubClient::new(&cx.places, &change.hub.at)?;
    let before: Booking = client.get(&format!("/api/v1/bookings/{}", change.id)).await?;
    let ends = before.window.ends + i64::from(by) * 60;
    // What was looked at is what is changed: two of them do not add up by accident.
    let change = ChangeArgs { seen: change.seen.or(Some(before.version)), ..change };
    let after = act(cx, &change, "extend", json!({ "ends": ends, "reason": change.reason })).await?;
    ssh::renew(cx, &client, &after).await;
    Ok(())
}

async fn accept(cx: &Context, id: &BookingId, hub: &HubArgs) -> Result<(), Problem> {
    one(cx, hub, Method::POST, &format!("/api/v1/bookings/{id}/accept"), &json!({}), None).await.map(drop)
}

async fn act(cx: &Context, change: &ChangeArgs, verb: &str, body: Value) -> Result<Booking, Problem> {
    let path = format!("/api/v1/bookings/{}/{verb}", change.id);
    one(cx, &change.hub, Method::POST, &path, &body, change.seen).await
}

/// Sends a request whose answer is one booking, and shows it; that booking.
async fn one(
    cx: &Context,
    hub: &HubArgs,
    method: Method,
    path: &str,
    body: &Value,
    version: Option<i64>,
) -> Result<Booking, Problem> {
    let booking: Booking = HubClient::new(&cx.places, &hub.at)?.send(method, path, body, version).await?;
    bookings(hub.output, std::slice::from_ref(&booking))?;
    Ok(booking)
}

fn request(wish: &WishArgs) -> Result<(BookRequest, Vec<String>), Problem> {
    let (starts, notes) = when::start(&wish.start, wish.zone.as_ref())?;
    let window = Window::new(starts, starts + i64::from(wish.minutes) * 60)
        .map_err(|why| Problem::new(Code::BookWindow, why))?;
    let request = BookRequest {
        person: wish.person.clone(),
        course: wish.course.clone(),
        server: wish.server.clone(),
        labels: wish.label.iter().cloned().collect(),
        layout: wish.layout,
        window,
        reason: wish.reason.clone(),
    };
    Ok((request, notes))
}

/// A refusal of a wish, with what this computer knows: its hints name the wish as it was typed, and who names a time of today
/// that is over may mean tomorrow's.
fn refused(mut problem: Problem, wish: &WishArgs) -> Problem {
    for hint in &mut problem.hints {
        hint.0 = hint.0.replace("START --for LENGTH", &typed(wish));
    }
    let next = when::tomorrow(&wish.start, wish.zone.as_ref()).filter(|_| problem.code == Code::BookNotice);
    match next {
        Some(next) => problem.hint(format!("Write tomorrow's as {next}.")),
        None => problem,
    }
}

/// A wish as it is typed after `book new` or `book wait`.
fn typed(wish: &WishArgs) -> String {
    fn named<T: ToString>(value: Option<&T>) -> Option<String> {
        value.map(ToString::to_string)
    }
    let options = [
        ("--server", named(wish.server.as_ref())),
        ("--layout", named(wish.layout.as_ref())),
        ("--person", named(wish.person.as_ref())),
        ("--course", named(wish.course.as_ref())),
        ("--zone", named(wish.zone.as_ref())),
    ];
    let options = options.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
    let labels = wish.label.iter().map(|label| ("--label", label.clone()));
    let words = options.chain(labels).flat_map(|(flag, value)| [flag.to_owned(), value]);
    join([wish.start.clone(), "--for".to_owned(), format!("{}m", wish.minutes)].into_iter().chain(words))
}

async fn new(cx: &Context, wish: WishArgs, weeks: Option<u16>) -> Result<(), Problem> {
    let (first, notes) = request(&wish)?;
    notes.iter().for_each(|note| output::say(&format!("note: {note}")));
    let client = HubClient::new(&cx.places, &wish.hub.at)?;
    let Some(weeks) = weeks else {
        let made = client.send(Method::POST, "/api/v1/bookings", &first, None).await;
        let made: Booking = made.map_err(|problem| refused(problem, &wish))?;
        say_lab(&client, &made).await;
        say_unfit(&client, made.server.iter()).await;
        return bookings(wish.hub.output, &[made]);
    };
    let weekly = Weekly::of_first(first.window, when::zone(wish.zone.as_ref()), weeks)?;
    let body = json!({ "first": first, "weekly": weekly });
    let made = client.send(Method::POST, "/api/v1/series", &body, None).await;
    let made: Vec<Placed> = made.map_err(|problem| refused(problem, &wish))?;
    made.iter().filter_map(|p| p.note.as_ref()).for_each(|note| output::say(&format!("note: {note}")));
    let made: Vec<Booking> = made.into_iter().map(|p| p.booking).collect();
    if let Some(series) = made.first().and_then(|b| b.series.as_ref()) {
        output::say(&format!("To give all of it up: kubecamp book cancel {series}"));
    }
    say_unfit(&client, made.iter().filter_map(|b| b.server.as_ref())).await;
    bookings(wish.hub.output, &made)
}

/// Says on stderr which of one's waits would not be offered now, and why. It is only told: what fails here is no failure.
async fn say_held_up(client: &HubClient, all: &[Booking], me: &PersonId) {
    let waits = all.iter().filter(|b| b.state == State::Waitlisted && b.lapses == 0 && b.person == *me);
    for b in waits.take(20) {
        let asked = client.get::<Elsewhere>(&format!("/api/v1/bookings/{}/alternatives", b.id)).await;
        if let Some(why) = asked.ok().and_then(|found| found.why) {
            let why = own_zone().told(&why);
            output::say(&format!("{}: you would not be asked now: {}", b.id, printable(&why)));
        }
    }
}

/// Says on stderr with which lab a slot begins, where one is saved.
async fn say_lab(client: &HubClient, booking: &Booking) {
    if let Some(begins) = begins(client, booking).await {
        output::say(&format!("{}: it begins with {begins}", booking.id));
    }
}

/// With which lab a slot begins, where one is saved. It is only told: what fails here is no failure.
async fn begins(client: &HubClient, booking: &Booking) -> Option<Beginning> {
    let params = [("person", Some(booking.person.to_string()))];
    let labs: Vec<SavedLab> = client.find("/api/v1/labs", &params).await.unwrap_or_default();
    booking.server.as_ref().and_then(|server| Beginning::of(&labs, server, booking.layout))
}

async fn relocate(
    cx: &Context,
    change: &ChangeArgs,
    start: Option<&str>,
    server: Option<ServerId>,
    zone: Option<&Zone>,
) -> Result<(), Problem> {
    let client = HubClient::new(&cx.places, &change.hub.at)?;
    let path = format!("/api/v1/bookings/{}", change.id);
    let before: Booking = client.get(&path).await?;
    // What has begun or is over stays where it is: there is nothing to list, and a script shall not take that for done.
    if !matches!(before.state, State::Booked | State::Delayed) {
        let what = format!("booking {} is {}: only one that is ahead can be moved", change.id, before.state);
        return Err(Problem::new(Code::BookState, what));
    }
    let start = start.map(|text| when::start(text, zone)).transpose()?;
    // The hub looks nearest to that start: of what it offers by itself one that is free then may be none.
    let near = [("starts", start.as_ref().map(|(starts, _)| starts.0.to_string()))];
    let found: Elsewhere = client.find(&format!("{path}/alternatives"), &near).await?;
    let Some((starts, notes)) = start else {
        let Some(why) = &found.why else {
            let id = &change.id;
            output::say(&format!(
                "{id}: nothing is known against its server. To change its time, cancel it and book another."
            ));
            // Programs get the empty list.
            let people = matches!(change.hub.output, Format::Table | Format::Wide);
            return if people { Ok(()) } else { frees(change.hub.output, &[]) };
        };
        output::say(&format!("{}: {}", change.id, printable(&own_zone().told(why))));
        return frees(change.hub.output, &found.alternatives);
    };
    notes.iter().for_each(|note| output::say(&format!("note: {note}")));
    if found.why.is_none() {
        let what = format!("nothing is known against the server of booking {}", change.id);
        return Err(Problem::new(Code::BookState, what).hint("Cancel it and book another slot."));
    }
    let window = Window::new(starts, starts + before.window.length());
    let window = window.map_err(|why| Problem::new(Code::BookWindow, why))?;
    let then = || found.alternatives.iter().find(|free| free.window == window).map(|free| free.server.clone());
    let Some(server) = server.or_else(then) else { return Err(not_movable(&client, &before, window).await) };
    act(cx, change, "move", json!({ "server": server, "window": window, "reason": change.reason })).await.map(drop)
}

/// Why a booking cannot be moved to a time at which no server is offered: what time alone decides comes first.
async fn not_movable(client: &HubClient, before: &Booking, window: Window) -> Problem {
    let id = &before.id;
    if let Some(wrong) = against_rules(client, before, window).await {
        let (zone, problem) = (own_zone(), Problem::new(wrong.code, own_zone().told(&wrong.what)));
        return wrong.hints.iter().fold(problem, |problem, hint| problem.hint(zone.told(&hint.0)));
    }
    let what = own_zone().told(&format!("no server is free for booking {id} at {window}"));
    Problem::new(Code::BookConflict, what).hint(format!("See what is free instead: kubecamp book move {id}."))
}

/// What the rules of a booking's course say of a time, by its server's clock. What cannot be asked says nothing.
async fn against_rules(client: &HubClient, before: &Booking, window: Window) -> Option<Problem> {
    let course: Course = client.get(&format!("/api/v1/courses/{}", before.course)).await.ok()?;
    let server: Server = client.get(&format!("/api/v1/servers/{}", before.server.as_ref()?)).await.ok()?;
    course.policy.shape(&server, Clock::system().now(), window).err()
}

async fn ics(cx: &Context, hub: &HubArgs) -> Result<(), Problem> {
    let client = HubClient::new(&cx.places, &hub.at)?;
    let body = json!({ "kind": "feed", "label": "calendar" });
    let made: Value = client.secret("/api/v1/tokens", &body).await?;
    let url = made["url"].as_str().unwrap_or_default();
    let base = if url.starts_with('/') { client.hub().trim_end_matches('/') } else { "" };
    let url = format!("{base}{url}");
    output::value(hub.output, &json!({ "url": url }), |_| format!("{url}\n"))?;
    if !url.starts_with("http") {
        output::say(
            "note: calendars read http:// and https:// alone, and this hub was asked on a socket. Its admin gives it an \
             address that they can read: kubecamp hub serve --public-url https://NAME.",
        );
    }
    output::say("Whoever has this address sees your slots. A server's: replace slots.ics by servers/NAME.ics.");
    Ok(())
}

async fn plan(
    cx: &Context,
    file: &std::path::Path,
    book: bool,
    reason: Option<String>,
    hub: &HubArgs,
) -> Result<(), Problem> {
    let named = |problem: Problem| Problem { what: format!("{}: {}", file.display(), problem.what), ..problem };
    let text = yaml::text(std::fs::File::open(file), "class plan", &file.display().to_string(), Code::Usage)?;
    let (mut want, notes, zone) = class_file::zoned(&text).map_err(named)?;
    zone.iter().for_each(tell_in);
    want.reason = reason.or(want.reason);
    notes.iter().for_each(|note| output::say(&format!("note: {note}")));
    let client = HubClient::new(&cx.places, &hub.at)?;
    let plan: ClassPlan = client.send(Method::POST, "/api/v1/class-plans", &want, None).await?;
    if book {
        let unserved = unserved(&plan);
        // What is missing may be taken meanwhile: then nothing is booked, and not another table.
        want.seen = Some(plan.stamp).filter(|stamp| !stamp.is_empty());
        let made: Vec<Booking> = client.send(Method::POST, "/api/v1/class-plans/book", &want, None).await?;
        if made.is_empty() {
            output::say("There was nothing to book. Without --book the plan says why.");
        }
        bookings(hub.output, &made)?;
        // The table above names only who got something: a teacher would take it for the whole class.
        unserved.iter().for_each(|line| output::say(line));
        say_unfit(&client, made.iter().filter_map(|b| b.server.as_ref())).await;
        return Ok(());
    }
    plan_text(hub.output, &plan)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Args, Command};

    #[test]
    fn a_hint_names_the_wish_as_it_was_typed() {
        let words = "book new 14:00 --for 1h30m --label gpu --course k8s";
        let args = Args::try_parse_from(["kubecamp"].into_iter().chain(words.split(' '))).unwrap();
        let Command::Book(BookCommand::New { wish, .. }) = args.command else { panic!("{words}") };
        let taken = Problem::new(Code::BookConflict, "taken");
        let hint = taken.all_hints().remove(0);
        let told = refused(taken.hint(hint), &wish).all_hints();
        assert!(told[0].ends_with("kubecamp book wait 14:00 --for 90m --course k8s --label gpu."), "{told:?}");
    }
}

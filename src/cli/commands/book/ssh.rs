use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::json;

use super::super::{
    Context,
    kubectl::become_in,
    login::{key_file, private_half, public_half},
};
use super::{
    begins,
    door::{self, Door, Granted, certified},
    hours::{awaited, check_begun, check_not_over, moment, not_open, place},
    on_server::is_login,
};
use crate::{
    cli::{args::SlotSshArgs, hub_client::HubClient, output},
    core::{Code, Problem, Problems},
    hub::domain::{Booking, BookingId, Epoch, Person, State},
};

/// How long a slot that is not open yet is waited for. After that ssh is tried all the same: its server may have opened it
/// without reaching the hub.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Between two looks at it: a class waits behind one address.
const LOOK: Duration = Duration::from_secs(5);
/// How long one is waited for of which its server has told nothing: an agent that is at work takes a new plan within seconds.
const PROMPT: Duration = Duration::from_secs(15);

/// Fetches a certificate for the slot and hands over to the system's ssh, or gives the configuration for it.
pub(super) async fn ssh(cx: &Context, args: SlotSshArgs) -> Result<u8, Problems> {
    let client = HubClient::new(&cx.places, &args.hub.at)?;
    // By a public half alone ssh would look for the key in an agent, and find none in most.
    let key = private_half(&key_file(args.identity)?);
    let booking: Booking = match args.id {
        Some(id) => client.get(&format!("/api/v1/bookings/{id}")).await?,
        None => running(&client).await?,
    };
    let (id, now) = (&booking.id, Epoch(jiff::Timestamp::now().as_second()));
    check_not_over(&booking, now)?;
    let public = public_half(&key);
    let line = fs::read_to_string(&public)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", public.display())).because(e))?;
    let granted = certificate(&client, id, &line).await?;
    let door = Door::keep(&cx.places.slots, id, &key, &granted, now)?;
    if let Some(file) = &args.write {
        door.write_to(file)?;
        let (file, name) = (file.display(), &door.name);
        let (starts, ends) = (moment(booking.window.starts), moment(granted.ends));
        output::say(&format!("Good from {starts} until {ends}: ssh -F {file} {name}"));
        return Ok(0);
    }
    if args.config {
        let config = door.config();
        output::value(args.hub.output, &json!({ "host": door.name, "config": config }), |_| config.clone())?;
        return Ok(0);
    }
    // What was fetched stays: it opens the door when the slot has begun.
    let is_login = is_login(&client, &booking).await;
    check_begun(&booking, is_login, begins(&client, &booking).await.as_ref(), now)?;
    let booking = match awaited(&booking) {
        Some(why) if args.no_wait => return Err(not_open(&booking, &why).into()),
        None if args.no_wait => booking,
        _ => until_open(&client, booking).await?,
    };
    if args.command.is_empty() {
        output::say(&format!("{} as {}, until {}", place(&booking, is_login), booking.person, moment(granted.ends)));
    }
    if booking.state != State::Active {
        output::say("The server has not told yet that the slot is open. If ssh is refused, try again in a minute.");
    }
    let mut ssh = Command::new("ssh");
    ssh.args(door.arguments()).args(args.command);
    Err(become_in(None, ssh).into())
}

/// A certificate for a slot and a public key.
async fn certificate(client: &HubClient, id: &BookingId, key: &str) -> Result<Granted, Problem> {
    let path = format!("/api/v1/bookings/{id}/certificate");
    client.send(Method::POST, &path, &json!({ "key": key.trim() }), None).await
}

/// After an extension: renews the certificate that is kept here, which ends as the slot did before, or says how to get one.
///
/// The slot is longer in any case: what fails here is no failure.
pub(super) async fn renew(cx: &Context, client: &HubClient, booking: &Booking) {
    let (id, slots) = (&booking.id, &cx.places.slots);
    let granted = match certified(slots, id) {
        Some(key) => certificate(client, id, &key).await.ok(),
        None => None,
    };
    let renewed = granted.filter(|granted| door::renew(slots, id, granted).is_ok());
    output::say(&match renewed {
        Some(granted) => format!("{id}: the certificate that is kept here is good until {} now.", moment(granted.ends)),
        None => format!(
            "{id}: a certificate from before ends as it did. Run kubecamp book ssh {id} again for one until {}.",
            moment(booking.window.ends)
        ),
    });
}

/// What a slot whose hour has come is waited for, and how long at most; none where it is open.
fn waits_for(booking: &Booking) -> Option<(String, Duration)> {
    match booking.state {
        State::Booked => Some(("its server has told nothing of it yet".to_owned(), PROMPT)),
        _ => awaited(booking).map(|why| (why, LONGEST)),
    }
}

/// Waits for a slot that is not open, and says for what; Ctrl-C ends it as any command that only looks.
async fn until_open(client: &HubClient, mut booking: Booking) -> Result<Booking, Problem> {
    let began = Instant::now();
    let mut told: Option<String> = None;
    while let Some((why, limit)) = waits_for(&booking).filter(|(_, limit)| began.elapsed() < *limit) {
        if told.as_ref() != Some(&why) {
            let (id, most) = (&booking.id, limit.as_secs());
            let most = if most < 60 { format!("{most} s") } else { format!("{} min", most / 60) };
            output::say(&format!("{id}: {why}. Waiting until it is open, {most} at most; Ctrl-C ends that."));
            told = Some(why);
        }
        tokio::time::sleep(LOOK.min(limit / 15)).await;
        // The server opens it also where the hub cannot be asked.
        let next: Booking = match client.get(&format!("/api/v1/bookings/{}", booking.id)).await {
            Err(problem) if problem.code == Code::HubAway => break,
            asked => asked?,
        };
        check_not_over(&next, Epoch(jiff::Timestamp::now().as_second()))?;
        // What was fetched opens the door of the server that it had.
        if next.server != booking.server {
            return Err(Problem::new(Code::BookStale, format!("booking {} was moved in between", next.id))
                .hint("Run the same command again: it looks where it is now."));
        }
        booking = next;
    }
    Ok(booking)
}

/// The slot that runs, else the next.
async fn running(client: &HubClient) -> Result<Booking, Problem> {
    let me: Person = client.get("/api/v1/me").await?;
    let params = [("person", Some(me.id.to_string())), ("open", Some("true".to_owned()))];
    let all: Vec<Booking> = client.find("/api/v1/bookings", &params).await?;
    match current(all) {
        Some(booking) => Ok(booking),
        None => Err(no_slot(last(client.find("/api/v1/bookings", &params[..1]).await?).as_ref())),
    }
}

/// The problem that no slot runs or comes. The `last` one says why, where there was one.
fn no_slot(last: Option<&Booking>) -> Problem {
    let problem = Problem::new(Code::BookOver, "you have no slot").hint("kubecamp book free shows what can be had.");
    match last.and_then(|booking| check_not_over(booking, booking.window.ends).err()) {
        Some(over) => problem.detail([format!("the last one: {}", over.what)]),
        None => problem,
    }
}

/// Of one's bookings, the one that ended last.
fn last(all: Vec<Booking>) -> Option<Booking> {
    all.into_iter().filter(|booking| booking.state != State::Waitlisted).max_by_key(|booking| booking.window.ends)
}

/// Of one's bookings, earliest first, the one that runs, else the first that has a certificate.
fn current(mut all: Vec<Booking>) -> Option<Booking> {
    all.sort_by_key(|b| b.state != State::Active);
    let has = |b: &Booking| matches!(b.state, State::Active | State::Arming | State::Booked | State::Delayed);
    all.into_iter().find(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booking((id, starts, state): (&str, i64, State)) -> Booking {
        serde_json::from_value(json!({
            "id": id, "server": "one", "person": "amy", "course": "k8s", "layout": "2x4c8g",
            "window": { "starts": starts, "ends": starts + 100 }, "busy_until": starts + 100, "state": state,
            "since": 0, "version": 1, "created": 0, "updated": 0, "charged": 100, "lapses": 0,
        }))
        .unwrap()
    }

    #[test]
    fn a_slot_that_nobody_told_of_is_waited_for_seconds_and_one_that_is_made_minutes() {
        let limit = |state| waits_for(&booking(("b1", 1000, state))).map(|(_, limit)| limit);
        assert_eq!(limit(State::Booked), Some(PROMPT));
        assert_eq!([State::Arming, State::Delayed].map(limit), [Some(LONGEST); 2]);
        assert_eq!(limit(State::Active), None);
    }

    #[test]
    fn a_slot_that_is_delayed_comes_before_a_later_one() {
        let chosen =
            |all: &[(&str, i64, State)]| current(all.iter().copied().map(booking).collect()).map(|b| b.id.to_string());
        let (delayed, later) = (("b1", 1000, State::Delayed), ("b2", 9000, State::Booked));
        assert_eq!(chosen(&[delayed, later]).as_deref(), Some("b1"));
        assert_eq!(chosen(&[("b0", 10, State::Ending), later]).as_deref(), Some("b2"));
        assert_eq!(chosen(&[delayed, ("b2", 9000, State::Active)]).as_deref(), Some("b2"));
        assert_eq!(chosen(&[("b0", 10, State::Waitlisted)]), None);
        let all =
            [("b1", 1000, State::Done), ("b2", 2000, State::NoShow), ("b3", 9000, State::Waitlisted)].map(booking);
        let problem = no_slot(last(Vec::from(all)).as_ref());
        assert_eq!(problem.code, Code::BookOver, "as where a slot is named that is over");
        assert!(problem.detail[0].contains("slot b2 is over: nobody came"), "{problem}");
        assert_eq!((no_slot(None).code, no_slot(None).detail.len()), (Code::BookOver, 0));
    }
}

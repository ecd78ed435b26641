//! A database that is killed while hubs work: what was answered is there, and what was not is asked for again by its key.

use std::collections::{BTreeMap, BTreeSet};

use kubecamp::{
    core::{Code, Problem},
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, Report, Step, Taken},
        domain::{BookingId, Mode, ServerId, State},
        store::Listing,
    },
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    hammer::{all_of, crowd},
    world::{NOW, agent, clerk, healthy, server, who, wish},
};

/// What an agent tells of a slot that ends well, and what the slot is then.
const LIFE: [(Step, State); 6] = [
    (Step::Arming, State::Arming),
    (Step::Active, State::Active),
    (Step::Ending, State::Ending),
    (Step::Saving, State::Saving),
    (Step::Resetting, State::Resetting),
    (Step::Done, State::Done),
];

/// A booking that somebody was answered with, and its state then.
type Answered = (BookingId, State);

/// An agent that walks slots to their end, and people whom the clerk makes offers, until the database is gone.
async fn at_work(desk: &Desk, n: i64, tell: &UnboundedSender<Answered>) -> Result<(), Problem> {
    let server: ServerId = "two".parse().unwrap();
    let (dan, cem, plain) = (who("dan"), who("cem"), Edit::default());
    // Beyond all numbers of the rounds before.
    let mut number = desk.audit(&Caller::Console, NOW, None, None, 1).await?[0].id * 100;
    let mut slot = n * 100;
    loop {
        slot += 1;
        let from = slot * 120 % 39_960;
        let (first, second) = (wish(Some("two"), from, from + 30), wish(Some("two"), from + 60, from + 90));
        let made = desk.book(&dan, NOW, None, &first).await.map_err(|refusal| refusal.problem)?;
        tell.send((made.id.clone(), made.state)).unwrap();
        // What the agent had begun when the database died last it brings to its end first.
        let begun = desk.server(&Caller::Console, NOW, &server).await?.occupant;
        for booking in begun.into_iter().chain([made.id]) {
            for (step, state) in LIFE {
                number += 1;
                let report = Report { number, booking: booking.clone(), account: None, step, moment: NOW, note: None };
                let taken = desk.report(&agent("two"), NOW, &server, &[report]).await?[0].taken;
                if taken == Taken::Applied {
                    tell.send((booking.clone(), state)).unwrap();
                }
            }
        }
        let held = desk.book(&dan, NOW, None, &second).await.map_err(|refusal| refusal.problem)?;
        tell.send((held.id.clone(), held.state)).unwrap();
        let waits = desk.wait(&cem, NOW, None, &second).await?;
        tell.send((waits.id.clone(), waits.state)).unwrap();
        let gone = desk.cancel(&dan, NOW, None, &held.id, &plain).await?;
        tell.send((gone.id, gone.state)).unwrap();
        clerk(desk).settle(NOW).await?;
        let offer = desk.booking(&Caller::Console, NOW, &waits.id).await?;
        assert_eq!(offer.state, State::Offered);
        tell.send((offer.id, offer.state)).unwrap();
        let gone = desk.cancel(&cem, NOW, None, &waits.id, &plain).await?;
        tell.send((gone.id, gone.state)).unwrap();
    }
}

/// Books on until the database is gone, each time by another key; the key and the wish that had no answer.
async fn book_on(desk: &Desk, client: usize, n: i64, tell: &UnboundedSender<Answered>) -> (String, BookRequest) {
    let mut slot = 0;
    loop {
        let from = (n * 300 + slot) * 90 % 40_000 / 30 * 30;
        let (key, wanted) = (format!("k{n}-{slot}"), wish(Some("one"), from, from + 30));
        match desk.book(&who(&format!("s{client}")), NOW, Some(&key), &wanted).await {
            Ok(booking) => tell.send((booking.id, booking.state)).unwrap(),
            Err(refusal) if refusal.problem.code == Code::HubDatabase => return (key, wanted),
            Err(_) => {}
        }
        slot += 1;
    }
}

/// What comes of a wish without an answer that is sent again by its key: the booking that the key has from then on, or a
/// refusal as anybody gets it.
async fn asked_again(desk: &Desk, client: usize, key: &str, wanted: &BookRequest) -> Option<BookingId> {
    let again = async || desk.book(&who(&format!("s{client}")), NOW, Some(key), wanted).await;
    match again().await {
        Ok(booking) => {
            assert_eq!(again().await.unwrap().id, booking.id, "s{client} {key}");
            Some(booking.id)
        }
        Err(refusal) => {
            let is_plain = matches!(refusal.problem.code, Code::BookConflict | Code::BookOwn);
            assert!(is_plain, "s{client} {key}: {}", refusal.problem);
            None
        }
    }
}

/// Whatever was answered with yes before the database died is there after it came back: bookings, and what agent and clerk
/// did beside them.
///
/// Of what was under way without an answer there is one step more, or none; a wish that is sent again by its key is one
/// booking, or none.
pub async fn answered_is_kept(desk: &Desk, end: impl Fn(), begin: impl Fn()) {
    crowd(desk).await;
    server(desk, "two", Mode::Exclusive, 8, 32).await;
    let [one, two]: [ServerId; 2] = ["one", "two"].map(|name| name.parse().unwrap());
    // On the first server everybody has a key.
    let mut by_key = BTreeSet::new();
    for n in 0..3 {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let tasks: Vec<_> = (0..8)
            .map(|client| {
                let (desk, tell) = (desk.clone(), tell.clone());
                tokio::spawn(async move { book_on(&desk, client, n, &tell).await })
            })
            .collect();
        let working = desk.clone();
        let working = tokio::spawn(async move {
            let over = at_work(&working, n, &tell).await.unwrap_err();
            assert_eq!(over.code, Code::HubDatabase, "{over}");
        });
        let (mut kept, mut worked) = (BTreeMap::new(), 0);
        while kept.len() < 20 || worked < 12 {
            let (id, state) = told.recv().await.unwrap();
            worked += usize::from(state != State::Booked);
            kept.insert(id, state);
        }
        end();
        let unanswered = all_of("bookings", tasks).await;
        working.await.unwrap();
        while let Some((id, state)) = told.recv().await {
            kept.insert(id, state);
        }
        begin();
        for (id, answered) in kept {
            let booking = desk.booking(&Caller::Console, NOW, &id).await.unwrap();
            // With those on the other server nobody has to do.
            let is_next = booking.server.as_ref() == Some(&two) && answered.may_become(booking.state);
            assert!(booking.state == answered || is_next, "{id}: {answered}, then {}", booking.state);
            by_key.extend((booking.server.as_ref() == Some(&one)).then_some(id));
        }
        for (client, (key, wanted)) in unanswered.iter().enumerate() {
            by_key.extend(asked_again(desk, client, key, wanted).await);
        }
        let want = Listing { server: Some(one.clone()), ..Listing::default() };
        let all = desk.bookings(&Caller::Console, NOW, &want).await.unwrap();
        assert_eq!(all.into_iter().map(|b| b.id).collect::<BTreeSet<_>>(), by_key, "one for each key, and no other");
        healthy(desk).await;
    }
}

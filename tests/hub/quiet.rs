//! A clerk that has nothing to do keeps nobody waiting.

use std::time::Duration;

use kubecamp::hub::{
    clerk::Ticked,
    desk::{Caller, Desk, Edit, Step},
    domain::{Health, Mode, State},
};

use super::world::{NOW, at, book, camp, clerk, generous, healthy, reports, server, who, wish};

/// Somebody else writes all the time: a clerk that wanted to write too would wait for them.
pub async fn nothing_due_writes_nothing(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    server(desk, "two", Mode::Exclusive, 8, 32).await;
    let two = "two".parse().unwrap();
    // One of each: a slot that runs, one ahead, one whose server takes nobody, somebody who waits, an open offer.
    let running = book(desk, "amy", 0, 120).await;
    reports(desk, 1, &running, &[Step::Arming, Step::Active, Step::LoggedIn], 0).await;
    book(desk, "dan", 240, 300).await;
    desk.book(&who("bob"), NOW, None, &wish(Some("two"), 60, 120)).await.unwrap();
    desk.set_health(&Caller::Console, NOW, None, &two, Health::Away, "new disk").await.unwrap();
    desk.wait(&who("cem"), NOW, None, &wish(Some("one"), 240, 300)).await.unwrap();
    let given_up = book(desk, "dan", 360, 420).await;
    let offered = desk.wait(&who("amy"), NOW, None, &wish(Some("one"), 360, 420)).await.unwrap();
    desk.cancel(&who("dan"), NOW, None, &given_up.id, &Edit::default()).await.unwrap();
    let clerk = clerk(desk);
    assert_eq!(clerk.settle(at(1)).await.unwrap(), Ticked { offered: 1, ..Ticked::default() });

    let writer = rusqlite::Connection::open(url.trim_start_matches("sqlite://")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let round = async { (clerk.settle(at(2)).await, clerk.send_hooks(at(2)).await) };
    let (settled, sent) = tokio::time::timeout(Duration::from_secs(10), round).await.expect("it waits for who writes");
    assert_eq!((settled.unwrap(), sent.unwrap()), (Ticked::default(), 0));
    writer.execute_batch("ROLLBACK").unwrap();

    assert_eq!(clerk.settle(at(12)).await.unwrap().settled, 1, "the offer was not taken");
    let after = desk.booking(&who("amy"), at(12), &offered.id).await.unwrap();
    assert_eq!((after.state, after.lapses), (State::Waitlisted, 1), "it is free for who books it");
    // Who had their turn is nothing to do either.
    assert_eq!(clerk.settle(at(13)).await.unwrap(), Ticked::default());
    healthy(desk).await;
}

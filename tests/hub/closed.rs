//! An account is closed, and the hub is killed before all is given up that it held.

use kubecamp::hub::{
    desk::{Desk, Step},
    domain::{BookingId, Person, PersonId, State, Who},
    store::Store,
};

use super::world::{NOW, agent, at, book, camp, clerk, generous, healthy, reports, who, wish};

/// Whether somebody's account is open; nothing else follows, as in a hub that ends right then.
async fn set_active(url: &str, id: &PersonId, active: bool) {
    let store = Store::open(url).await.unwrap();
    let mut tx = store.write("person:tea", at(10)).await.unwrap();
    let there = tx.person(id).await.unwrap();
    tx.change_person(&Person { active, ..there }).await.unwrap();
    store.settle(tx, Ok(()), &mut 0).await.unwrap().unwrap();
    store.close().await;
}

pub async fn what_a_closed_account_left_ends(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    let (one, amy) = ("one".parse().unwrap(), "amy".parse().unwrap());
    let running = book(desk, "amy", 0, 60).await;
    reports(desk, 1, &running, &[Step::Arming, Step::Active, Step::LoggedIn], 0).await;
    let ahead = book(desk, "amy", 120, 180).await;
    let others = book(desk, "dan", 240, 300).await;
    let waits = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let clerk = clerk(desk);
    assert_eq!(clerk.settle(at(9)).await.unwrap().settled, 0);
    let before = desk.plan_for(&agent("one"), at(9), &one).await.unwrap();
    assert_eq!(before.slots.len(), 3);

    set_active(url, &amy, false).await;
    let plan = desk.plan_for(&agent("one"), at(10), &one).await.unwrap();
    assert!(plan.revision > before.revision, "its agent asks for it");
    let slots: Vec<_> = plan.slots.iter().map(|slot| slot.booking.clone()).collect();
    assert_eq!(slots, [running.id.clone(), others.id.clone()], "nothing opens any more");
    assert_eq!(clerk.settle(at(11)).await.unwrap().settled, 3);
    let now = async |id: &BookingId| desk.booking(&who("tea"), at(11), id).await.unwrap();
    let ended = now(&running.id).await;
    assert_eq!((ended.ended_by, ended.window.ends, ended.charged), (Some(Who::Clerk), at(11), 11 * 60));
    for gone in [&ahead, &waits] {
        let gone = now(&gone.id).await;
        assert_eq!((gone.state, gone.note.as_deref()), (State::Cancelled, Some("the account was closed")));
    }
    assert_eq!(clerk.settle(at(12)).await.unwrap().settled, 0, "once is enough");
    assert_eq!(now(&others.id).await.state, State::Booked);

    set_active(url, &amy, true).await;
    let again = desk.book(&who("amy"), at(13), None, &wish(Some("one"), 360, 420)).await.unwrap();
    assert_eq!(clerk.settle(at(14)).await.unwrap().settled, 0);
    assert_eq!(now(&again.id).await.state, State::Booked, "who is in again keeps what comes after");
    healthy(desk).await;
}

//! The hours of a group and of a person, asked for from many servers at once: what all of them look at is locked.

use std::sync::Arc;

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, Desk, Refusal},
        domain::{Booking, GroupId, Mode, PersonId, Policy, State},
        store::Listing,
    },
};
use tokio::sync::Barrier;

use super::{
    hammer::all_of,
    world::{NOW, camp, generous, healthy, person, server, who, wish},
};

const MEMBERS: i64 = 16;
/// Rounds that no seven days have in common.
const ROUNDS: i64 = 3;
const APART: i64 = 8 * 1440;

/// All of these at once, each by another desk than the one before.
async fn at_once(desks: &[Desk], wishes: Vec<(String, BookRequest)>) -> Vec<Result<Booking, Refusal>> {
    let barrier = Arc::new(Barrier::new(wishes.len()));
    let tasks = wishes.into_iter().enumerate().map(|(n, (login, wanted))| {
        let (desk, barrier) = (desks[n % desks.len()].clone(), Arc::clone(&barrier));
        tokio::spawn(async move {
            barrier.wait().await;
            desk.book(&who(&login), NOW, None, &wanted).await
        })
    });
    all_of("a round of quotas", tasks.collect()).await
}

/// How many won; whoever did not was refused for this.
fn won(answers: Vec<Result<Booking, Refusal>>, otherwise: Code) -> usize {
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    for refusal in &refused {
        assert_eq!(refusal.problem.code, otherwise, "{}", refusal.problem);
    }
    answers.len() - refused.len()
}

/// What such bookings hold, in seconds.
async fn held(desk: &Desk, want: Listing) -> i64 {
    let all = desk.bookings(&Caller::Console, NOW, &want).await.unwrap();
    all.iter().filter(|b| b.state == State::Booked).map(|b| b.window.length()).sum()
}

/// Members of one group, each on a server of their own, want the same two hours: no row that they book is another's.
pub async fn of_a_group(desks: &[Desk]) {
    let one = &desks[0];
    camp(one, &Policy { group_hours: 4, ..generous() }).await;
    for n in 0..MEMBERS {
        person(one, &format!("s{n}"), Some("red")).await;
        server(one, &format!("q{n}"), Mode::Exclusive, 8, 32).await;
    }
    let red: GroupId = "red".parse().unwrap();
    for round in 0..ROUNDS {
        let from = 60 + round * APART;
        let wishes = (0..MEMBERS).map(|n| (format!("s{n}"), wish(Some(&format!("q{n}")), from, from + 120)));
        let answers = at_once(desks, wishes.collect()).await;
        assert_eq!(won(answers, Code::BookGroupQuota), 2, "round {round}");
        let all = held(one, Listing { group: Some(red.clone()), ..Listing::default() }).await;
        assert_eq!(all, (round + 1) * 4 * 3600, "round {round}");
    }
    healthy(one).await;
}

/// One person wants other hours of each of eight servers.
pub async fn of_a_person(desks: &[Desk]) {
    let one = &desks[0];
    camp(one, &Policy { person_hours: 4, ..generous() }).await;
    for n in 0..8 {
        server(one, &format!("q{n}"), Mode::Exclusive, 8, 32).await;
    }
    let amy: PersonId = "amy".parse().unwrap();
    for round in 0..ROUNDS {
        let wishes = (0..8).map(|n| {
            let from = 60 + round * APART + n * 180;
            ("amy".to_owned(), wish(Some(&format!("q{n}")), from, from + 120))
        });
        let answers = at_once(desks, wishes.collect()).await;
        assert_eq!(won(answers, Code::BookQuota), 2, "round {round}");
        let all = held(one, Listing { person: Some(amy.clone()), ..Listing::default() }).await;
        assert_eq!(all, (round + 1) * 4 * 3600, "round {round}");
    }
    healthy(one).await;
}

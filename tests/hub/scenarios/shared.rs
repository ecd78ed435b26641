//! Servers with places for several labs at once.

use kubecamp::{
    core::{Bytes, Code},
    hub::{
        desk::{BookRequest, Caller, Desk, NewServer, Step, Taken},
        domain::{Mode, State},
    },
};

use super::state;
use crate::hub::world::{
    NOW, at, camp, clerk, generous, healthy, new_server, report, reports, search, server, who, window, wish,
};

pub async fn shared_servers_hold_as_many_labs_as_fit(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "big", Mode::Shared, 8, 40).await;
    let mut lab = wish(Some("big"), 60, 120);
    for (login, layout, good) in
        [("amy", "2x4c8g", true), ("bob", "3x2c4g", true), ("cem", "1x4c12g", false), ("dan", "3x2c4g", false)]
    {
        lab.layout = Some(layout.parse().unwrap());
        // 38 GiB and 8 cores: 16 + 12 GiB and 4 + 2 cores leave 10 GiB and 2 cores.
        assert_eq!(desk.book(&who(login), NOW, None, &lab).await.is_ok(), good, "{login}");
    }
    let want = search(Some("big"), Some("2x4c8g"), window(60, 300), 1);
    let free = desk.free(&who("dan"), NOW, &want).await.unwrap();
    assert_eq!(free[0].window, window(150, 210));
    let week = desk.week(&who("dan"), NOW, window(0, 1440)).await.unwrap();
    assert_eq!(week.servers.iter().map(|s| (s.places, s.bookings.len())).collect::<Vec<_>>(), [(3, 2), (1, 0)]);
    healthy(&desk).await;
}

pub async fn a_disk_that_holds_what_is_ahead_can_be_told_any_time(desk: Desk) {
    camp(&desk, &generous()).await;
    let new = new_server("big", Mode::Shared, 8, 40);
    let mut seen = desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    for (login, layout) in [("amy", "2x4c8g"), ("bob", "3x2c4g")] {
        let lab = BookRequest { layout: Some(layout.parse().unwrap()), ..wish(Some("big"), 60, 120) };
        desk.book(&who(login), NOW, None, &lab).await.unwrap();
    }
    // Five machines at a time, of 30 GiB each. Each booking has changed the server's plan, but nothing that is set.
    for (gib, good) in [(60, false), (149, false), (150, true), (500, true), (120, false)] {
        let told = NewServer { disk: Some(Bytes::gib(gib)), ..new.clone() };
        match desk.put_server(&Caller::Console, NOW, &told, Some(seen.version)).await {
            Ok(after) if good => seen = after,
            Err(problem) if !good => {
                assert_eq!(problem.code, Code::BookState);
                assert!(problem.what.contains("2 bookings ahead, and the disk does not hold them"), "{problem}");
            }
            other => panic!("{gib}: {other:?}"),
        }
    }
    let fewer = NewServer { cores: 7, disk: seen.disk, ..new };
    let refused = desk.put_server(&Caller::Console, NOW, &fewer, Some(seen.version)).await.unwrap_err();
    assert_eq!(refused.what, "server big has 2 bookings ahead");
    healthy(&desk).await;
}

pub async fn an_overrun_reset_on_a_shared_server_delays_its_place_only(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "big", Mode::Shared, 8, 40).await;
    let book = async |login: &str, from: i64, to: i64| {
        desk.book(&who(login), NOW, None, &wish(Some("big"), from, to)).await.unwrap()
    };
    let first = book("amy", 0, 60).await;
    let (next, beside) = (book("bob", 90, 150).await, book("cem", 90, 150).await);
    assert_eq!((first.place, next.place, beside.place), (Some(0), Some(0), Some(1)));
    reports(&desk, 1, &first, &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving], 60).await;
    let clerk = clerk(&desk);
    clerk.settle(at(89)).await.unwrap();
    assert_eq!(state(&desk, &next).await, State::Booked);
    clerk.settle(at(90)).await.unwrap();
    assert_eq!((state(&desk, &next).await, state(&desk, &beside).await), (State::Delayed, State::Booked));
    assert_eq!(report(&desk, 6, &beside, Step::Arming, 90).await, Taken::Applied);
    assert_eq!(report(&desk, 7, &first, Step::Resetting, 95).await, Taken::Applied);
    assert_eq!(report(&desk, 8, &first, Step::Done, 100).await, Taken::Applied);
    assert_eq!(report(&desk, 9, &next, Step::Arming, 100).await, Taken::Applied);
    for (booking, minutes) in [(&next, 50), (&beside, 60)] {
        let after = desk.booking(&Caller::Console, at(100), &booking.id).await.unwrap();
        assert_eq!((after.state, after.charged), (State::Arming, minutes * 60), "{}", after.person);
    }

    // What was over before the clerk looked once more.
    let late = book("dan", 180, 240).await;
    assert_eq!(report(&desk, 10, &late, Step::Arming, 181).await, Taken::Applied);
    let after = desk.booking(&Caller::Console, at(181), &late.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Arming, 59 * 60));
    healthy(&desk).await;
}

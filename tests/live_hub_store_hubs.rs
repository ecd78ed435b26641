//! What hubs on one PostgreSQL do to each other, and what the database itself may be set to.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kubecamp::{
    core::{Code, Secret},
    hub::{
        desk::{Desk, Edit},
        domain::Mode,
        http::Clock,
        store::{Delivery, Store},
    },
};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::{sleep, timeout};

use crate::{
    hub::world::{NOW, at, book, camp, generous, healthy, server, who, wish},
    support::postgres::Postgres,
};

/// Sets something for all connections to a database that are made from now on.
async fn set(url: &str, what: &str) {
    let pool = PgPool::connect(url).await.unwrap();
    let text = format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {what}', current_database()); END $$");
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_a_hub_that_stands_still_in_mid_transaction_stops_nobody_for_long() {
    let mut postgres = Postgres::start();
    let url = postgres.empty().await;
    // As some who sell databases have it: longer than anybody wants to wait.
    set(&url, "idle_in_transaction_session_timeout = 86400000").await;
    let desk = Desk::new(Store::open(&url).await.unwrap());
    camp(&desk, &generous()).await;
    let still = Store::open(&url).await.unwrap();
    let mut tx = still.write("console", NOW).await.unwrap();
    tx.lock_server(&"one".parse().unwrap()).await.unwrap();
    let began = Instant::now();
    let booking = wish(Some("one"), 60, 120);
    let told = timeout(Duration::from_secs(35), desk.book(&who("amy"), NOW, None, &booking)).await;
    let told = told.expect("who wants what is locked is told before the request is given up");
    let refused =
        told.expect_err("a lock is waited for no longer than twenty seconds, and the idle one ends at thirty");
    assert_eq!(refused.problem.code, Code::HubBusy, "{refused:?}");
    assert!((18..28).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    sleep(Duration::from_secs(32).saturating_sub(began.elapsed())).await;
    let booking = wish(Some("one"), 180, 240);
    let booked = timeout(Duration::from_secs(5), desk.book(&who("bob"), NOW, None, &booking)).await;
    booked.expect("nothing is locked any more").unwrap();
    let settled = still.settle(tx, Ok(()), &mut 0).await;
    assert!(settled.is_some_and(|settled| settled.is_err()), "it is undone, and who did it hears so");
    drop(still.read(NOW).await.unwrap());
    still.close().await;
    healthy(&desk).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_one_person_books_once_whatever_isolation_the_database_is_set_to() {
    let mut postgres = Postgres::start();
    let url = postgres.empty().await;
    set(&url, "default_transaction_isolation = \"repeatable read\"").await;
    let one = Desk::new(Store::open(&url).await.unwrap());
    let other = Desk::new(Store::open(&url).await.unwrap());
    camp(&one, &generous()).await;
    server(&one, "two", Mode::Exclusive, 8, 32).await;
    for round in 0..20 {
        let book = async |desk: &Desk, server: &str| {
            let booking = wish(Some(server), round * 120, round * 120 + 60);
            desk.book(&who("amy"), NOW, None, &booking).await.map_err(|refused| refused.problem.code)
        };
        let both = tokio::join!(book(&one, "one"), book(&other, "two"));
        let lost = match both {
            (Ok(_), Err(code)) | (Err(code), Ok(_)) => code,
            both => panic!("{round}: {both:?}"),
        };
        assert_eq!(lost, Code::BookOwn, "{round}");
    }
    healthy(&one).await;
    for desk in [one, other] {
        desk.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_who_extends_what_is_moved_meanwhile_is_told_so() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let pool = PgPool::connect(&url).await.unwrap();
    let mut moves = pool.begin().await.unwrap();
    for step in [
        "SELECT 1 FROM servers WHERE id IN ('one', 'two') ORDER BY id FOR UPDATE",
        "UPDATE bookings SET server = 'two', version = version + 1",
    ] {
        sqlx::query(step).execute(&mut *moves).await.unwrap();
    }
    let (extends, id) = (desk.clone(), booking.id.clone());
    let extended =
        tokio::spawn(async move { extends.extend(&who("amy"), NOW, None, &id, at(180), &Edit::default()).await });
    let waits = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool).await.unwrap() == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(15), waits).await.expect("it waits for the server");
    moves.commit().await.unwrap();
    let refused = extended.await.unwrap().unwrap_err();
    assert!(refused.code == Code::BookStale && refused.what.contains("moved"), "{refused}");
    let after = desk.booking(&who("amy"), NOW, &booking.id).await.unwrap();
    assert_eq!(after.window, booking.window, "nothing of it was changed");
    pool.close().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_the_clock_of_the_database_is_read() {
    let mut postgres = Postgres::start();
    let (desk, _) = postgres.fresh().await;
    let clock = Clock::system();
    let before = clock.now();
    let theirs = desk.clock(NOW).await.unwrap().expect("it has one of its own");
    // It rounds to whole seconds, and this one cuts off.
    assert!(before <= theirs && theirs <= clock.now() + 1, "{before} {theirs}");
    desk.close().await;
}

/// A change of some rows by the clerk, again where the database asks for it.
async fn deliver(store: &Store, due: &[Delivery]) {
    loop {
        let mut tx = store.write("clerk", NOW).await.unwrap();
        let mut noted = Ok(());
        for one in due {
            noted = noted.and(tx.delivered(one.event.id, one.hook, None, None).await);
        }
        if let Some(settled) = store.settle(tx, noted, &mut 0).await {
            return settled.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_two_hubs_send_what_a_webhook_is_told_in_its_order() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    let stores = [Store::open(&url).await.unwrap(), Store::open(&url).await.unwrap()];
    let mut tx = stores[0].write("console", NOW).await.unwrap();
    tx.add_hook("http://127.0.0.1:9/", &Secret::new("kcw_x")).await.unwrap();
    stores[0].settle(tx, Ok(()), &mut 0).await.unwrap().unwrap();
    let sent = Arc::new(Mutex::new(vec![]));
    let takers = stores.clone().map(|store| {
        let sent = sent.clone();
        tokio::spawn(async move {
            while sent.lock().unwrap().len() < 60 {
                let mut tx = store.write("clerk", NOW).await.unwrap();
                let due = tx.take_deliveries(25, 60).await;
                let Some(due) = store.settle(tx, due, &mut 0).await else { continue };
                let due = due.unwrap();
                for one in &due {
                    sleep(Duration::from_millis(2)).await;
                    sent.lock().unwrap().push(one.event.id);
                }
                deliver(&store, &due).await;
            }
        })
    });
    // Events come while others are taken.
    for _ in 0..60 {
        let mut tx = stores[1].write("console", NOW).await.unwrap();
        tx.tell("server.changed", "server:one".to_owned(), None, None, json!({}));
        stores[1].settle(tx, Ok(()), &mut 0).await.unwrap().unwrap();
    }
    let both = timeout(Duration::from_secs(60), futures::future::join_all(takers)).await;
    assert!(both.expect("all are sent").iter().all(Result::is_ok));
    let sent = sent.lock().unwrap().clone();
    assert!(sent.len() == 60 && sent.windows(2).all(|two| two[0] < two[1]), "{sent:?}");
    for store in &stores {
        store.close().await;
    }
    desk.close().await;
}

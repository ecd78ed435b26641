//! The hub's desk: scenarios that hold on either database; here on SQLite, in `live_hub_store.rs` on PostgreSQL.

mod api;
mod browser;
mod camp;
pub mod closed;
mod command;
pub mod crash;
pub mod edges;
pub mod fuzz;
pub mod hammer;
pub mod kept;
mod memory;
pub mod pages;
pub mod processes;
mod quiet;
pub mod quotas;
pub mod scenarios;
pub mod served;
mod steady;
mod times;
pub mod walks;
pub mod world;

use kubecamp::hub::{desk::Desk, store::Store};

/// A desk on an empty file, which goes with it.
struct Fresh {
    desk: Desk,
    url: String,
    _folder: tempfile::TempDir,
}

async fn sqlite() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("hub.db").display());
    Fresh { desk: Desk::new(Store::open(&url).await.unwrap()), url, _folder: folder }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_what_every_scenario_promises() {
    let mut failed = vec![];
    for (name, scenario) in scenarios::all() {
        let hub = sqlite().await;
        failed.extend(tokio::spawn(scenario(hub.desk.clone())).await.err().map(|_| name));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_holds_when_everybody_comes_at_once() {
    hammer::one_winner_per_window(&sqlite().await.desk).await;
    hammer::opposite_preferences(&sqlite().await.desk).await;
    let hub = sqlite().await;
    hammer::a_yes_at_once_is_one(&hub.desk, &hub.desk.clone()).await;
    hammer::weeks_of_one_group(&sqlite().await.desk).await;
    hammer::groups_go_while_members_book(&sqlite().await.desk).await;
    hammer::rosters_come_while_students_book(&sqlite().await.desk).await;
    hammer::nobody_waits_for_a_server_that_is_gone(&sqlite().await.desk).await;
    hammer::a_server_goes_in_a_busy_hour(&sqlite().await.desk).await;
    let hub = sqlite().await;
    quotas::of_a_group(&[hub.desk.clone(), hub.desk.clone()]).await;
    let hub = sqlite().await;
    quotas::of_a_person(&[hub.desk.clone(), hub.desk.clone()]).await;
    let hub = sqlite().await;
    hammer::who_is_out_while_booking_gets_nothing(&hub.desk, &hub.url).await;
    let hub = sqlite().await;
    hammer::the_constraint_catches_check_then_insert(&hub.desk, &hub.url).await;
    let beside = rusqlite::Connection::open(hub.url.trim_start_matches("sqlite://")).unwrap();
    for trigger in ["DROP TRIGGER bookings_apart_on_insert", "DROP TRIGGER bookings_apart_on_update"] {
        beside.execute(trigger, ()).unwrap();
    }
    hammer::without_constraint_the_mutant_is_seen(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_healthy_after_a_kill_at_any_moment() {
    let hub = sqlite().await;
    crash::killed_in_a_loop(&hub.desk, &hub.url, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_is_healthy_after_a_kill_at_each_edge() {
    let hub = sqlite().await;
    edges::killed_at_each(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_the_hub_is_killed_at_any_step() {
    let hub = sqlite().await;
    processes::killed_at_any_step(&hub.desk, &hub.url, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_clerk_with_nothing_due_writes_nothing() {
    let hub = sqlite().await;
    quiet::nothing_due_writes_nothing(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_a_closed_account_left_ends() {
    let hub = sqlite().await;
    closed::what_a_closed_account_left_ends(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_the_hub_is_killed_around_every_report() {
    let hub = sqlite().await;
    walks::killed_around_every_report(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_full_disk_is_told_and_over_when_there_is_space() {
    let hub = sqlite().await;
    steady::a_full_disk_is_over_when_there_is_space(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_silent_webhook_delays_nobody() {
    let hub = sqlite().await;
    steady::a_silent_webhook_delays_nobody(&hub.desk, &hub.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_ten_thousand_bookings_take_little_of_the_hubs_memory() {
    let hub = sqlite().await;
    memory::ten_thousand_bookings_take_little(&hub.desk, &hub.url).await;
}

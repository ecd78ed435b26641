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

async fn sqlite(folder: &tempfile::TempDir) -> (Desk, String) {
    let url = format!("sqlite://{}", folder.path().join("hub.db").display());
    (Desk::new(Store::open(&url).await.unwrap()), url)
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_every_scenario() {
    let mut failed = vec![];
    for (name, scenario) in scenarios::all() {
        let folder = tempfile::tempdir().unwrap();
        let desk = sqlite(&folder).await.0;
        failed.extend(tokio::spawn(scenario(desk)).await.err().map(|_| name));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_hammer() {
    let folder = tempfile::tempdir().unwrap();
    hammer::one_winner_per_window(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    hammer::opposite_preferences(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    let desk = sqlite(&folder).await.0;
    hammer::a_yes_at_once_is_one(&desk, &desk.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    hammer::weeks_of_one_group(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    hammer::groups_go_while_members_book(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    hammer::rosters_come_while_students_book(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    hammer::nobody_waits_for_a_server_that_is_gone(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    hammer::a_server_goes_in_a_busy_hour(&sqlite(&folder).await.0).await;
    let folder = tempfile::tempdir().unwrap();
    let desk = sqlite(&folder).await.0;
    quotas::of_a_group(&[desk.clone(), desk]).await;
    let folder = tempfile::tempdir().unwrap();
    let desk = sqlite(&folder).await.0;
    quotas::of_a_person(&[desk.clone(), desk]).await;
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    hammer::who_is_out_while_booking_gets_nothing(&desk, &url).await;
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    hammer::the_constraint_catches_check_then_insert(&desk, &url).await;
    let beside = rusqlite::Connection::open(url.trim_start_matches("sqlite://")).unwrap();
    for trigger in ["DROP TRIGGER bookings_apart_on_insert", "DROP TRIGGER bookings_apart_on_update"] {
        beside.execute(trigger, ()).unwrap();
    }
    hammer::without_constraint_the_mutant_is_seen(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    crash::killed_in_a_loop(&desk, &url, 12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_killed_at_each_edge() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    edges::killed_at_each(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_the_hub_is_killed_at_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    processes::killed_at_any_step(&desk, &url, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_clerk_with_nothing_due_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    quiet::nothing_due_writes_nothing(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_what_a_closed_account_left_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    closed::what_a_closed_account_left_ends(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_the_hub_is_killed_around_every_report() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    walks::killed_around_every_report(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_full_disk_is_told_and_over_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    steady::a_full_disk_is_over_when_there_is_space(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_a_silent_webhook_delays_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    steady::a_silent_webhook_delays_nobody(&desk, &url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_ten_thousand_bookings_take_little_of_the_hubs_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (desk, url) = sqlite(&folder).await;
    memory::ten_thousand_bookings_take_little(&desk, &url).await;
}

//! The hub's desk, and the hub itself, on a real PostgreSQL.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use kubecamp::{
    core::Code,
    hub::{
        desk::Desk,
        store::{Backups, Store},
    },
};
use sqlx::PgPool;
use tokio::process::Command;

use crate::{
    hub::{
        closed, crash, edges, fuzz, hammer, kept, pages::odd_form, processes, quotas, scenarios, served::Hub, walks,
        world::NOW,
    },
    support::postgres::Postgres,
};

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_keeps_what_every_scenario_promises() {
    let mut postgres = Postgres::start();
    let mut failed = vec![];
    for (name, scenario) in scenarios::all() {
        let (desk, _) = postgres.fresh().await;
        failed.extend(tokio::spawn(scenario(desk.clone())).await.err().map(|_| name));
        desk.close().await;
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_holds_when_everybody_comes_at_once() {
    let mut postgres = Postgres::start();
    let (desk, _) = postgres.fresh().await;
    hammer::one_winner_per_window(&desk).await;
    desk.close().await;
    assert_eq!(postgres.deadlocks(), 0, "the desk locks in one order");
    let (desk, _) = postgres.fresh().await;
    hammer::opposite_preferences(&desk).await;
    desk.close().await;
    assert_eq!(postgres.deadlocks(), 0, "also where people prefer different servers");
    let (desk, _) = postgres.fresh().await;
    hammer::weeks_of_one_group(&desk).await;
    desk.close().await;
    let (desk, _) = postgres.fresh().await;
    hammer::groups_go_while_members_book(&desk).await;
    desk.close().await;
    let (desk, _) = postgres.fresh().await;
    hammer::rosters_come_while_students_book(&desk).await;
    desk.close().await;
    let (desk, _) = postgres.fresh().await;
    hammer::nobody_waits_for_a_server_that_is_gone(&desk).await;
    desk.close().await;
    let (desk, _) = postgres.fresh().await;
    hammer::a_server_goes_in_a_busy_hour(&desk).await;
    desk.close().await;
    let (desk, url) = postgres.fresh().await;
    hammer::who_is_out_while_booking_gets_nothing(&desk, &url).await;
    desk.close().await;
    assert_eq!(postgres.deadlocks(), 0, "servers before people before groups");
    let (desk, url) = postgres.fresh().await;
    closed::what_a_closed_account_left_ends(&desk, &url).await;
    desk.close().await;
    let (desk, url) = postgres.fresh().await;
    hammer::the_constraint_catches_check_then_insert(&desk, &url).await;
    let pool = PgPool::connect(&url).await.unwrap();
    sqlx::query("ALTER TABLE bookings DROP CONSTRAINT bookings_apart").execute(&pool).await.unwrap();
    hammer::without_constraint_the_mutant_is_seen(&desk, &url).await;
    pool.close().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_holds_when_everybody_comes_to_two_hubs() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    let other = Desk::new(Store::open(&url).await.unwrap());
    hammer::two_hubs(&desk, &other).await;
    assert_eq!(postgres.deadlocks(), 0, "two desks lock in one order");
    desk.close().await;
    other.close().await;
    let (desk, url) = postgres.fresh().await;
    let other = Desk::new(Store::open(&url).await.unwrap());
    hammer::a_yes_at_once_is_one(&desk, &other).await;
    desk.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_quotas_hold_with_many_at_once() {
    let mut postgres = Postgres::start();
    for of_a_person in [false, true] {
        let (desk, url) = postgres.fresh().await;
        let mut desks = vec![desk];
        for _ in 0..3 {
            desks.push(Desk::new(Store::open(&url).await.unwrap()));
        }
        if of_a_person {
            quotas::of_a_person(&desks).await;
        } else {
            quotas::of_a_group(&desks).await;
        }
        assert_eq!(postgres.deadlocks(), 0, "servers before people before groups");
        for desk in desks {
            desk.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_no_request_breaks_the_hub() {
    let mut postgres = Postgres::start();
    let hub = Hub::on(&postgres.empty().await).await;
    fuzz::no_request_breaks(&hub).await;
    let hub = Hub::on(&postgres.empty().await).await;
    odd_form::no_form_breaks(&hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_a_newer_database_is_refused() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    desk.close().await;
    let pool = PgPool::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (99, 'newer', TRUE, '\\x00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    let before: i64 = sqlx::query_scalar(tables).fetch_one(&pool).await.unwrap();
    for opened in [
        Store::open(&url).await,
        Store::open_alone(&url, Backups::Made).await,
        Store::open_existing(&url, Backups::Made).await,
    ] {
        let refused = opened.unwrap_err();
        assert!(refused.code == Code::HubNewer && refused.what.contains("edition 99"), "{refused}");
    }
    let after: i64 = sqlx::query_scalar(tables).fetch_one(&pool).await.unwrap();
    assert_eq!(before, after);
    let gone = sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 99").execute(&pool).await.unwrap();
    assert_eq!(gone.rows_affected(), 1, "it is left as it was");
    pool.close().await;
    Store::open(&url).await.unwrap().close().await;
}

/// The editions of the tables, the newest last; their files are numbered from 1 without a gap.
fn editions() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/hub/store/migrations/postgres");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The number of the newest edition.
fn newest() -> i64 {
    editions().len().try_into().unwrap()
}

/// Makes of a database one that an older kubecamp left, empty: as before the newest edition, whatever that changes.
async fn age(pool: &PgPool) {
    let tables =
        "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public' AND tablename <> '_sqlx_migrations'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(pool).await.unwrap();
    let gone = tables.iter().map(|table| format!("DROP TABLE \"{table}\" CASCADE"));
    let mut former = editions();
    former.pop();
    for text in gone.chain(former) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(pool).await.unwrap();
    }
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = $1").bind(newest()).execute(pool).await.unwrap();
}

async fn count(pool: &PgPool, what: &'static str) -> i64 {
    sqlx::query_scalar(what).fetch_one(pool).await.unwrap()
}

const EDITION: &str = "SELECT max(version) FROM _sqlx_migrations";
/// How many hubs keep others from changing the tables.
const PRESENT: &str =
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' AND granted";

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_nobody_upgrades_a_database_under_its_hubs() {
    let mut postgres = Postgres::start();
    let url = postgres.empty().await;
    let (one, other) =
        (Store::open_alone(&url, Backups::Made).await.unwrap(), Store::open_alone(&url, Backups::Made).await.unwrap());
    let pool = PgPool::connect(&url).await.unwrap();
    // Each by a connection of its own, which is made anew where it is lost.
    assert_eq!(count(&pool, PRESENT).await, 2);
    let former = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2";
    let former: Vec<i32> = sqlx::query_scalar(former).fetch_all(&pool).await.unwrap();
    for pid in &former {
        sqlx::query("SELECT pg_terminate_backend($1)").bind(*pid).execute(&pool).await.unwrap();
    }
    let others = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ShareLock' \
                  AND granted AND pid <> ALL($1)";
    let again = async {
        loop {
            let new: i64 = sqlx::query_scalar(others).bind(former.clone()).fetch_one(&pool).await.unwrap();
            if new == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("the hubs hold it again");

    age(&pool).await;
    for opened in [
        Store::open(&url).await,
        Store::open_alone(&url, Backups::Made).await,
        Store::open_existing(&url, Backups::Made).await,
    ] {
        let refused = opened.unwrap_err();
        assert_eq!(refused.code, Code::HubRunning, "{refused}");
        assert!(refused.all_hints()[0].contains("pg_dump"), "{refused}");
    }
    assert_eq!((count(&pool, EDITION).await, count(&pool, PRESENT).await), (newest() - 1, 2), "it is left as it was");
    other.close().await;
    drop(other);
    assert_eq!(Store::open(&url).await.unwrap_err().code, Code::HubRunning, "one of them works on it still");
    one.close().await;
    drop(one);
    Store::open(&url).await.unwrap().close().await;
    assert_eq!((count(&pool, EDITION).await, count(&pool, PRESENT).await), (newest(), 0));
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_a_hub_writes_to_no_tables_that_became_newer_while_it_was_cut_off() {
    let mut postgres = Postgres::start();
    let url = postgres.empty().await;
    let hub = Store::open_alone(&url, Backups::Made).await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (99, 'newer', true, ''::bytea, 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    drop(hub.read(NOW).await.unwrap());
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2";
    sqlx::query(cut).execute(&pool).await.unwrap();
    let refused = async {
        while hub.read(NOW).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("it works no more");
    assert_eq!(hub.read(NOW).await.err().map(|problem| problem.code), Some(Code::HubDatabase));
    hub.close().await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_hubs_with_other_keys_do_not_share_a_database() {
    let mut postgres = Postgres::start();
    let url = postgres.empty().await;
    let hub = || async { Store::open_alone(&url, Backups::Made).await.unwrap() };
    let (ours, theirs) = ([0xff, 1, 2, 3], [0xff, 1, 2, 4]);
    let (one, other) = (hub().await, hub().await);
    one.sign_by(ours).await.unwrap();
    other.sign_by(ours).await.unwrap();
    let refused = async || {
        let stranger = hub().await;
        let problem = stranger.sign_by(theirs).await.unwrap_err();
        stranger.close().await;
        problem
    };
    let problem = refused().await;
    assert_eq!(problem.code, Code::HubRunning);
    assert!(problem.all_hints()[0].contains("--keys"), "{problem}");
    // They take it anew with a connection that was lost.
    let pool = PgPool::connect(&url).await.unwrap();
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 27492";
    sqlx::query(cut).execute(&pool).await.unwrap();
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 27492 AND granted";
    let again = async {
        while count(&pool, held).await != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("the hubs hold it again");
    assert_eq!(refused().await.code, Code::HubRunning);
    for hub in [one, other] {
        hub.close().await;
    }
    // With all of them stopped, keys may be others.
    let renewed = hub().await;
    renewed.sign_by(theirs).await.unwrap();
    renewed.close().await;
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_hubs_that_start_at_the_same_time_wait_for_each_other() {
    let mut postgres = Postgres::start();
    for old in [false, true, true] {
        let folder = tempfile::tempdir().unwrap();
        let url = postgres.empty().await;
        if old {
            Store::open(&url).await.unwrap().close().await;
            let pool = PgPool::connect(&url).await.unwrap();
            age(&pool).await;
            pool.close().await;
        }
        let hubs = (0..4).map(|_| {
            let (url, backups) = (url.clone(), folder.path().to_owned());
            tokio::spawn(async move { Store::open_alone(&url, Backups::In(&backups)).await })
        });
        for hub in futures::future::join_all(hubs).await {
            hub.unwrap().unwrap().close().await;
        }
        assert_eq!(copies(folder.path()).len(), usize::from(old), "one of them copies, the others wait for it");
    }
}

/// What is in a folder of copies.
fn copies(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
}

/// A database that an older kubecamp left, with a course, and its address.
async fn older(postgres: &mut Postgres) -> (PgPool, String) {
    let url = postgres.empty().await;
    Store::open(&url).await.unwrap().close().await;
    let pool = PgPool::connect(&url).await.unwrap();
    age(&pool).await;
    let course = "INSERT INTO courses (id, title, policy) VALUES ('k8s', 'before', '{}')";
    sqlx::query(course).execute(&pool).await.unwrap();
    (pool, url)
}

const BEFORE: &str = "SELECT count(*) FROM courses WHERE title = 'before'";

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_an_older_database_is_copied_first_and_one_can_go_back() {
    let mut postgres = Postgres::start();
    let (pool, url) = older(&mut postgres).await;
    let folder = tempfile::tempdir().unwrap();
    let backups = folder.path().join("backups");
    let hub = Store::open_alone(&url, Backups::In(&backups)).await.unwrap();
    let copy = hub.backup().expect("it says where the copy is").to_owned();
    assert_eq!(copies(&backups), std::slice::from_ref(&copy), "nothing else is left");
    let name = copy.file_name().unwrap().to_str().unwrap();
    let before = newest() - 1;
    assert!(name.starts_with(&format!("hub1.before-{before}.")) && name.ends_with("Z.dump"), "{name}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copy), mode(&backups)), (0o600, 0o700));
    assert_eq!(count(&pool, EDITION).await, newest());
    sqlx::query("UPDATE courses SET title = 'after'").execute(&pool).await.unwrap();
    hub.close().await;
    drop(hub);
    let again = Store::open_alone(&url, Backups::In(&backups)).await.unwrap();
    assert_eq!((again.backup(), copies(&backups).len()), (None, 1), "there is nothing to bring up to date");
    again.close().await;
    pool.close().await;

    let former = postgres.restored(&copy).await;
    let pool = PgPool::connect(&former).await.unwrap();
    assert_eq!((count(&pool, EDITION).await, count(&pool, BEFORE).await), (before, 1), "as it was");
    let command = Store::open_existing(&former, Backups::In(&backups)).await.unwrap();
    assert!(command.backup().is_some_and(|copy| copy.is_file()), "who is no hub makes one too");
    command.close().await;
    assert_eq!((count(&pool, EDITION).await, count(&pool, BEFORE).await), (newest(), 1), "a hub goes on from there");
    pool.close().await;
}

/// How a command of the hub ends that finds the programs of one folder only.
async fn ended(home: &Path, programs: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
    command.args(words).env("PATH", programs).env("KUBECAMP_HOME", home).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_what_cannot_be_copied_is_not_changed() {
    let mut postgres = Postgres::start();
    let (pool, url) = older(&mut postgres).await;
    // Anybody is let in, so any password will do.
    let url = url.replace("postgres@", "postgres:verysecret@");
    let home = tempfile::tempdir().unwrap();
    let (none, stale) = (home.path().join("none"), home.path().join("stale"));
    fs::create_dir(&none).unwrap();
    fs::create_dir(&stale).unwrap();
    let program = stale.join("pg_dump");
    fs::write(&program, "#!/bin/sh\necho 'aborting because of server version mismatch' >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let (socket, backups) = (format!("unix:{}", home.path().join("sock").display()), home.path().join("copies"));
    let serve = ["hub", "serve", "--database", &url, "--listen", &socket, "--backups", backups.to_str().unwrap()];
    let link = ["hub", "admin-link", "ann", "--database", &url];
    for (programs, why) in [(&none, "pg_dump is not installed"), (&stale, "server version mismatch")] {
        for words in [&serve[..], &link[..]] {
            let refused = ended(home.path(), programs, words).await;
            let told = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(3), "{told}");
            assert!(told.contains("KC-HUB-BACKUP") && told.contains(why) && told.contains("--backed-up"), "{told}");
            assert!(!told.contains("verysecret"), "{told}");
            let left = (count(&pool, EDITION).await, count(&pool, BEFORE).await);
            assert_eq!(left, (newest() - 1, 1), "it is left as it was");
        }
    }
    assert_eq!(copies(&backups), [] as [PathBuf; 0], "half a copy is none");
    let made = ended(home.path(), &none, &[&link[..], &["--backed-up"]].concat()).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(count(&pool, EDITION).await, newest());
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_is_healthy_after_a_kill_at_any_moment() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    crash::killed_in_a_loop(&desk, &url, 12).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_is_healthy_after_a_kill_at_each_edge() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    edges::killed_at_each(&desk, &url).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_keeps_what_was_answered_when_its_database_is_killed() {
    let mut postgres = Postgres::start();
    let (desk, _) = postgres.fresh().await;
    kept::answered_is_kept(&desk, || postgres.end(), || postgres.begin()).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_is_healthy_after_a_kill_of_its_database_at_each_edge() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    edges::database_killed_at_each(&desk, &url, || postgres.end(), || postgres.begin()).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_two_hubs_are_one() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    processes::two_are_one(&desk, &url).await;
    assert_eq!(postgres.deadlocks(), 0);
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_the_hub_is_killed_at_any_step() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    processes::killed_at_any_step(&desk, &url, 16).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_the_hub_is_killed_around_every_report() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    walks::killed_around_every_report(&desk, &url).await;
    assert_eq!(postgres.deadlocks(), 0);
    desk.close().await;
}

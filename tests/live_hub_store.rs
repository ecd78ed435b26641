//! The hub's desk on a real PostgreSQL of its own, on a Unix socket in a temporary folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kubecamp::hub::{desk::Desk, store::Store};

use crate::hub::{crash, hammer, scenarios};

/// A PostgreSQL that ends with the test.
struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    databases: usize,
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

impl Postgres {
    fn start() -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("the package postgresql is installed");
        let bin = versions.map(|v| v.unwrap().path().join("bin")).find(|b| b.join("initdb").exists()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let data = folder.path().join("data");
        let options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-D"];
        run(as_postgres(&bin.join("initdb")).args(options).arg(&data).current_dir("/"));
        let postgres = Self { folder, bin, databases: 0 };
        postgres.begin();
        postgres
    }

    fn begin(&self) {
        let folder = self.folder.path();
        // What survives here survives the death of its processes; the death of the machine is PostgreSQL's own matter.
        let options = format!(
            "-k {} -c listen_addresses='' -c max_connections=120 -c fsync=off -c deadlock_timeout=100ms",
            folder.display()
        );
        let mut start = as_postgres(&self.bin.join("pg_ctl"));
        start.args(["-w", "-D"]).arg(folder.join("data"));
        // Its output goes to a file: a pipe that the server keeps open would never end.
        run(start.arg("-l").arg(folder.join("log")).args(["-o", &options, "start"]).current_dir("/"));
    }

    /// Ends all of its processes without letting them finish anything.
    fn end(&self) {
        let data = self.folder.path().join("data");
        run(as_postgres(&self.bin.join("pg_ctl"))
            .args(["-w", "-m", "immediate", "-D"])
            .arg(data)
            .arg("stop")
            .current_dir("/"));
    }

    /// How often two transactions waited for each other.
    fn deadlocks(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log")).unwrap().matches("deadlock detected").count()
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.path().display())
    }

    async fn fresh(&mut self) -> (Desk, String) {
        self.databases += 1;
        let name = format!("hub{}", self.databases);
        let pool = sqlx::PgPool::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
        pool.close().await;
        let url = self.url(&name);
        (Desk::new(Store::open(&url).await.unwrap()), url)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let _ = as_postgres(&self.bin.join("pg_ctl"))
            .args(["-m", "immediate", "-D"])
            .arg(data)
            .arg("stop")
            .current_dir("/")
            .output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_every_scenario() {
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
async fn live_hub_store_hammer() {
    let mut postgres = Postgres::start();
    let (desk, _) = postgres.fresh().await;
    hammer::one_winner_per_window(&desk).await;
    desk.close().await;
    assert_eq!(postgres.deadlocks(), 0, "the desk locks in one order");
    let (desk, url) = postgres.fresh().await;
    hammer::the_constraint_catches_check_then_insert(&desk, &url).await;
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    sqlx::query("ALTER TABLE bookings DROP CONSTRAINT bookings_apart").execute(&pool).await.unwrap();
    hammer::without_constraint_the_mutant_is_seen(&desk, &url).await;
    pool.close().await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_two_hubs_on_one_database() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    let other = Desk::new(Store::open(&url).await.unwrap());
    hammer::two_hubs(&desk, &other).await;
    assert_eq!(postgres.deadlocks(), 0, "two desks lock in one order");
    desk.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_killed_at_any_moment() {
    let mut postgres = Postgres::start();
    let (desk, url) = postgres.fresh().await;
    crash::killed_in_a_loop(&desk, &url, 12).await;
    desk.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_hub_store_database_killed_under_load() {
    let mut postgres = Postgres::start();
    let (desk, _) = postgres.fresh().await;
    hammer::answered_is_kept(&desk, || postgres.end(), || postgres.begin()).await;
    desk.close().await;
}

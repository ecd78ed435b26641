//! A real PostgreSQL of a test's own, on a Unix socket in a temporary folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kubecamp::hub::{desk::Desk, store::Store};

/// A PostgreSQL that ends with the test.
pub struct Postgres {
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
    /// Makes and starts one; PostgreSQL's programs must be installed.
    pub fn start() -> Self {
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

    /// Starts it, after its end too.
    pub fn begin(&self) {
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
    pub fn end(&self) {
        let data = self.folder.path().join("data");
        run(as_postgres(&self.bin.join("pg_ctl"))
            .args(["-w", "-m", "immediate", "-D"])
            .arg(data)
            .arg("stop")
            .current_dir("/"));
    }

    /// How often two transactions waited for each other.
    pub fn deadlocks(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log")).unwrap().matches("deadlock detected").count()
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.path().display())
    }

    /// A desk on a database of its own, and its address.
    pub async fn fresh(&mut self) -> (Desk, String) {
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

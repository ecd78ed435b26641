//! A real PostgreSQL of a test's own, on a Unix socket in a temporary folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kubecamp::hub::{desk::Desk, store::Store};
use rustix::process::{Pid, Signal, kill_process};

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

/// A process of this computer.
struct Process {
    id: i32,
    parent: i32,
    /// Only its number is left.
    is_dead: bool,
}

fn processes() -> Vec<Process> {
    let read = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // A name may have blanks and brackets.
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let is_dead = matches!(rest.next()?, "Z" | "X");
        Some(Process { id, parent: rest.next()?.parse().ok()?, is_dead })
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| read(entry.ok()?)).collect()
}

/// Whoever has ended by itself needs no signal.
fn send(id: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(id).unwrap(), signal);
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

    /// kill -9 of all of its processes, and waits until they are gone.
    pub fn end(&self) {
        let pid_file = self.folder.path().join("data/postmaster.pid");
        let pid = fs::read_to_string(&pid_file).unwrap().lines().next().unwrap().parse().unwrap();
        // Stopped, it begins no more children, and those that end keep their numbers until it is gone.
        send(pid, Signal::STOP);
        let children: Vec<i32> = processes().into_iter().filter(|p| p.parent == pid).map(|p| p.id).collect();
        assert!(!children.is_empty(), "a PostgreSQL without children is none");
        let all: Vec<i32> = children.into_iter().chain([pid]).collect();
        all.iter().for_each(|id| send(*id, Signal::KILL));
        let began = Instant::now();
        while processes().iter().any(|p| all.contains(&p.id) && !p.is_dead) {
            assert!(began.elapsed() < Duration::from_secs(30), "PostgreSQL survives kill -9");
            std::thread::yield_now();
        }
        // Without the socket who comes is told at once that nobody is there, and is not kept for as long as a server may start.
        fs::remove_file(self.folder.path().join(".s.PGSQL.5432")).unwrap();
        // Where nobody takes note of its end its number stays in use, and PostgreSQL would take it for a server that runs.
        if processes().iter().any(|p| p.id == pid) {
            for stale in [pid_file, self.folder.path().join(".s.PGSQL.5432.lock")] {
                fs::remove_file(stale).unwrap();
            }
        }
    }

    /// How often two transactions waited for each other.
    pub fn deadlocks(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log")).unwrap().matches("deadlock detected").count()
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.path().display())
    }

    /// The address of a database of its own, without tables.
    pub async fn empty(&mut self) -> String {
        self.databases += 1;
        let name = format!("hub{}", self.databases);
        let pool = sqlx::PgPool::connect(&self.url("postgres")).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&pool).await.unwrap();
        pool.close().await;
        self.url(&name)
    }

    /// The address of a database of its own that was made from a copy, as somebody does it who goes back.
    pub async fn restored(&mut self, copy: &Path) -> String {
        let url = self.empty().await;
        let mut restore = Command::new(self.bin.join("pg_restore"));
        restore.args(["--exit-on-error", "--username", "postgres", "--host"]).arg(self.folder.path());
        run(restore.args(["--dbname", &format!("hub{}", self.databases)]).arg(copy));
        url
    }

    /// A desk on a database of its own, and its address.
    pub async fn fresh(&mut self) -> (Desk, String) {
        let url = self.empty().await;
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

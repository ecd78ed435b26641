use std::{
    io::ErrorKind,
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{
    Connection, PgConnection, PgPool, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    backup::{backup, edition},
    error::{absent, is_full, is_passing, problem},
    file,
    pulse::Pulse,
    tx::Tx,
};
use crate::{
    core::{Code, Problem},
    engine::Lock,
    hub::domain::Epoch,
};

/// Each edition of the tables, oldest first; one that was released never changes.
macro_rules! editions {
    ($folder:literal) => {{
        let edition = |number, name: &'static str, sql: &'static str| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        Migrator::with_migrations(vec![
            edition(1, "first", include_str!(concat!("migrations/", $folder, "/0001_first.sql"))),
            edition(2, "disk", include_str!(concat!("migrations/", $folder, "/0002_disk.sql"))),
            edition(3, "labs", include_str!(concat!("migrations/", $folder, "/0003_labs.sql"))),
        ])
    }};
}

fn for_sqlite() -> Migrator {
    editions!("sqlite")
}

fn for_postgres() -> Migrator {
    editions!("postgres")
}

/// The hub's database; clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    pub(super) pulse: Pulse,
    /// What keeps a second hub away from a SQLite file, as long as there is a clone.
    _alone: Option<Arc<Lock>>,
}

/// Who opens a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// Makes what is missing.
    Maker,
    /// Makes nothing.
    Guest,
    /// Makes what is missing, and bears no second one beside it.
    Hub,
}

#[derive(Debug, Clone)]
enum Pools {
    /// One connection writes, the others read: a reader never waits for a writer in WAL mode.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
}

const PATIENCE: Duration = Duration::from_secs(20);
const RETRIES: u32 = 30;
/// A PostgreSQL that does not answer at the start is told after this.
const REACH: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(250);

/// Connections that read a SQLite file. A request waits for one several times, so that with few of them some requests wait much
/// longer than others: of 64 clients on two cores the slowest percent took 85 ms with 2, 52 ms with 4, 57 ms with 8.
const READERS: u32 = 4;

impl Store {
    /// Opens `sqlite://PATH` or `postgres://...`, makes what is missing, and brings its tables up to date.
    ///
    /// A database of a newer kubecamp is refused. Before an upgrade SQLite is copied to `PATH.before-N`, where N is
    /// the edition that it had; a PostgreSQL is backed up by whoever runs it.
    pub async fn open(url: &str) -> Result<Self, Problem> {
        Self::open_as(url, Who::Maker).await
    }

    /// As [`Store::open`], by a hub: a SQLite file is refused while another hub works on it, before anything of it is
    /// changed. Several hubs may share a PostgreSQL.
    pub async fn open_alone(url: &str) -> Result<Self, Problem> {
        Self::open_as(url, Who::Hub).await
    }

    /// As [`Store::open`], but refused where no hub has made its tables yet: a name that was mistyped makes nothing.
    pub async fn open_existing(url: &str) -> Result<Self, Problem> {
        Self::open_as(url, Who::Guest).await
    }

    async fn open_as(url: &str, who: Who) -> Result<Self, Problem> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            return Self::open_sqlite(&file::place(path)?, who).await;
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Self::open_postgres(url, who).await;
        }
        let scheme = url.split("://").next().unwrap_or_default().to_owned();
        Err(Problem::new(Code::HubInvalid, format!("`{scheme}` is no database that the hub knows"))
            .hint("Use sqlite://PATH or postgres://USER@HOST/NAME."))
    }

    async fn open_sqlite(path: &Path, who: Who) -> Result<Self, Problem> {
        file::prepare(path, who != Who::Guest)?;
        // Made once, above: a file that is taken away later is a failure, and no reason for an empty one.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        // A file does not go away as a server does: nothing is asked of it before each use.
        let pool = |most: u32| {
            let options = SqlitePoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
            options.test_before_acquire(false).before_acquire(|connection, _| {
                let clean = is_clean(connection);
                Box::pin(async move { Ok(clean) })
            })
        };
        let writer =
            pool(1).connect_with(options.clone()).await.map_err(|e| problem(e).detail([path.display().to_string()]))?;
        let had = edition(&writer).await?;
        if who == Who::Guest && had == 0 {
            return Err(absent(&path.display()));
        }
        // It was read, so it is a database: a file of another program that was named by mistake stays as it is.
        let alone = if who == Who::Hub { Some(Arc::new(file::hold(path)?)) } else { None };
        file::close_to_others(path);
        let known = for_sqlite().iter().map(|m| m.version).max().unwrap_or(0);
        backup(&writer, path, known).await?;
        for_sqlite().run(&writer).await.map_err(migration)?;
        let readers = pool(READERS).connect_with(options).await.map_err(problem)?;
        Ok(Self { pools: Pools::Sqlite { writer, readers }, pulse: Pulse::default(), _alone: alone })
    }

    async fn open_postgres(url: &str, who: Who) -> Result<Self, Problem> {
        let unread = |e| Problem::new(Code::HubInvalid, "the address of the database cannot be read").because(e);
        let options = PgConnectOptions::from_str(url).map_err(unread)?;
        let mut first = reach(&options).await?;
        if who == Who::Guest {
            let there = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
            let there: bool = sqlx::query_scalar(there).fetch_one(&mut first).await.map_err(problem)?;
            if !there {
                return Err(absent(&address(&options)));
            }
        }
        first.close().await.map_err(problem)?;
        let pool = PgPoolOptions::new().max_connections(16).acquire_timeout(PATIENCE);
        let pool = pool.connect_with(options).await.map_err(problem)?;
        for_postgres().run(&pool).await.map_err(migration)?;
        Ok(Self { pools: Pools::Postgres(pool), pulse: Pulse::default(), _alone: None })
    }

    /// Begins a transaction that writes; `actor` is who the audit names. SQLite: the only one at this time.
    pub async fn write(&self, actor: &str, now: Epoch) -> Result<Tx, Problem> {
        let begun = match &self.pools {
            Pools::Sqlite { writer, .. } => {
                writer.begin_with("BEGIN IMMEDIATE").await.map(|tx| Tx::sqlite(tx, actor, now))
            }
            Pools::Postgres(pool) => pool.begin().await.map(|tx| Tx::postgres(tx, actor, now)),
        };
        self.pulse.note(begun.map_err(problem))
    }

    /// Begins a transaction that only reads; it is let go when dropped.
    pub async fn read(&self, now: Epoch) -> Result<Tx, Problem> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => Ok(Tx::sqlite(readers.begin().await.map_err(problem)?, "", now)),
            Pools::Postgres(pool) => {
                // One snapshot for all statements, as SQLite gives it.
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Ok(Tx::postgres(pool.begin_with(begin).await.map_err(problem)?, "", now))
            }
        }
    }

    /// For a look of one statement, which sees one moment by itself: without a transaction around it.
    pub async fn glance(&self, now: Epoch) -> Result<Tx, Problem> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => Ok(Tx::sqlite_glance(readers.acquire().await.map_err(problem)?, now)),
            Pools::Postgres(pool) => Ok(Tx::postgres_glance(pool.acquire().await.map_err(problem)?, now)),
        }
    }

    /// Commits what went well and rolls back what did not; `None` says that it is worth another try.
    pub async fn settle<T>(&self, tx: Tx, outcome: Result<T, Problem>, tries: &mut u32) -> Option<Result<T, Problem>> {
        let settled = match outcome {
            Ok(value) => tx.commit().await.map(|()| value),
            Err(problem) => {
                tx.rollback().await;
                Err(problem)
            }
        };
        match self.pulse.note(settled) {
            Err(problem) if is_passing(&problem) => {
                *tries += 1;
                if *tries >= RETRIES {
                    let what = format!("the database was too busy {RETRIES} times");
                    return Some(Err(Problem::new(Code::HubBusy, what)));
                }
                // Two that were in each other's way should not meet again at once.
                let wait = u64::from(*tries) * u64::from(rand::random::<u8>() % 8);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                None
            }
            settled => Some(settled),
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

/// Whether a connection of the pool can be used again; else the pool closes it and opens another.
///
/// On a full disk SQLite rolls back by itself, and then refuses the ROLLBACK that sqlx sends: sqlx believes for ever that
/// the transaction is open, and would begin no other one on that connection.
fn is_clean(connection: &SqliteConnection) -> bool {
    !connection.is_in_transaction()
}

/// The first connection to PostgreSQL, or why there is none: the pool would be silent for long, and then tell the time
/// only. A server that is about to start is waited for.
async fn reach(options: &PgConnectOptions) -> Result<PgConnection, Problem> {
    let fail = || Problem::new(Code::HubDatabase, format!("the hub cannot connect to {}", address(options)));
    let began = Instant::now();
    loop {
        let left = REACH.saturating_sub(began.elapsed());
        let error = match tokio::time::timeout(left, PgConnection::connect_with(options)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => error,
            Err(_) => return Err(fail().detail([format!("it did not answer within {} s", REACH.as_secs())])),
        };
        if !is_starting(&error) || began.elapsed() + AGAIN > REACH {
            return Err(fail().because(error));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether a server may be there in a moment: nobody listens yet, or it says that it starts.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(e) => e.kind() == ErrorKind::ConnectionRefused,
        sqlx::Error::Database(db) => db.code().is_some_and(|code| code == "57P03"),
        _ => false,
    }
}

/// Where a PostgreSQL is, without user and password.
fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => format!("PostgreSQL at {}", folder.display()),
        None => format!("PostgreSQL at {}:{}", options.get_host(), options.get_port()),
    }
}

fn migration(error: MigrateError) -> Problem {
    match error {
        MigrateError::VersionMissing(edition) | MigrateError::VersionTooNew(edition, _) => Problem::new(
            Code::HubNewer,
            format!("the database has edition {edition}, which this kubecamp does not know"),
        ),
        MigrateError::Execute(error) => problem(error),
        MigrateError::ExecuteMigration(error, _) if is_full(&error) => problem(error),
        other => {
            Problem::new(Code::HubDatabase, "the database's tables could not be brought up to date").because(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_database_refuses_a_write_and_takes_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let Pools::Sqlite { writer, .. } = &store.pools else { unreachable!() };
        let kept = "SELECT count(*) FROM answers WHERE key LIKE 'half-%'";
        let long = "x".repeat(64 << 10);
        for round in 0..3 {
            // Holds for this connection only, as long as it is used: a new one finds space again.
            sqlx::query("PRAGMA max_page_count = 1").execute(writer).await.unwrap();
            let mut tries = 0;
            let mut tx = store.write("console", Epoch(1)).await.unwrap();
            tx.claim_key(&format!("half-{round}"), "digest").await.unwrap();
            let refused = tx.keep_answer(&format!("half-{round}"), &long).await;
            assert_eq!(refused.as_ref().unwrap_err().code, Code::HubFull, "{round}");
            assert!(tx.claim_key("half-after", "digest").await.is_err(), "nothing is written outside of a transaction");
            assert!(store.settle(tx, refused, &mut tries).await.unwrap().is_err());
            store.writable(Epoch(1)).await.unwrap();
            let half: i64 = sqlx::query_scalar(kept).fetch_one(writer).await.unwrap();
            assert_eq!(half, 0, "{round}");
        }
        store.close().await;
    }

    #[tokio::test]
    async fn a_locked_database_is_busy_and_no_defect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let Pools::Sqlite { writer, .. } = &store.pools else { unreachable!() };
        sqlx::query("PRAGMA busy_timeout = 20").execute(writer).await.unwrap();
        let other = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
        let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        assert_eq!(store.write("console", Epoch(1)).await.err().unwrap().code, Code::HubBusy);
        lock.rollback().await.unwrap();
        assert!(store.write("console", Epoch(1)).await.is_ok());
        other.close().await;
    }

    #[tokio::test]
    async fn a_postgresql_that_is_away_is_told_soon_and_without_its_password() {
        let began = Instant::now();
        // A port that was free a moment ago: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgres://hub:verysecret@127.0.0.1:{port}/hub");
        let problem = Store::open(&url).await.unwrap_err();
        assert!(began.elapsed() < 2 * REACH, "{:?}", began.elapsed());
        assert_eq!(problem.code, Code::HubDatabase);
        let told = problem.to_string();
        assert!(told.contains(&format!("127.0.0.1:{port}")) && told.contains("refused"), "{told}");
        assert!(!told.contains("verysecret"), "{told}");
    }

    #[tokio::test]
    async fn a_database_of_the_first_edition_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let url = format!("sqlite://{}", path.display());
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let old = SqlitePool::connect_with(options).await.unwrap();
        let first = for_sqlite().iter().filter(|m| m.version == 1).cloned().collect();
        Migrator::with_migrations(first).run(&old).await.unwrap();
        let server = "INSERT INTO servers (id, address, cores, memory, labels, opening, zone, buffer, mode, health) \
                      VALUES ('one', '192.0.2.1', 8, 32768, '[]', 'always', 'UTC', 600, 'shared', 'healthy')";
        sqlx::query(server).execute(&old).await.unwrap();
        old.close().await;
        let store = Store::open(&url).await.unwrap();
        assert!(folder.path().join("hub.db.before-1").exists());
        let servers = store.read(Epoch(0)).await.unwrap().servers().await.unwrap();
        assert_eq!(servers.iter().map(|s| (s.cores, s.disk)).collect::<Vec<_>>(), [(8, None)]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_newer_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("hub.db").display());
        let store = Store::open(&url).await.unwrap();
        let Pools::Sqlite { writer, .. } = &store.pools else { unreachable!() };
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (99, 'newer', 1, x'00', 0)";
        sqlx::query(newer).execute(writer).await.unwrap();
        store.close().await;
        assert_eq!(Store::open(&url).await.unwrap_err().code, Code::HubNewer);
        assert_eq!(Store::open("mysql://x").await.unwrap_err().code, Code::HubInvalid);
    }
}

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Connection, PgPool, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    error::{is_passing, problem},
    pulse::Pulse,
    tx::Tx,
};
use crate::{
    core::{Code, Problem},
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

/// Connections that read a SQLite file. A request waits for one several times, so that with few of them some requests wait much
/// longer than others: of 64 clients on two cores the slowest percent took 85 ms with 2, 52 ms with 4, 57 ms with 8.
const READERS: u32 = 4;

impl Store {
    /// Opens `sqlite://PATH` or `postgres://...`, and brings its tables up to date.
    ///
    /// A database of a newer kubecamp is refused. Before an upgrade SQLite is copied to `PATH.before-N`, where N is
    /// the edition that it had; a PostgreSQL is backed up by whoever runs it.
    pub async fn open(url: &str) -> Result<Self, Problem> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            return Self::open_sqlite(Path::new(path)).await;
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Self::open_postgres(url).await;
        }
        let scheme = url.split("://").next().unwrap_or_default().to_owned();
        Err(Problem::new(Code::HubInvalid, format!("`{scheme}` is no database that the hub knows"))
            .hint("Use sqlite://PATH or postgres://USER@HOST/NAME."))
    }

    async fn open_sqlite(path: &Path) -> Result<Self, Problem> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        // A file does not go away as a server does: nothing is asked of it before each use.
        let pool = |most: u32| {
            let options = SqlitePoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
            options.test_before_acquire(false).after_release(|connection, _| Box::pin(is_clean(connection)))
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(problem)?;
        let known = for_sqlite().iter().map(|m| m.version).max().unwrap_or(0);
        backup(&writer, path, known).await?;
        for_sqlite().run(&writer).await.map_err(migration)?;
        let readers = pool(READERS).connect_with(options).await.map_err(problem)?;
        Ok(Self { pools: Pools::Sqlite { writer, readers }, pulse: Pulse::default() })
    }

    async fn open_postgres(url: &str) -> Result<Self, Problem> {
        let options = PgConnectOptions::from_str(url).map_err(problem)?;
        let pool = PgPoolOptions::new().max_connections(16).acquire_timeout(PATIENCE);
        let pool = pool.connect_with(options).await.map_err(problem)?;
        for_postgres().run(&pool).await.map_err(migration)?;
        Ok(Self { pools: Pools::Postgres(pool), pulse: Pulse::default() })
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

/// Whether a connection that comes back to the pool can be used again; else the pool closes it and opens another.
///
/// On a full disk SQLite rolls back by itself, and then refuses the ROLLBACK that sqlx sends: sqlx believes for ever that
/// the transaction is open, and would begin no other one on that connection.
async fn is_clean(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback of a transaction that was dropped may be under way still; a ping comes after it.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Copies a database that is about to be upgraded.
async fn backup(pool: &SqlitePool, path: &Path, known: i64) -> Result<Option<PathBuf>, Problem> {
    let there = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let there: i64 = sqlx::query_scalar(there).fetch_one(pool).await.map_err(problem)?;
    if there == 0 {
        return Ok(None);
    }
    let had = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    let had: i64 = sqlx::query_scalar(had).fetch_one(pool).await.map_err(problem)?;
    if had == 0 || had >= known {
        return Ok(None);
    }
    let aside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".before-{had}{end}"));
        PathBuf::from(name)
    };
    let copy = aside("");
    if !copy.exists() {
        // Whole or not at all: the half of a hub that was killed here would be taken for what one can go back to.
        let part = aside(".part");
        let unwritten =
            |e| Problem::new(Code::HubDatabase, format!("the copy {} cannot be written", copy.display())).because(e);
        match fs::remove_file(&part) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(unwritten(e)),
            _ => {}
        }
        let name = part.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO $1").bind(name).execute(pool).await.map_err(problem)?;
        File::open(&part).and_then(|file| file.sync_all()).map_err(unwritten)?;
        fs::rename(&part, &copy).map_err(unwritten)?;
    }
    Ok(Some(copy))
}

fn migration(error: MigrateError) -> Problem {
    match error {
        MigrateError::VersionMissing(edition) | MigrateError::VersionTooNew(edition, _) => Problem::new(
            Code::HubNewer,
            format!("the database has edition {edition}, which this kubecamp does not know"),
        ),
        MigrateError::Execute(error) => problem(error),
        other => {
            Problem::new(Code::HubDatabase, "the database's tables could not be brought up to date").because(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_is_made_before_an_upgrade_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let Pools::Sqlite { writer, .. } = &store.pools else { unreachable!() };
        assert_eq!(backup(writer, &path, 3).await.unwrap(), None);
        let copy = backup(writer, &path, 4).await.unwrap().unwrap();
        assert_eq!(copy, folder.path().join("hub.db.before-3"));
        let url = format!("sqlite://{}", copy.display());
        assert!(Store::open(&url).await.is_ok(), "the copy is a whole database");
    }

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
            assert_eq!(refused.as_ref().unwrap_err().code, Code::HubDatabase, "{round}");
            assert!(tx.claim_key("half-after", "digest").await.is_err(), "nothing is written outside of a transaction");
            assert!(store.settle(tx, refused, &mut tries).await.unwrap().is_err());
            store.writable(Epoch(1)).await.unwrap();
            let half: i64 = sqlx::query_scalar(kept).fetch_one(writer).await.unwrap();
            assert_eq!(half, 0, "{round}");
        }
        store.close().await;
    }

    #[tokio::test]
    async fn half_a_copy_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let Pools::Sqlite { writer, .. } = &store.pools else { unreachable!() };
        let part = folder.path().join("hub.db.before-3.part");
        fs::write(&part, "SQLite format 3").unwrap();
        let copy = backup(writer, &path, 4).await.unwrap().unwrap();
        assert!(!part.exists(), "what a killed hub left is no copy");
        assert!(Store::open(&format!("sqlite://{}", copy.display())).await.is_ok());
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

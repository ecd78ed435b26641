use std::{
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sqlx::{Connection as _, PgPool, postgres::PgConnectOptions};

use super::{
    backup::backup,
    copies::Copied,
    dump::{Backups, dump},
    editions::{edition, edition_of_postgres, for_postgres, for_sqlite, newest, upgrade, upgrade_postgres},
    error::{absent, is_passing, problem},
    file,
    postgres::{KEPT_ALIVE, OF_HUBS, address, bind, pool, reach},
    presence::{Presence, hold_for_upgrade},
    pulse::Pulse,
    sqlite::{Shelf, connect},
    tx::Tx,
};
use crate::{
    core::{Code, Problem},
    engine::Lock,
    hub::domain::Epoch,
};

/// The hub's database; clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pools: Pools,
    pub(super) pulse: Pulse,
    /// What keeps a second hub away from a SQLite file, as long as there is a clone.
    _alone: Option<Arc<Lock>>,
    /// What keeps others from changing a PostgreSQL's tables under a hub, as long as there is a clone.
    present: Option<Arc<Presence>>,
    /// The copy that was made before its tables were changed.
    pub(super) copied: Option<Copied>,
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
        writer: Arc<Shelf>,
        readers: Arc<Shelf>,
    },
    Postgres(PgPool),
}

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
const RETRIES: u32 = 30;
pub(super) const AGAIN: Duration = Duration::from_millis(250);

/// Connections that read a SQLite file: more than the cores of most computers, since a look waits for nothing.
const READERS: u32 = 8;

impl Store {
    /// Opens `sqlite://PATH` or `postgres://...`, makes what is missing, and brings its tables up to date.
    ///
    /// A database of a newer kubecamp is refused. Before an upgrade SQLite is copied to `PATH.before-N`, where N is
    /// the edition that it had; of a PostgreSQL the caller has a copy.
    pub async fn open(url: &str) -> Result<Self, Problem> {
        Self::open_as(url, Who::Maker, Backups::Made).await
    }

    /// As [`Store::open`], by a hub: a SQLite file is refused while another hub works on it, before anything of it is
    /// changed.
    ///
    /// Several hubs may share a PostgreSQL; nobody changes its tables until the last of them has ended, nor before they
    /// were copied.
    pub async fn open_alone(url: &str, backups: Backups<'_>) -> Result<Self, Problem> {
        Self::open_as(url, Who::Hub, backups).await
    }

    /// As [`Store::open`], but refused where no hub has made its tables yet: a name that was mistyped makes nothing.
    pub async fn open_existing(url: &str, backups: Backups<'_>) -> Result<Self, Problem> {
        Self::open_as(url, Who::Guest, backups).await
    }

    /// Refuses a hub that signs by other keys than one that works on the same PostgreSQL: each server takes the plans and
    /// certificates of one of them.
    ///
    /// A SQLite file has one hub. `keys` is a digest of the public ones; hubs that only one of 2^31 tells apart may pass as
    /// one.
    pub async fn sign_by(&self, keys: [u8; 4]) -> Result<(), Problem> {
        let Some(present) = &self.present else { return Ok(()) };
        if present.sign_by(i32::from_be_bytes(keys) & i32::MAX).await? {
            return Ok(());
        }
        Err(Problem::new(Code::HubRunning, "a hub with other keys works on this database")
            .hint("Copy its folder of keys to this computer and name it by --keys: servers know one hub's keys.")
            .hint("To make new ones stop all hubs first."))
    }

    async fn open_as(url: &str, who: Who, backups: Backups<'_>) -> Result<Self, Problem> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            return Self::open_sqlite(&file::place(path)?, who).await.map_err(file::hinted);
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Self::open_postgres(url, who, backups).await;
        }
        let scheme = url.split("://").next().unwrap_or_default().to_owned();
        Err(Problem::new(Code::HubInvalid, format!("`{scheme}` is no database that the hub knows"))
            .hint("Use sqlite://PATH or postgres://USER@HOST/NAME."))
    }

    async fn open_sqlite(path: &Path, who: Who) -> Result<Self, Problem> {
        file::prepare(path, who != Who::Guest)?;
        // Made once, above: a file that is taken away later is a failure, and no reason for an empty one.
        let mut first = connect_first(path).await.map_err(|unread| unread.detail([path.display().to_string()]))?;
        let had = edition(&first)?;
        if had == 0 && who == Who::Guest {
            return Err(absent(&path.display()));
        }
        // It was read, so it is a database: a file of another program that was named by mistake stays as it is.
        let alone = if who == Who::Hub { Some(Arc::new(hold(path).await?)) } else { None };
        file::close_to_others(path);
        let editions = for_sqlite();
        // Nobody changes tables under a hub that works with them.
        let old = who != Who::Hub && 0 < had && had < newest(&editions);
        let quiet = if old { file::hold_for_upgrade(path)? } else { None };
        let mut copy = None;
        upgrade(&mut first, &editions, || {
            // By a connection of its own: the first one is in its transaction, of which others see nothing yet.
            let reader = connect(path, PATIENCE).map_err(problem)?;
            copy = backup(&reader, path, newest(&editions))?;
            Ok(())
        })?;
        drop(quiet);
        let copied = copy.map(|copy| Copied::of_sqlite(copy, path, newest(&editions)));
        let writer = Shelf::new(path, vec![first], 1, PATIENCE);
        let readers = Shelf::new(path, vec![], READERS, PATIENCE);
        let pools = Pools::Sqlite { writer, readers };
        Ok(Self { pools, pulse: Pulse::default(), _alone: alone, present: None, copied })
    }

    async fn open_postgres(url: &str, who: Who, backups: Backups<'_>) -> Result<Self, Problem> {
        let unread = |e| Problem::new(Code::HubInvalid, "the address of the database cannot be read").because(e);
        let options = PgConnectOptions::from_str(url).map_err(unread)?;
        let mut first = reach(&options).await?;
        bind(&mut first, KEPT_ALIVE).await.map_err(problem)?;
        if who == Who::Guest && edition_of_postgres(&mut first).await? == 0 {
            return Err(absent(&address(&options)));
        }
        let known = newest(&for_postgres());
        // As long as this connection is open.
        let older = hold_for_upgrade(&mut first, known, &address(&options)).await?;
        let copy = match (older, backups) {
            (Some(had), Backups::In(folder)) => Some(dump(&mut first, &options, had, folder).await?),
            _ => None,
        };
        let before = copy.iter().map(|copy| format!("the copy from before is {}", copy.display()));
        // Hubs that start at the same time wait for each other, however long the tables take.
        let patient = pool(options.clone(), 1, KEPT_ALIVE).await?;
        upgrade_postgres(&patient).await.map_err(|failed| failed.detail(before))?;
        patient.close().await;
        let copied = copy.map(|copy| Copied::of_postgres(copy, known));
        let pool = pool(options.clone(), 16, OF_HUBS).await?;
        first.close().await.map_err(problem)?;
        let present =
            if who == Who::Hub { Some(Arc::new(Presence::take(options, known, pool.clone()).await?)) } else { None };
        let pools = Pools::Postgres(pool);
        Ok(Self { pools, pulse: Pulse::default(), _alone: None, present, copied })
    }

    /// Begins a transaction that writes; `actor` is who the audit names.
    ///
    /// SQLite: the only one at this time.
    pub async fn write(&self, actor: &str, now: Epoch) -> Result<Tx, Problem> {
        let begun = match &self.pools {
            Pools::Sqlite { writer, .. } => Self::begin(writer, actor, now).await,
            Pools::Postgres(pool) => {
                // Said each time: somebody may have set another one for the whole database, by which a row that was locked
                // would be read as it was before.
                let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
                pool.begin_with(begin).await.map(|tx| Tx::postgres(tx, actor, now)).map_err(problem)
            }
        };
        self.pulse.note(begun)
    }

    /// Begins a transaction that only reads; it is let go when dropped.
    pub async fn read(&self, now: Epoch) -> Result<Tx, Problem> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => Self::begin(readers, "", now).await,
            Pools::Postgres(pool) => {
                // One snapshot for all statements, as SQLite gives it.
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Ok(Tx::postgres(pool.begin_with(begin).await.map_err(problem)?, "", now))
            }
        }
    }

    /// Who names no actor reads.
    async fn begin(shelf: &Arc<Shelf>, actor: &str, now: Epoch) -> Result<Tx, Problem> {
        let mut on = shelf.take().await?;
        on.begin(!actor.is_empty()).await?;
        Ok(Tx::sqlite(on, actor, now))
    }

    /// For a look of one statement, which sees one moment by itself: without a transaction around it.
    pub async fn glance(&self, now: Epoch) -> Result<Tx, Problem> {
        match &self.pools {
            Pools::Sqlite { readers, .. } => Ok(Tx::sqlite_glance(readers.take().await?, now)),
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

/// The first connection to a SQLite file. It turns to WAL when nobody else reads it, for which SQLite does not wait: of two
/// who open a new one at once the second has to try again.
async fn connect_first(path: &Path) -> Result<Connection, Problem> {
    let end = Instant::now() + PATIENCE;
    loop {
        match connect(path, PATIENCE).map_err(problem) {
            Err(busy) if is_passing(&busy) && Instant::now() < end => tokio::time::sleep(AGAIN).await,
            opened => return opened,
        }
    }
}

/// Holds a SQLite file for a hub. A command that changes its tables is no hub, and is waited for.
async fn hold(path: &Path) -> Result<Lock, Problem> {
    let end = Instant::now() + PATIENCE;
    loop {
        match file::hold(path) {
            Err(held) if held.code == Code::HubRunning && !file::is_a_hubs(path) && Instant::now() < end => {
                tokio::time::sleep(AGAIN).await;
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::postgres::REACH;

    /// Does something with the one connection that writes.
    async fn on_writer<T>(store: &Store, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> T {
        let Pools::Sqlite { writer, .. } = &store.pools else { unreachable!() };
        let lent = writer.take().await.unwrap();
        work(lent.connection().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_full_database_refuses_a_write_and_takes_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}", folder.path().join("hub.db").display())).await.unwrap();
        let kept = "SELECT count(*) FROM answers WHERE key LIKE 'half-%'";
        let long = "x".repeat(64 << 10);
        for round in 0..3 {
            // SQLite takes as many pages as there are.
            on_writer(&store, |writer| writer.execute_batch("PRAGMA max_page_count = 1")).await;
            let mut tries = 0;
            let mut tx = store.write("console", Epoch(1)).await.unwrap();
            tx.claim_key(&format!("half-{round}"), "digest").await.unwrap();
            let refused = tx.keep_answer(&format!("half-{round}"), &long).await;
            assert_eq!(refused.as_ref().unwrap_err().code, Code::HubFull, "{round}");
            assert!(tx.claim_key("half-after", "digest").await.is_err(), "nothing is written outside of a transaction");
            assert!(store.settle(tx, refused, &mut tries).await.unwrap().is_err());
            on_writer(&store, |writer| writer.execute_batch("PRAGMA max_page_count = 1000000")).await;
            store.writable(Epoch(1)).await.unwrap();
            let half: i64 = on_writer(&store, |writer| writer.query_row(kept, (), |row| row.get(0))).await;
            assert_eq!(half, 0, "{round}");
        }
        store.close().await;
    }

    /// A store on the same file, with as much patience.
    fn with_patience(store: &Store, path: &Path, patience: Duration) -> Store {
        let (writer, readers) = (Shelf::new(path, vec![], 1, patience), Shelf::new(path, vec![], READERS, patience));
        Store { pools: Pools::Sqlite { writer, readers }, ..store.clone() }
    }

    #[tokio::test]
    async fn a_locked_database_is_busy_and_no_defect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let hasty = with_patience(&store, &path, Duration::from_millis(20));
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(hasty.write("console", Epoch(1)).await.err().unwrap().code, Code::HubBusy);
        other.execute_batch("ROLLBACK").unwrap();
        assert!(hasty.write("console", Epoch(1)).await.is_ok());
    }

    /// On one thread: a wait that kept it would let no time pass.
    #[tokio::test]
    async fn who_waits_for_another_process_keeps_no_thread_and_can_give_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(50), store.write("console", Epoch(1))).await;
        assert!(given_up.is_err(), "it waits, and is heard");
        let ends = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            other.execute_batch("ROLLBACK").unwrap();
        };
        let (begun, ()) = tokio::join!(store.write("console", Epoch(1)), ends);
        assert!(begun.is_ok(), "its turn comes, and the connection is as before");
    }

    #[tokio::test]
    async fn a_database_that_another_process_writes_is_opened_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let url = format!("sqlite://{}", path.display());
        Store::open(&url).await.unwrap().close().await;
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let store = Store::open_existing(&url, Backups::Made).await.unwrap();
        assert!(store.read(Epoch(0)).await.unwrap().servers().await.unwrap().is_empty());
        store.close().await;
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
        let mut old = Connection::open(&path).unwrap();
        upgrade(&mut old, &for_sqlite()[..1], || Ok(())).unwrap();
        let server = "INSERT INTO servers (id, address, cores, memory, labels, opening, zone, buffer, mode, health) \
                      VALUES ('one', '192.0.2.1', 8, 32768, '[]', 'always', 'UTC', 600, 'shared', 'healthy')";
        old.execute(server, ()).unwrap();
        drop(old);
        let store = Store::open(&url).await.unwrap();
        assert!(folder.path().join("hub.db.before-1").exists());
        let servers = store.read(Epoch(0)).await.unwrap().servers().await.unwrap();
        assert_eq!(servers.iter().map(|s| (s.cores, s.disk)).collect::<Vec<_>>(), [(8, None)]);
        store.close().await;
    }

    /// Opens a database so often at once, each time on a thread with a runtime of its own, as processes do.
    fn opened_at_once(url: &str, many: usize) -> Vec<Result<(), Problem>> {
        let begin = std::sync::Barrier::new(many);
        let open = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            begin.wait();
            runtime.block_on(async {
                Store::open(url).await?.close().await;
                Ok::<(), Problem>(())
            })
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..many).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn who_opens_a_database_that_another_makes_or_upgrades_waits() {
        for round in 0..8 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("hub.db");
            let old = round % 2 == 1;
            if old {
                upgrade(&mut Connection::open(&path).unwrap(), &for_sqlite()[..1], || Ok(())).unwrap();
            }
            let opened = opened_at_once(&format!("sqlite://{}", path.display()), 4);
            assert!(opened.iter().all(Result::is_ok), "round {round}: {opened:?}");
            let names = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
            let copies: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".before-")).collect();
            let want: &[&str] = if old { &["hub.db.before-1"] } else { &[] };
            assert_eq!(copies, want, "round {round}");
            for copy in copies {
                assert_eq!(edition(&Connection::open(folder.path().join(copy)).unwrap()).unwrap(), 1, "round {round}");
            }
        }
    }

    #[tokio::test]
    async fn nobody_upgrades_a_database_under_a_hub_that_works_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let url = format!("sqlite://{}", path.display());
        let mut old = Connection::open(&path).unwrap();
        upgrade(&mut old, &for_sqlite()[..1], || Ok(())).unwrap();
        let hub = file::hold(&path).unwrap();
        for refused in [Store::open_existing(&url, Backups::Made).await, Store::open(&url).await] {
            let problem = refused.unwrap_err();
            assert_eq!(problem.code, Code::HubRunning);
            assert!(problem.all_hints()[0].contains("Start the hub anew"), "{problem}");
        }
        assert_eq!(edition(&old).unwrap(), 1);
        assert!(!folder.path().join("hub.db.before-1").exists());
        drop(hub);
        let brought = Store::open_existing(&url, Backups::Made).await.unwrap();
        assert_eq!(brought.backup(), Some(&*folder.path().join("hub.db.before-1")));
        brought.close().await;
        assert_eq!(edition(&old).unwrap(), for_sqlite().last().unwrap().version);
        // Of the same edition there is nothing to change.
        let _hub = file::hold(&path).unwrap();
        Store::open_existing(&url, Backups::Made).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn a_hub_waits_for_a_command_that_changes_its_tables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        let url = format!("sqlite://{}", path.display());
        Store::open_alone(&url, Backups::Made).await.unwrap().close().await;
        let command = file::hold_for_upgrade(&path).unwrap();
        assert!(command.is_some(), "a hub has held it before");
        let mut hub = Box::pin(Store::open_alone(&url, Backups::Made));
        assert!(tokio::time::timeout(2 * AGAIN, &mut hub).await.is_err(), "it is no hub that has it");
        drop(command);
        let hub = hub.await.unwrap();
        assert_eq!(
            Store::open_alone(&url, Backups::Made).await.unwrap_err().code,
            Code::HubRunning,
            "a hub is not waited for"
        );
        hub.close().await;
    }

    #[tokio::test]
    async fn a_newer_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("hub.db").display());
        let store = Store::open(&url).await.unwrap();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (99, 'newer', 1, x'00', 0)";
        on_writer(&store, |writer| writer.execute(newer, ())).await;
        store.close().await;
        assert_eq!(Store::open(&url).await.unwrap_err().code, Code::HubNewer);
        assert_eq!(Store::open("mysql://x").await.unwrap_err().code, Code::HubInvalid);
    }
}

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags, ToSql,
    types::{ToSqlOutput, Value},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::block_in_place,
    time::{Instant, sleep, timeout},
};

use super::{
    error::{is_passing, judged},
    file::has_no_space,
    value::Arg,
};
use crate::core::{Code, Problem};

/// More statements than the hub has.
const STATEMENTS: usize = 256;
/// So long it takes until one that wants to write looks again whether another process still does.
const AGAIN: Duration = Duration::from_millis(5);

/// Connections to one file; at most so many as it was made for are lent at a time, to whoever came first.
///
/// A statement runs where it is asked for, and not on a thread of the connection: nearly all take some microseconds, and
/// the way to another thread and back would be most of it. What may take longer goes through [`slow`].
#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    /// Which file it was when the shelf was made.
    file: Option<(u64, u64)>,
    most: u32,
    patience: Duration,
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// A connection on loan.
///
/// It goes back when it is dropped, and what is not committed by then is undone.
#[derive(Debug)]
pub(super) struct Lent {
    shelf: Arc<Shelf>,
    connection: Option<Connection>,
    _room: OwnedSemaphorePermit,
}

/// A row, with its columns' names.
#[derive(Debug)]
pub(super) struct LiteRow {
    names: Arc<HashMap<String, usize>>,
    values: Vec<Value>,
}

/// Opens the file, which is there; SQLite waits so long for another process that writes.
pub(super) fn connect(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(patience)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Device and number of the file at a place, whatever its name leads to; none where there is none.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Runs what may wait for the disk or for another process; other tasks of this thread go on elsewhere meanwhile.
pub(super) fn slow<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

/// What an error of the database in this file means.
pub(super) fn problem_at(path: &Path, error: rusqlite::Error) -> Problem {
    judged(error, || slow(|| has_no_space(path)))
}

impl Shelf {
    /// At most `most` connections, beginning with one that is open.
    pub fn new(path: &Path, first: Vec<Connection>, most: u32, patience: Duration) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(most as usize));
        Arc::new(Self { path: path.to_owned(), file: file_at(path), most, patience, room, idle: Mutex::new(first) })
    }

    /// Lends a connection.
    pub async fn take(self: &Arc<Self>) -> Result<Lent, Problem> {
        let room = timeout(self.patience, Arc::clone(&self.room).acquire_owned()).await;
        let room = room.map_err(|late| {
            Problem::new(Code::HubDatabase, "no connection to the database was free in time").because(late)
        })?;
        let room = room.map_err(|closed| Problem::new(Code::HubDatabase, "the database is closed").because(closed))?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                self.is_in_place()?;
                connect(&self.path, self.patience).map_err(|e| problem_at(&self.path, e))?
            }
        };
        Ok(Lent { shelf: Arc::clone(self), connection: Some(connection), _room: room })
    }

    /// Closes all connections, each as soon as it has come back.
    pub async fn close(&self) {
        let all = self.room.acquire_many(self.most).await;
        self.room.close();
        drop(all);
        self.idle().clear();
    }

    /// Refuses to write where the file is gone, or another one is in its place: its connections would write on into what
    /// nobody finds any more.
    fn is_in_place(&self) -> Result<(), Problem> {
        if file_at(&self.path) == self.file {
            return Ok(());
        }
        Err(Problem::new(Code::HubDatabase, "the database's file was removed or replaced under the hub")
            .hint("Put it back where it was, or stop the hub and start it again on a copy."))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// The connection itself.
    pub fn connection(&self) -> Result<&Connection, Problem> {
        self.connection.as_ref().ok_or_else(|| Problem::new(Code::Internal, "a connection was used after its end"))
    }

    fn problem(&self, error: rusqlite::Error) -> Problem {
        problem_at(&self.shelf.path, error)
    }

    /// Begins a transaction.
    ///
    /// One that writes waits for another process that does: as a task, so that its thread goes on, and whoever set it a
    /// time or gives it up is heard.
    pub async fn begin(&mut self, writes: bool) -> Result<(), Problem> {
        if !writes {
            return self.run("BEGIN", &[]).map(drop);
        }
        self.shelf.is_in_place()?;
        let end = Instant::now() + self.shelf.patience;
        loop {
            match self.begin_to_write() {
                Err(busy) if is_passing(&busy) && Instant::now() < end => sleep(AGAIN).await,
                begun => return begun,
            }
        }
    }

    /// Begins a transaction that writes, or is told at once that another process does.
    fn begin_to_write(&self) -> Result<(), Problem> {
        let connection = self.connection()?;
        connection.busy_timeout(Duration::ZERO).map_err(|e| self.problem(e))?;
        let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(|e| self.problem(e));
        connection.busy_timeout(self.shelf.patience).map_err(|e| self.problem(e))?;
        begun
    }

    /// Commits: what is written is on the disk then.
    pub fn commit(&self) -> Result<(), Problem> {
        let connection = self.connection()?;
        slow(|| connection.execute_batch("COMMIT")).map_err(|e| self.problem(e))
    }

    /// Whether a transaction is open.
    ///
    /// SQLite ends one by itself where a disk is full or cannot be read.
    pub fn in_transaction(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.is_autocommit())
    }

    /// Runs a statement; how many rows it changed.
    pub fn run(&self, sql: &str, args: &[Arg]) -> Result<u64, Problem> {
        let changed = self.bound(sql, args)?.raw_execute().map_err(|e| self.problem(e))?;
        Ok(changed as u64)
    }

    /// The rows that a statement gives, at most `most`.
    pub fn rows(&self, sql: &str, args: &[Arg], most: usize) -> Result<Vec<LiteRow>, Problem> {
        let mut statement = self.bound(sql, args)?;
        let names = statement.column_names().into_iter().enumerate().map(|(at, name)| (name.to_owned(), at));
        let names: Arc<HashMap<_, _>> = Arc::new(names.collect());
        let columns = statement.column_count();
        let (mut rows, mut found) = (statement.raw_query(), vec![]);
        while found.len() < most
            && let Some(row) = rows.next().map_err(|e| self.problem(e))?
        {
            let values = (0..columns).map(|at| row.get(at)).collect::<Result<_, _>>().map_err(|e| self.problem(e))?;
            found.push(LiteRow { names: Arc::clone(&names), values });
        }
        Ok(found)
    }

    /// A statement with its values; it names them `$1`, `$2`, ..., in any order.
    fn bound(&self, sql: &str, args: &[Arg]) -> Result<rusqlite::CachedStatement<'_>, Problem> {
        let mut statement = self.connection()?.prepare_cached(sql).map_err(|e| self.problem(e))?;
        for at in 1..=statement.parameter_count() {
            let number = statement.parameter_name(at).and_then(|name| name.strip_prefix('$')?.parse::<usize>().ok());
            let arg = number.and_then(|number| args.get(number.checked_sub(1)?));
            let arg = arg.ok_or_else(|| Problem::new(Code::Internal, format!("a statement lacks a value: {sql}")))?;
            statement.raw_bind_parameter(at, arg).map_err(|e| self.problem(e))?;
        }
        Ok(statement)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !connection.is_autocommit() {
            // One that fails was done by SQLite itself, or leaves a connection that is not used again.
            let _ = connection.execute_batch("ROLLBACK");
        }
        if connection.is_autocommit() && !self.shelf.room.is_closed() {
            self.shelf.idle().push(connection);
        }
    }
}

impl ToSql for Arg {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Text(Some(text)) => text.as_str().into(),
            Self::Int(Some(number)) => (*number).into(),
            Self::Text(None) | Self::Int(None) => ToSqlOutput::Owned(Value::Null),
        })
    }
}

impl LiteRow {
    /// A text, or none; a column that is no text, or not there, is told in words.
    pub fn text(&self, column: &str) -> Result<Option<String>, String> {
        match self.value(column)? {
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Null => Ok(None),
            other => Err(format!("it is {}", other.data_type())),
        }
    }

    /// A whole number, or none.
    pub fn int(&self, column: &str) -> Result<Option<i64>, String> {
        match self.value(column)? {
            Value::Integer(number) => Ok(Some(*number)),
            Value::Null => Ok(None),
            other => Err(format!("it is {}", other.data_type())),
        }
    }

    fn value(&self, column: &str) -> Result<&Value, String> {
        self.names.get(column).and_then(|at| self.values.get(*at)).ok_or_else(|| "it is not there".to_owned())
    }
}

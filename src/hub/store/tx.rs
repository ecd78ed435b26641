use serde::de::DeserializeOwned;
use sqlx::{
    PgConnection, Postgres, Row as _, Transaction,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{
    error::problem,
    record::{NewAudit, NewEvent},
    sqlite::{Lent, LiteRow},
    value::{Arg, args},
};
use crate::{
    core::{Code, Problem},
    hub::domain::Epoch,
};

/// A transaction on either database.
///
/// Audit and events are kept back and written just before the commit, so that their numbers grow in the order of commits.
pub struct Tx {
    inner: Inner,
    /// Whether it only reads: then there is nothing to lock.
    pub(super) reading: bool,
    pub(super) actor: String,
    pub(super) now: Epoch,
    pub(super) audit: Vec<NewAudit>,
    pub(super) events: Vec<NewEvent>,
}

enum Inner {
    Sqlite(Lent),
    Postgres(Transaction<'static, Postgres>),
    /// Without a transaction around it.
    SqliteGlance(Lent),
    PostgresGlance(PoolConnection<Postgres>),
}

/// What runs statements, whichever way it was begun.
enum On<'a> {
    Sqlite(&'a mut Lent),
    Postgres(&'a mut PgConnection),
}

/// A row of either database; a column that is not as expected is a defect or a damaged file, never a panic.
pub(super) enum Row {
    Sqlite(LiteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn opt_text(&self, column: &str) -> Result<Option<String>, Problem> {
        match self {
            Self::Sqlite(row) => row.text(column).map_err(|why| damaged(column, &why)),
            Self::Postgres(row) => row.try_get(column).map_err(problem),
        }
    }

    pub(super) fn opt_int(&self, column: &str) -> Result<Option<i64>, Problem> {
        match self {
            Self::Sqlite(row) => row.int(column).map_err(|why| damaged(column, &why)),
            Self::Postgres(row) => row.try_get(column).map_err(problem),
        }
    }

    pub(super) fn text(&self, column: &str) -> Result<String, Problem> {
        self.opt_text(column)?.ok_or_else(|| damaged(column, "it is empty"))
    }

    pub(super) fn int(&self, column: &str) -> Result<i64, Problem> {
        self.opt_int(column)?.ok_or_else(|| damaged(column, "it is empty"))
    }

    pub(super) fn epoch(&self, column: &str) -> Result<Epoch, Problem> {
        self.int(column).map(Epoch)
    }

    pub(super) fn opt_epoch(&self, column: &str) -> Result<Option<Epoch>, Problem> {
        Ok(self.opt_int(column)?.map(Epoch))
    }

    pub(super) fn parse<T: std::str::FromStr<Err: ToString>>(&self, column: &str) -> Result<T, Problem> {
        self.text(column)?.parse().map_err(|e: T::Err| damaged(column, &e.to_string()))
    }

    pub(super) fn opt_parse<T: std::str::FromStr<Err: ToString>>(&self, column: &str) -> Result<Option<T>, Problem> {
        let text = self.opt_text(column)?;
        text.map(|t| t.parse().map_err(|e: T::Err| damaged(column, &e.to_string()))).transpose()
    }

    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, Problem> {
        serde_json::from_str(&self.text(column)?).map_err(|e| damaged(column, &e.to_string()))
    }

    /// Reads an enum by its serde name.
    pub(super) fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, Problem> {
        self.opt_word(column)?.ok_or_else(|| damaged(column, "it is empty"))
    }

    pub(super) fn opt_word<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, Problem> {
        let text = self.opt_text(column)?;
        text.map(|t| serde_json::from_value(t.into()).map_err(|e| damaged(column, &e.to_string()))).transpose()
    }
}

fn damaged(column: &str, why: &str) -> Problem {
    Problem::new(Code::HubDatabase, format!("column {column} of the database is not as expected")).detail([why])
}

fn post<'q>(sql: &'static str, args: Vec<Arg>) -> Query<'q, Postgres, PgArguments> {
    args.into_iter().fold(sqlx::query(sql), |query, arg| match arg {
        Arg::Text(value) => query.bind(value),
        Arg::Int(value) => query.bind(value),
    })
}

impl Tx {
    fn new(inner: Inner, actor: &str, now: Epoch) -> Self {
        let reading = actor.is_empty();
        Self { inner, reading, actor: actor.to_owned(), now, audit: vec![], events: vec![] }
    }

    /// On a connection with a transaction.
    pub(super) fn sqlite(on: Lent, actor: &str, now: Epoch) -> Self {
        Self::new(Inner::Sqlite(on), actor, now)
    }

    pub(super) fn postgres(tx: Transaction<'static, Postgres>, actor: &str, now: Epoch) -> Self {
        Self::new(Inner::Postgres(tx), actor, now)
    }

    pub(super) fn sqlite_glance(connection: Lent, now: Epoch) -> Self {
        Self::new(Inner::SqliteGlance(connection), "", now)
    }

    pub(super) fn postgres_glance(connection: PoolConnection<Postgres>, now: Epoch) -> Self {
        Self::new(Inner::PostgresGlance(connection), "", now)
    }

    fn on(&mut self) -> On<'_> {
        match &mut self.inner {
            Inner::Sqlite(on) | Inner::SqliteGlance(on) => On::Sqlite(on),
            Inner::Postgres(tx) => On::Postgres(tx),
            Inner::PostgresGlance(connection) => On::Postgres(connection),
        }
    }

    /// The moment of this transaction.
    pub fn now(&self) -> Epoch {
        self.now
    }

    /// Whether others write at the same time, so that what was read before a row was locked may be over by then: on
    /// PostgreSQL, in a transaction that writes.
    pub fn is_shared(&self) -> bool {
        !self.reading && matches!(self.inner, Inner::Postgres(_))
    }

    /// Refused once SQLite has rolled the transaction back by itself, as on a full disk: a statement after that would be a
    /// transaction of its own.
    fn still_open(&self) -> Result<(), Problem> {
        match &self.inner {
            Inner::Sqlite(on) if !on.in_transaction() => {
                Err(Problem::new(Code::HubDatabase, "the database has ended the transaction"))
            }
            _ => Ok(()),
        }
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn run(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<u64, Problem> {
        self.still_open()?;
        match self.on() {
            On::Sqlite(on) => on.run(sql, &args),
            On::Postgres(on) => post(sql, args).execute(on).await.map(|r| r.rows_affected()).map_err(problem),
        }
    }

    /// All rows.
    pub(super) async fn all(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Vec<Row>, Problem> {
        self.still_open()?;
        match self.on() {
            On::Sqlite(on) => Ok(on.rows(sql, &args, usize::MAX)?.into_iter().map(Row::Sqlite).collect()),
            On::Postgres(on) => {
                let rows = post(sql, args).fetch_all(on).await.map_err(problem)?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row, if there is one.
    pub(super) async fn one(&mut self, sql: &'static str, args: Vec<Arg>) -> Result<Option<Row>, Problem> {
        self.still_open()?;
        match self.on() {
            On::Sqlite(on) => Ok(on.rows(sql, &args, 1)?.pop().map(Row::Sqlite)),
            On::Postgres(on) => Ok(post(sql, args).fetch_optional(on).await.map_err(problem)?.map(Row::Postgres)),
        }
    }

    /// What the database's own clock says; none where it is this computer's.
    pub async fn clock(&mut self) -> Result<Option<Epoch>, Problem> {
        let On::Postgres(on) = self.on() else { return Ok(None) };
        let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS BIGINT)";
        let seconds: i64 = sqlx::query_scalar(sql).fetch_one(on).await.map_err(problem)?;
        Ok(Some(Epoch(seconds)))
    }

    /// Locks the row that a statement finds, on PostgreSQL; on SQLite the whole database is locked already.
    pub(super) async fn lock(&mut self, sql: &'static str, id: &str) -> Result<(), Problem> {
        let reading = self.reading;
        match self.on() {
            On::Postgres(on) if !reading => post(sql, args![id]).execute(on).await.map(drop).map_err(problem),
            _ => Ok(()),
        }
    }

    /// Writes audit and events, and commits.
    pub(super) async fn commit(mut self) -> Result<(), Problem> {
        if !self.audit.is_empty() || !self.events.is_empty() {
            self.lock("SELECT pg_advisory_xact_lock(hashtext($1))", "kubecamp-record").await?;
            self.flush_records().await?;
        }
        self.still_open()?;
        match self.inner {
            Inner::Sqlite(on) => on.commit(),
            Inner::Postgres(tx) => tx.commit().await.map_err(problem),
            Inner::SqliteGlance(_) | Inner::PostgresGlance(_) => Ok(()),
        }
    }

    pub(super) async fn rollback(self) {
        if let Inner::Postgres(tx) = self.inner {
            // One that fails means a lost connection, which ends it too. SQLite's is undone when it is dropped.
            let _ = tx.rollback().await;
        }
    }
}

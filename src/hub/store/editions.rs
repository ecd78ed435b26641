use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sqlx::{
    PgConnection, PgPool, SqlSafeStr,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{
    error::{Fault, Kind, problem},
    sqlite::{problem_at, slow},
};
use crate::core::{Code, Problem};

/// Each edition of the tables, oldest first; one that was released never changes.
macro_rules! editions {
    ($folder:literal) => {{
        let edition = |number, name: &'static str, sql: &'static str| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        vec![
            edition(1, "first", include_str!(concat!("migrations/", $folder, "/0001_first.sql"))),
            edition(2, "disk", include_str!(concat!("migrations/", $folder, "/0002_disk.sql"))),
            edition(3, "labs", include_str!(concat!("migrations/", $folder, "/0003_labs.sql"))),
            edition(4, "concerned", include_str!(concat!("migrations/", $folder, "/0004_concerned.sql"))),
            edition(5, "logins", include_str!(concat!("migrations/", $folder, "/0005_logins.sql"))),
        ]
    }};
}

/// Which editions a SQLite file has: the table that sqlx makes in a PostgreSQL.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
     installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, \
     execution_time BIGINT NOT NULL)";

/// The editions of SQLite.
pub(super) fn for_sqlite() -> Vec<Migration> {
    editions!("sqlite")
}

/// Which edition a SQLite file has; 0 where there are no tables.
pub(super) fn edition(connection: &Connection) -> Result<i64, Problem> {
    let there = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let there: i64 = connection.query_row(there, (), |row| row.get(0)).map_err(problem)?;
    if there == 0 {
        return Ok(0);
    }
    let had = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    connection.query_row(had, (), |row| row.get(0)).map_err(problem)
}

/// Brings the tables of a SQLite file to the last of these editions, in one transaction; what is to be done `before` comes
/// first where there is something to bring, while nobody else writes.
///
/// Of two processes that come at the same time the second waits, and finds it done.
pub(super) fn upgrade(
    connection: &mut Connection,
    editions: &[Migration],
    before: impl FnOnce() -> Result<(), Problem>,
) -> Result<(), Problem> {
    // Looked at first without a lock: who only opens the database does not wait for who writes.
    if has_all(connection, editions)? {
        return Ok(());
    }
    let path = PathBuf::from(connection.path().unwrap_or_default());
    slow(|| {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(problem)?;
        if has_all(&tx, editions)? {
            return Ok(());
        }
        before()?;
        tx.execute_batch(TABLE).map_err(problem)?;
        editions.iter().try_for_each(|edition| take(&tx, edition))?;
        tx.commit().map_err(|error| problem_at(&path, error))
    })
}

/// Whether there is nothing to bring; a file that has more than these is refused.
fn has_all(connection: &Connection, editions: &[Migration]) -> Result<bool, Problem> {
    let (had, known) = (edition(connection)?, newest(editions));
    if had > known {
        return Err(newer(had));
    }
    // Without any there is no table of them either.
    if had == 0 {
        return Ok(false);
    }
    for edition in editions {
        if !has(connection, edition)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The last of these editions.
pub(super) fn newest(editions: &[Migration]) -> i64 {
    editions.iter().map(|edition| edition.version).max().unwrap_or(0)
}

/// Takes one edition, unless it is there.
fn take(tx: &Connection, edition: &Migration) -> Result<(), Problem> {
    if has(tx, edition)? {
        return Ok(());
    }
    let number = edition.version;
    let failed = |error| failed(number, error);
    tx.execute_batch(edition.sql.as_str()).map_err(failed)?;
    let done = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                VALUES (?1, ?2, 1, ?3, 0)";
    tx.execute(done, (number, edition.description.as_ref(), edition.checksum.as_ref())).map(drop).map_err(failed)
}

/// Whether an edition is there; another one of its number is a failure.
fn has(connection: &Connection, edition: &Migration) -> Result<bool, Problem> {
    let number = edition.version;
    let there = "SELECT checksum FROM _sqlx_migrations WHERE version = ?1";
    let there = connection.query_row(there, [number], |row| row.get(0)).optional();
    let there: Option<Vec<u8>> = there.map_err(|error| failed(number, error))?;
    match there {
        Some(checksum) if checksum == *edition.checksum => Ok(true),
        Some(_) => Err(stuck(number).detail(["the file has another edition of this number"])),
        None => Ok(false),
    }
}

fn failed(edition: i64, error: rusqlite::Error) -> Problem {
    match error.kind() {
        Kind::Other => stuck(edition).because(error),
        _ => problem(error),
    }
}

/// The editions of PostgreSQL.
pub(super) fn for_postgres() -> Vec<Migration> {
    editions!("postgres")
}

/// Which edition a PostgreSQL has; 0 where there are no tables.
pub(super) async fn edition_of_postgres(on: &mut PgConnection) -> Result<i64, Problem> {
    let there = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    let there: bool = sqlx::query_scalar(there).fetch_one(&mut *on).await.map_err(problem)?;
    if !there {
        return Ok(0);
    }
    let had = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    sqlx::query_scalar(had).fetch_one(on).await.map_err(problem)
}

/// Brings a PostgreSQL's tables up to date; hubs that start at the same time wait for each other.
pub(super) async fn upgrade_postgres(pool: &PgPool) -> Result<(), Problem> {
    Migrator::with_migrations(for_postgres()).run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(edition) | MigrateError::VersionTooNew(edition, _) => newer(edition),
        MigrateError::Execute(error) => problem(error),
        MigrateError::ExecuteMigration(error, _) if error.kind() == Kind::Full => problem(error),
        other => {
            Problem::new(Code::HubDatabase, "the database's tables could not be brought up to date").because(other)
        }
    })
}

pub(super) fn newer(edition: i64) -> Problem {
    Problem::new(Code::HubNewer, format!("the database has edition {edition}, which this kubecamp does not know"))
}

fn stuck(edition: i64) -> Problem {
    Problem::new(Code::HubDatabase, format!("the database's tables could not be brought to edition {edition}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::domain::Policy;

    #[test]
    fn whom_old_rows_of_the_audit_concern_is_read_from_their_details() {
        let mut connection = Connection::open_in_memory().unwrap();
        upgrade(&mut connection, &for_sqlite()[..3], || Ok(())).unwrap();
        let row = "INSERT INTO audit (moment, actor, action, subject, detail) VALUES (1, 'console', 'x', ?1, ?2)";
        for (subject, detail) in
            [("token:t1", r#"{"person":"amy"}"#), ("token:t2", r#"{"person":null}"#), ("server:one", "null")]
        {
            connection.execute(row, (subject, detail)).unwrap();
        }
        upgrade(&mut connection, &for_sqlite(), || Ok(())).unwrap();
        let found = "SELECT group_concat(subject || person) FROM audit WHERE person IS NOT NULL";
        let found: String = connection.query_row(found, (), |row| row.get(0)).unwrap();
        assert_eq!(found, "token:t1amy");
    }

    /// A course's rules lie in the database as they are, and a hub that does not know one of their keys reads none of them. So it
    /// must be kept from a database in which there may be such a key, as from one with newer tables.
    #[test]
    fn a_new_key_of_the_rules_comes_with_an_edition() {
        let rules = serde_json::to_value(Policy::default()).unwrap();
        for editions in [for_sqlite(), for_postgres()] {
            let both = (rules.as_object().unwrap().len(), newest(&editions));
            assert_eq!(both, (10, 5), "keys and editions: add an edition with the key, and both numbers here");
        }
    }
}

use std::io::{self, ErrorKind};

use crate::core::{Code, Problem};

/// What a database's error means: a taken slot, a name that exists, a full disk, or a failure of the database itself.
pub(super) fn problem(error: sqlx::Error) -> Problem {
    if let sqlx::Error::Database(db) = &error {
        let code = db.code().unwrap_or_default();
        if code == "23P01" || db.message().contains("kubecamp: overlap") {
            return Problem::new(Code::BookConflict, "another booking has this place at that time");
        }
        if db.is_unique_violation() {
            return Problem::new(Code::HubExists, "there is one of this name already");
        }
        if db.is_foreign_key_violation() {
            return Problem::new(Code::HubUnknown, "something that it names does not exist, or is still in use");
        }
    }
    if let sqlx::Error::PoolTimedOut = &error {
        let what = "no connection to the database was free in time, or could be made";
        return Problem::new(Code::HubDatabase, what).because(error);
    }
    if matches!(sqlite_kind(&error), Some(5 | 6)) {
        return Problem::new(Code::HubBusy, "another program keeps the database locked").because(error);
    }
    if is_full(&error) {
        return Problem::new(Code::HubFull, "the database has no space left").because(error);
    }
    Problem::new(Code::HubDatabase, "the database refused a request").because(error)
}

/// Whether there is no space left to write.
///
/// SQLite says FULL (13) where the system says that the disk is, except where it enlarges its shared memory (4874). All
/// other writes that fail (778) may have other causes too. PostgreSQL says 53100.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(db) = error else { return false };
    matches!(db.code().as_deref(), Some("13" | "4874" | "53100"))
}

/// A file of the database that cannot be made or written.
pub(super) fn unwritten(what: String, error: io::Error) -> Problem {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    Problem::new(if full { Code::HubFull } else { Code::HubDatabase }, what).because(error)
}

/// A place without a hub's database, named by who does not make one.
pub(super) fn absent(place: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::HubInvalid, format!("{place} holds no hub's database"))
        .hint("Give the same --database as to kubecamp hub serve, which makes it.")
}

/// Which kind of failure SQLite tells: the lower eight bits of its code. PostgreSQL's codes are longer.
fn sqlite_kind(error: &sqlx::Error) -> Option<i32> {
    let sqlx::Error::Database(db) = error else { return None };
    let code = db.code().filter(|code| code.len() < 5)?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// Whether the same transaction may succeed when it is tried again.
///
/// PostgreSQL: serialization failure and deadlock. SQLite: another process (a command line beside the hub) writes.
pub(super) fn is_passing(problem: &Problem) -> bool {
    let Some(source) = &problem.source else { return false };
    let Some(sqlx::Error::Database(db)) = source.downcast_ref::<sqlx::Error>() else { return false };
    let code = db.code().unwrap_or_default();
    matches!(code.as_ref(), "40001" | "40P01" | "5" | "517" | "6")
}

/// Whether SQLite may have rolled back the whole transaction, and not only the statement: out of memory, interrupted,
/// a failed read or write, a full disk. A constraint ends its statement only.
pub(super) fn has_ended_it(error: &sqlx::Error) -> bool {
    matches!(sqlite_kind(error), Some(7 | 9 | 10 | 13))
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, error::Error as StdError, fmt};

    use sqlx::error::{DatabaseError, ErrorKind as SqlKind};

    use super::*;

    /// What a database would answer with this code.
    #[derive(Debug)]
    struct Told(&'static str);

    impl fmt::Display for Told {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Told {}

    impl DatabaseError for Told {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> SqlKind {
            SqlKind::Other
        }
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_one() {
        for (told, code) in [
            ("13", Code::HubFull),
            ("4874", Code::HubFull),
            ("53100", Code::HubFull),
            ("778", Code::HubDatabase),
            ("1034", Code::HubDatabase),
            ("53200", Code::HubDatabase),
            ("5", Code::HubBusy),
        ] {
            assert_eq!(problem(sqlx::Error::Database(Box::new(Told(told)))).code, code, "{told}");
        }
        let file = |kind: ErrorKind| unwritten("x".into(), kind.into()).code;
        assert_eq!(file(ErrorKind::StorageFull), Code::HubFull);
        assert_eq!(file(ErrorKind::PermissionDenied), Code::HubDatabase);
    }
}

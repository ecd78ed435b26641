use std::{
    error::Error,
    io::{self, ErrorKind},
};

use rusqlite::ffi::{
    SQLITE_BUSY, SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE, SQLITE_FULL,
    SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE, SQLITE_LOCKED,
};

use crate::core::{Code, Problem};

/// What went wrong in a database, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The constraint that keeps bookings apart.
    Overlap,
    Exists,
    Unknown,
    /// Nothing was free in time.
    Late,
    /// Another process has the whole database.
    Locked,
    /// Two transactions were in each other's way: the same one may succeed at once.
    Crossed,
    /// Somebody else kept something locked for longer than anybody waits.
    Kept,
    /// The hub stood still in the midst of a transaction, and the database has undone it.
    Undone,
    /// No space is left.
    Full,
    Other,
}

/// An error of one of the two databases.
pub(super) trait Fault: Error + Send + Sync + 'static {
    /// What it means.
    fn kind(&self) -> Kind;
}

impl Fault for rusqlite::Error {
    /// FULL (13) is what SQLite says where the system says that the disk is, except where it enlarges its shared memory
    /// (4874, `SQLITE_IOERR_SHMSIZE`). All other writes that fail (778) may have other causes too: see [`judged`].
    fn kind(&self) -> Kind {
        let Self::SqliteFailure(error, told) = self else { return Kind::Other };
        match error.extended_code {
            _ if told.as_ref().is_some_and(|told| told.contains("kubecamp: overlap")) => Kind::Overlap,
            SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY => Kind::Exists,
            SQLITE_CONSTRAINT_FOREIGNKEY => Kind::Unknown,
            SQLITE_FULL | SQLITE_IOERR_SHMSIZE => Kind::Full,
            code if matches!(code & 0xff, SQLITE_BUSY | SQLITE_LOCKED) => Kind::Locked,
            _ => Kind::Other,
        }
    }
}

impl Fault for sqlx::Error {
    fn kind(&self) -> Kind {
        let db = match self {
            Self::PoolTimedOut => return Kind::Late,
            Self::Database(db) => db,
            _ => return Kind::Other,
        };
        match db.code().as_deref() {
            Some("23P01") => Kind::Overlap,
            Some("23505") => Kind::Exists,
            Some("23503") => Kind::Unknown,
            Some("53100") => Kind::Full,
            Some("40001" | "40P01") => Kind::Crossed,
            Some("55P03") => Kind::Kept,
            Some("25P03") => Kind::Undone,
            _ => Kind::Other,
        }
    }
}

/// What a database's error means: a taken slot, a name that exists, a full disk, or a failure of the database itself.
pub(super) fn problem(error: impl Fault) -> Problem {
    let kind = error.kind();
    told(kind, error)
}

/// As [`problem`], where one can look whether there is space: of a write that fails because a quota is used up SQLite says
/// no more than that it has failed, and the number that the system gave is not to be had of it.
pub(super) fn judged(error: rusqlite::Error, no_space: impl FnOnce() -> bool) -> Problem {
    let unwritten = error.sqlite_error().is_some_and(|told| told.extended_code == SQLITE_IOERR_WRITE);
    if unwritten && no_space() { told(Kind::Full, error) } else { problem(error) }
}

fn told(kind: Kind, error: impl Fault) -> Problem {
    let (code, what) = match kind {
        Kind::Overlap => return Problem::new(Code::BookConflict, "another booking has this place at that time"),
        Kind::Exists => return Problem::new(Code::HubExists, "there is one of this name already"),
        Kind::Unknown => {
            return Problem::new(Code::HubUnknown, "something that it names does not exist, or is still in use");
        }
        Kind::Late => (Code::HubDatabase, "no connection to the database was free in time, or could be made"),
        Kind::Locked => (Code::HubBusy, "another program keeps the database locked"),
        Kind::Kept => (Code::HubBusy, "another hub or program keeps locked in the database what it needs"),
        Kind::Undone => (Code::HubBusy, "the hub stood still in the midst of it, so that nothing was changed"),
        Kind::Full => (Code::HubFull, "the database has no space left"),
        Kind::Crossed | Kind::Other => (Code::HubDatabase, "the database refused a request"),
    };
    Problem::new(code, what).because(error)
}

/// A file of the database that cannot be made or written.
pub(super) fn unwritten(what: String, error: io::Error) -> Problem {
    Problem::new(if is_full(&error) { Code::HubFull } else { Code::HubDatabase }, what).because(error)
}

/// Whether the system says that there is no space, or none within a quota.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// A place without a hub's database, named by who does not make one.
pub(super) fn absent(place: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::HubInvalid, format!("{place} holds no hub's database"))
        .hint("Give the same --database as to kubecamp hub serve, which makes it.")
}

/// Whether the same transaction may succeed when it is tried again.
///
/// PostgreSQL: serialization failure and deadlock. SQLite: another process (a command line beside the hub) writes.
pub(super) fn is_passing(problem: &Problem) -> bool {
    let Some(source) = &problem.source else { return false };
    let lite = source.downcast_ref::<rusqlite::Error>().map(Fault::kind);
    let kind = lite.or_else(|| source.downcast_ref::<sqlx::Error>().map(Fault::kind));
    matches!(kind, Some(Kind::Crossed | Kind::Locked))
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
    fn who_has_waited_long_does_not_wait_again() {
        let passing = |code| is_passing(&problem(sqlx::Error::Database(Box::new(Told(code)))));
        assert_eq!(["40001", "40P01", "55P03", "25P03"].map(passing), [true, true, false, false]);
    }

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_one() {
        let lite = |code| problem(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)).code;
        assert_eq!(
            [13, 4874, 778, 1034, 5, 517].map(lite),
            [Code::HubFull, Code::HubFull, Code::HubDatabase, Code::HubDatabase, Code::HubBusy, Code::HubBusy]
        );
        let post = |code| problem(sqlx::Error::Database(Box::new(Told(code)))).code;
        assert_eq!(["53100", "53200"].map(post), [Code::HubFull, Code::HubDatabase]);
        assert_eq!(["55P03", "25P03"].map(post), [Code::HubBusy; 2]);
        let looked = |code, no_space| {
            judged(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None), || no_space).code
        };
        assert_eq!([true, false].map(|full| looked(778, full)), [Code::HubFull, Code::HubDatabase]);
        assert_eq!([266, 2067, 5].map(|code| looked(code, true)), [Code::HubDatabase, Code::HubExists, Code::HubBusy]);
        let file = |kind: ErrorKind| unwritten("x".into(), kind.into()).code;
        assert_eq!(file(ErrorKind::StorageFull), Code::HubFull);
        assert_eq!(file(ErrorKind::PermissionDenied), Code::HubDatabase);
    }
}

use crate::core::{Code, Problem};

/// What a database's error means: a taken slot, a name that exists, or a failure of the database itself.
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
    Problem::new(Code::HubDatabase, "the database refused a request").because(error)
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

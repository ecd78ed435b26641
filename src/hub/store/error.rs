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
    Problem::new(Code::HubDatabase, "the database refused a request").because(error)
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
    let sqlx::Error::Database(db) = error else { return false };
    let code = db.code().and_then(|code| code.parse::<i32>().ok());
    // The lower eight bits of the extended code say of which kind it is.
    matches!(code.map(|code| code & 0xff), Some(7 | 9 | 10 | 13))
}

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use super::open::AGAIN;
use crate::core::{Code, Problem};

/// A PostgreSQL that does not answer at the start is told after this.
pub(super) const REACH: Duration = Duration::from_secs(5);

/// The first connection to PostgreSQL, or why there is none: the pool would be silent for long, and then tell the time
/// only. A server that is about to start is waited for.
pub(super) async fn reach(options: &PgConnectOptions) -> Result<PgConnection, Problem> {
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
pub(super) fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(folder) => format!("PostgreSQL at {}", folder.display()),
        None => format!("PostgreSQL at {}:{}", options.get_host(), options.get_port()),
    }
}

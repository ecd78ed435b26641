use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    error::problem,
    open::{AGAIN, PATIENCE},
};
use crate::core::{Code, Problem};

/// A setting of PostgreSQL, and the most that it may be.
type Bound = (&'static str, &'static str);

/// A connection whose other end says nothing more, without having closed it, is over after half a minute.
///
/// By itself PostgreSQL would wait for two hours, and whatever that end had locked would stay so.
pub(super) const KEPT_ALIVE: &[Bound] =
    &[("tcp_keepalives_idle", "15"), ("tcp_keepalives_interval", "5"), ("tcp_keepalives_count", "3")];
/// The same of a hub's transactions: whose hub stands still is undone after as long as a request may take, and who waits for
/// something that another has locked is told so before that.
pub(super) const OF_HUBS: &[Bound] = &[
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("lock_timeout", "20s"),
];

/// Lowers a setting of a connection where it is none or more; a number without a unit counts here as seconds, whatever it is.
const LOWER: &str = "SELECT set_config($1, $2, false) \
     WHERE current_setting($1)::interval NOT BETWEEN interval '1 ms' AND $2::interval";

/// A PostgreSQL that does not answer at the start is told after this.
pub(super) const REACH: Duration = Duration::from_secs(5);

/// The first connection to PostgreSQL, or why there is none: the pool would be silent for long, and then tell the time
/// only.
///
/// A server that is about to start is waited for.
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

/// At most so many connections, each within these bounds.
pub(super) async fn pool(options: PgConnectOptions, most: u32, bounds: &'static [Bound]) -> Result<PgPool, Problem> {
    let pool = PgPoolOptions::new().max_connections(most).acquire_timeout(PATIENCE);
    let pool = pool.after_connect(move |on, _| Box::pin(bind(on, bounds)));
    pool.connect_with(options).await.map_err(problem)
}

/// Keeps a connection within bounds; what somebody has set lower for the whole database stays.
pub(super) async fn bind(on: &mut PgConnection, bounds: &[Bound]) -> Result<(), sqlx::Error> {
    for (name, most) in bounds {
        sqlx::query(LOWER).bind(*name).bind(*most).execute(&mut *on).await?;
    }
    Ok(())
}

use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinHandle;

use super::{
    editions::{edition_of_postgres, newer},
    error::problem,
    open::{AGAIN, PATIENCE},
};
use crate::core::{Code, Problem};

/// Hubs share one advisory lock of the database, by a number that nothing else there has; who changes the tables has it
/// alone. PostgreSQL lets go of it when the connection ends, however that comes.
const SHARE: &str = "SELECT pg_try_advisory_lock_shared(27491, 1)";
const ALONE: &str = "SELECT pg_try_advisory_lock(27491, 1)";
/// Whether a hub has it, and not somebody who changes the tables.
const HUBS: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 27491 AND objid = 1 \
     AND objsubid = 2 AND mode = 'ShareLock' AND granted \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// A hub that has just ended may seem to be there for a moment more.
const LEAVING: Duration = Duration::from_secs(1);
/// How often a hub looks whether its connection still holds the lock.
const LOOK: Duration = Duration::from_secs(5);

/// That a hub works on a PostgreSQL, by a connection of its own: those of a pool come and go.
#[derive(Debug)]
pub(super) struct Presence(JoinHandle<()>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Presence {
    /// Shares the lock with the other hubs, until it is dropped; who changes the tables is waited for. Refused where they
    /// are newer than `known` by then.
    pub(super) async fn take(options: PgConnectOptions, known: i64) -> Result<Self, Problem> {
        let begun = Instant::now();
        let mut held = loop {
            match share(&options).await.map_err(problem)? {
                Some(held) => break held,
                None if begun.elapsed() < PATIENCE => tokio::time::sleep(AGAIN).await,
                None => return Err(Problem::new(Code::HubRunning, "somebody else changes the database's tables")),
            }
        };
        let had = edition_of_postgres(&mut held).await?;
        if had > known {
            return Err(newer(had));
        }
        Ok(Self(tokio::spawn(keep(held, options))))
    }
}

/// Has the lock to itself for as long as the connection is open, where the tables are older than `known`; refused where a
/// hub works on them, which does not know the new ones. Who changes them already is waited for.
pub(super) async fn hold_for_upgrade(on: &mut PgConnection, known: i64, place: &str) -> Result<(), Problem> {
    let begun = Instant::now();
    loop {
        let had = edition_of_postgres(on).await?;
        // Under a database without tables nobody works.
        if had == 0 || had >= known || holds(on, ALONE).await.map_err(problem)? {
            return Ok(());
        }
        let patience = if holds(on, HUBS).await.map_err(problem)? { LEAVING } else { PATIENCE };
        if begun.elapsed() >= patience {
            return Err(Problem::new(Code::HubRunning, format!("a hub of an older kubecamp works on {place}"))
                .hint("Stop all hubs that work on it, make a copy with pg_dump, and start one with this kubecamp."));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a statement of one truth value says.
async fn holds(on: &mut PgConnection, what: &'static str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(what).fetch_one(on).await
}

/// A connection that shares the lock; none where somebody has it alone.
async fn share(options: &PgConnectOptions) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut on = PgConnection::connect_with(options).await?;
    Ok(if holds(&mut on, SHARE).await? { Some(on) } else { None })
}

/// Takes the lock again whenever the connection that had it is lost, as when PostgreSQL starts anew.
async fn keep(mut held: PgConnection, options: PgConnectOptions) {
    loop {
        tokio::time::sleep(LOOK).await;
        if matches!(tokio::time::timeout(LOOK, held.ping()).await, Ok(Ok(()))) {
            continue;
        }
        held = loop {
            if let Ok(Ok(Some(again))) = tokio::time::timeout(LOOK, share(&options)).await {
                break again;
            }
            tokio::time::sleep(AGAIN).await;
        };
    }
}

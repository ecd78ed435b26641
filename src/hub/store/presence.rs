use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{sync::Mutex, task::JoinHandle};

use super::{
    editions::{edition_of_postgres, newer},
    error::problem,
    open::AGAIN,
    postgres::{KEPT_ALIVE, bind},
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

/// A second lock, whose number is of the keys by which a hub signs: hubs with the same keys share it.
const SIGN: &str = "SELECT pg_try_advisory_lock_shared(27492, $1)";
/// Whether a hub has one of another number.
const SIGN_OTHERWISE: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 27492 \
     AND objid::bigint <> $1 AND objsubid = 2 AND granted \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// A hub that has just ended may seem to be there for a moment more.
const LEAVING: Duration = Duration::from_secs(1);
/// How long somebody may change the tables, with a copy of them before, until it is told that they do.
const CHANGING: Duration = Duration::from_secs(900);
/// How often a hub looks whether its connection still holds the lock.
const LOOK: Duration = Duration::from_secs(5);

/// That a hub works on a PostgreSQL, by a connection of its own: those of a pool come and go.
#[derive(Debug)]
pub(super) struct Presence {
    held: Arc<Mutex<Held>>,
    keeper: JoinHandle<()>,
}

/// The connection, and the number of the keys by which this hub signs, once it is known.
#[derive(Debug)]
struct Held {
    on: PgConnection,
    keys: Option<i32>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Presence {
    /// Shares the lock with the other hubs, until it is dropped; who changes the tables is waited for.
    ///
    /// Refused where they are newer than `known` by then, and the pool closed where they become so while the lock was lost.
    pub(super) async fn take(options: PgConnectOptions, known: i64, pool: PgPool) -> Result<Self, Problem> {
        let begun = Instant::now();
        let (held, had) = loop {
            match share(&options).await? {
                Some(shared) => break shared,
                None if begun.elapsed() < CHANGING => tokio::time::sleep(AGAIN).await,
                None => return Err(changed("the database's tables")),
            }
        };
        if had > known {
            return Err(newer(had));
        }
        let held = Arc::new(Mutex::new(Held { on: held, keys: None }));
        let keeper = tokio::spawn(keep(held.clone(), options, known, pool));
        Ok(Self { held, keeper })
    }

    /// Shares the lock of some keys, not negative; whether no hub on the same database has one of others.
    pub(super) async fn sign_by(&self, keys: i32) -> Result<bool, Problem> {
        let mut held = self.held.lock().await;
        held.keys = Some(keys);
        sign(&mut held.on, keys).await.map_err(problem)?;
        let begun = Instant::now();
        loop {
            let otherwise = sqlx::query_scalar(SIGN_OTHERWISE).bind(i64::from(keys)).fetch_one(&mut held.on);
            if !otherwise.await.map_err(problem)? {
                return Ok(true);
            }
            if begun.elapsed() >= LEAVING {
                return Ok(false);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Has the lock to itself for as long as the connection is open, where the tables are older than `known`, and says of which
/// edition they are; refused where a hub works on them, which does not know the new ones.
///
/// Who changes them already is waited for.
pub(super) async fn hold_for_upgrade(on: &mut PgConnection, known: i64, place: &str) -> Result<Option<i64>, Problem> {
    let begun = Instant::now();
    loop {
        let had = edition_of_postgres(on).await?;
        // Under a database without tables nobody works.
        if had == 0 || had >= known {
            return Ok(None);
        }
        if holds(on, ALONE).await.map_err(problem)? {
            // Whoever had it before may just have changed them.
            let had = edition_of_postgres(on).await?;
            return Ok(Some(had).filter(|had| *had < known));
        }
        let is_hub = holds(on, HUBS).await.map_err(problem)?;
        // It may be the one that has just changed them, while this one waited.
        if is_hub && begun.elapsed() >= LEAVING && edition_of_postgres(on).await? < known {
            return Err(Problem::new(Code::HubRunning, format!("a hub of an older kubecamp works on {place}")).hint(
                "Stop all hubs that work on it, then start one of this kubecamp: it makes a copy with pg_dump first.",
            ));
        }
        if begun.elapsed() >= CHANGING {
            return Err(changed(&format!("the tables of {place}")));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a statement of one truth value says.
async fn holds(on: &mut PgConnection, what: &'static str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(what).fetch_one(on).await
}

fn changed(tables: &str) -> Problem {
    Problem::new(Code::HubRunning, format!("somebody has been changing {tables} for minutes"))
        .hint("It may be another hub that starts: wait until it is done, then try again.")
}

/// A connection that shares the lock, and the edition of the tables by then; none where somebody has it alone.
async fn share(options: &PgConnectOptions) -> Result<Option<(PgConnection, i64)>, Problem> {
    let mut on = PgConnection::connect_with(options).await.map_err(problem)?;
    // Of a hub that is gone without a word others may change the tables soon.
    bind(&mut on, KEPT_ALIVE).await.map_err(problem)?;
    if !holds(&mut on, SHARE).await.map_err(problem)? {
        return Ok(None);
    }
    let had = edition_of_postgres(&mut on).await?;
    Ok(Some((on, had)))
}

/// A lock that is shared by all who ask for this number, so that nobody is ever refused.
async fn sign(on: &mut PgConnection, keys: i32) -> Result<(), sqlx::Error> {
    sqlx::query(SIGN).bind(keys).execute(on).await.map(drop)
}

/// Takes the locks again whenever the connection that had it is lost, as when PostgreSQL starts anew. Who changed the tables
/// meanwhile, to some that are newer than `known`, was not kept from it: this hub must not write to them.
async fn keep(held: Arc<Mutex<Held>>, options: PgConnectOptions, known: i64, pool: PgPool) {
    loop {
        tokio::time::sleep(LOOK).await;
        let mut held = held.lock().await;
        if matches!(tokio::time::timeout(LOOK, held.on.ping()).await, Ok(Ok(()))) {
            continue;
        }
        let keys = held.keys;
        let anew = async || {
            let (mut on, had) = share(&options).await.ok()??;
            if let Some(keys) = keys {
                sign(&mut on, keys).await.ok()?;
            }
            Some((on, had))
        };
        let (again, had) = loop {
            if let Ok(Some(shared)) = tokio::time::timeout(LOOK, anew()).await {
                break shared;
            }
            tokio::time::sleep(AGAIN).await;
        };
        if had > known {
            let problem = newer(had);
            tracing::error!(%problem, "this hub works no more");
            return pool.close().await;
        }
        held.on = again;
    }
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, time::timeout};

use super::{Store, Tx, value::args};
use crate::{
    core::{Code, Problem},
    hub::domain::Epoch,
};

/// What was found is true for so long: everybody may ask, and each look writes.
const WELL: Duration = Duration::from_secs(10);
const ILL: Duration = Duration::from_secs(1);
/// A hub whose database takes longer than this to write is told as one that cannot.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the database could be written when somebody last looked.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Looked>);

#[derive(Debug, Default)]
struct Looked {
    /// A write failed since then.
    doubt: AtomicBool,
    last: Mutex<Option<(Instant, Result<(), Problem>)>>,
}

impl Pulse {
    /// Passes an outcome on; after a failure of the database itself the next look is a new one.
    pub(super) fn note<T>(&self, outcome: Result<T, Problem>) -> Result<T, Problem> {
        if outcome.as_ref().is_err_and(|problem| matches!(problem.code, Code::HubDatabase | Code::HubFull)) {
            self.0.doubt.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl Store {
    /// Whether the database can be written, found by writing: on a full disk all can be read, and a transaction begun.
    pub async fn writable(&self, now: Epoch) -> Result<(), Problem> {
        let looked = &self.pulse.0;
        let mut last = looked.last.lock().await;
        if let Some((at, outcome)) = &*last {
            let holds = if outcome.is_ok() { WELL } else { ILL };
            if at.elapsed() < holds && !looked.doubt.load(Ordering::Relaxed) {
                return outcome.clone();
            }
        }
        let late = |_| {
            let what = format!("the database took longer than {} s for a write", PATIENCE.as_secs());
            Err(Problem::new(Code::HubBusy, what))
        };
        let outcome = timeout(PATIENCE, self.try_to_write(now)).await.unwrap_or_else(late);
        looked.doubt.store(false, Ordering::Relaxed);
        *last = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn try_to_write(&self, now: Epoch) -> Result<(), Problem> {
        let mut tx = self.write("healthz", now).await?;
        match tx.beat().await {
            Ok(()) => tx.commit().await,
            Err(problem) => {
                tx.rollback().await;
                Err(problem)
            }
        }
    }
}

impl Tx {
    /// Writes a few pages, as a booking does: its one row is forgotten like the answers to requests.
    async fn beat(&mut self) -> Result<(), Problem> {
        // SQLite does not write what is there already.
        let text = format!("{:016x}", rand::random::<u64>()).repeat(1024);
        let sql = "INSERT INTO answers (actor, key, digest, answer, moment) VALUES ($1, 'pulse', '', $2, $3) \
                   ON CONFLICT (actor, key) DO UPDATE SET answer = excluded.answer, moment = excluded.moment";
        let (actor, now) = (self.actor.clone(), self.now);
        self.run(sql, args![actor, text, now]).await.map(drop)
    }
}

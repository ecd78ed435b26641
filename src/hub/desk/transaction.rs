use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{taken::Taken, turn::Turn, weeks::Weeks};
use crate::{
    core::{Code, Problem},
    hub::store::{Store, Tx},
};

/// The hub's counter: every use case is a function of it.
///
/// Clones share the database.
///
/// Each function takes who asks and the moment; there is no hidden clock. What it returns is true and on disk.
#[derive(Debug, Clone)]
pub struct Desk {
    pub(in crate::hub) store: Store,
    pub(super) taken: Taken,
    pub(super) weeks: Weeks,
    pub(super) turn: Turn,
}

impl Desk {
    /// A desk over a database.
    pub fn new(store: Store) -> Self {
        Self { store, taken: Taken::default(), weeks: Weeks::default(), turn: Turn::default() }
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

/// Runs a body in a writing transaction, again where the database asks for it.
macro_rules! transact {
    ($desk:expr, $caller:expr, $now:expr, |$tx:ident| $body:expr) => {{
        let mut tries = 0;
        loop {
            let mut $tx = $desk.store.write(&$caller.name(), $now).await?;
            let outcome: Result<_, crate::core::Problem> = async { $body }.await;
            if let Some(settled) = $desk.store.settle($tx, outcome, &mut tries).await {
                break settled;
            }
        }
    }};
}

/// As `transact`, but a repeated idempotency key gets the first answer and changes nothing.
macro_rules! transact_once {
    ($desk:expr, $caller:expr, $now:expr, $key:expr, $what:expr, |$tx:ident| $body:expr) => {{
        let key: Option<&str> = $key;
        let digest = crate::hub::desk::transaction::digest(&$what)?;
        crate::hub::desk::transaction::transact!($desk, $caller, $now, |$tx| {
            match crate::hub::desk::transaction::known(&mut $tx, key, &digest).await? {
                Some(answer) => Ok(answer),
                None => {
                    let outcome: Result<_, crate::core::Problem> = async { $body }.await;
                    let answer = outcome?;
                    crate::hub::desk::transaction::keep(&mut $tx, key, &answer).await?;
                    Ok(answer)
                }
            }
        })
    }};
}
pub(in crate::hub) use {transact, transact_once};

/// What tells two requests under one key apart.
pub(super) fn digest(what: &impl Serialize) -> Result<String, Problem> {
    let text = serde_json::to_vec(what).map_err(defect)?;
    Ok(hex::encode(Sha256::digest(text)))
}

pub(super) async fn known<T: DeserializeOwned>(
    tx: &mut Tx,
    key: Option<&str>,
    digest: &str,
) -> Result<Option<T>, Problem> {
    let Some(key) = key else { return Ok(None) };
    if key.is_empty() || key.len() > 200 {
        return Err(Problem::new(Code::HubInvalid, "an Idempotency-Key has 1 to 200 characters"));
    }
    let answer = tx.claim_key(key, digest).await?;
    answer.map(|text| serde_json::from_str(&text).map_err(defect)).transpose()
}

pub(super) async fn keep(tx: &mut Tx, key: Option<&str>, answer: &impl Serialize) -> Result<(), Problem> {
    let Some(key) = key else { return Ok(()) };
    tx.keep_answer(key, &serde_json::to_string(answer).map_err(defect)?).await
}

fn defect(error: serde_json::Error) -> Problem {
    Problem::new(Code::Internal, "a value of the hub cannot be written as JSON").because(error)
}

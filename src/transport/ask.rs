use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use russh::keys::{PrivateKey, PublicKey};

use crate::core::Secret;

/// Someone who can answer questions: the user at a terminal.
///
/// Every answer is `None` when nobody is there to give it. The calls may block.
pub trait Ask: Send + Sync {
    /// Asks for text that is not echoed; `prompt` has no colon, which whoever shows it adds.
    fn secret(&self, prompt: &str) -> Option<Secret>;

    /// Asks a question to be answered with yes or no.
    fn confirm(&self, question: &str) -> Option<bool>;
}

/// Private keys unlocked so far and the way to ask for more, shared by all connections of a run, so that no
/// question is asked twice and no two at once.
#[derive(Default)]
pub struct Keyring {
    ask: Option<Arc<dyn Ask>>,
    turn: tokio::sync::Mutex<()>,
    /// `None`: asked for, not given.
    unlocked: Mutex<HashMap<PathBuf, Option<Arc<PrivateKey>>>>,
    /// Host keys with their hosts, and whether each may be trusted: asked about, or taken without a question.
    judged: Mutex<Vec<(String, PublicKey, bool)>>,
}

impl Keyring {
    /// A keyring that asks `ask`.
    pub fn new(ask: Arc<dyn Ask>) -> Self {
        Self { ask: Some(ask), ..Self::default() }
    }

    /// Waits until no other question is open; hold the guard while asking.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Asks for text that is not echoed; the caller holds the turn.
    pub(super) async fn secret(&self, prompt: String) -> Option<Secret> {
        let ask = Arc::clone(self.ask.as_ref()?);
        tokio::task::spawn_blocking(move || ask.secret(&prompt)).await.ok()?
    }

    /// Asks yes or no; the caller holds the turn.
    pub(super) async fn confirm(&self, question: String) -> Option<bool> {
        let ask = Arc::clone(self.ask.as_ref()?);
        tokio::task::spawn_blocking(move || ask.confirm(&question)).await.ok()?
    }

    /// What is known of the encrypted key in `file`: not asked yet, not given, or the key.
    pub(super) fn unlocked(&self, file: &Path) -> Option<Option<Arc<PrivateKey>>> {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner).get(file).cloned()
    }

    /// How many keys were opened so far.
    pub(super) fn opened(&self) -> usize {
        let unlocked = self.unlocked.lock().unwrap_or_else(PoisonError::into_inner);
        unlocked.values().filter(|key| key.is_some()).count()
    }

    /// Remembers the outcome of asking for the pass phrase of `file`.
    pub(super) fn remember(&self, file: &Path, key: Option<Arc<PrivateKey>>) {
        self.unlocked.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), key);
    }

    /// Remembers whether the host `name` may show `key`.
    pub(super) fn judge(&self, name: &str, key: &PublicKey, trusted: bool) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.push((name.to_owned(), key.clone(), trusted));
    }

    /// Whether the host `name` may show `key`, where somebody said so before.
    pub(super) fn judged(&self, name: &str, key: &PublicKey) -> Option<bool> {
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let found = judged.iter().find(|(of, known, _)| of == name && known.key_data() == key.key_data());
        found.map(|(_, _, trusted)| *trusted)
    }

    /// The keys that were accepted for the host `name`.
    pub(super) fn accepted(&self, name: &str) -> Vec<PublicKey> {
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.iter().filter(|(of, _, trusted)| *trusted && of == name).map(|(_, key, _)| key.clone()).collect()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ask.is_some() { "Keyring(asks)" } else { "Keyring(silent)" })
    }
}

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use russh::keys::{Algorithm, PrivateKey, PublicKey, decode_secret_key, ssh_key::LineEnding};

use super::Identity;
use crate::{
    core::{Code, Problem, Secret},
    transport::Keyring,
};

/// A new key pair for machines that we make.
#[derive(Debug)]
pub struct KeyPair {
    /// The private key in OpenSSH format.
    pub private: Secret,
    /// The public key as one line of an authorized_keys file.
    pub public: String,
}

impl KeyPair {
    /// Makes an ed25519 pair.
    pub fn new(comment: &str) -> Result<Self, Problem> {
        let fail = |e: russh::keys::ssh_key::Error| Problem::new(Code::Internal, "making an SSH key").because(e);
        let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).map_err(fail)?;
        key.set_comment(comment);
        let private = Secret::new(key.to_openssh(LineEnding::LF).map_err(fail)?.as_str());
        Ok(Self { private, public: key.public_key().to_openssh().map_err(fail)? })
    }

    /// The private half, to log in with.
    pub fn identity(&self) -> Result<Identity, Problem> {
        let key = PrivateKey::from_openssh(self.private.expose())
            .map_err(|e| Problem::new(Code::KeyFile, "reading an SSH key in memory").because(e))?;
        Ok(Identity::Key(Arc::new(key)))
    }
}

/// The public half of the private key in `file`, as one line of an authorized_keys file; works on encrypted keys too.
pub fn public_line(file: &Path) -> Result<String, Problem> {
    let found = Found::read(file).map_err(|e| unreadable(file, &e.to_string()))?;
    let key = match &found {
        Found::Open(key) => Some(key.public_key()),
        Found::Locked { public, .. } => public.as_ref(),
        Found::Public(public) => Some(public),
        Found::Bad(why) => return Err(unreadable(file, why)),
    };
    key.and_then(|k| k.to_openssh().ok()).ok_or_else(|| unreadable(file, "its public half is not to be seen"))
}

/// Refuses a key file that cannot be read, nor its public half beside it; what is in it shows at the login.
///
/// # Errors
/// `KC-KEY-FILE`.
pub fn must_be_readable(file: &Path) -> Result<(), Problem> {
    Found::read(file).map(drop).map_err(|e| unreadable(file, &e.to_string()))
}

/// A key that is ready to sign, or what is missing.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Open(Arc<PrivateKey>),
    /// Encrypted. The public half is known unless the file is in an old format and has no `.pub` beside it.
    Locked {
        file: PathBuf,
        public: Option<PublicKey>,
    },
    /// Only the public half: it says which of the agent's keys is meant.
    Public(PublicKey),
    /// Not a private key that we can read.
    Bad(String),
}

impl Found {
    /// Reads a key file; as with ssh the public half is enough, in it or beside where it should be.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::read_to_string(beside(file)).map_err(|_| error)?
            }
            text => text?,
        };
        Ok(match decode_secret_key(&text, None) {
            Ok(key) => Self::Open(Arc::new(key)),
            Err(_) if is_encrypted(&text) => Self::Locked { file: file.to_owned(), public: public_half(file, &text) },
            Err(error) => match PublicKey::from_openssh(text.trim()) {
                Ok(public) => Self::Public(public),
                Err(_) => Self::Bad(error.to_string()),
            },
        })
    }

    /// The public half, if it is known.
    pub(super) fn public(&self) -> Option<&PublicKey> {
        match self {
            Self::Open(key) => Some(key.public_key()),
            Self::Locked { public, .. } => public.as_ref(),
            Self::Public(public) => Some(public),
            Self::Bad(_) => None,
        }
    }
}

fn is_encrypted(text: &str) -> bool {
    text.contains("BEGIN ENCRYPTED PRIVATE KEY")
        || text.contains("Proc-Type: 4,ENCRYPTED")
        || PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
}

/// OpenSSH's own format shows the public half even when encrypted; else the `.pub` file beside may.
fn public_half(file: &Path, text: &str) -> Option<PublicKey> {
    match PrivateKey::from_openssh(text) {
        Ok(key) => Some(key.public_key().clone()),
        Err(_) => PublicKey::from_openssh(std::fs::read_to_string(beside(file)).ok()?.trim()).ok(),
    }
}

/// Where the public half of the key in `file` lies.
fn beside(file: &Path) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".pub");
    beside.into()
}

/// The problem of a key file that cannot be used.
pub(super) fn unreadable(file: &Path, why: &str) -> Problem {
    Problem::new(Code::KeyFile, format!("cannot read the private key {}", file.display())).detail([why])
}

/// How often a wrong pass phrase may be corrected.
const TRIES: usize = 3;

/// Unlocks an encrypted key, asking for its pass phrase unless that was done before; `None` when it is not given.
pub(super) async fn unlock(file: &Path, keyring: &Keyring) -> Option<Arc<PrivateKey>> {
    let _turn = keyring.turn().await;
    if let Some(known) = keyring.unlocked(file) {
        return known;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let mut key = None;
    for attempt in 0..TRIES {
        let again = if attempt > 0 { "Wrong. " } else { "" };
        let Some(phrase) = keyring.secret(format!("{again}Pass phrase of {}", file.display())).await else { break };
        let text = text.clone();
        // Deriving the key takes a good part of a second on purpose.
        let tried = tokio::task::spawn_blocking(move || decode_secret_key(&text, Some(phrase.expose()))).await;
        if let Ok(Ok(opened)) = tried {
            key = Some(Arc::new(opened));
            break;
        }
    }
    keyring.remember(file, key.clone());
    key
}

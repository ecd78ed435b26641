use std::{fmt, path::Path, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    limit::Limiter,
    metrics::Metrics,
    room::{Room, most_connections},
    rounds::Rounds,
};
use crate::{
    core::{Code, Problem},
    hub::{desk::Desk, domain::Epoch, gate::HubKey, private},
};

/// A client that takes nothing of its answer for so long is let go: it holds a connection that others need.
const UNREAD_PATIENCE: Duration = Duration::from_secs(30);

/// Where handlers get the time from; tests have one of their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Epoch + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> Epoch + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The computer's clock.
    pub fn system() -> Self {
        Self::new(|| Epoch(jiff::Timestamp::now().as_second()))
    }

    /// The moment.
    pub fn now(&self) -> Epoch {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// What all handlers share.
#[derive(Debug, Clone)]
pub struct AppState {
    /// The use cases.
    pub desk: Desk,
    /// The time.
    pub clock: Clock,
    /// How this hub is reached, its limits and counters.
    pub site: Arc<Site>,
}

impl AppState {
    /// The moment.
    pub fn now(&self) -> Epoch {
        self.clock.now()
    }
}

/// The two private keys of the gate.
#[derive(Clone)]
pub struct GateKeys {
    /// Signs the certificates of slots.
    pub ca: HubKey,
    /// Signs plans.
    pub plan: HubKey,
}

impl GateKeys {
    /// The keys in a folder, `user_ca` and `plan_key`; made when they are missing.
    pub fn in_folder(folder: &Path) -> Result<Self, Problem> {
        let keys = Self {
            ca: HubKey::load_or_make(&folder.join("user_ca"), "kubecamp user CA")?,
            plan: HubKey::load_or_make(&folder.join("plan_key"), "kubecamp plans")?,
        };
        if let Err(error) = close_to_others(folder) {
            tracing::warn!(folder = %folder.display(), %error, "others may look into the folder of the hub's keys");
        }
        Ok(keys)
    }

    /// A digest of both public halves, by which hubs tell whether they have the same.
    pub fn print(&self) -> Result<[u8; 4], Problem> {
        let mut digest = Sha256::new();
        for key in [&self.ca, &self.plan] {
            digest.update(
                key.public().to_bytes().map_err(|e| Problem::new(Code::Internal, "a key of the hub").because(e))?,
            );
        }
        let digest = digest.finalize();
        Ok([digest[0], digest[1], digest[2], digest[3]])
    }
}

/// A folder with nothing but the keys is for the hub alone. One that holds more, as /etc would, is not the hub's to close.
fn close_to_others(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let ours = ["user_ca", "plan_key"].iter().any(|key| name.as_encoded_bytes().starts_with(key.as_bytes()));
        if !ours {
            return Ok(());
        }
    }
    private::tighten(folder)
}

impl fmt::Debug for GateKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GateKeys")
    }
}

/// How a hub is reached, its limits and counters.
#[derive(Debug)]
pub struct Site {
    /// The address that people type, without a slash at its end, as `https://hub.example.org`; for links.
    pub public_url: Option<String>,
    /// Whether people reach it by HTTPS: then cookies are `__Host-` and `Secure`.
    pub secure: bool,
    /// Whether a proxy in front adds `X-Forwarded-For`.
    pub behind_proxy: bool,
    /// Requests per client.
    pub limiter: Limiter,
    /// Tries to sign in per client.
    pub sign_ins: Limiter,
    /// Connections that it holds at a time.
    pub(super) connections: usize,
    /// How long a client may take nothing of what it asked for.
    pub(super) unread: Duration,
    /// Event streams, by person.
    pub(super) streams: Arc<Room>,
    /// Counters for `/metrics`.
    pub metrics: Metrics,
    /// How the clerk's rounds go, for `/healthz`.
    pub rounds: Rounds,
    /// The newest event's number; wakes the event streams.
    pub newest: watch::Sender<i64>,
    /// The keys of the gate; none where this hub has no gate.
    pub keys: Option<GateKeys>,
    /// Cancelled when the hub stops; event streams end then.
    pub stop: CancellationToken,
}

impl Site {
    /// A hub at `public_url`, with `rate` requests per second for each client; 0 is without limit.
    pub fn new(public_url: Option<String>, secure: bool, behind_proxy: bool, rate: u32) -> Self {
        let connections = most_connections();
        let public_url = public_url.map(|url| url.trim_end_matches('/').to_owned());
        Self {
            secure: secure || public_url.as_ref().is_some_and(|url| url.starts_with("https://")),
            public_url,
            behind_proxy,
            limiter: Limiter::new(f64::from(rate), f64::from(rate) * 8.0),
            // A class behind one address begins all at once, and each of them asks twice. What is guarded is the
            // database: nobody guesses a code or a signature.
            sign_ins: Limiter::new(if rate == 0 { 0.0 } else { 2.0 }, 200.0),
            connections,
            unread: UNREAD_PATIENCE,
            streams: Room::for_streams(connections),
            metrics: Metrics::default(),
            rounds: Rounds::default(),
            newest: watch::Sender::new(0),
            keys: None,
            stop: CancellationToken::new(),
        }
    }

    /// The name of the session cookie.
    pub fn cookie(&self) -> &'static str {
        if self.secure { "__Host-kubecamp" } else { "kubecamp" }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    #[test]
    fn a_folder_of_keys_is_closed_and_one_of_other_things_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mode = || fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777;
        let opened = || fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        opened();
        GateKeys::in_folder(folder.path()).unwrap();
        assert_eq!(mode(), 0o700);
        fs::write(folder.path().join("passwd"), "x").unwrap();
        opened();
        GateKeys::in_folder(folder.path()).unwrap();
        assert_eq!(mode(), 0o755);
    }
}

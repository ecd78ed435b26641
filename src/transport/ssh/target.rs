use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use russh::keys::PrivateKey;

use crate::{core::bracketed, transport::Keyring};

/// A private key to log in with.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A file that the user named: it must be there.
    File(PathBuf),
    /// A file at a usual place: it may be missing.
    Usual(PathBuf),
    /// A key in memory.
    Key(Arc<PrivateKey>),
}

impl Identity {
    /// The file it is in, if any.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) | Self::Usual(file) => Some(file),
            Self::Key(_) => None,
        }
    }
}

/// What to do with a host whose key is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Ask through the keyring; refuse when nobody answers.
    Ask,
    /// Record the key and go on.
    Accept,
    /// Refuse.
    Refuse,
}

/// How a host proves that it is the right one.
#[derive(Debug, Clone)]
pub enum HostKeyPolicy {
    /// Its key is one of these OpenSSH public key lines; for machines that we made.
    Pinned(Vec<String>),
    /// Its key is in one of these known_hosts files.
    Files {
        /// Only read; a missing one counts as empty.
        read: Vec<PathBuf>,
        /// Read as well, and new keys are recorded in it.
        write: Option<PathBuf>,
        /// What to do with a new host.
        unknown: Unknown,
    },
}

/// A host and everything needed to log in to it.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// The user to log in as.
    pub user: String,
    /// Host name or IP address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// The name that its key is recorded under, when that is not `address`.
    pub key_name: Option<String>,
    /// Keys to try, in order.
    pub identities: Vec<Identity>,
    /// Offer only `identities`, also from the agent.
    pub identities_only: bool,
    /// The agent's socket.
    pub agent: Option<PathBuf>,
    /// Hosts to pass through, the nearest first; their own `jump` and `netns` count for the first one only.
    pub jump: Vec<SshTarget>,
    /// The network namespace to dial from, as a file.
    pub netns: Option<PathBuf>,
    /// How the host proves itself.
    pub host_keys: HostKeyPolicy,
    /// How long each part of connecting may take; waiting for the user's answers does not count.
    pub connect_timeout: Duration,
    /// A silent connection is probed this often; three missing answers end it.
    pub keepalive: Duration,
    /// Unlocked keys, and the way to ask for pass phrases and about host keys.
    pub keyring: Arc<Keyring>,
}

impl SshTarget {
    /// A target with the user's usual keys, agent and known_hosts, which refuses unknown hosts.
    pub fn new(user: impl Into<String>, address: impl Into<String>, port: u16) -> Self {
        let ssh = env::home_dir().map(|home| home.join(".ssh"));
        let usual = ["id_ed25519", "id_ecdsa", "id_rsa"];
        Self {
            user: user.into(),
            address: address.into(),
            port,
            key_name: None,
            identities: ssh.iter().flat_map(|dir| usual.map(|name| Identity::Usual(dir.join(name)))).collect(),
            identities_only: false,
            agent: env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty()).map(PathBuf::from),
            jump: vec![],
            netns: None,
            host_keys: HostKeyPolicy::Files {
                read: vec!["/etc/ssh/ssh_known_hosts".into()],
                write: ssh.map(|dir| dir.join("known_hosts")),
                unknown: Unknown::Refuse,
            },
            connect_timeout: Duration::from_secs(15),
            keepalive: Duration::from_secs(15),
            keyring: Arc::default(),
        }
    }

    /// `user@host` or `user@host:port`, as people write it.
    pub fn name(&self) -> String {
        let Self { user, address, port, .. } = self;
        let address = bracketed(address);
        if *port == 22 { format!("{user}@{address}") } else { format!("{user}@{address}:{port}") }
    }

    /// Also tries this key file first, as `--identity` asks.
    #[must_use]
    pub fn identity(mut self, file: PathBuf) -> Self {
        self.identities.insert(0, Identity::File(file));
        self
    }

    /// Shares the keyring of the run, jumps included.
    #[must_use]
    pub fn keyring(mut self, keyring: &Arc<Keyring>) -> Self {
        for hop in self.jump.iter_mut() {
            hop.keyring = Arc::clone(keyring);
        }
        self.keyring = Arc::clone(keyring);
        self
    }

    /// Says what to do with new hosts, jumps included, and records their keys in `file` when one is given, leaving
    /// the user's own known_hosts as it is.
    #[must_use]
    pub fn new_hosts(mut self, policy: Unknown, file: Option<&Path>) -> Self {
        for hop in self.jump.iter_mut().map(|hop| &mut hop.host_keys).chain([&mut self.host_keys]) {
            if let HostKeyPolicy::Files { read, write, unknown } = hop {
                *unknown = policy;
                if let Some(file) = file {
                    read.extend(write.replace(file.to_owned()));
                }
            }
        }
        self
    }

    /// The host as known_hosts files write it.
    pub(super) fn known_as(&self) -> String {
        let name = self.key_name.as_ref().unwrap_or(&self.address).to_lowercase();
        if self.port == 22 || self.key_name.is_some() { name } else { format!("[{name}]:{}", self.port) }
    }

    /// As [`Self::known_as`] without the port: lines made before the port was changed still count.
    pub(super) fn known_bare(&self) -> String {
        self.key_name.as_ref().unwrap_or(&self.address).to_lowercase()
    }
}

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use russh::keys::{
    Algorithm, Certificate, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate, ssh_key::certificate::CertType,
};

use super::{
    HostKeyPolicy, SshTarget, Unknown,
    known::{self, Entry, Marker},
};
use crate::core::{Code, Problem};

/// What is known of one host's key, read anew for each connection.
#[derive(Debug)]
pub(super) struct HostKeys {
    /// With its port, and without.
    names: [String; 2],
    pinned: Option<Vec<PublicKey>>,
    entries: Vec<Entry>,
    accepted: Vec<PublicKey>,
}

/// What to think of the key that a host shows.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the right one.
    Known,
    /// No key of this host is known.
    Unknown(PublicKey),
    /// Another key is known: a hard stop.
    Changed { shown: PublicKey, places: Vec<String> },
    /// The key is marked as revoked there: a hard stop.
    Revoked { shown: PublicKey, place: String },
}

impl HostKeys {
    /// Reads what the target's policy names.
    pub(super) fn load(target: &SshTarget) -> Result<Self, Problem> {
        let names = [target.known_as(), target.known_bare()];
        match &target.host_keys {
            HostKeyPolicy::Pinned(lines) => {
                let keys = lines.iter().map(|line| PublicKey::from_openssh(line)).collect::<Result<_, _>>();
                let keys = keys.map_err(|e| {
                    let what = format!("a host key pinned for {} cannot be read", target.name());
                    Problem::new(Code::Internal, what).because(e)
                })?;
                Ok(Self { names, pinned: Some(keys), entries: vec![], accepted: vec![] })
            }
            HostKeyPolicy::Files { read, write, .. } => {
                let mut entries = vec![];
                for file in write.iter().chain(read) {
                    entries.extend(known::read(file)?);
                }
                entries.retain(|e| names.iter().any(|name| e.is_for(name)));
                Ok(Self { names, pinned: None, entries, accepted: vec![] })
            }
        }
    }

    /// Also takes these keys as known: accepted earlier in this run, perhaps without a file to record them in.
    pub(super) fn add(&mut self, accepted: Vec<PublicKey>) {
        self.accepted = accepted;
    }

    /// The algorithms to ask the host for: those of its known keys first, so that it shows the key that we know.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let known = |algorithm: &Algorithm| {
            let same = |key: &PublicKey| key.algorithm().as_str() == plain(algorithm).as_str();
            self.pinned.iter().flatten().any(same)
                || self.entries.iter().any(|e| e.marker == Marker::None && same(&e.key))
        };
        let mut all = offered();
        all.sort_by_key(|algorithm| !known(algorithm));
        all
    }

    /// The algorithms for which a certificate is welcome: none unless an authority is known for this host.
    pub(super) fn certificates(&self) -> Vec<Algorithm> {
        if self.entries.iter().any(|e| e.marker == Marker::Authority) { offered() } else { vec![] }
    }

    /// Judges what the host shows.
    pub(super) fn judge(&self, shown: &PublicKeyOrCertificate) -> Verdict {
        let key = shown.public_key();
        if let Some(pinned) = &self.pinned {
            return if pinned.iter().any(|p| same(p, &key)) {
                Verdict::Known
            } else {
                Verdict::Changed { shown: key, places: vec!["the key recorded when the machine was made".into()] }
            };
        }
        let authority = shown.certificate().map(|c| PublicKey::new(c.signature_key().clone(), ""));
        let bad = |e: &&Entry| same(&e.key, &key) || authority.as_ref().is_some_and(|a| same(&e.key, a));
        if let Some(entry) = self.of(Marker::Revoked).find(bad) {
            return Verdict::Revoked { shown: key, place: entry.place() };
        }
        if shown.certificate().is_some_and(|c| self.vouched(c)) || self.confirmed(&key) {
            return Verdict::Known;
        }
        let places = self.places();
        if places.is_empty() { Verdict::Unknown(key) } else { Verdict::Changed { shown: key, places } }
    }

    /// Where keys of the host are recorded. A line for the bare name may confirm a key, but a host may run several servers:
    /// it does not forbid one.
    fn places(&self) -> Vec<String> {
        self.of(Marker::None).filter(|e| e.is_for(&self.names[0])).map(Entry::place).collect()
    }

    fn confirmed(&self, key: &PublicKey) -> bool {
        self.of(Marker::None).map(|e| &e.key).chain(&self.accepted).any(|known| same(known, key))
    }

    fn of(&self, marker: Marker) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |e| e.marker == marker)
    }

    /// Whether a known authority signed the certificate for this host, and it is valid today.
    fn vouched(&self, cert: &Certificate) -> bool {
        let trusted: Vec<_> = self.of(Marker::Authority).map(|e| e.key.fingerprint(HashAlg::Sha256)).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let names = cert.valid_principals();
        cert.cert_type() == CertType::Host
            && cert.validate_at(now, trusted.iter()).is_ok()
            && cert.critical_options().is_empty()
            && names.iter().any(|name| name.to_lowercase() == self.names[1])
    }
}

fn same(a: &PublicKey, b: &PublicKey) -> bool {
    a.key_data() == b.key_data()
}

/// The algorithm of the key itself: RSA signs with several hashes.
fn plain(algorithm: &Algorithm) -> Algorithm {
    match algorithm {
        Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
        other => other.clone(),
    }
}

/// Host key algorithms in our order; RSA with SHA-1 is not among them.
fn offered() -> Vec<Algorithm> {
    vec![
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// Decides about a host whose key is not known: records it and returns, or says why not.
pub(super) async fn meet(target: &SshTarget, key: &PublicKey) -> Result<(), Problem> {
    let HostKeyPolicy::Files { write, unknown, .. } = &target.host_keys else {
        return Err(Problem::new(Code::Internal, "an unknown key although keys are pinned"));
    };
    let name = target.known_as();
    let shown = describe(key);
    let refuse = || {
        let what = format!("the host key of {} is not known", target.name());
        Err(Problem::new(Code::HostKeyUnknown, what).detail([format!("it shows {shown}")]))
    };
    if *unknown == Unknown::Refuse {
        return refuse();
    }
    // Held until the key is recorded: another connection may meet the host at the same time, and see another key.
    let _turn = target.keyring.turn().await;
    if known_by_now(target, &name, key)? {
        return Ok(());
    }
    match unknown {
        Unknown::Refuse | Unknown::Accept => {}
        Unknown::Ask => match ask(target, &name, key, &shown).await {
            Some(true) => {}
            Some(false) => {
                let what = format!("the host key of {} was not accepted", target.name());
                return Err(Problem::new(Code::Declined, what).hint(Code::HostKeyUnknown.hint()));
            }
            None => return refuse(),
        },
    }
    let places = match write.clone() {
        Some(file) => keep(target, file, &name, key).await,
        None => Ok(vec![]),
    };
    if places.as_ref().is_ok_and(|places| !places.is_empty()) {
        return Err(stop(target, Verdict::Changed { shown: key.clone(), places: places? }));
    }
    target.keyring.judge(&name, key, true);
    places.map(drop)
}

/// Records the key, unless another one of the host has come into the file meanwhile: gives the places of those.
async fn keep(target: &SshTarget, file: PathBuf, name: &str, key: &PublicKey) -> Result<Vec<String>, Problem> {
    let (shown, name, key) = (file.clone(), name.to_owned(), key.clone());
    let recorded = tokio::task::spawn_blocking(move || record(&file, &name, &key)).await;
    recorded.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(|e| {
        let what = format!("cannot record the key of {} in {}", target.name(), shown.display());
        Problem::new(Code::LocalFile, what).because(e)
    })
}

/// Whether another connection has met the host meanwhile and seen this key; a problem where it saw another one, or where
/// such a key was accepted without a question earlier in this run.
fn known_by_now(target: &SshTarget, name: &str, key: &PublicKey) -> Result<bool, Problem> {
    let accepted = target.keyring.accepted(name);
    let unasked = matches!(target.host_keys, HostKeyPolicy::Files { unknown: Unknown::Accept, .. });
    let mut keys = HostKeys::load(target)?;
    let mut places = keys.places();
    if places.is_empty() && unasked && !accepted.is_empty() {
        places.push("the key accepted earlier in this run".into());
    }
    keys.add(accepted);
    match keys.confirmed(key) {
        true => Ok(true),
        false if places.is_empty() => Ok(false),
        false => Err(stop(target, Verdict::Changed { shown: key.clone(), places })),
    }
}

/// Whether the user takes the key for the host's own; `None` when nobody answers. Asked once, though all connections
/// through one jump host want to know at the same time; the caller holds the turn.
async fn ask(target: &SshTarget, name: &str, key: &PublicKey, shown: &str) -> Option<bool> {
    let keyring = &target.keyring;
    if let Some(known) = keyring.judged(name, key) {
        return Some(known);
    }
    let question = format!("{} is not known yet; it shows {shown}. Is that its key?", target.name());
    let answer = keyring.confirm(question).await?;
    if !answer {
        keyring.judge(name, key, false);
    }
    Some(answer)
}

/// Appends one line, unless it is there already; several hosts, and several processes, may do so at once. Where another key
/// of the host has come meanwhile nothing is written: gives its places.
fn record(file: &Path, name: &str, key: &PublicKey) -> io::Result<Vec<String>> {
    if let Some(dir) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut open = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
    File::lock(&open)?;
    let mut bytes = vec![];
    open.seek(SeekFrom::Start(0))?;
    open.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut here = known::parse(&text, file);
    here.retain(|e| e.marker == Marker::None && e.is_for(name));
    if here.iter().any(|e| same(&e.key, key)) {
        return Ok(vec![]);
    }
    if !here.is_empty() {
        return Ok(here.iter().map(Entry::place).collect());
    }
    let mut bare = key.clone();
    bare.set_comment("");
    let line = bare.to_openssh().map_err(io::Error::other)?;
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    open.write_all(format!("{newline}{name} {}\n", line.trim_end()).as_bytes())?;
    open.sync_data()?;
    Ok(vec![])
}

/// Type and fingerprint, as ssh and ssh-keygen show them.
fn describe(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

/// The problem of a key that must not be trusted.
pub(super) fn stop(target: &SshTarget, verdict: Verdict) -> Problem {
    let name = target.name();
    match verdict {
        Verdict::Changed { shown, places } => {
            Problem::new(Code::HostKeyChanged, format!("the key of {name} is not the one recorded"))
                .detail([format!("it shows {}", describe(&shown))])
                .detail(places.into_iter().map(|place| format!("recorded: {place}")))
        }
        Verdict::Revoked { shown, place } => {
            Problem::new(Code::HostKeyRevoked, format!("the key of {name} is revoked"))
                .detail([format!("it shows {}", describe(&shown)), format!("revoked: {place}")])
        }
        Verdict::Known | Verdict::Unknown(_) => Problem::new(Code::Internal, format!("{name}: no reason to stop")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        core::Secret,
        transport::{Ask, Keyring, ssh::KeyPair},
    };

    /// A user who gives this answer, and what was asked.
    struct User(bool, Mutex<Vec<String>>);

    impl Ask for User {
        fn secret(&self, _: &str) -> Option<Secret> {
            None
        }

        fn confirm(&self, question: &str) -> Option<bool> {
            self.1.lock().unwrap().push(question.to_owned());
            Some(self.0)
        }
    }

    fn key(name: &str) -> PublicKey {
        PublicKey::from_openssh(&KeyPair::new(name).unwrap().public).unwrap()
    }

    #[tokio::test]
    async fn of_two_keys_at_once_one_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (key("first"), key("second"));
        for file in [None, Some(dir.path().join("known_hosts"))] {
            let keyring = Arc::new(Keyring::default());
            let mut host = SshTarget::new("me", "host.example.org", 22).keyring(&keyring);
            host.host_keys = HostKeyPolicy::Files { read: vec![], write: file.clone(), unknown: Unknown::Accept };
            let met = tokio::join!(meet(&host, &first), meet(&host, &second), meet(&host, &first));
            assert_eq!(met.0.err().map(|p| p.code), None);
            assert_eq!(met.1.err().map(|p| p.code), Some(Code::HostKeyChanged));
            assert_eq!(met.2.err().map(|p| p.code), None);
            assert_eq!(keyring.accepted(&host.known_as()).len(), 1);
            let Some(file) = file else { continue };
            assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
            // Another process may have been between the look and the lock.
            assert_eq!(record(&file, &host.known_as(), &second).unwrap().len(), 1);
            assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1);
        }
    }

    #[tokio::test]
    async fn one_jump_host_of_many_hosts_is_asked_about_once() {
        let (first, second) = (key("first"), key("second"));
        for (answer, code) in [(true, None), (false, Some(Code::Declined))] {
            let user = Arc::new(User(answer, Mutex::default()));
            let keyring = Arc::new(Keyring::new(Arc::clone(&user) as Arc<dyn Ask>));
            let mut gate = SshTarget::new("me", "gate.example.org", 22).keyring(&keyring);
            gate.host_keys = HostKeyPolicy::Files { read: vec![], write: None, unknown: Unknown::Ask };
            let met = tokio::join!(meet(&gate, &first), meet(&gate, &first), meet(&gate, &first));
            for met in [met.0, met.1, met.2] {
                assert_eq!(met.err().map(|p| p.code), code);
            }
            assert_eq!(user.1.lock().unwrap().len(), 1);
            assert_eq!(keyring.accepted(&gate.known_as()).len(), usize::from(answer));
            // Another key is another question.
            assert_eq!(meet(&gate, &second).await.err().map(|p| p.code), code);
            assert_eq!(user.1.lock().unwrap().len(), 2);
        }
    }
}

use std::{path::Path, sync::Arc, time::Duration};

use russh::{
    MethodKind, SendError, Signer,
    client::{AuthResult, Handle},
    keys::{
        Algorithm, Certificate, HashAlg, PrivateKey, PublicKey,
        agent::{AgentIdentity, client::AgentClient},
        key::PrivateKeyWithHashAlg,
    },
};
use tokio::net::UnixStream;

use super::{
    Identity, SshTarget,
    connect::{Client, limit},
    key::{Found, unlock, unreadable},
};
use crate::core::{Code, Problem};

/// Logs in, trying named keys, then the agent's, then those at the usual places.
pub(super) async fn login(session: &mut Handle<Client>, target: &SshTarget) -> Result<(), Problem> {
    let mut login = Login { session, target, tried: vec![], locked: vec![], methods: None, rsa: None };
    let mut keys = login.read_keys()?;
    let mut agent = Agent::open(target.agent.as_deref(), &mut login.tried).await;
    // A named key that the agent holds is signed for by the agent: its file may be encrypted.
    let named = keys.iter().take_while(|k| !k.usual).count();
    let usual = keys.split_off(named);
    let done = login.files(keys, &mut agent).await?
        || login.rest_of_agent(&usual, &mut agent).await?
        || login.files(usual, &mut agent).await?;
    if done { Ok(()) } else { Err(login.refused()) }
}

struct Login<'a> {
    session: &'a mut Handle<Client>,
    target: &'a SshTarget,
    /// One line for each key that was tried, and what became of it.
    tried: Vec<String>,
    /// Encrypted keys that nobody opened though they were wanted.
    locked: Vec<String>,
    /// What the server would still take, once it said so.
    methods: Option<Vec<MethodKind>>,
    /// The hash for RSA signatures, once the server was asked.
    rsa: Option<Option<HashAlg>>,
}

struct Candidate {
    name: String,
    found: Found,
    usual: bool,
    certificate: Option<Certificate>,
}

impl Login<'_> {
    /// Reads the key files; one that the user named must be readable.
    fn read_keys(&mut self) -> Result<Vec<Candidate>, Problem> {
        let mut keys = vec![];
        for identity in &self.target.identities {
            let (found, usual) = match identity {
                Identity::Key(key) => (Found::Open(Arc::clone(key)), false),
                Identity::File(file) => (Found::read(file).map_err(|e| unreadable(file, &e.to_string()))?, false),
                Identity::Usual(file) => match Found::read(file) {
                    Ok(found) => (found, true),
                    Err(_) => continue,
                },
            };
            let name = identity.file().map_or_else(|| "the lab's own key".into(), |f| f.display().to_string());
            match (&found, identity) {
                (Found::Bad(why), Identity::File(file)) => return Err(unreadable(file, why)),
                (Found::Bad(why), _) => self.tried.push(format!("{name}: {why}")),
                _ => keys.push(Candidate { name, certificate: certificate(identity.file()), found, usual }),
            }
        }
        Ok(keys)
    }

    async fn files(&mut self, keys: Vec<Candidate>, agent: &mut Agent) -> Result<bool, Problem> {
        for key in keys {
            if self.candidate(key, agent).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn candidate(&mut self, key: Candidate, agent: &mut Agent) -> Result<bool, Problem> {
        if let Some(held) = key.found.public().and_then(|public| agent.take(public)) {
            return self.with_agent(held, agent, &key.name).await;
        }
        let opened = match &key.found {
            Found::Open(open) => Arc::clone(open),
            Found::Locked { file, public } => {
                // The server is asked first whether it would take the key, so that no pass phrase is asked in vain.
                if let Some(public) = public
                    && !self.wanted(public).await?
                {
                    self.tried.push(format!("{}: refused", key.name));
                    return Ok(false);
                }
                let Some(open) = unlock(file, &self.target.keyring).await else {
                    self.tried.push(format!("{}: encrypted, and no pass phrase was given", key.name));
                    self.locked.push(key.name);
                    return Ok(false);
                };
                open
            }
            Found::Public(_) => {
                self.tried.push(format!("{}: a public key, and no agent holds its private one", key.name));
                return Ok(false);
            }
            Found::Bad(_) => return Ok(false),
        };
        self.with_key(opened, key.certificate, &key.name).await
    }

    async fn with_key(&mut self, key: Arc<PrivateKey>, cert: Option<Certificate>, name: &str) -> Result<bool, Problem> {
        let (user, wait) = (self.target.user.clone(), self.target.connect_timeout);
        if let Some(cert) = cert {
            let answer = limit(wait, self.session.authenticate_openssh_cert(&user, Arc::clone(&key), cert)).await;
            let answer = self.answer(answer)?;
            if self.judge(answer, &format!("{name} with its certificate")) {
                return Ok(true);
            }
        }
        let hash = self.hash_for(&key.algorithm()).await;
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let answer = limit(wait, self.session.authenticate_publickey(&user, key)).await;
        let answer = self.answer(answer)?;
        Ok(self.judge(answer, name))
    }

    async fn with_agent(&mut self, held: AgentIdentity, agent: &mut Agent, name: &str) -> Result<bool, Problem> {
        let Some(client) = &mut agent.client else { return Ok(false) };
        let hash = self.hash_for(&held.public_key().algorithm()).await;
        let user = &self.target.user;
        // No limit here: the agent may wait for a touch or a confirmation.
        let answer = match held {
            AgentIdentity::PublicKey { key, .. } => {
                self.session.authenticate_publickey_with(user, key, hash, client).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                self.session.authenticate_certificate_with(user, certificate, hash, client).await
            }
        };
        match answer {
            Ok(answer) => {
                self.gone()?;
                Ok(self.judge(answer, &format!("{name} (agent)")))
            }
            Err(error) => {
                self.tried.push(format!("{name} (agent): {error}"));
                Ok(false)
            }
        }
    }

    /// Whether the server would take a signature by `public`.
    async fn wanted(&mut self, public: &PublicKey) -> Result<bool, Problem> {
        let hash = self.hash_for(&public.algorithm()).await;
        let (target, mut probe) = (self.target, Probe);
        let ask = self.session.authenticate_publickey_with(&target.user, public.clone(), hash, &mut probe);
        match limit(target.connect_timeout, ask).await {
            Some(Err(Probed::Wanted)) => Ok(true),
            Some(_) => self.gone().map(|()| false),
            None => Err(self.target.unreachable("logging in took too long")),
        }
    }

    async fn rest_of_agent(&mut self, usual: &[Candidate], agent: &mut Agent) -> Result<bool, Problem> {
        if self.target.identities_only {
            return Ok(false);
        }
        // Keys that also lie at the usual places come first: most likely they are the right ones.
        agent.held.sort_by_key(|held| !usual.iter().any(|k| k.found.public() == Some(held.public_key().as_ref())));
        while let Some(held) = agent.next() {
            let name = match held.comment() {
                "" => held.public_key().fingerprint(HashAlg::Sha256).to_string(),
                comment => comment.to_owned(),
            };
            if self.with_agent(held, agent, &name).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn hash_for(&mut self, algorithm: &Algorithm) -> Option<HashAlg> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return None;
        }
        if self.rsa.is_none() {
            // Servers that do not say are old; those since 2017 take SHA-256.
            let best = self.session.best_supported_rsa_hash().await.ok().flatten();
            self.rsa = Some(best.unwrap_or(Some(HashAlg::Sha256)));
        }
        self.rsa.flatten()
    }

    fn answer(&self, answer: Option<Result<AuthResult, russh::Error>>) -> Result<AuthResult, Problem> {
        self.gone()?;
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(self.target.unreachable("the connection broke while logging in").because(error)),
            None => Err(self.target.unreachable("logging in took too long")),
        }
    }

    /// A server hangs up after too many keys: then everything tried so far is the answer.
    fn gone(&self) -> Result<(), Problem> {
        if self.session.is_closed() { Err(self.refused()) } else { Ok(()) }
    }

    fn judge(&mut self, answer: AuthResult, name: &str) -> bool {
        match answer {
            AuthResult::Success => return true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                let outcome = if partial_success { "accepted, but the server wants more" } else { "refused" };
                self.tried.push(format!("{name}: {outcome}"));
                self.methods = Some(remaining_methods.iter().copied().collect());
            }
        }
        false
    }

    fn refused(&self) -> Problem {
        let target = self.target;
        if let Some(key) = self.locked.first() {
            return Problem::new(Code::KeyLocked, format!("{} needs the pass phrase of {key}", target.name()))
                .detail(self.tried.clone());
        }
        let mut problem = Problem::new(Code::HostAuth, format!("{} did not let us in", target.name()));
        problem = if self.tried.is_empty() {
            problem.detail(["no private key was found, and no agent runs"])
        } else {
            problem.detail(self.tried.clone())
        };
        if self.session.is_closed() {
            return problem
                .detail(["the host hung up"])
                .hint("Too many keys may have been offered: name the right one with --identity.");
        }
        let password = |m: &MethodKind| matches!(m, MethodKind::Password | MethodKind::KeyboardInteractive);
        if self.methods.iter().flatten().any(password) {
            let line = format!("ssh-copy-id -p {} {}@{}", target.port, target.user, target.address);
            return problem
                .hint(format!("Passwords are not offered to hosts; install a key first: {line}"))
                .hint(Code::HostAuth.hint());
        }
        problem
    }
}

/// The certificate beside a key file, if there is one.
fn certificate(file: Option<&Path>) -> Option<Certificate> {
    let mut beside = file?.as_os_str().to_owned();
    beside.push("-cert.pub");
    Certificate::from_openssh(std::fs::read_to_string(beside).ok()?.trim()).ok()
}

/// The keys that the user's agent holds and that were not tried yet.
struct Agent {
    client: Option<AgentClient<UnixStream>>,
    held: Vec<AgentIdentity>,
}

impl Agent {
    /// An agent that does not answer is noted among what was tried, and else as good as none.
    async fn open(socket: Option<&Path>, tried: &mut Vec<String>) -> Self {
        let none = Self { client: None, held: vec![] };
        let Some(socket) = socket else { return none };
        let listed = tokio::time::timeout(Duration::from_secs(5), async {
            let mut client = AgentClient::connect_uds(socket).await?;
            let held = client.request_identities().await?;
            Ok::<_, russh::keys::Error>((client, held))
        });
        match listed.await {
            Ok(Ok((client, held))) => Self { client: Some(client), held },
            Ok(Err(error)) => {
                tried.push(format!("agent {}: {error}", socket.display()));
                none
            }
            Err(_) => {
                tried.push(format!("agent {}: does not answer", socket.display()));
                none
            }
        }
    }

    fn take(&mut self, public: &PublicKey) -> Option<AgentIdentity> {
        let at = self.held.iter().position(|held| held.public_key().key_data() == public.key_data())?;
        Some(self.held.remove(at))
    }

    fn next(&mut self) -> Option<AgentIdentity> {
        (!self.held.is_empty()).then(|| self.held.remove(0))
    }
}

/// Signs nothing: it only learns whether a signature is wanted.
struct Probe;

#[derive(Debug)]
enum Probed {
    Wanted,
    Gone,
}

impl From<SendError> for Probed {
    fn from(_: SendError) -> Self {
        Self::Gone
    }
}

impl Signer for Probe {
    type Error = Probed;

    async fn auth_sign(&mut self, _: &AgentIdentity, _: Option<HashAlg>, _: Vec<u8>) -> Result<Vec<u8>, Probed> {
        Err(Probed::Wanted)
    }
}

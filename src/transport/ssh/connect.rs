use std::{
    fmt,
    future::Future,
    io::ErrorKind,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    ChannelStream, Disconnect, Preferred, cipher,
    client::{Config, DisconnectReason, Handle, Handler, Msg, connect_stream},
    keys::PublicKey,
    keys::PublicKeyOrCertificate,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_util::task::TaskTracker;

use super::{
    SshTarget, auth,
    hostkey::{self, HostKeys, Verdict},
};
use crate::{
    core::{Code, Problem},
    transport::dial,
};

/// Commands at once on one connection. sshd allows ten sessions by default, but frees them late: six at once have
/// been refused.
pub(super) const AT_ONCE: usize = 5;

/// How long closing waits for commands that are being ended, and for each host to be told.
const PARTING: Duration = Duration::from_secs(3);

/// A live connection, through all its jumps.
pub(super) struct Link {
    pub(super) session: Handle<Client>,
    /// The connections it runs through, nearest first; they live as long as this one.
    through: Vec<Handle<Client>>,
    pub(super) slots: Arc<Semaphore>,
    /// Commands that are being ended because nobody waits for them any more.
    pub(super) endings: TaskTracker,
    gone: Gone,
}

impl Link {
    /// Why the connection ended, as far as it is known.
    pub(super) fn why(&self) -> String {
        self.gone.why()
    }

    /// Says goodbye, also to the jumps, last first; commands that were given up get a moment to end before.
    pub(super) async fn goodbye(&self) {
        self.endings.close();
        let _ = limit(PARTING, self.endings.wait()).await;
        for session in [&self.session].into_iter().chain(self.through.iter().rev()) {
            // A link that is gone already needs no goodbye, and one that takes no more of what waits gets none.
            let _ = limit(PARTING, session.disconnect(Disconnect::ByApplication, "", "")).await;
        }
    }
}

/// Connects and logs in to the target, through its jumps.
///
/// A new host's key is settled outside of the connection, which is then made anew: no server waits for an answer. One that
/// did not wait for a pass phrase is connected to anew as well.
pub(super) async fn connect(target: &SshTarget) -> Result<Link, Problem> {
    loop {
        match attempt(target).await {
            Ok(link) => return Ok(link),
            Err(Stop::Problem(problem)) => return Err(*problem),
            Err(Stop::Unknown(hop, key)) => hostkey::meet(hop, &key).await?,
            Err(Stop::Waited) => {}
        }
    }
}

enum Stop<'a> {
    Problem(Box<Problem>),
    Unknown(&'a SshTarget, Box<PublicKey>),
    /// The host hung up while the user was asked for a pass phrase, which is known now.
    Waited,
}

impl From<Problem> for Stop<'_> {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

async fn attempt(target: &SshTarget) -> Result<Link, Stop<'_>> {
    let mut through: Vec<Handle<Client>> = vec![];
    for hop in target.jump.iter().chain([target]) {
        let gone = Gone::default();
        let mut session = match through.last() {
            None => shake(tcp(hop, target).await?, hop, &gone).await?,
            Some(last) => shake(tunnel(last, hop).await?, hop, &gone).await?,
        };
        let opened = hop.keyring.opened();
        if let Err(problem) = auth::login(&mut session, hop).await {
            let broke = session.is_closed() || problem.code == Code::HostUnreachable;
            // Servers give two minutes to log in, and users may look for a pass phrase for longer.
            return Err(if broke && hop.keyring.opened() > opened {
                Stop::Waited
            } else {
                problem.detail(gone.said()).into()
            });
        }
        if std::ptr::eq(hop, target) {
            return Ok(Link {
                session,
                through,
                slots: Arc::new(Semaphore::new(AT_ONCE)),
                endings: TaskTracker::new(),
                gone,
            });
        }
        through.push(session);
    }
    Err(Problem::new(Code::Internal, "a target without a last hop").into())
}

/// The TCP connection to the first hop.
async fn tcp(hop: &SshTarget, target: &SshTarget) -> Result<tokio::net::TcpStream, Problem> {
    let netns = hop.netns.as_deref().or(target.netns.as_deref());
    let mut last = None;
    for addr in addresses(hop).await? {
        match dial(addr, netns, hop.connect_timeout).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some((addr, error)),
        }
    }
    Err(match last {
        Some((addr, error)) if error.kind() == ErrorKind::TimedOut => {
            hop.unreachable(&format!("no answer from {addr} within {} s", hop.connect_timeout.as_secs()))
        }
        Some((addr, error)) => hop.unreachable(&format!("cannot connect to {addr}")).because(error),
        None => Problem::new(Code::HostName, format!("{} has no address", hop.address)),
    })
}

async fn addresses(hop: &SshTarget) -> Result<Vec<SocketAddr>, Problem> {
    let what = || format!("the name {} cannot be resolved", hop.address);
    let found = tokio::net::lookup_host((hop.address.as_str(), hop.port));
    match limit(hop.connect_timeout, found).await {
        Some(Ok(found)) => Ok(found.collect()),
        Some(Err(error)) => Err(Problem::new(Code::HostName, what()).because(error)),
        None => Err(Problem::new(Code::HostName, what()).detail(["no answer in time"])),
    }
}

/// A connection to `hop` through the last jump.
async fn tunnel(last: &Handle<Client>, hop: &SshTarget) -> Result<ChannelStream<Msg>, Problem> {
    let open = last.channel_open_direct_tcpip(&hop.address, u32::from(hop.port), "127.0.0.1", 0);
    match limit(hop.connect_timeout, open).await {
        Some(Ok(channel)) => Ok(channel.into_stream()),
        Some(Err(error)) => Err(hop.unreachable("the jump host cannot connect to it").because(error)),
        None => Err(hop.unreachable("no answer through the jump host")),
    }
}

/// The SSH handshake, with the host's key checked.
async fn shake<'a, S>(stream: S, hop: &'a SshTarget, gone: &Gone) -> Result<Handle<Client>, Stop<'a>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut keys = HostKeys::load(hop)?;
    keys.add(hop.keyring.accepted(&hop.known_as()));
    let config = Arc::new(config(hop, &keys));
    let client = Client { keys, gone: gone.clone() };
    match limit(hop.connect_timeout, connect_stream(config, stream, client)).await {
        Some(Ok(session)) => Ok(session),
        Some(Err(Broken::Key(verdict))) => match *verdict {
            Verdict::Unknown(key) => Err(Stop::Unknown(hop, Box::new(key))),
            verdict => Err(hostkey::stop(hop, verdict).into()),
        },
        Some(Err(Broken::Ssh(error))) => Err(broken_off(hop, error, gone).into()),
        None => Err(hop.unreachable("the SSH handshake took too long").into()),
    }
}

/// The problem of a handshake that did not come to its end.
fn broken_off(hop: &SshTarget, error: russh::Error, gone: &Gone) -> Problem {
    let was_closed = match &error {
        russh::Error::Disconnect | russh::Error::HUP => true,
        russh::Error::IO(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof),
        _ => false,
    };
    let problem = hop.unreachable("the SSH handshake failed").detail(gone.said()).because(error);
    if !was_closed {
        return problem;
    }
    // What newer sshd do by PerSourcePenalties, and all where too many log in at once.
    problem.hint(Code::HostUnreachable.hint()).hint(
        "The server closed the connection at once. One that refused several logins does so for some seconds up to a \
         minute: wait, and see that the user and the key are the right ones.",
    )
}

fn config(hop: &SshTarget, keys: &HostKeys) -> Config {
    Config {
        preferred: Preferred {
            key: keys.algorithms().into(),
            host_key_certificates: keys.certificates().into(),
            // The default begins with the slowest and lacks the fastest.
            cipher: vec![cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305].into(),
            ..Preferred::DEFAULT
        },
        nodelay: true,
        keepalive_interval: Some(hop.keepalive),
        keepalive_max: 3,
        ..Config::default()
    }
}

/// Waits for `work`; `None` when it takes longer than `time`.
pub(super) async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
    tokio::time::timeout(time, work).await.ok()
}

impl SshTarget {
    /// The problem of a host that cannot be reached.
    pub(super) fn unreachable(&self, why: &str) -> Problem {
        Problem::new(Code::HostUnreachable, format!("{}: {why}", self.name()))
    }
}

/// Last words of a connection, kept for the one who asks later.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone(Arc<Mutex<Option<String>>>);

impl Gone {
    fn note(&self, words: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
    }

    fn said(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn why(&self) -> String {
        self.said().unwrap_or_else(|| "the host ended it".into())
    }
}

/// Our side of a connection as russh calls it.
pub(super) struct Client {
    keys: HostKeys,
    gone: Gone,
}

/// Why russh gave up a connection.
#[derive(Debug)]
pub(super) enum Broken {
    Key(Box<Verdict>),
    Ssh(russh::Error),
}

impl From<russh::Error> for Broken {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("its host key is not the right one"),
            Self::Ssh(error) => error.fmt(f),
        }
    }
}

impl Handler for Client {
    type Error = Broken;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Broken> {
        match self.keys.judge(shown) {
            Verdict::Known => Ok(true),
            verdict => Err(Broken::Key(Box::new(verdict))),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Broken>) -> Result<(), Broken> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.gone.note(format!("the host said: {}", crate::core::shell::printable(&info.message)));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.gone.note(error.to_string());
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_closes_the_door_at_once_may_open_it_again() {
        let target = SshTarget::new("root", "192.0.2.1", 22);
        let hints = |error| broken_off(&target, error, &Gone::default()).all_hints();
        let reset = || std::io::Error::from(ErrorKind::ConnectionReset);
        for closed in [russh::Error::Disconnect, russh::Error::HUP, russh::Error::IO(reset())] {
            let told = hints(closed);
            assert!(told[0] == Code::HostUnreachable.hint() && told[1].contains("up to a minute"), "{told:?}");
        }
        assert_eq!(hints(russh::Error::Kex), [Code::HostUnreachable.hint()]);
    }
}

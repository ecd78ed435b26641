use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use hyper::service::Service;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    AppState, Refused, api, app,
    guard::{Peer, network_of},
    patient::Patient,
    room::{Full, Place, Room},
    tls,
};
use crate::core::{Code, Problem};

/// A client that has not sent its headers by then is let go; also one that asks nothing more.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// A proxy keeps idle connections for a minute or two, and must not send a request on one that ends in that moment: a
/// POST is not sent again, and its sender is told 502.
const PROXY_PATIENCE: Duration = Duration::from_secs(150);
/// So many clients at a time are told that they have too many connections; others are let go without a word.
const MOST_TOLD: usize = 16;
/// How long requests may still run after the hub was told to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// Where the hub listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port; port 0 is any that is free.
    Tcp(SocketAddr),
    /// A Unix socket of mode 0660.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("a Unix socket is named as unix:/PATH".into()),
            None => {
                text.parse().map(Self::Tcp).map_err(|_| "use ADDRESS:PORT, as 127.0.0.1:8443, or unix:/PATH".into())
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether only this computer can reach it.
pub fn is_loopback(listen: &Listen) -> bool {
    match listen {
        Listen::Tcp(addr) => addr.ip().is_loopback(),
        Listen::Unix(_) => true,
    }
}

/// A bound socket; nothing is served yet.
#[derive(Debug)]
pub struct Serving {
    socket: Socket,
    /// Where it listens in truth: with the port that was chosen.
    pub listen: Listen,
    tls: Option<Tls>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Clone)]
struct Tls(TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Serving {
    /// Binds; `tls` are the certificate's and the key's file.
    pub async fn bind(listen: &Listen, tls: Option<(PathBuf, PathBuf)>) -> Result<Self, Problem> {
        let tls = tls.map(|(cert, key)| tls::acceptor(&cert, &key).map(Tls)).transpose()?;
        let fail = |e: io::Error| Problem::new(Code::HubListen, format!("cannot listen on {listen}")).because(e);
        match listen {
            Listen::Tcp(addr) => {
                let socket = TcpListener::bind(addr).await.map_err(fail)?;
                let listen = Listen::Tcp(socket.local_addr().map_err(fail)?);
                Ok(Self { socket: Socket::Tcp(socket), listen, tls })
            }
            Listen::Unix(path) => {
                clear_dead_socket(path).await.map_err(fail)?;
                let socket = UnixListener::bind(path).map_err(fail)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
                Ok(Self { socket: Socket::Unix(socket), listen: listen.clone(), tls })
            }
        }
    }
}

/// Removes a socket that nobody listens on any more; anything else there is left alone.
async fn clear_dead_socket(path: &PathBuf) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        Err(_) => fs::remove_file(path),
    }
}

/// Serves until `stop`; then requests that run may end, and the socket's file is removed.
pub async fn serve(serving: Serving, state: AppState, stop: CancellationToken) {
    let site = Arc::clone(&state.site);
    tokio::spawn(api::watch_events(state.clone()));
    let hall = Hall {
        router: app(state),
        refusing: Router::new().fallback(too_many),
        tls: serving.tls.clone(),
        addresses: (!site.behind_proxy).then(|| Room::for_addresses(site.connections)),
        told: Room::new(MOST_TOLD, MOST_TOLD),
        patience: if site.behind_proxy { PROXY_PATIENCE } else { HEADER_PATIENCE },
        unread: site.unread,
    };
    let permits = Arc::new(Semaphore::new(site.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&serving.socket) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => hall.admit(stream, peer, &graceful, permit),
            Err(error) => {
                // Out of file descriptors, or a client that went away at once: neither ends the hub.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    site.stop.cancel();
    if timeout(LAST_REQUESTS, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    if let Listen::Unix(path) = &serving.listen {
        let _ = fs::remove_file(path);
    }
}

/// The answer on each connection that one address has too many.
async fn too_many() -> Response {
    let problem = Problem::new(Code::HubTooMany, "your address has too many connections open")
        .hint("Close some of them, or idle ones, and try again.");
    let mut response = Refused { retry: Some(10), ..problem.into() }.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Where connections are let in.
struct Hall {
    router: Router,
    refusing: Router,
    tls: Option<Tls>,
    /// By address; none behind a proxy, which is one address for all.
    addresses: Option<Arc<Room>>,
    told: Arc<Room>,
    /// With clients that ask nothing.
    patience: Duration,
    /// With clients that read nothing.
    unread: Duration,
}

impl Hall {
    fn admit(&self, stream: AnyStream, peer: Peer, graceful: &GracefulShutdown, permit: OwnedSemaphorePermit) {
        let address = peer.from.map(network_of).zip(self.addresses.as_ref());
        let (router, place) = match address.map(|(address, room)| room.enter(&address)).transpose() {
            Ok(place) => (&self.router, place),
            Err(Full::Each(_) | Full::All) => match self.told.enter("") {
                Ok(place) => (&self.refusing, Some(place)),
                Err(_) => return,
            },
        };
        // Around the socket itself: under TLS too what counts is what the client takes.
        let stream = Box::new(Patient::new(stream, self.unread));
        attend(stream, peer, self.tls.clone(), router, graceful, self.patience, (permit, place));
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
type AnyStream = Box<dyn Stream>;

async fn accept(socket: &Socket) -> io::Result<(AnyStream, Peer)> {
    match socket {
        Socket::Tcp(socket) => {
            let (stream, addr) = socket.accept().await?;
            stream.set_nodelay(true)?;
            let to = stream.local_addr()?.ip();
            Ok((Box::new(stream), Peer { from: Some(addr.ip()), to: Some(to) }))
        }
        Socket::Unix(socket) => {
            let (stream, _) = socket.accept().await?;
            Ok((Box::new(stream), Peer { from: None, to: None }))
        }
    }
}

fn attend(
    stream: AnyStream,
    peer: Peer,
    tls: Option<Tls>,
    router: &Router,
    graceful: &GracefulShutdown,
    patience: Duration,
    held: (OwnedSemaphorePermit, Option<Place>),
) {
    let inner = TowerToHyperService::new(router.clone());
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        inner.call(request)
    });
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let _held = held;
        let stream: AnyStream = match tls {
            None => stream,
            Some(Tls(acceptor)) => match timeout(HEADER_PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                _ => return,
            },
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away in the middle is everyday; the guard has logged its request.
        let _ = watcher.watch(connection).await;
    });
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::hub::{
        desk::Desk,
        http::{Clock, Site},
        store::Store,
    };

    #[test]
    fn addresses_are_read() {
        let tcp: Listen = "127.0.0.1:80".parse().unwrap();
        assert!(is_loopback(&tcp) && !is_loopback(&"0.0.0.0:80".parse().unwrap()));
        assert!(is_loopback(&"[::1]:80".parse().unwrap()));
        assert_eq!("unix:/run/hub".parse(), Ok(Listen::Unix("/run/hub".into())));
        for bad in ["unix:run", "80", "localhost", "http://127.0.0.1:80", ""] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.sock");
        let listen = Listen::Unix(path.clone());
        let first = Serving::bind(&listen, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(Serving::bind(&listen, None).await.unwrap_err().code, Code::HubListen);
        drop(first);
        drop(Serving::bind(&listen, None).await.unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert_eq!(Serving::bind(&listen, None).await.unwrap_err().code, Code::HubListen);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    /// A hub that listens on a port of its own: its address, how it is told to stop, and its end.
    async fn open(
        folder: &std::path::Path,
        site: Site,
    ) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let store = Store::open(&format!("sqlite://{}", folder.join("hub.db").display())).await.unwrap();
        let state = AppState { desk: Desk::new(store), clock: Clock::system(), site: Arc::new(site) };
        let serving = Serving::bind(&"127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let Listen::Tcp(addr) = serving.listen else { unreachable!() };
        let stop = CancellationToken::new();
        (addr, stop.clone(), tokio::spawn(serve(serving, state, stop)))
    }

    #[tokio::test]
    async fn a_proxy_finds_its_connections_open() {
        let folder = tempfile::tempdir().unwrap();
        let (addr, stop, served) = open(folder.path(), Site::new(None, true, true, 0)).await;
        let mut stream = TcpStream::connect(addr).await.unwrap();
        for pause in [HEADER_PATIENCE + Duration::from_secs(1), Duration::ZERO] {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: hub\r\n\r\n").await.unwrap();
            let (mut heard, mut part) = (String::new(), [0; 4096]);
            while !heard.ends_with('}') {
                let n = stream.read(&mut part).await.unwrap();
                assert_ne!(n, 0, "it was closed: {heard}");
                heard.push_str(&String::from_utf8_lossy(&part[..n]));
            }
            assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
            tokio::time::sleep(pause).await;
        }
        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn who_reads_no_answer_leaves_the_place_to_others() {
        let folder = tempfile::tempdir().unwrap();
        // A proxy's connections may be idle for long: it is not for that reason that this one ends.
        let site = Site { connections: 1, unread: Duration::from_millis(500), ..Site::new(None, false, true, 0) };
        let (addr, stop, served) = open(folder.path(), site).await;
        let mut deaf = TcpStream::connect(addr).await.unwrap();
        // More than the system keeps for a client that does not read.
        let asked = "GET /api/v1/openapi.json HTTP/1.1\r\nhost: hub\r\n\r\n".repeat(600);
        deaf.write_all(asked.as_bytes()).await.unwrap();
        let mut next = TcpStream::connect(addr).await.unwrap();
        next.write_all(b"GET /healthz HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let heard = timeout(PROXY_PATIENCE / 3, next.read_to_string(&mut answer)).await;
        assert!(heard.is_ok() && answer.starts_with("HTTP/1.1 200 "), "the place is still taken: {answer}");
        drop(deaf);
        stop.cancel();
        served.await.unwrap();
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_connections() {
        let folder = tempfile::tempdir().unwrap();
        let site = Site { connections: 16, ..Site::new(None, false, false, 0) };
        let (addr, stop, served) = open(folder.path(), site).await;
        let ask = async || {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let mut idle = vec![];
        for _ in 0..4 {
            idle.push(TcpStream::connect(addr).await.unwrap());
        }
        let told = ask().await;
        assert!(told.starts_with("HTTP/1.1 429 ") && told.contains("KC-HUB-TOO-MANY"), "{told}");
        idle.pop();
        let began = std::time::Instant::now();
        while !ask().await.starts_with("HTTP/1.1 200 ") {
            assert!(began.elapsed() < HEADER_PATIENCE / 2, "a connection that ended is still counted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Who asks nothing is let go.
        let mut byte = [0];
        let end = timeout(2 * HEADER_PATIENCE, idle.remove(0).read(&mut byte)).await;
        assert!(end.is_ok(), "an idle connection stays open");
        stop.cancel();
        served.await.unwrap();
    }
}

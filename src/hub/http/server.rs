use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::Request};
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

use super::{AppState, api, app, guard::Peer, tls};
use crate::core::{Code, Problem};

/// Connections at a time; more wait in the kernel's queue.
const MOST_CONNECTIONS: usize = 2048;
/// A client that has not sent its headers by then is let go.
const HEADER_PATIENCE: Duration = Duration::from_secs(15);
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
    let router = app(state);
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
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
            Ok((stream, peer)) => admit(stream, peer, serving.tls.clone(), &router, &graceful, permit),
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

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
type AnyStream = Box<dyn Stream>;

async fn accept(socket: &Socket) -> io::Result<(AnyStream, Peer)> {
    match socket {
        Socket::Tcp(socket) => {
            let (stream, addr) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream), Peer(Some(addr.ip()))))
        }
        Socket::Unix(socket) => {
            let (stream, _) = socket.accept().await?;
            Ok((Box::new(stream), Peer(None)))
        }
    }
}

fn admit(
    stream: AnyStream,
    peer: Peer,
    tls: Option<Tls>,
    router: &Router,
    graceful: &GracefulShutdown,
    permit: OwnedSemaphorePermit,
) {
    let inner = TowerToHyperService::new(router.clone());
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        inner.call(request)
    });
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let _permit = permit;
        let stream: AnyStream = match tls {
            None => stream,
            Some(Tls(acceptor)) => match timeout(HEADER_PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Box::new(stream),
                _ => return,
            },
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_PATIENCE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        // A client that goes away in the middle is everyday; the guard has logged its request.
        let _ = watcher.watch(connection).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

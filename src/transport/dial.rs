use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
use tokio::{net::TcpStream, sync::oneshot};

/// Opens a TCP connection, from inside the network namespace that the file `netns` names, if any.
///
/// Entering a foreign namespace needs root. Only a thread of its own enters it; the socket stays in the namespace it
/// was made in, whoever uses it later.
pub async fn dial(addr: SocketAddr, netns: Option<&Path>, timeout: Duration) -> io::Result<TcpStream> {
    let stream = match netns {
        None => tokio::time::timeout(timeout, TcpStream::connect(addr))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?,
        Some(netns) => {
            let (sender, receiver) = oneshot::channel();
            let netns = netns.to_owned();
            std::thread::Builder::new().name("dial".into()).spawn(move || {
                // Nobody waits any more when the caller was cancelled; the socket then closes here.
                let _ = sender.send(dial_inside(addr, &netns, timeout));
            })?;
            let stream = receiver.await.map_err(io::Error::other)??;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn dial_inside(addr: SocketAddr, netns: &PathBuf, timeout: Duration) -> io::Result<StdStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", netns.display()));
    let file = std::fs::File::open(netns).map_err(named)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|e| named(e.into()))?;
    StdStream::connect_timeout(&addr, timeout)
}

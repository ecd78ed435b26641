use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::SshTransport;
use crate::transport::LinkError;

/// A port on this computer's loopback whose connections go on from a host.
///
/// It ends when this is dropped, and they with it.
pub struct Tunnel {
    at: SocketAddr,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Listens at `port`, or where that is in use at one that is free, and goes on to the port `to` on the host's own
    /// loopback.
    ///
    /// What keeps a connection from getting there is told to `failed`.
    pub async fn open(
        link: &SshTransport,
        port: u16,
        to: u16,
        failed: impl Fn(&LinkError) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
        };
        let at = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, link.clone(), to, Arc::new(failed)));
        Ok(Self { at, task })
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddr {
        self.at
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    link: SshTransport,
    to: u16,
    failed: Arc<impl Fn(&LinkError) + Send + Sync + 'static>,
) {
    // They end with this task.
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.spawn(carry(stream, link.clone(), to, Arc::clone(&failed)));
                }
                // Too many files are open; some will be closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn carry(
    mut here: TcpStream,
    link: SshTransport,
    to: u16,
    failed: Arc<impl Fn(&LinkError) + Send + Sync + 'static>,
) {
    match link.forward("127.0.0.1", to).await {
        Ok(mut there) => {
            // What is typed does not wait for more of it.
            let _ = here.set_nodelay(true);
            // Both ends see for themselves when it breaks off.
            let _ = copy_bidirectional(&mut here, &mut there).await;
        }
        Err(error) => failed(&error),
    }
}

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use russh::{ChannelStream, client::Msg};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Mutex,
};

use super::{
    SshTarget,
    connect::{self, Link, limit},
    exec::{self, Failed},
};
use crate::{
    core::Problem,
    transport::{Cmd, Exit, Io, LinkError, Transport},
};

/// A way to a host over SSH.
///
/// Clones share one connection, which is made anew when it broke.
#[derive(Clone)]
pub struct SshTransport {
    inner: Arc<Inner>,
}

struct Inner {
    target: SshTarget,
    link: Mutex<Option<Arc<Link>>>,
    closed: AtomicBool,
}

impl SshTransport {
    /// Connects and logs in.
    pub async fn connect(target: SshTarget) -> Result<Self, Problem> {
        let link = Arc::new(connect::connect(&target).await?);
        let inner = Inner { target, link: Mutex::new(Some(link)), closed: AtomicBool::new(false) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The host at the other end.
    pub fn target(&self) -> &SshTarget {
        &self.inner.target
    }

    /// Opens a connection from the host to `host`:`port`, as the host sees them.
    pub async fn forward(&self, host: &str, port: u16) -> Result<Duplex, LinkError> {
        let mut tried = false;
        loop {
            let link = self.link().await?;
            let open = link.session.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
            return match limit(self.inner.target.connect_timeout, open).await {
                Some(Ok(channel)) => Ok(Duplex { stream: channel.into_stream(), _link: link }),
                Some(Err(error @ russh::Error::ChannelOpenFailure(_))) => {
                    Err(LinkError::Lost(format!("no way to {host}:{port} from the host: {error}")))
                }
                Some(Err(_)) if !tried => {
                    tried = true;
                    self.forget(&link).await;
                    continue;
                }
                Some(Err(error)) => Err(LinkError::Lost(error.to_string())),
                None => Err(LinkError::Timeout(self.inner.target.connect_timeout)),
            };
        }
    }

    /// The live connection, made anew when it broke; only one of several callers does so.
    async fn link(&self) -> Result<Arc<Link>, LinkError> {
        if self.inner.closed.load(Ordering::SeqCst) {
            return Err(LinkError::Lost("it was closed".into()));
        }
        let mut held = self.inner.link.lock().await;
        match &*held {
            Some(link) if !link.session.is_closed() => Ok(Arc::clone(link)),
            _ => {
                let made = connect::connect(&self.inner.target).await.map_err(|p| LinkError::Connect(Box::new(p)))?;
                Ok(Arc::clone(held.insert(Arc::new(made))))
            }
        }
    }

    /// Drops a connection that failed, unless it was replaced already.
    async fn forget(&self, broken: &Arc<Link>) {
        let mut held = self.inner.link.lock().await;
        if held.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
            *held = None;
        }
    }
}

#[async_trait]
impl Transport for SshTransport {
    async fn exec(&self, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError> {
        let mut tried = false;
        loop {
            let link = self.link().await?;
            match exec::exec(&link, cmd, io).await {
                Ok(exit) => return Ok(exit),
                Err(Failed::Link(error)) => return Err(error),
                Err(Failed::NotBegun(why)) if tried => return Err(LinkError::Lost(why)),
                Err(Failed::NotBegun(_)) => {
                    tried = true;
                    self.forget(&link).await;
                }
            }
        }
    }

    async fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        if let Some(link) = self.inner.link.lock().await.take() {
            link.goodbye().await;
        }
    }
}

/// A byte stream to a port behind a host.
pub struct Duplex {
    stream: ChannelStream<Msg>,
    /// The connection must outlive the streams in it.
    _link: Arc<Link>,
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

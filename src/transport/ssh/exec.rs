use std::{sync::Arc, time::Duration};

use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Error, Sig, client::Msg};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::connect::Link;
use crate::transport::{
    Cmd, Exit, Io, LinkError,
    feed::Feed,
    output::{Output, Stream},
};

/// How long a host may refuse every session before we believe it.
const NO_SESSION: Duration = Duration::from_secs(10);

/// How long a command that is given up may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// Why a command did not end normally.
pub(super) enum Failed {
    /// It never began: it may be tried on a new connection.
    NotBegun(String),
    /// Everything else.
    Link(LinkError),
}

impl From<LinkError> for Failed {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// Runs one command in a session of its own; its limit counts from when it has a slot.
pub(super) async fn exec(link: &Link, cmd: &Cmd, io: Io<'_>) -> Result<Exit, Failed> {
    let slot = Arc::clone(&link.slots).acquire_owned().await.map_err(|e| Failed::NotBegun(e.to_string()))?;
    match timeout(cmd.limit, run(link, slot, cmd, io)).await {
        Ok(done) => done,
        Err(_) => Err(LinkError::Timeout(cmd.limit).into()),
    }
}

async fn run(link: &Link, slot: OwnedSemaphorePermit, cmd: &Cmd, io: Io<'_>) -> Result<Exit, Failed> {
    let (reader, writer) = open(link).await?.split();
    let (output, lines) = Output::new(io);
    let writer = Arc::new(writer);
    let drain = tokio::spawn(drain(reader, output, slot));
    let mut session = Session { writer: Arc::clone(&writer), drain: Some(drain) };
    writer.exec(true, cmd.line.as_bytes()).await.map_err(|_| Failed::NotBegun(link.why()))?;
    let ended = {
        let ended = session.ended();
        let feeding = feed(&writer, cmd, io);
        tokio::pin!(ended, feeding);
        // A command may end without reading all of its input: then nobody takes the rest.
        let both = async {
            tokio::select! {
                biased;
                ended = &mut ended => Ok(ended),
                fed = &mut feeding => {
                    fed?;
                    Ok(ended.await)
                }
            }
        };
        // Lines are delivered to the last one, which comes with the end of the drain.
        let (ended, ()) = tokio::try_join!(both, async {
            lines.deliver(io).await;
            Ok::<(), LinkError>(())
        })?;
        ended
    };
    match ended {
        Some(End::Exited(exit)) => Ok(exit),
        Some(End::Refused) => Err(LinkError::Lost("the host refuses to run commands for this user".into()).into()),
        Some(End::Lost) | None => Err(LinkError::Lost(link.why()).into()),
    }
}

/// Opens a session channel. sshd refuses one while an ended command's slot is not free yet: that passes.
async fn open(link: &Link) -> Result<Channel<Msg>, Failed> {
    let (started, mut pause) = (Instant::now(), Duration::from_millis(2));
    loop {
        match link.session.channel_open_session().await {
            Ok(channel) => return Ok(channel),
            Err(Error::ChannelOpenFailure(
                ChannelOpenFailure::ConnectFailed | ChannelOpenFailure::ResourceShortage,
            )) => {
                let alone = link.slots.available_permits() + 1 >= super::connect::AT_ONCE;
                if alone && started.elapsed() > NO_SESSION {
                    return Err(LinkError::Lost("the host opens no session (sshd's MaxSessions?)".into()).into());
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Err(error @ Error::ChannelOpenFailure(_)) => return Err(LinkError::Lost(error.to_string()).into()),
            Err(_) => return Err(Failed::NotBegun(link.why())),
        }
    }
}

/// Sends the input and its end. That the channel is gone shows in the drain.
async fn feed(writer: &ChannelWriteHalf<Msg>, cmd: &Cmd, io: Io<'_>) -> Result<(), LinkError> {
    let (mut feed, mut total) = (Feed::start(&cmd.input), 0);
    while let Some(chunk) = feed.next().await {
        let chunk = chunk.map_err(LinkError::Local)?;
        let size = chunk.len() as u64;
        if writer.data_bytes(chunk).await.is_err() {
            return Ok(());
        }
        total += size;
        if let Some(note) = io.sent {
            note(total);
        }
    }
    let _ = writer.eof().await;
    Ok(())
}

/// How a session ended.
enum End {
    Exited(Exit),
    Refused,
    Lost,
}

/// Reads a channel until it is closed. One that nobody reads would stall the whole connection, so this runs as a task
/// of its own; the slot is free when the channel really is.
async fn drain(mut reader: ChannelReadHalf, mut output: Output, slot: OwnedSemaphorePermit) -> End {
    let (mut status, mut refused) = (None, false);
    while let Some(message) = reader.wait().await {
        match message {
            ChannelMsg::Data { data } => output.push(Stream::Out, &data),
            ChannelMsg::ExtendedData { data, .. } => output.push(Stream::Err, &data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(i32::try_from(exit_status).ok()),
            ChannelMsg::ExitSignal { .. } => status = Some(None),
            ChannelMsg::Failure => {
                refused = true;
                break;
            }
            _ => {}
        }
    }
    drop(slot);
    match status {
        Some(status) => End::Exited(output.finish(status)),
        None if refused => End::Refused,
        None => End::Lost,
    }
}

/// A running command; dropped before its end, it is ended on the host as well.
struct Session {
    writer: Arc<ChannelWriteHalf<Msg>>,
    drain: Option<JoinHandle<End>>,
}

impl Session {
    /// Waits for the end.
    async fn ended(&mut self) -> Option<End> {
        let ended = self.drain.as_mut()?.await.ok();
        self.drain = None;
        ended
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(drain), Ok(runtime)) = (self.drain.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(give_up(Arc::clone(&self.writer), drain));
    }
}

/// Ends a command that nobody waits for. sshd keeps the session's slot until the process is gone, so closing the
/// channel alone is not enough.
async fn give_up(writer: Arc<ChannelWriteHalf<Msg>>, mut drain: JoinHandle<End>) {
    let _ = writer.signal(Sig::TERM).await;
    let _ = writer.eof().await;
    if timeout(GRACE, &mut drain).await.is_ok() {
        return;
    }
    let _ = writer.signal(Sig::KILL).await;
    let _ = writer.close().await;
    if timeout(GRACE, &mut drain).await.is_err() {
        drain.abort();
    }
}

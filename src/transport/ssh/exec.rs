use std::{mem::take, sync::Arc, time::Duration};

use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Error, client::Msg};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::connect::Link;
use crate::core::shell::join;
use crate::transport::{
    Cmd, Exit, Io, LinkError,
    feed::Feed,
    output::{Output, Stream},
};

/// How long a host may refuse every session before we believe it.
const NO_SESSION: Duration = Duration::from_secs(10);

/// How long ending a command that is given up may take.
const GIVE_UP: Duration = Duration::from_secs(10);

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
pub(super) async fn exec(link: &Arc<Link>, cmd: &Cmd, io: Io<'_>) -> Result<Exit, Failed> {
    let slot = Arc::clone(&link.slots).acquire_owned().await.map_err(|e| Failed::NotBegun(e.to_string()))?;
    match timeout(cmd.limit, run(link, slot, cmd, io)).await {
        Ok(done) => done,
        Err(_) => Err(LinkError::Timeout(cmd.limit).into()),
    }
}

async fn run(link: &Arc<Link>, slot: OwnedSemaphorePermit, cmd: &Cmd, io: Io<'_>) -> Result<Exit, Failed> {
    let (reader, writer) = open(link).await?.split();
    let (output, lines) = Output::new(io);
    let writer = Arc::new(writer);
    let drain = tokio::spawn(drain(reader, output, slot));
    let mark = format!("KC_RUN={:016x}", rand::random::<u64>());
    let line = marked(&mark, &cmd.line);
    let mut session = Session { link: Arc::clone(link), writer: Arc::clone(&writer), mark, drain: Some(drain) };
    writer.exec(true, line).await.map_err(|_| Failed::NotBegun(link.why()))?;
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

/// Programs with which a line may begin that needs no shell of its own: no shell has a word of its own for them.
const PROGRAMS: [&str; 3] = ["sh ", "timeout ", "sudo "];

/// The command line with its mark in the environment, for whatever login shell. Plain words mean the same to all of them, and
/// need no shell in between.
fn marked(mark: &str, line: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _-./".contains(c);
    let bare = PROGRAMS.iter().any(|program| line.starts_with(program)) && line.chars().all(plain);
    if bare { format!("env {mark} {line}") } else { join(["env", mark, "sh", "-c", line]) }
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
    if let Some(before) = feed.before()
        && writer.data_bytes(before).await.is_err()
    {
        return Ok(());
    }
    while let Some(chunk) = feed.next().await {
        let chunk = chunk.map_err(LinkError::Local)?;
        if writer.data_bytes(chunk.bytes).await.is_err() {
            return Ok(());
        }
        total += chunk.counts;
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
    link: Arc<Link>,
    writer: Arc<ChannelWriteHalf<Msg>>,
    /// The variable in the environment of all of its processes.
    mark: String,
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
        let ending = give_up(Arc::clone(&self.link), Arc::clone(&self.writer), take(&mut self.mark), drain);
        self.link.endings.spawn_on(ending, &runtime);
    }
}

/// Ends a command that nobody waits for. sshd keeps a session until its process is gone, so closing the channel is not
/// enough; and it passes no signals on to root's processes. So they are looked for.
async fn give_up(link: Arc<Link>, writer: Arc<ChannelWriteHalf<Msg>>, mark: String, mut drain: JoinHandle<End>) {
    // Input that is cut off must not look like its end, hence no end-of-file before the processes are gone.
    let find = format!("grep -lzx {mark} /proc/[0-9]*/environ | cut -d/ -f3");
    // More than once, and whether or not one is found: a process may just be starting, or about to become another.
    let rounds = "1 2 3 4 5 6 7 8 9 10";
    // Nobody reads the dots: they end this script once its own channel is closed.
    let ask = format!("for n in {rounds}; do kill -TERM $({find}); sleep 0.2 || sleep 1; echo . || exit; done");
    let line = join(["sh", "-c", &format!("{{ {ask}; kill -KILL $({find}); }} 2>/dev/null")]);
    let _ = timeout(GIVE_UP, async {
        if let Ok(killer) = open(&link).await
            && killer.exec(false, line).await.is_ok()
        {
            let _ = (&mut drain).await;
            let _ = killer.close().await;
        }
    })
    .await;
    if !drain.is_finished() {
        let _ = writer.close().await;
        drain.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_shell_knows_gets_one() {
        for (line, status) in
            [("exit 7", 7), ("cd /", 0), ("", 0), ("sh -c true", 0), ("timeout 9 false", 1), ("exit $((4 + 4))", 8)]
        {
            let line = marked("KC_RUN=1", line);
            let out = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!((out.status.code(), out.stdout.len()), (Some(status), 0), "{line}");
        }
        assert_eq!(marked("KC_RUN=1", "sudo -n timeout -k 5 9 sh -s"), "env KC_RUN=1 sudo -n timeout -k 5 9 sh -s");
    }
}

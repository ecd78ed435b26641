use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use super::{Cmd, Exit, Input, Io, LinkError, Transport};
use crate::core::Blob;

/// One thing that a scripted host was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The command line, or `put PATH` for an upload.
    pub line: String,
    /// What was fed to it, as text; for an upload its digest.
    pub input: String,
}

/// What a scripted host answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The command ran and ended so.
    Exit(Exit),
    /// The link failed.
    Fail(LinkError),
    /// No answer ever comes: the caller waits until it is cancelled.
    Hang,
}

impl Reply {
    /// Success with this standard output.
    pub fn ok(stdout: impl Into<String>) -> Self {
        Self::Exit(Exit { status: Some(0), stdout: stdout.into().into_bytes(), stderr: vec![] })
    }

    /// A failure with this status and standard error.
    pub fn fail(status: i32, stderr: impl Into<String>) -> Self {
        Self::Exit(Exit { status: Some(status), stdout: vec![], stderr: stderr.into().into_bytes() })
    }
}

struct Rule {
    pattern: String,
    reply: Reply,
    /// Answers only once, then the next matching rule has its turn.
    once: bool,
}

/// Answers commands that no rule answers; it may remember what it was asked.
type Player = Box<dyn FnMut(&Ran) -> Option<Reply> + Send>;

#[derive(Default)]
struct State {
    rules: VecDeque<Rule>,
    ran: Vec<Ran>,
    player: Option<Player>,
}

/// A host played by a test: commands that contain a pattern get the reply scripted for it.
///
/// A command without a rule panics, which fails the test that runs it. Clones play the same host.
#[derive(Clone, Default)]
pub struct ScriptedTransport {
    state: Arc<Mutex<State>>,
}

impl ScriptedTransport {
    /// A host that knows no command yet, and takes every upload.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers every command whose line or input contains `pattern` with `reply`; earlier rules come first.
    #[must_use]
    pub fn on(self, pattern: impl Into<String>, reply: Reply) -> Self {
        self.rule(pattern.into(), reply, false)
    }

    /// As [`Self::on`], for the first matching command only.
    #[must_use]
    pub fn once(self, pattern: impl Into<String>, reply: Reply) -> Self {
        self.rule(pattern.into(), reply, true)
    }

    /// Lets `player` answer whatever no rule answers: a host with a memory.
    #[must_use]
    pub fn played_by(self, player: impl FnMut(&Ran) -> Option<Reply> + Send + 'static) -> Self {
        self.state().player = Some(Box::new(player));
        self
    }

    fn rule(self, pattern: String, reply: Reply, once: bool) -> Self {
        self.state().rules.push_back(Rule { pattern, reply, once });
        self
    }

    /// Everything that was run so far, in order.
    pub fn ran(&self) -> Vec<Ran> {
        self.state().ran.clone()
    }

    /// Patterns of the one-time rules that nothing matched; a test may want none left.
    pub fn unused(&self) -> Vec<String> {
        self.state().rules.iter().filter(|r| r.once).map(|r| r.pattern.clone()).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the command and finds its reply.
    fn answer(&self, ran: Ran) -> Option<Reply> {
        let mut state = self.state();
        let at = state.rules.iter().position(|r| ran.line.contains(&r.pattern) || ran.input.contains(&r.pattern));
        let reply = at.and_then(|i| {
            if state.rules[i].once {
                state.rules.remove(i).map(|r| r.reply)
            } else {
                Some(state.rules[i].reply.clone())
            }
        });
        let reply = reply.or_else(|| state.player.as_mut().and_then(|play| play(&ran)));
        state.ran.push(ran);
        reply
    }
}

fn as_text(input: &Input) -> String {
    match input {
        Input::None => String::new(),
        Input::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Input::Blob(blob) | Input::Seal(blob) | Input::Sealed(blob) => format!("{blob:?}"),
        Input::Before(bytes, rest) => String::from_utf8_lossy(bytes).into_owned() + &as_text(rest),
    }
}

#[async_trait]
impl Transport for ScriptedTransport {
    async fn exec(&self, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError> {
        let ran = Ran { line: cmd.line.clone(), input: as_text(&cmd.input) };
        let Some(reply) = self.answer(ran.clone()) else {
            panic!("no reply is scripted for `{}` with input:\n{}", ran.line, ran.input);
        };
        match reply {
            Reply::Hang => std::future::pending().await,
            Reply::Fail(error) => Err(error),
            Reply::Exit(exit) => {
                if let Some(line) = io.line {
                    exit.text().lines().for_each(line);
                }
                Ok(exit)
            }
        }
    }

    /// Takes the upload as new; a rule for `put PATH` that fails makes it fail, one with output `same` skips it.
    async fn put(&self, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<bool, LinkError> {
        let packed = if blob.is_packed() { " of zstd" } else { "" };
        let ran = Ran { line: format!("put {to} {mode:o}"), input: format!("{}{packed}", blob.arrived_sha256()) };
        match self.answer(ran) {
            Some(Reply::Hang) => std::future::pending().await,
            Some(Reply::Fail(error)) => Err(error),
            Some(Reply::Exit(exit)) if !exit.ok() => Err(LinkError::Upload(exit.tail(3).join("; "))),
            Some(Reply::Exit(exit)) if exit.text() == "same" => Ok(false),
            _ => {
                if let Some(note) = io.sent {
                    note(blob.size());
                }
                Ok(true)
            }
        }
    }

    async fn send(&self, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<(), LinkError> {
        self.put(blob, to, mode, io).await.map(drop)
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_in_order_and_records() {
        let host = ScriptedTransport::new()
            .once("uname", Reply::fail(1, "not yet"))
            .on("uname", Reply::ok("Linux\n"))
            .on("put /full", Reply::Fail(LinkError::DiskFull));
        assert!(!host.exec(&Cmd::new("uname -s"), Io::default()).await.unwrap().ok());
        assert_eq!(host.exec(&Cmd::new("uname -s"), Io::default()).await.unwrap().text(), "Linux");
        assert_eq!(host.exec(&Cmd::script("uname"), Io::default()).await.unwrap().text(), "Linux");
        let blob = Blob::from_bytes("x");
        assert!(host.put(&blob, "/etc/x", 0o600, Io::default()).await.unwrap());
        assert!(matches!(host.put(&blob, "/full/x", 0o600, Io::default()).await, Err(LinkError::DiskFull)));
        let lines: Vec<_> = host.ran().into_iter().map(|r| r.line).collect();
        assert_eq!(lines, ["uname -s", "uname -s", "sh -s", "put /etc/x 600", "put /full/x 600"]);
        assert!(host.unused().is_empty());
    }

    #[tokio::test]
    async fn a_player_remembers() {
        let mut made = false;
        let host = ScriptedTransport::new().on("uname", Reply::ok("Linux")).played_by(move |ran| {
            let reply = if made { Reply::ok("") } else { Reply::fail(1, "") };
            made |= ran.line.starts_with("mkdir");
            Some(reply)
        });
        let ok = async |line: &str| host.exec(&Cmd::new(line), Io::default()).await.unwrap().ok();
        assert!(ok("uname").await && !ok("test -d x").await && !ok("mkdir x").await && ok("test -d x").await);
    }

    #[tokio::test]
    #[should_panic(expected = "no reply is scripted for `rm -rf /`")]
    async fn an_unscripted_command_panics() {
        let _ = ScriptedTransport::new().exec(&Cmd::new("rm -rf /"), Io::default()).await;
    }
}

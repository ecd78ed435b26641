use std::time::Duration;

use async_trait::async_trait;

use crate::core::{Blob, Code, Problem};

/// What is fed to a command's standard input.
#[derive(Clone, Default)]
pub enum Input {
    /// Nothing: the command reads end of file at once.
    #[default]
    None,
    /// These bytes; may hold secrets, so it is never printed.
    Bytes(Vec<u8>),
    /// A blob, streamed; at no time is it whole in memory.
    Blob(Blob),
    /// A line with a blob's digest, as soon as that is known.
    Seal(Blob),
    /// A blob, streamed, and then that line.
    Sealed(Blob),
    /// These bytes, for whoever stands before the reader of the rest; never printed either.
    Before(Vec<u8>, Box<Input>),
}

impl Input {
    /// The same input with `bytes` in front.
    #[must_use]
    pub fn after(self, bytes: &[u8]) -> Self {
        let join = |more: Vec<u8>| [bytes, &more].concat();
        match self {
            Self::None => Self::Bytes(bytes.to_vec()),
            Self::Bytes(more) => Self::Bytes(join(more)),
            Self::Before(more, rest) => Self::Before(join(more), rest),
            blob => Self::Before(bytes.to_vec(), Box::new(blob)),
        }
    }
}

/// A command line for a POSIX `sh` (whatever the user's login shell is), its input, and how long it may take.
///
/// The line is visible in process lists: secrets belong into `input`.
#[derive(Clone)]
pub struct Cmd {
    /// The line, quoted with [`crate::core::shell`].
    pub line: String,
    /// Standard input.
    pub input: Input,
    /// After this the command is given up as [`LinkError::Timeout`].
    pub limit: Duration,
}

impl Cmd {
    /// A command without input, with a limit of one minute.
    pub fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), input: Input::None, limit: Duration::from_secs(60) }
    }

    /// Runs `script` with `sh`, fed through standard input so that no process list shows it.
    ///
    /// The script is wrapped in a function and read whole before its first command runs, so that no command can
    /// swallow the rest of it.
    pub fn script(script: &str) -> Self {
        let body = format!("kc_main() {{\n{script}\n}}\nkc_main </dev/null\nexit $?\n");
        Self { line: "sh -s".into(), input: Input::Bytes(body.into_bytes()), limit: Duration::from_secs(60) }
    }

    /// Sets standard input.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Sets the limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// Callbacks while a command runs; both may be called from another thread and must return soon.
#[derive(Clone, Copy, Default)]
pub struct Io<'a> {
    /// Called for each full line of standard output or error.
    pub line: Option<&'a (dyn Fn(&str) + Send + Sync)>,
    /// Called with the input bytes sent so far; those before and after a blob do not count.
    pub sent: Option<&'a (dyn Fn(u64) + Send + Sync)>,
}

/// How a command ended, and what it printed (at most 16 MiB of each is kept, the rest is dropped).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Exit {
    /// Whether the status is 0.
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// Standard output as text, invalid UTF-8 replaced, the last newline removed.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// The last `n` lines of standard error, or of standard output when that is empty.
    pub fn tail(&self, n: usize) -> Vec<String> {
        let source = if self.stderr.iter().all(u8::is_ascii_whitespace) { &self.stdout } else { &self.stderr };
        let text = String::from_utf8_lossy(source);
        let lines: Vec<_> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(n)..].iter().map(|l| (*l).to_owned()).collect()
    }
}

/// Why a command or upload could not be carried through; the command's own failure is an [`Exit`] instead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The connection could not be made; the problem says why.
    #[error("{0}")]
    Connect(Box<Problem>),
    /// The connection broke, after reconnecting was tried.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The command did not end within its limit.
    #[error("no end within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The disk became full under an upload; the partial file is gone.
    #[error("the disk of the host is full")]
    DiskFull,
    /// An upload arrived with other bytes than were sent, or could not be written.
    #[error("the upload failed: {0}")]
    Upload(String),
    /// The blob could not be read on this side.
    #[error("reading the data to send: {0}")]
    Local(String),
}

impl LinkError {
    /// The problem to show for it.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Connect(problem) => (**problem).clone(),
            Self::Lost(_) => Problem::new(Code::LinkLost, self.to_string()),
            Self::Timeout(_) => Problem::new(Code::StepTimeout, self.to_string()),
            Self::DiskFull => Problem::new(Code::UploadDisk, self.to_string()),
            Self::Upload(_) => Problem::new(Code::UploadFailed, self.to_string()),
            Self::Local(_) => Problem::new(Code::LocalFile, self.to_string()),
        }
    }
}

/// A way to one host.
///
/// Cheap to share; commands may run side by side on it.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Runs a command to its end.
    async fn exec(&self, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError>;

    /// Uploads `blob` to the absolute path `to` with file mode `mode`: skipped when a file with the same digest is
    /// there, else streamed to a temporary name, verified, and renamed. Returns whether it was sent.
    async fn put(&self, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<bool, LinkError> {
        super::put::put_as(self, blob, to, mode, io, &|cmd| cmd).await
    }

    /// As [`Transport::put`], for a file that is known not to be there: nobody looks first.
    async fn send(&self, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<(), LinkError> {
        super::put::send_as(self, blob, to, mode, io, &|cmd| cmd).await
    }

    /// Ends the connection politely; calling it twice does no harm.
    async fn close(&self);
}

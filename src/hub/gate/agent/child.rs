use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Child,
    task::JoinHandle,
};

use crate::core::shell::printable;

/// Lines of what a program said that are kept of a failure.
pub(super) const KEPT: usize = 6;

/// How long a line may be, in bytes; a longer one comes in pieces.
const LONGEST: u64 = 1 << 20;

/// How long a program that has ended is read on, whose output a process that it left holds open.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Ends a program with all that it started when nobody waits for it any more.
///
/// A machine engine that it started is in a group of its own, and stays.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// That of a program which was started in a process group of its own.
    pub fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// The program has come to its end: what it left running is wanted.
    pub fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// What is kept of what a program says on one of its outputs.
pub(super) struct Said {
    kept: Arc<Mutex<Vec<String>>>,
    reader: JoinHandle<()>,
}

impl Said {
    /// Reads to the end, whatever the bytes are, and whether or not anybody asks: a program whose output nobody takes would
    /// hang.
    ///
    /// `keep` takes what it wants of each line.
    pub fn of(
        out: impl AsyncRead + Unpin + Send + 'static,
        mut keep: impl FnMut(&mut Vec<String>, &str) + Send + 'static,
    ) -> Self {
        let kept = Arc::<Mutex<Vec<String>>>::default();
        let lines = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let (mut out, mut line) = (BufReader::new(out), vec![]);
            while AsyncReadExt::take(&mut out, LONGEST).read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
                keep(&mut lock(&lines), String::from_utf8_lossy(&line).trim());
                line.clear();
            }
        });
        Self { kept, reader }
    }
}

/// What was said up to the program's end; a stray process that holds the other end open is not waited for.
pub(super) async fn collected(said: Option<Said>) -> Vec<String> {
    let Some(Said { kept, reader }) = said else { return vec![] };
    let _ = tokio::time::timeout(LAST_WORDS, reader).await;
    std::mem::take(&mut *lock(&kept))
}

/// Keeps the last lines.
pub(super) fn last_lines(kept: &mut Vec<String>, line: &str) {
    if kept.len() == KEPT {
        kept.remove(0);
    }
    kept.push(printable(line));
}

fn lock(kept: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

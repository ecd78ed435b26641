use tokio::sync::mpsc;

use super::{Exit, Io};

/// At most this much of each output stream is kept.
const KEPT: usize = 16 << 20;

/// Longer lines reach the line callback in pieces of this size.
const LINE: usize = 4 << 10;

/// Lines that may wait for the callback; more are dropped, so that a slow one never stalls the connection.
const WAITING: usize = 2048;

/// Which of a command's two output streams a chunk came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Collects what a command prints, and hands full lines on.
pub(super) struct Output {
    exit: Exit,
    partial: [Vec<u8>; 2],
    lines: Option<mpsc::Sender<String>>,
}

impl Output {
    /// A collector, and the lines it will hand on when `io` wants them.
    pub(super) fn new(io: Io<'_>) -> (Self, Lines) {
        let (sender, receiver) = if io.line.is_some() {
            let (sender, receiver) = mpsc::channel(WAITING);
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        (Self { exit: Exit::default(), partial: [vec![], vec![]], lines: sender }, Lines(receiver))
    }

    /// Takes in one chunk.
    pub(super) fn push(&mut self, stream: Stream, chunk: &[u8]) {
        let kept = match stream {
            Stream::Out => &mut self.exit.stdout,
            Stream::Err => &mut self.exit.stderr,
        };
        kept.extend_from_slice(&chunk[..chunk.len().min(KEPT - kept.len())]);
        let Some(lines) = &self.lines else { return };
        let partial = &mut self.partial[stream as usize];
        for &byte in chunk {
            if byte != b'\n' {
                partial.push(byte);
            }
            if byte == b'\n' || partial.len() >= LINE {
                let _ = lines.try_send(String::from_utf8_lossy(partial).into_owned());
                partial.clear();
            }
        }
    }

    /// Hands on the last lines, also those without a newline, and gives out everything collected.
    pub(super) fn finish(mut self, status: Option<i32>) -> Exit {
        for partial in self.partial.iter().filter(|p| !p.is_empty()) {
            if let Some(lines) = &self.lines {
                let _ = lines.try_send(String::from_utf8_lossy(partial).into_owned());
            }
        }
        self.exit.status = status;
        self.exit
    }
}

/// The receiving end of the lines.
pub(super) struct Lines(Option<mpsc::Receiver<String>>);

impl Lines {
    /// Gives every line to the callback until the command has ended.
    pub(super) async fn deliver(mut self, io: Io<'_>) {
        let (Some(receiver), Some(callback)) = (&mut self.0, io.line) else { return };
        while let Some(line) = receiver.recv().await {
            callback(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn lines_are_whole_and_output_is_capped() {
        let seen = Mutex::new(vec![]);
        let note = |line: &str| seen.lock().unwrap().push(line.to_owned());
        let io = Io { line: Some(&note), sent: None };
        let (mut output, lines) = Output::new(io);
        output.push(Stream::Out, b"one\ntw");
        output.push(Stream::Err, b"oops\n");
        output.push(Stream::Out, b"o\nlast");
        let exit = output.finish(Some(3));
        lines.deliver(io).await;
        assert_eq!(*seen.lock().unwrap(), ["one", "oops", "two", "last"]);
        assert_eq!((exit.status, exit.stdout.as_slice()), (Some(3), b"one\ntwo\nlast".as_slice()));

        let (mut output, _lines) = Output::new(Io::default());
        for _ in 0..5 {
            output.push(Stream::Out, &vec![b'x'; KEPT / 4]);
        }
        assert_eq!(output.finish(Some(0)).stdout.len(), KEPT);
    }
}

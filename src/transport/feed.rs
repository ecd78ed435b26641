use std::io::Read;

use tokio::sync::mpsc;

use super::Input;
use crate::core::Blob;

/// Size of the pieces that input is sent in; larger ones gain nothing.
const CHUNK: usize = 1 << 20;

/// A command's input in pieces; at most three pieces of a blob are in memory.
pub(super) struct Feed {
    before: Option<Vec<u8>>,
    chunks: mpsc::Receiver<Result<Vec<u8>, String>>,
}

impl Feed {
    /// Starts reading `input`.
    pub(super) fn start(input: &Input) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        match input {
            Input::None => {}
            Input::Bytes(bytes) => {
                // A channel of one holds it without anyone waiting.
                let _ = sender.try_send(Ok(bytes.clone()));
            }
            Input::Blob(blob) | Input::Before(_, blob) => {
                let blob = blob.clone();
                tokio::task::spawn_blocking(move || read(&blob, &sender));
            }
        }
        let before = if let Input::Before(bytes, _) = input { Some(bytes.clone()) } else { None };
        Self { before, chunks }
    }

    /// What comes before the pieces, and counts as none of them.
    pub(super) fn before(&mut self) -> Option<Vec<u8>> {
        self.before.take()
    }

    /// The next piece; `None` at the end, `Err` when the blob cannot be read.
    pub(super) async fn next(&mut self) -> Option<Result<Vec<u8>, String>> {
        self.chunks.recv().await
    }
}

/// Reads until the end, an error, or until nobody wants more.
fn read(blob: &Blob, to: &mpsc::Sender<Result<Vec<u8>, String>>) {
    let mut from = match blob.open() {
        Ok(from) => from,
        Err(error) => return drop(to.blocking_send(Err(error.to_string()))),
    };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        match from.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
            Ok(0) => return,
            Ok(_) if to.blocking_send(Ok(chunk)).is_err() => return,
            Ok(_) => {}
            Err(error) => return drop(to.blocking_send(Err(error.to_string()))),
        }
    }
}

use std::io::Read;

use tokio::{sync::mpsc, task::spawn_blocking};

use super::Input;
use crate::core::Blob;

/// Size of the pieces that input is sent in: they are still in the CPU's cache when they are encrypted.
const CHUNK: usize = 256 << 10;

/// How many pieces are read ahead, so that reader and sender seldom wait for each other.
const AHEAD: usize = 8;

/// A command's input in pieces; at most [`AHEAD`] and two pieces of a blob are in memory.
pub(super) struct Feed {
    before: Option<Vec<u8>>,
    chunks: mpsc::Receiver<Result<Piece, String>>,
}

/// A piece of input.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    /// How many of them are the blob's own.
    pub(super) counts: u64,
}

impl Piece {
    fn of_blob(bytes: Vec<u8>) -> Self {
        Self { counts: bytes.len() as u64, bytes }
    }

    /// Waits for the digest that the host is to find.
    fn seal(blob: &Blob) -> Self {
        Self { bytes: format!("{}\n", blob.arrived_sha256()).into_bytes(), counts: 0 }
    }
}

impl Feed {
    /// Starts reading `input`.
    pub(super) fn start(input: &Input) -> Self {
        let (mut before, mut rest) = (None, input);
        while let Input::Before(bytes, more) = rest {
            before.get_or_insert_with(Vec::new).extend_from_slice(bytes);
            rest = more;
        }
        let (sender, chunks) = mpsc::channel(AHEAD);
        match rest.clone() {
            Input::None | Input::Before(..) => {}
            // The channel holds it without anyone waiting.
            Input::Bytes(bytes) => drop(sender.try_send(Ok(Piece::of_blob(bytes)))),
            Input::Blob(blob) => drop(spawn_blocking(move || read(&blob, &sender))),
            Input::Seal(blob) => drop(spawn_blocking(move || sender.blocking_send(Ok(Piece::seal(&blob))))),
            Input::Sealed(blob) => drop(spawn_blocking(move || {
                if read(&blob, &sender) {
                    let _ = sender.blocking_send(Ok(Piece::seal(&blob)));
                }
            })),
        }
        Self { before, chunks }
    }

    /// What comes before the pieces, and counts as none of them.
    pub(super) fn before(&mut self) -> Option<Vec<u8>> {
        self.before.take()
    }

    /// The next piece; `None` at the end, `Err` when the blob cannot be read.
    pub(super) async fn next(&mut self) -> Option<Result<Piece, String>> {
        self.chunks.recv().await
    }
}

/// Reads until the end, which gives true, an error, or until nobody wants more.
fn read(blob: &Blob, to: &mpsc::Sender<Result<Piece, String>>) -> bool {
    let (mut from, mut total) = (blob.open(), 0);
    loop {
        let chunk = from.as_mut().map_err(|e| e.to_string()).and_then(|from| {
            let mut chunk = Vec::with_capacity(CHUNK);
            let n = from.take(CHUNK as u64).read_to_end(&mut chunk).map_err(|e| e.to_string())?;
            total += n as u64;
            let (changed, ended) = (total > blob.size(), n == 0 && total < blob.size());
            if changed || ended { Err(format!("its size changed, it was {} bytes", blob.size())) } else { Ok(chunk) }
        });
        let more = chunk.as_ref().is_ok_and(|chunk| !chunk.is_empty());
        if !more && chunk.is_ok() {
            return true;
        }
        if to.blocking_send(chunk.map(Piece::of_blob)).is_err() || !more {
            return false;
        }
    }
}

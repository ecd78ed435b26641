use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Reads a part of an open file without moving anybody else's position in it.
pub struct Slice {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Slice {
    /// The `size` bytes of `file` from `at`.
    pub fn new(file: Arc<File>, at: u64, size: u64) -> Self {
        Self { file, at, end: at.saturating_add(size) }
    }
}

impl io::Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = (self.end - self.at).min(buffer.len() as u64) as usize;
        let n = self.file.read_at(&mut buffer[..want], self.at)?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

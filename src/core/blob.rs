use std::{
    fmt, fs, io,
    io::Read,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
};

use sha2::{Digest, Sha256};

/// Reads `from` to its end; returns its length and lower-case hex SHA-256.
pub fn digest(from: &mut dyn Read) -> io::Result<(u64, String)> {
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 18]);
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok((size, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..n]);
        size += n as u64;
    }
}

type Open = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync;

/// Bytes of known length and digest that can be read from the start as often as needed.
///
/// It never holds them all in memory unless it was made from memory.
#[derive(Clone)]
pub struct Blob {
    size: u64,
    sha256: Arc<OnceLock<String>>,
    open: Arc<Open>,
    unpacked: Option<Arc<(u64, String)>>,
}

impl Blob {
    /// A blob of `size` bytes with the lower-case hex digest `sha256`, read through `open`.
    pub fn new(
        size: u64,
        sha256: impl Into<String>,
        open: impl Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self { size, sha256: Arc::new(OnceLock::from(sha256.into())), open: Arc::new(open), unpacked: None }
    }

    /// The same bytes, which are one or more zstd frames, for a host that unpacks them as they come: the file there has
    /// `size` bytes with the lower-case hex digest `sha256`.
    #[must_use]
    pub fn unpacked_on_arrival(mut self, size: u64, sha256: &str) -> Self {
        self.unpacked = Some(Arc::new((size, sha256.to_owned())));
        self
    }

    /// A blob in memory.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Arc<[u8]> = bytes.into().into();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Self::new(bytes.len() as u64, sha256, move || Ok(Box::new(io::Cursor::new(Arc::clone(&bytes)))))
    }

    /// A blob in a file, whose digest is computed by reading it once.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let (size, sha256) = digest(&mut fs::File::open(path)?)?;
        let path = path.to_owned();
        Ok(Self::new(size, sha256, move || Ok(Box::new(fs::File::open(&path)?))))
    }

    /// A blob in a file, whose digest a thread of its own is computing from now on; [`Blob::sha256`] waits for it.
    ///
    /// A file that cannot be read to its end, or changes its size meanwhile, has the empty digest, which equals none.
    pub fn hashing(path: &Path) -> io::Result<Self> {
        let mut file = fs::File::open(path)?;
        // A folder can be opened, but not read.
        let (size, _) = (file.metadata()?.len(), file.read(&mut [])?);
        if size == 0 {
            // Empty, or one whose size the kernel does not tell.
            return Self::from_file(path);
        }
        let (done, path) = (Arc::new(OnceLock::new()), path.to_owned());
        let coming = Arc::clone(&done);
        thread::Builder::new().name("digest".into()).spawn(move || {
            let sha256 = digest(&mut file).ok().filter(|(read, _)| *read == size).map(|(_, sha256)| sha256);
            let _ = coming.set(sha256.unwrap_or_default());
        })?;
        Ok(Self { size, sha256: done, open: Arc::new(move || Ok(Box::new(fs::File::open(&path)?))), unpacked: None })
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 as lower-case hex; waits while it is still being computed, see [`Blob::hashing`].
    pub fn sha256(&self) -> &str {
        self.sha256.wait()
    }

    /// Whether a host unpacks the bytes as they come, see [`Blob::unpacked_on_arrival`].
    pub fn is_packed(&self) -> bool {
        self.unpacked.is_some()
    }

    /// Length in bytes of the file that a host gets.
    pub fn arrived_size(&self) -> u64 {
        self.unpacked.as_ref().map_or(self.size, |unpacked| unpacked.0)
    }

    /// SHA-256 of the file that a host gets, as lower-case hex; may wait as [`Blob::sha256`] does.
    pub fn arrived_sha256(&self) -> &str {
        self.unpacked.as_ref().map_or_else(|| self.sha256(), |unpacked| &unpacked.1)
    }

    /// A reader from the first byte.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        (self.open)()
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sha256 = self.sha256.get().map_or("to come", String::as_str);
        write!(f, "Blob({} bytes, sha256 {sha256})", self.size)
    }
}

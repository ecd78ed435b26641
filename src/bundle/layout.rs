//! The tar file itself, byte by byte: every bundle with the same members has the same headers.
//!
//! Reader and writer share these functions, and the reader accepts nothing else: so a flipped byte in a header or in
//! padding is found without a digest over the whole file.

use super::manifest::Member;

/// The first member: what the bundle holds.
pub const MANIFEST: &str = "manifest.json";
/// The second member: the digest of the first, as `sha256sum -c` reads it.
pub const MANIFEST_SUM: &str = "manifest.sha256";
/// Tar works in blocks of this many bytes.
pub const BLOCK: u64 = 512;
/// Two empty blocks end a tar file.
pub const END: u64 = 2 * BLOCK;

/// The header of the member at `path` with `size` bytes.
pub fn header(path: &str, size: u64) -> std::io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// Zero bytes after a member of `size` bytes.
pub fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The text of [`MANIFEST_SUM`].
pub fn sum_line(sha256: &str) -> String {
    format!("{sha256}  {MANIFEST}\n")
}

/// Where everything is in the file of a bundle.
pub struct Places {
    /// Path, offset of the content and length, in the order of the file.
    pub all: Vec<(String, u64, u64)>,
    /// Length of the file.
    pub end: u64,
}

impl Places {
    /// Computes the places for a manifest of `manifest` bytes and these members.
    pub fn of(manifest: u64, members: &[Member]) -> Self {
        let sum = sum_line(&"0".repeat(64)).len() as u64;
        let fixed = [(MANIFEST.to_owned(), manifest), (MANIFEST_SUM.to_owned(), sum)];
        let stored = members.iter().map(|m| (m.stored.path.clone(), m.stored.size));
        let (mut all, mut at) = (vec![], 0u64);
        for (path, size) in fixed.into_iter().chain(stored) {
            at = at.saturating_add(BLOCK);
            all.push((path, at, size));
            at = at.saturating_add(size).saturating_add(padding(size.min(u64::MAX - BLOCK)));
        }
        Self { all, end: at.saturating_add(END) }
    }
}

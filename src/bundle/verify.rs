use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
};

use serde::{Deserialize, Serialize};

use super::{Bundle, manifest::Member};
use crate::core::{Blob, Code, NodeId, Problem, Report, digest};

/// What identifies the file that was verified, so that any change to it is noticed without reading it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    device: u64,
    inode: u64,
    modified: i64,
    modified_nanos: i64,
    size: u64,
}

impl Bundle {
    /// Reads every member and compares its digests, stored and plain, on all cores.
    ///
    /// # Errors
    /// `KC-BUNDLE-BROKEN` naming the first broken member.
    pub fn verify(&self, report: &dyn Report) -> Result<(), Problem> {
        let members: Vec<&Member> = self.members().collect();
        let total: u64 = members.iter().map(|m| m.plain.size).sum();
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let work = || {
            let mut broken: Vec<(usize, Problem)> = vec![];
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(member) = members.get(i) else { return broken };
                if let Err(problem) = self.verify_member(member) {
                    broken.push((i, problem));
                    next.store(members.len(), Ordering::Relaxed);
                }
                let so_far = done.fetch_add(member.plain.size, Ordering::Relaxed) + member.plain.size;
                report.progress(&NodeId::here(), "verify bundle", so_far, total);
            }
        };
        let threads = thread::available_parallelism().map_or(2, usize::from).min(8);
        let mut broken: Vec<(usize, Problem)> = thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            handles.into_iter().flat_map(|h| h.join().unwrap_or_default()).collect()
        });
        broken.sort_by_key(|(i, _)| *i);
        broken.into_iter().next().map_or(Ok(()), |(_, problem)| Err(problem))
    }

    /// Like [`Bundle::verify`], but believes an earlier success when the file did not change since.
    ///
    /// `memory` is the folder that remembers it, in the cache.
    ///
    /// # Errors
    /// Those of [`Bundle::verify`].
    pub fn verify_once(&self, memory: &Path, report: &dyn Report) -> Result<(), Problem> {
        if self.is_remembered(memory) {
            return Ok(());
        }
        self.verify(report)?;
        self.remember(memory);
        Ok(())
    }

    /// Notes that this file was verified; a failure to write the note only costs the next run some time.
    pub(super) fn remember(&self, memory: &Path) {
        let Some(seen) = self.seen() else { return };
        let Ok(bytes) = serde_json::to_vec(&seen) else { return };
        let _ = fs::create_dir_all(memory).and_then(|()| fs::write(self.note(memory), bytes));
    }

    fn is_remembered(&self, memory: &Path) -> bool {
        let note = fs::read(self.note(memory)).ok().and_then(|bytes| serde_json::from_slice::<Seen>(&bytes).ok());
        note.is_some() && note == self.seen()
    }

    fn note(&self, memory: &Path) -> PathBuf {
        memory.join(format!("{}.json", self.id()))
    }

    fn seen(&self) -> Option<Seen> {
        let m = self.file.metadata().ok()?;
        let (modified, modified_nanos) = (m.mtime(), m.mtime_nsec());
        Some(Seen { device: m.dev(), inode: m.ino(), modified, modified_nanos, size: m.len() })
    }

    fn verify_member(&self, member: &Member) -> Result<(), Problem> {
        for (blob, which) in [(self.stored(member), "stored"), (self.plain(member), "plain")] {
            if !is_whole(&blob) {
                let what = format!("{}: the {which} bytes of `{}` were altered", self.path().display(), member.name);
                return Err(Problem::new(Code::BundleBroken, what));
            }
        }
        Ok(())
    }
}

/// Whether `blob` has the length and digest that it claims; never reads far beyond that length.
fn is_whole(blob: &Blob) -> bool {
    let read = blob.open().and_then(|reader| digest(&mut std::io::Read::take(reader, blob.size().saturating_add(1))));
    read.is_ok_and(|(size, sha256)| size == blob.size() && sha256 == blob.sha256())
}

use std::{fs, num::NonZero, path::Path, thread};

use serde::{Deserialize, Serialize};

use crate::core::{Bytes, GIB};

/// The largest size of the sparse file that holds the machines' disks.
const LARGEST_POOL: u64 = 200 * GIB;

/// What this computer can give to machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Cores that this process may use.
    pub cores: u32,
    /// Memory that is free or could be freed.
    pub memory: Bytes,
    /// Free disk beneath the engine's folder.
    pub disk: Bytes,
}

impl Capacity {
    /// As it is now; `dir` is the engine's folder, which need not exist yet.
    pub fn here(dir: &Path) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let there = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
        let disk = rustix::fs::statvfs(there).map_or(0, |s| s.f_bavail * s.f_frsize);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self { cores: u32::try_from(cores).unwrap_or(u32::MAX), memory: available(&meminfo), disk: Bytes(disk) }
    }

    /// The disk that a private engine made now would have, in whole GiB: its file is sparse and must not promise more
    /// than the disk beneath can hold, so a tenth stays free.
    #[must_use]
    pub fn pool(&self) -> Bytes {
        Bytes::gib((self.disk.0 / 10 * 9).min(LARGEST_POOL) / GIB)
    }
}

fn available(meminfo: &str) -> Bytes {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Bytes(kib.unwrap_or(0) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_what_counts() {
        assert_eq!(available("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n"), Bytes(2048 * 1024));
        let here = Capacity::here(Path::new("/no/such/folder"));
        assert_eq!(Capacity { disk: Bytes::gib(31), ..here }.pool(), Bytes::gib(27));
        assert_eq!(Capacity { disk: Bytes::gib(900), ..here }.pool(), Bytes::gib(200));
        assert!(here.cores > 0 && here.disk.0 > 0 && here.memory.0 > 0);
    }
}

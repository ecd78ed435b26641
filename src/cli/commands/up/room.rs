use std::path::Path;

use crate::{
    core::{Arch, Bytes, Code, Problem},
    machine::Capacity,
    profile::{Layout, Size, shortfalls},
};

/// This computer's architecture, which its machines have too.
pub(in crate::cli::commands) fn this_arch() -> Result<Arch, Problem> {
    Arch::from_uname(std::env::consts::ARCH)
        .ok_or_else(|| Problem::new(Code::HostArch, format!("there are no bundles for {}", std::env::consts::ARCH)))
}

/// The largest of the shipped layouts that this computer holds.
pub(in crate::cli::commands) fn largest_layout() -> Result<Layout, Problem> {
    let (cores, memory) = this_computer();
    Layout::largest_that_fits(cores, memory).ok_or_else(|| {
        Problem::new(Code::MachineCapacity, format!("{cores} cores and {memory} do not hold any of the layouts"))
    })
}

/// Refuses a layout whose machines this computer cannot hold, before anything is made; `engine` is the engine's folder.
pub(super) fn must_hold(layout: Layout, engine: &Path) -> Result<(), Problem> {
    let (cores, memory) = this_computer();
    // The machines share one sparse file, whose size is fixed when the engine makes it.
    let disk = (!engine.join("incus/disks").exists()).then(|| Capacity::here(engine).pool());
    holds(layout, cores, memory, disk)
}

/// Whether a computer with `disk` to give to a new engine, or with one that has its disk already, holds the layout.
fn holds(layout: Layout, cores: u32, memory: Bytes, disk: Option<Bytes>) -> Result<(), Problem> {
    let refused = |has: String, hint: &str| {
        let what = format!("this computer has {has}, too little for machines of layout {layout}");
        let others = "Choose another --layout, use other hosts, or go on all the same with --allow-undersized.";
        Err(Problem::new(Code::MachineCapacity, what).hint(format!("{others}{hint}")))
    };
    if !layout.fits(cores, memory) {
        return refused(format!("{cores} cores and {memory}"), "");
    }
    let size = layout.size();
    match disk {
        Some(pool) if !shortfalls(&size, &Size { disk: pool, ..size }).is_empty() => refused(
            format!("{pool} of disk for machines, less than {}", size.disk),
            " KUBECAMP_HOME puts the machines on another disk.",
        ),
        _ => Ok(()),
    }
}

fn this_computer() -> (u32, Bytes) {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    (cores, Bytes(memory_of_this_computer()))
}

fn memory_of_this_computer() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_memory_and_disk_all_count() {
        let layout = Layout::SHIPPED[2];
        let said = |cores, gib, disk: Option<u64>| {
            holds(layout, cores, Bytes::gib(gib), disk.map(Bytes::gib)).map_err(|p| p.what).err().unwrap_or_default()
        };
        assert_eq!(said(2, 24, Some(27)), "");
        assert!(said(2, 24, Some(26)).starts_with("this computer has 26GiB of disk for machines, less than 30GiB"));
        assert_eq!(said(2, 24, None), "");
        assert!(said(2, 24, Some(12)).starts_with("this computer has 12GiB of disk for machines, less than 30GiB"));
        assert!(said(2, 6, Some(12)).starts_with("this computer has 2 cores and 6GiB"));
    }
}

use crate::{
    core::{Arch, Bytes, Code, Problem},
    profile::Layout,
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

/// Refuses a layout whose machines this computer cannot hold, before anything is made.
pub(super) fn must_hold(layout: Layout) -> Result<(), Problem> {
    let (cores, memory) = this_computer();
    if layout.fits(cores, memory) {
        return Ok(());
    }
    let what = format!("this computer has {cores} cores and {memory}, too little for machines of layout {layout}");
    Err(Problem::new(Code::MachineCapacity, what)
        .hint("Choose another --layout, use other hosts, or go on all the same with --allow-undersized."))
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

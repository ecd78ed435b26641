use std::path::Path;

use crate::{
    cli::{
        settings::Places,
        store::{Store, Where},
    },
    core::{Arch, Bytes, Code, LabName, Problem},
    machine::Capacity,
    profile::{Lab, Layout, Size, shortfalls},
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

/// Refuses a lab whose machines this computer cannot hold beside those of its other labs, before anything is made.
pub(in crate::cli::commands) fn must_hold(lab: &Lab, places: &Places) -> Result<(), Problem> {
    let (cores, memory) = this_computer();
    let engine = &places.engine;
    // The machines share one sparse file, whose size is fixed when the engine makes it.
    let disk = (!engine.join("incus/disks").exists()).then(|| Capacity::here(engine).pool());
    holds(lab.layout(), cores, memory, &promised(&places.labs, lab.name()), disk)
}

/// The memory of other labs' machines on this computer. It counts while they are stopped too: they may start any time.
fn promised(labs: &Path, but: &LabName) -> Vec<(LabName, Bytes)> {
    let memory = |name: LabName| {
        // One that cannot be read has its own troubles; they are none of this lab's.
        let (lab, state) = Store::of(labs, &name).load().ok().flatten()?;
        let all = lab.nodes().iter().map(|node| node.memory.0).sum();
        (state.place == Where::Local).then_some((name, Bytes(all)))
    };
    Store::all(labs).into_iter().filter(|name| name != but).filter_map(memory).collect()
}

/// Whether a computer holds the layout beside what is `promised`; `disk` is what it can give to a new engine, none where
/// there is one that has its disk already.
fn holds(
    layout: Layout,
    cores: u32,
    memory: Bytes,
    promised: &[(LabName, Bytes)],
    disk: Option<Bytes>,
) -> Result<(), Problem> {
    let refused = |has: String, hint: &str| {
        let what = format!("this computer has {has}, too little for machines of layout {layout}");
        let others = "Choose another --layout, use other hosts, or go on all the same with --allow-undersized.";
        Err(Problem::new(Code::MachineCapacity, what).hint(format!("{others}{hint}")))
    };
    if !layout.fits(cores, memory) {
        return refused(format!("{cores} cores and {memory}"), "");
    }
    let taken = Bytes(promised.iter().map(|(_, memory)| memory.0).sum());
    if !layout.fits(cores, Bytes(memory.0.saturating_sub(taken.0))) {
        let labs: Vec<_> = promised.iter().map(|(name, memory)| format!("{memory} to {name}")).collect();
        let down = format!(" Or remove a lab that is not needed: kubecamp down --name {}.", promised[0].0);
        return refused(format!("{memory}, of which machines of other labs have {taken} ({})", labs.join(", ")), &down);
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
    use crate::cli::store::State;

    #[test]
    fn cores_memory_and_disk_all_count() {
        let layout = Layout::SHIPPED[2];
        let said = |cores, gib, disk: Option<u64>| {
            holds(layout, cores, Bytes::gib(gib), &[], disk.map(Bytes::gib))
                .map_err(|p| p.what)
                .err()
                .unwrap_or_default()
        };
        assert_eq!(said(2, 24, Some(27)), "");
        assert!(said(2, 24, Some(26)).starts_with("this computer has 26GiB of disk for machines, less than 30GiB"));
        assert_eq!(said(2, 24, None), "");
        assert!(said(2, 24, Some(12)).starts_with("this computer has 12GiB of disk for machines, less than 30GiB"));
        assert!(said(2, 6, Some(12)).starts_with("this computer has 2 cores and 6GiB"));
    }

    #[test]
    fn memory_is_not_promised_twice() {
        let (dir, layout) = (tempfile::tempdir().unwrap(), Layout::SHIPPED[2]);
        let keep = |name: &str, place| {
            let name: LabName = name.parse().unwrap();
            let lab = Lab::new(name.clone(), crate::profile::load("3x2c4g").unwrap()).unwrap();
            let state = State { clean: true, ..State::new(place) };
            Store::of(dir.path(), &name).save(&lab, &state).unwrap();
            name
        };
        let (own, other) = (keep("own", Where::Local), keep("other", Where::Local));
        keep("far", Where::Hosts(vec![]));
        let promised = promised(dir.path(), &own);
        assert_eq!(promised, [(other, Bytes::gib(12))]);
        holds(layout, 2, Bytes::gib(26), &promised, None).unwrap();
        let problem = holds(layout, 2, Bytes::gib(24), &promised, None).unwrap_err();
        assert_eq!(problem.code, Code::MachineCapacity);
        assert!(
            problem.what.contains("24GiB, of which machines of other labs have 12GiB (12GiB to other)"),
            "{problem}"
        );
        assert!(problem.all_hints()[0].contains("kubecamp down --name other"), "{problem:?}");
    }
}

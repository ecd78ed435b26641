use std::{os::unix::fs::MetadataExt, path::Path};

use crate::{
    cli::{
        output,
        settings::{Places, can_write},
        store::{Store, Where},
    },
    core::{Arch, Bytes, Code, LabName, Problem},
    machine::{Capacity, Engine, EngineAt},
    profile::{HOST_KEEPS, Lab, Layout, Size, shortfalls},
    render::count,
};

/// The most that building a bundle from Go modules takes in the cache; a download of its parts takes far less. Which it
/// will be, and what is there of it already, shows only in the build.
const BUILD: Bytes = Bytes::gib(13);

/// This computer's architecture, which its machines have too.
pub(in crate::cli::commands) fn this_arch() -> Result<Arch, Problem> {
    Arch::from_uname(std::env::consts::ARCH)
        .ok_or_else(|| Problem::new(Code::HostArch, format!("there are no bundles for {}", std::env::consts::ARCH)))
}

/// The shipped layout with the most nodes that this computer holds; where it holds none and that is allowed, the one that
/// asks for least, with a warning.
pub(in crate::cli::commands) fn largest_layout(allow_undersized: bool) -> Result<Layout, Problem> {
    let (cores, memory) = this_computer();
    let layout = chosen_layout(cores, memory, allow_undersized)?;
    if !layout.fits(cores, memory) {
        let has = count(cores.into(), "core");
        output::say(&format!(
            "warning: this computer has {has} and {memory}, too little for machines of layout {layout}"
        ));
    }
    Ok(layout)
}

fn chosen_layout(cores: u32, memory: Bytes, allow_undersized: bool) -> Result<Layout, Problem> {
    let [.., least] = Layout::SHIPPED;
    match Layout::largest_that_fits(cores, memory) {
        Some(layout) => Ok(layout),
        None if allow_undersized => Ok(least),
        None => {
            let all = Bytes(least.memory.0 * u64::from(least.nodes) + HOST_KEEPS.0);
            let what = format!(
                "{} and {memory} of memory do not hold any of the layouts: {least} takes {} and {all}, {HOST_KEEPS} of that \
                 for the computer itself",
                count(cores.into(), "core"),
                count(least.cores.into(), "core"),
            );
            Err(Problem::new(Code::MachineCapacity, what)
                .hint(format!("Go on all the same with --layout {least} --allow-undersized, or use hosts: --host.")))
        }
    }
}

/// Refuses a lab whose machines this computer cannot hold beside those of its other labs, before anything is made.
pub(in crate::cli::commands) fn must_hold(lab: &Lab, places: &Places) -> Result<(), Problem> {
    let (cores, memory) = this_computer();
    holds(lab, cores, memory, &promised(&places.labs, lab.name()))
}

/// Refuses a lab whose machines the disk of their engine, if that is to be made, cannot hold.
pub(in crate::cli::commands) fn disk_must_hold(lab: &Lab, engine: &EngineAt) -> Result<(), Problem> {
    match engine {
        // The machines share one sparse file, whose size is fixed when the engine makes it.
        EngineAt::Private(engine) if !Engine::new(engine).has_disks() => {
            // Where nothing can be made at all, its size says nothing.
            can_write(engine)?;
            disk_holds(lab, Capacity::here(engine).pool())
        }
        // The user's own Incus has storage that the user gave it, on whatever disk.
        _ => Ok(()),
    }
}

/// A warning where the disk holds the machines of a new engine now, and may not once a bundle was built below `cache`.
pub(super) fn disk_after_build(lab: &Lab, engine: &EngineAt, cache: &Path) -> Option<String> {
    match engine {
        EngineAt::Private(engine) if !Engine::new(engine).has_disks() && same_disk(engine, cache) => {
            tight_after_build(lab, Capacity::here(engine))
        }
        _ => None,
    }
}

fn same_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.ancestors().find_map(|there| there.metadata().ok()).map(|found| found.dev());
    device(one) == device(other)
}

/// The memory of other labs' machines on this computer. It counts while they are stopped too: they may start any time.
fn promised(labs: &Path, but: &LabName) -> Vec<(LabName, Bytes)> {
    let memory = |name: LabName| {
        // One that cannot be read has its own troubles; they are none of this lab's.
        let (lab, state) = Store::of(labs, &name).load().ok().flatten()?;
        (state.place == Where::Local).then_some((name, memory_of(&lab)))
    };
    Store::all(labs).into_iter().filter(|name| name != but).filter_map(memory).collect()
}

/// What the lab's machines have together; a profile may give a node more than its layout says.
fn memory_of(lab: &Lab) -> Bytes {
    Bytes(lab.nodes().iter().fold(0, |all, node| all.saturating_add(node.memory.0)))
}

/// What the lab's machines ask of a computer's memory, in words.
fn memory_needs(lab: &Lab) -> String {
    let together = if lab.nodes().len() == 1 { "" } else { " together" };
    let nodes = count(lab.nodes().len() as u64, "node");
    format!("{nodes} with {}{together}, and {HOST_KEEPS} for the computer itself", memory_of(lab))
}

/// The refusal of machines for which this computer, which `has` so much, has `lack`; they need what is said in `needs`.
fn refused(lab: &Lab, has: &str, lack: &str, needs: &str, hint: &str) -> Result<(), Problem> {
    let what = format!("this computer has {has}, {lack} for machines of layout {} ({needs})", lab.layout());
    let others = "Choose another --layout, use other hosts, or go on all the same with --allow-undersized.";
    Err(Problem::new(Code::MachineCapacity, what).hint(format!("{others}{hint}")))
}

/// Whether a computer holds the lab beside what is `promised`.
fn holds(lab: &Lab, cores: u32, memory: Bytes, promised: &[(LabName, Bytes)]) -> Result<(), Problem> {
    let most = lab.nodes().iter().map(|node| node.cores).max().unwrap_or(0);
    let few = most > cores;
    let little = |memory: u64| memory_of(lab).0.saturating_add(HOST_KEEPS.0) > memory;
    let has = format!("{} and {memory} of memory", count(cores.into(), "core"));
    let of_cores = format!("a node with {}", count(most.into(), "core"));
    let of_memory = memory_needs(lab);
    match (few, little(memory.0)) {
        (true, true) => {
            let needs = format!("{of_cores}; {of_memory}");
            return refused(lab, &has, "too few cores and too little memory", &needs, "");
        }
        (true, false) => return refused(lab, &has, "too few cores", &of_cores, ""),
        (false, true) => return refused(lab, &has, "too little memory", &of_memory, ""),
        (false, false) => {}
    }
    let taken = Bytes(promised.iter().map(|(_, memory)| memory.0).sum());
    if little(memory.0.saturating_sub(taken.0)) {
        let labs: Vec<_> = promised.iter().map(|(name, memory)| format!("{memory} to {name}")).collect();
        let down = format!(" Or remove a lab that is not needed: kubecamp down --name {}.", promised[0].0);
        let has = format!("{memory}, of which machines of other labs have {taken} ({})", labs.join(", "));
        return refused(lab, &has, "too little memory", &of_memory, &down);
    }
    Ok(())
}

/// Whether `pool`, what a new engine can give, is enough.
fn disk_holds(lab: &Lab, pool: Bytes) -> Result<(), Problem> {
    let size = lab.layout().size();
    if shortfalls(&size, &Size { disk: pool, ..size }).is_empty() {
        return Ok(());
    }
    let has = format!("{pool} of disk for machines, less than {}", size.disk);
    let nodes = count(lab.nodes().len() as u64, "node");
    refused(lab, &has, "too little", &nodes, " KUBECAMP_HOME puts the machines on another disk.")
}

/// What to say where `now` is enough only as long as no bundle is built.
fn tight_after_build(lab: &Lab, now: Capacity) -> Option<String> {
    let left = Capacity { disk: Bytes(now.disk.0.saturating_sub(BUILD.0)), ..now }.pool();
    disk_holds(lab, left).err()?;
    Some(format!(
        "warning: the bundle is still to be made. Where that means building it from Go modules, it takes up to {BUILD} of \
         this disk, and machines get {left} then, less than {}.\n\
         hint: Free some space, or put the cache on another disk with KUBECAMP_CACHE.",
        lab.layout().size().disk
    ))
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
        let lab = shipped("lab");
        let said = |ended: Result<(), Problem>| ended.map_err(|p| p.what).err().unwrap_or_default();
        let disk = |gib| said(disk_holds(&lab, Bytes::gib(gib)));
        assert_eq!(disk(27), "");
        assert!(disk(26).starts_with("this computer has 26GiB of disk for machines, less than 30GiB"));
        let size = |cores, gib| said(holds(&lab, cores, Bytes::gib(gib), &[]));
        assert_eq!(size(2, 24), "");
        let of_memory = "3 nodes with 12GiB together, and 2GiB for the computer itself";
        for (cores, gib, has, lack, needs) in [
            (2, 6, "2 cores and 6GiB", "too little memory", of_memory.to_owned()),
            (1, 24, "1 core and 24GiB", "too few cores", "a node with 2 cores".to_owned()),
            (
                1,
                6,
                "1 core and 6GiB",
                "too few cores and too little memory",
                format!("a node with 2 cores; {of_memory}"),
            ),
        ] {
            let wanted = format!("this computer has {has} of memory, {lack} for machines of layout 3x2c4g ({needs})");
            assert_eq!(size(cores, gib), wanted);
        }
    }

    #[test]
    fn a_small_computer_gets_the_least_layout_where_that_is_allowed() {
        let chosen = |cores, gib, allow| chosen_layout(cores, Bytes::gib(gib), allow).map(|layout| layout.to_string());
        assert_eq!(chosen(4, 16, false).unwrap(), chosen(4, 16, true).unwrap(), "one that fits is not changed");
        for (cores, gib) in [(1, 64), (2, 8)] {
            assert_eq!(chosen(cores, gib, true).unwrap(), "3x2c4g");
            let refused = chosen(cores, gib, false).unwrap_err();
            let hint = &refused.all_hints()[0];
            assert!(hint.contains("--layout 3x2c4g --allow-undersized") && hint.contains("--host"), "{hint}");
            assert_eq!(refused.code, Code::MachineCapacity);
            assert!(refused.what.ends_with("3x2c4g takes 2 cores and 14GiB, 2GiB of that for the computer itself"));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_no_small_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let engine = EngineAt::Private(file.path().join("engine"));
        assert_eq!(disk_must_hold(&shipped("lab"), &engine).unwrap_err().code, Code::LocalFile);
    }

    #[test]
    fn a_bundle_that_is_still_to_be_built_takes_of_the_same_disk() {
        let (lab, here) = (shipped("lab"), Capacity::here(Path::new("/")));
        let told = |gib| tight_after_build(&lab, Capacity { disk: Bytes::gib(gib), ..here });
        assert_eq!(told(46), None);
        let text = told(31).unwrap();
        assert!(text.contains("up to 13GiB of this disk, and machines get 16GiB then, less than 30GiB."), "{text}");
        assert!(told(5).is_some(), "less than a build takes");
        let dir = tempfile::tempdir().unwrap();
        assert!(same_disk(dir.path(), &dir.path().join("not/yet")) && !same_disk(dir.path(), Path::new("/proc")));
    }

    #[test]
    fn nodes_count_as_large_as_the_profile_makes_them() {
        let mut profile = crate::profile::load("3x2c4g").unwrap();
        profile.nodes.iter_mut().for_each(|node| node.memory = Bytes::gib(16));
        let lab = Lab::new("large".parse().unwrap(), profile).unwrap();
        let problem = holds(&lab, 2, Bytes::gib(24), &[]).unwrap_err();
        assert!(problem.what.contains("(3 nodes with 48GiB together, "), "{problem}");
        holds(&lab, 2, Bytes::gib(64), &[]).unwrap();
        let one = Lab::new("one".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let problem = holds(&one, 4, Bytes::gib(8), &[]).unwrap_err();
        assert!(problem.what.contains("(1 node with 12GiB, "), "{problem}");
    }

    fn shipped(name: &str) -> Lab {
        Lab::new(name.parse().unwrap(), crate::profile::load("3x2c4g").unwrap()).unwrap()
    }

    #[test]
    fn memory_is_not_promised_twice() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |name: &str, place| {
            let lab = shipped(name);
            let name = lab.name().clone();
            let state = State { clean: true, ..State::new(place) };
            Store::of(dir.path(), &name).save(&lab, &state).unwrap();
            name
        };
        let (own, other) = (keep("own", Where::Local), keep("other", Where::Local));
        keep("far", Where::Hosts(vec![]));
        let promised = promised(dir.path(), &own);
        assert_eq!(promised, [(other, Bytes::gib(12))]);
        let lab = shipped("own");
        holds(&lab, 2, Bytes::gib(26), &promised).unwrap();
        let problem = holds(&lab, 2, Bytes::gib(24), &promised).unwrap_err();
        assert_eq!(problem.code, Code::MachineCapacity);
        assert!(
            problem.what.contains("24GiB, of which machines of other labs have 12GiB (12GiB to other)"),
            "{problem}"
        );
        assert!(problem.all_hints()[0].contains("kubecamp down --name other"), "{problem:?}");
    }
}

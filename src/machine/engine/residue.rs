//! What a private engine leaves on the computer, found in the kernel's own tables and not in notes about it, so that
//! a killed run is cleared like a finished one.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    outbound,
    process::{Process, all, text},
};

/// How long killed processes and the mounts that they held may take to vanish.
const LIMIT: Duration = Duration::from_secs(15);
/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The traces of the engine in one folder.
#[derive(Debug, Clone)]
pub struct Residue {
    dir: PathBuf,
    netns: PathBuf,
}

impl Residue {
    pub fn new(dir: &Path, netns: &Path) -> Self {
        Self { dir: dir.to_owned(), netns: netns.to_owned() }
    }

    /// Every trace, in words; empty when the engine left none (its folder with disks and database aside).
    pub fn find(&self) -> Vec<String> {
        let mut found: Vec<_> = self.processes().iter().map(|p| format!("process {}", p.pid)).collect();
        found.extend(self.loops().iter().map(|l| format!("loop device /dev/{l}")));
        found.extend(self.mounts().iter().map(|m| format!("mount {m}")));
        if self.netns.exists() {
            found.push(format!("network namespace {}", self.netns.display()));
        }
        found
    }

    /// Removes every trace; returns those that stayed.
    ///
    /// Blocking.
    pub fn clear(&self) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        loop {
            // Machines' processes may start others while they are being killed: look again until there are none.
            let processes = self.processes();
            if processes.is_empty() || Instant::now() > end {
                break;
            }
            for process in processes {
                process.signal(Signal::KILL).ok();
            }
            std::thread::sleep(PAUSE);
        }
        for mount in self.mounts() {
            run("umount", &["-l", &mount]);
        }
        if self.netns.exists() {
            run("ip", &["netns", "delete", &name(&self.netns)]);
        }
        // Loop devices go by themselves once nothing has them mounted; one that was never mounted stays.
        while !self.loops().is_empty() && Instant::now() < end {
            for device in self.loops() {
                run("losetup", &["-d", &format!("/dev/{device}")]);
            }
            std::thread::sleep(PAUSE);
        }
        self.clear_cgroups();
        for file in ["daemon.pid", "holder.pid", "holder.ready", outbound::PID, "outbound.ready", "incus/unix.socket"] {
            fs::remove_file(self.dir.join(file)).ok();
        }
        self.find()
    }

    /// Processes in the engine's network namespace, or that see its disks: the daemon, its helpers, the machines.
    fn processes(&self) -> Vec<Process> {
        let netns = fs::metadata(&self.netns).ok().map(|m| (m.dev(), m.ino()));
        let disks: Vec<_> = self.loops().iter().map(|l| format!(" /dev/{l} ")).collect();
        let folder = format!(" {}/incus/", self.dir.display());
        let ours = |process: &Process| {
            let inside = fs::metadata(process.proc("ns/net")).ok().map(|m| (m.dev(), m.ino()));
            if inside.is_some() && inside == netns {
                return true;
            }
            let mounts = text(process.proc("mountinfo"));
            disks.iter().any(|disk| mounts.contains(disk)) || mounts.contains(&folder)
        };
        // A mount that leaked into this process's own namespace is seen by everybody: then it tells nothing.
        let own = text("/proc/self/mountinfo");
        if disks.iter().any(|disk| own.contains(disk)) || own.contains(&folder) {
            return all().into_iter().filter(|p| same_netns(p, netns)).chain(outbound::process(&self.dir)).collect();
        }
        all().into_iter().filter(ours).chain(outbound::process(&self.dir)).collect()
    }

    /// Names of the loop devices whose file lies in the engine's folder.
    fn loops(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir("/sys/block") else { return vec![] };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        names.filter(|name| name.starts_with("loop")).filter(|name| self.backs(name)).collect()
    }

    fn backs(&self, device: &str) -> bool {
        let file = text(format!("/sys/block/{device}/loop/backing_file"));
        Path::new(file.trim_end().trim_end_matches(" (deleted)")).starts_with(self.dir.join("incus"))
    }

    /// Mount points below the folder that the rest of the computer sees, innermost first.
    fn mounts(&self) -> Vec<String> {
        let table = text("/proc/self/mountinfo");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let mut found: Vec<_> = points.filter(|p| Path::new(p).starts_with(&self.dir)).map(str::to_owned).collect();
        found.sort_by_key(|p| std::cmp::Reverse(p.len()));
        found
    }

    /// Empty cgroups of machines whose monitor was killed; `rmdir` spares those in use.
    fn clear_cgroups(&self) {
        let Ok(machines) = fs::read_dir(self.dir.join("incus/containers")) else { return };
        let machines: Vec<_> = machines.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(folders(Path::new("/sys/fs/cgroup")));
        for group in roots.iter().flat_map(|root| folders(root)) {
            let name = name(&group);
            let Some(machine) = ["lxc.payload.", "lxc.monitor."].iter().find_map(|kind| name.strip_prefix(kind)) else {
                continue;
            };
            // A name that was taken gets a number behind it.
            let bare = machine.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok()).map_or(machine, |(m, _)| m);
            if machines.iter().any(|m| m == machine || m == bare) {
                remove_cgroup(&group);
            }
        }
    }
}

fn same_netns(process: &Process, netns: Option<(u64, u64)>) -> bool {
    netns.is_some() && fs::metadata(process.proc("ns/net")).ok().map(|m| (m.dev(), m.ino())) == netns
}

fn remove_cgroup(path: &Path) {
    folders(path).iter().for_each(|inner| remove_cgroup(inner));
    fs::remove_dir(path).ok();
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs a small tool whose success is seen by looking again.
fn run(program: &str, arguments: &[&str]) {
    Command::new(program).args(arguments).output().ok();
}

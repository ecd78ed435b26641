use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};

/// A process, told apart from a later one with the same id by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: i32,
    start: u64,
}

impl Process {
    /// The process that has this id now.
    pub fn now(pid: i32) -> Option<Self> {
        start_time(&text(format!("/proc/{pid}/stat"))).map(|start| Self { pid, start })
    }

    /// The process that a pid file names (`PID START`), if it still runs.
    pub fn from_file(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let noted = Self { pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? };
        noted.alive().then_some(noted)
    }

    /// Whether it still runs; a zombie does not.
    pub fn alive(self) -> bool {
        let stat = text(format!("/proc/{}/stat", self.pid));
        let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
        !zombie && start_time(&stat) == Some(self.start)
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        match Pid::from_raw(self.pid) {
            Some(pid) if self.alive() => kill_process(pid, signal).map_err(Into::into),
            _ => Ok(()),
        }
    }

    /// The id of the process that started it, or that took it over from that.
    fn parent(self) -> Option<i32> {
        text(self.proc("stat")).rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
    }

    /// A file of its folder in `/proc`.
    pub fn proc(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.pid))
    }
}

/// A file of the kernel's, empty where it is gone.
///
/// The names of programs and mounts in it are any bytes.
pub fn text(file: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Every process but this one.
pub fn all() -> Vec<Process> {
    let own = std::process::id() as i32;
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != own).filter_map(Process::now).collect()
}

/// Kills a process with all that it started, as far as nobody took that over from it.
pub fn end_with_children(root: Option<Process>) {
    let Some(root) = root.filter(|root| root.alive()) else { return };
    // It starts nothing more while what it started is looked for.
    root.signal(Signal::STOP).ok();
    let (all, mut family, mut at) = (all(), vec![root], 0);
    while let Some(parent) = family.get(at).map(|one| one.pid) {
        family.extend(all.iter().copied().filter(|one| one.parent() == Some(parent)));
        at += 1;
    }
    family.into_iter().for_each(|one| drop(one.signal(Signal::KILL)));
}

/// Field 22 of `/proc/PID/stat`; the second field may hold blanks and brackets.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_an_odd_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(start_time(stat), Some(4711));
    }

    #[test]
    fn a_process_ends_with_what_it_started_and_nothing_else_does() {
        use std::{
            io::{BufRead, BufReader, Read},
            process::{Command, Stdio},
        };

        let mut other = Command::new("sleep").arg("600").spawn().unwrap();
        let tree = "sh -c 'sleep 600 & echo begun; wait' & wait";
        let mut root = Command::new("sh").args(["-c", tree]).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(root.stdout.take().unwrap());
        let mut said = String::new();
        out.read_line(&mut said).unwrap();
        end_with_children(Process::now(root.id() as i32));
        assert!(!root.wait().unwrap().success());
        // All of them write there, so this ends with the last of them.
        assert_eq!(out.read_to_string(&mut said).unwrap(), 0);
        assert!(Process::now(other.id() as i32).unwrap().alive());
        end_with_children(None);
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_process_is_seen_whatever_bytes_are_its_name() {
        // A thread has files as a process has, and may take any name too.
        let named = std::thread::spawn(|| {
            rustix::thread::set_name(c"x\xff) y").unwrap();
            Process::now(rustix::thread::gettid().as_raw_pid()).is_some_and(Process::alive)
        });
        assert!(named.join().unwrap());
    }

    #[test]
    fn a_recycled_id_is_not_the_process_that_was_noted() {
        let own = Process::now(std::process::id() as i32).unwrap();
        assert!(own.alive());
        assert!(!Process { start: own.start + 1, ..own }.alive());
    }
}

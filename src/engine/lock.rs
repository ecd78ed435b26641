use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::SystemTime,
};

use crate::core::{
    Code, Problem,
    shell::{join, printable},
};

/// Holds a lab for one run on this computer, or something else for one process; the kernel frees it when the process
/// ends, however it ends.
#[derive(Debug)]
pub struct Lock(File);

/// Who holds a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process, as `4711` or `4711: kubecamp reset` where what it was started as can be read.
    pub process: String,
    /// When it took the lock.
    pub since: SystemTime,
}

impl Drop for Lock {
    /// Closing the file is not enough: a program that is being started at this moment still has it open.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// Takes the lock file of a lab's folder, or says who holds it.
    pub fn take(folder: &Path) -> Result<Self, Problem> {
        let path = folder.join("lock");
        fs::create_dir_all(folder).map_err(|e| unlockable(&path, e))?;
        Self::take_file(&path, |holder| {
            Problem::new(Code::LabBusy, format!("another run works on this lab (process {})", with_command(holder)))
        })
    }

    /// Who holds a lab's folder; none where nobody does.
    ///
    /// The lock is not tried: that would be in the way of a run that takes it in this moment.
    pub fn holder(folder: &Path) -> Option<Holder> {
        let path = folder.join("lock");
        let pid = fs::read_to_string(&path).ok()?.trim().to_owned();
        let since = fs::metadata(&path).and_then(|of| of.modified()).ok()?;
        (is_number(&pid) && has_open(&pid, &path)).then(|| Holder { process: with_command(&pid), since })
    }

    /// Takes a lock file, made where it is missing; `busy` says what it means that the process of this number has it.
    pub fn take_file(path: &Path, busy: impl FnOnce(&str) -> Problem) -> Result<Self, Problem> {
        let fail = |e| unlockable(path, e);
        let mut options = File::options();
        // For this user alone: whoever can open it can hold it.
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {
                // It is only told to others: on a full disk the lock holds all the same.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                Err(busy(if holder.is_empty() { "unknown" } else { holder }))
            }
            Err(TryLockError::Error(e)) => Err(fail(e)),
        }
    }
}

fn is_number(pid: &str) -> bool {
    !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a process has a file open; one of another user's that nobody can look into has, as long as it lives.
fn has_open(pid: &str, path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(open) => open.flatten().any(|of| fs::read_link(of.path()).is_ok_and(|file| file == path)),
        Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// The number of a process with the command line that it was started by, where that can be read.
fn with_command(pid: &str) -> String {
    let line = if is_number(pid) { fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default() } else { vec![] };
    let words = String::from_utf8_lossy(&line);
    let mut words = words.split_terminator('\0');
    let Some(program) = words.next() else { return pid.to_owned() };
    let name = program.rsplit('/').next().unwrap_or(program);
    printable(&format!("{pid}: {}", join(std::iter::once(name).chain(words))))
}

fn unlockable(path: &Path, error: io::Error) -> Problem {
    Problem::new(Code::LocalFile, format!("cannot lock {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let second = Lock::take(dir.path()).unwrap_err();
        assert_eq!(second.code, Code::LabBusy);
        assert!(second.what.contains(&std::process::id().to_string()));
        drop(first);
        assert!(Lock::take(dir.path()).is_ok());
    }

    #[test]
    fn who_holds_a_lab_is_told_with_its_command_and_only_while_it_does() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lock::holder(dir.path()), None);
        let lock = Lock::take(dir.path()).unwrap();
        let holder = Lock::holder(dir.path()).unwrap();
        let program = std::env::args().next().unwrap();
        let name = program.rsplit('/').next().unwrap();
        assert!(holder.process.starts_with(&format!("{}: {name}", std::process::id())), "{holder:?}");
        assert!(holder.since <= SystemTime::now());
        assert!(Lock::take(dir.path()).unwrap_err().what.contains(&holder.process));
        drop(lock);
        assert_eq!(Lock::holder(dir.path()), None, "its number stays in the file");
        fs::write(dir.path().join("lock"), "no number").unwrap();
        assert_eq!(Lock::holder(dir.path()), None);
    }
}

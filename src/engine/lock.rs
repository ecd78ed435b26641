use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::core::{Code, Problem};

/// Holds a lab for one run on this computer, or something else for one process; the kernel frees it when the process
/// ends, however it ends.
#[derive(Debug)]
pub struct Lock(File);

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
            Problem::new(Code::LabBusy, format!("another run works on this lab (process {holder})"))
        })
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
}

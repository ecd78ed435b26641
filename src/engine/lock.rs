use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::{
    core::{Code, NodeId, Problem, RunId, shell::quote},
    host::{
        Host,
        script::{LOCKS, STEP, UPLOAD},
    },
};

/// Holds a lab for one run on this computer; the kernel frees it when the process ends, however it ends.
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
        let fail = |e| Problem::new(Code::LocalFile, format!("cannot lock {}", path.display())).because(e);
        fs::create_dir_all(folder).map_err(fail)?;
        let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {
                let wrote = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                wrote.map_err(fail)?;
                Ok(Self(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Err(Problem::new(Code::LabBusy, format!("another run works on this lab (process {})", holder.trim())))
            }
            Err(TryLockError::Error(e)) => Err(fail(e)),
        }
    }
}

/// Holds a host for one run, against runs from other computers: `flock` on the host, freed by sshd when the
/// connection ends.
pub struct HostLock {
    host: Arc<Host>,
    run: RunId,
    _held: tokio_util::sync::DropGuard,
}

/// A run that was killed holds its locks until sshd notices, in seconds.
const GRACE: u32 = 5;

impl HostLock {
    /// Takes the host's run lock, or says which run holds it; one that is `over` loses it.
    pub async fn take(host: &Arc<Host>, run: &RunId, over: impl Fn(&str) -> bool) -> Result<Self, Problem> {
        let refused = |who: &str| if who == run.as_str() { twin(host.node()) } else { busy(host.node(), who) };
        match Self::attempt(host, run).await? {
            Ok(lock) => Ok(lock),
            Err(who) if who != run.as_str() && over(&who) => {
                oust(host, &who).await;
                Self::attempt(host, run).await?.map_err(|who| refused(&who))
            }
            Err(who) => Err(refused(&who)),
        }
    }

    /// The lock, or else which run holds it.
    async fn attempt(host: &Arc<Host>, run: &RunId) -> Result<Result<Self, String>, Problem> {
        let cancel = tokio_util::sync::CancellationToken::new();
        // From the start, since a run may be stopped while it waits for the lock.
        let held = cancel.clone().drop_guard();
        let (told, heard) = tokio::sync::oneshot::channel();
        tokio::spawn(hold(Arc::clone(host), run.clone(), cancel, told));
        let on = host.node();
        match tokio::time::timeout(Duration::from_secs(30), heard).await {
            Ok(Ok(Held::Ours)) => Ok(Ok(Self { host: Arc::clone(host), run: run.clone(), _held: held })),
            Ok(Ok(Held::Other(who))) => Ok(Err(who)),
            Ok(Err(_)) | Err(_) => Err(Problem::new(Code::LinkLost, "the host's lock could not be taken").on(on)),
        }
    }
}

impl HostLock {
    /// The host that is held.
    pub(super) fn on(&self) -> &NodeId {
        self.host.node()
    }

    /// Frees the host now rather than when sshd notices that the connection is gone, and removes the locks' folder
    /// unless another run is at it. False when the folder stayed all the same, or nobody could look.
    pub async fn release(self) -> bool {
        // Whoever holds the lock may remove it: a waiting run sees that its file is gone and takes a new one.
        let script = format!(
            "F={LOCKS}; [ -d $F ] || {{ echo KC-FREE; exit 0; }}\n\
             [ \"$(cat $F/run.who 2>/dev/null)\" = {} ] && kill \"$(cat $F/run.pid)\"\n\
             command exec 9>>$F/run && command exec 8>>$F/{STEP} && command exec 7>>$F/{UPLOAD} && \
             flock -w 2 9 && flock -n 8 && flock -n 7 || {{ echo KC-FREE; exit 0; }}\n\
             rm -f $F/run.who $F/run.pid $F/run $F/{STEP} $F/{UPLOAD}; rmdir $F && echo KC-FREE",
            self.run
        );
        let done = self.host.root(&script, Duration::from_secs(8), crate::transport::Io::default()).await;
        done.is_ok_and(|exit| exit.text().lines().any(|l| l == "KC-FREE"))
    }
}

fn busy(on: &NodeId, who: &str) -> Problem {
    Problem::new(Code::HostBusy, format!("another kubecamp run works on this host ({who})")).on(on)
}

/// This very run holds it already, for another node.
fn twin(on: &NodeId) -> Problem {
    Problem::new(Code::HostTwin, "another node of this lab is the same machine, reached under another name")
        .on(on)
        .hint("Give each node a host of its own.")
}

/// Ends what holds the lock for the run `who`, unless somebody else holds it by now.
///
/// sshd may take a quarter of an hour to see that a connection is gone, as when the computer's address has changed.
async fn oust(host: &Host, who: &str) {
    // The process must have the lock's file open, under whatever number: a pid may long be somebody else's.
    let script = format!(
        "F={LOCKS}; p=$(cat $F/run.pid) && [ \"$(cat $F/run.who)\" = {} ] || exit 0\n\
         for f in \"/proc/$p/fd\"/*; do [ \"$f\" -ef $F/run ] && kill \"$p\" && exit 0; done",
        quote(who)
    );
    // Whether it was of use is seen by the next attempt.
    let _ = host.root(&script, Duration::from_secs(8), crate::transport::Io::default()).await;
}

enum Held {
    Ours,
    Other(String),
}

/// Keeps one command open that holds the lock; `read` on the other end returns when the connection is gone.
async fn hold(
    host: Arc<Host>,
    run: RunId,
    cancel: tokio_util::sync::CancellationToken,
    told: tokio::sync::oneshot::Sender<Held>,
) {
    let told = std::sync::Mutex::new(Some(told));
    let tell = |held: Held| {
        if let Some(sender) = told.lock().ok().and_then(|mut t| t.take()) {
            let _ = sender.send(held);
        }
    };
    let heard = |line: &str| match line.split_once(' ') {
        Some(("KC-LOCKED", _)) => tell(Held::Ours),
        Some(("KC-BUSY", who)) => tell(Held::Other(who.to_owned())),
        _ => {}
    };
    // The holder watches its parent: sshd's child goes when the connection does, and the lock with it.
    let script = format!(
        "F={LOCKS}; for n in 1 2 3 4 5 6 7 8 9 end; do [ $n = end ] && exit 1\n\
         mkdir -p -m 700 $F && command exec 9>>$F/run || continue\n\
         flock -w {GRACE} 9 || {{ echo \"KC-BUSY $(cat $F/run.who 2>/dev/null)\"; exit 0; }}\n\
         [ $F/run -ef /proc/self/fd/9 ] && break; done\n\
         echo {run} > $F/run.who; echo $$ > $F/run.pid; echo KC-LOCKED ok\n\
         parent=$PPID; while kill -0 \"$parent\" 2>/dev/null; do sleep 1 9>&-; echo KC-ALIVE || exit 0; done"
    );
    let io = crate::transport::Io { line: Some(&heard), sent: None };
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = host.root(&script, Duration::from_secs(24 * 3600), io) => {}
    }
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

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    core::{Code, NodeId, Problem, RunId, shell::quote},
    host::{
        Hold, Host,
        script::{LOCKS, STEP, UPLOAD},
    },
    transport::Io,
};

/// Holds a host for one run, against runs from other computers: `flock` on the host, freed by sshd when the connection
/// ends.
///
/// The next connection takes it back; a run that does not get it back changes nothing there any more.
pub struct HostLock {
    host: Arc<Host>,
    run: RunId,
    /// Cancelled once the lock's end is wanted.
    leaving: CancellationToken,
    _held: DropGuard,
}

/// A run that was killed holds its locks until sshd notices, in seconds.
const GRACE: u32 = 5;

/// How long a lock that went with its connection is tried for.
const AGAIN: Duration = Duration::from_secs(60);

/// Pause before such a try.
const PAUSE: Duration = Duration::from_millis(300);

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
        let (cancel, leaving) = (CancellationToken::new(), CancellationToken::new());
        // From the start, since a run may be stopped while it waits for the lock.
        let held = cancel.clone().drop_guard();
        let (told, heard) = oneshot::channel();
        tokio::spawn(hold(Arc::clone(host), run.clone(), cancel, leaving.clone(), told));
        let on = host.node();
        match tokio::time::timeout(Duration::from_secs(30), heard).await {
            Ok(Ok(Held::Ours)) => Ok(Ok(Self { host: Arc::clone(host), run: run.clone(), leaving, _held: held })),
            Ok(Ok(Held::Other(who))) => Ok(Err(who)),
            Ok(Err(_)) | Err(_) => Err(Problem::new(Code::LinkLost, "the host's lock could not be taken").on(on)),
        }
    }

    /// The host that is held.
    pub(super) fn on(&self) -> &NodeId {
        self.host.node()
    }

    /// Frees the host now rather than when sshd notices that the connection is gone, and removes the locks' folder unless
    /// another run is at it.
    ///
    /// False when the folder stayed all the same, or nobody could look.
    pub async fn release(self) -> bool {
        self.leaving.cancel();
        // Whoever holds the lock may remove it: a waiting run sees that its file is gone and takes a new one.
        let script = format!(
            "F={LOCKS}; [ -d $F ] || {{ echo KC-FREE; exit 0; }}\n{}\n\
             command exec 9>>$F/run && command exec 8>>$F/{STEP} && command exec 7>>$F/{UPLOAD} && \
             flock -w 2 9 && flock -n 8 && flock -n 7 || {{ echo KC-FREE; exit 0; }}\n\
             rm -f $F/run.who $F/run.pid $F/run $F/{STEP} $F/{UPLOAD}; rmdir $F && echo KC-FREE",
            end_holder(self.run.as_str())
        );
        let done = self.host.root(&script, Duration::from_secs(8), Io::default()).await;
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
    // Whether it was of use is seen by the next attempt.
    let _ = host.root(&format!("F={LOCKS}; {}", end_holder(who)), Duration::from_secs(8), Io::default()).await;
}

enum Held {
    Ours,
    Other(String),
}

/// Shell text that ends the process which holds the lock `$F/run` for the run `who`, and no other that has its number by
/// now: it must have the lock's file open, under whatever descriptor, as dash moves them while a command runs.
fn end_holder(who: &str) -> String {
    format!(
        "p=$(cat $F/run.pid 2>/dev/null); [ \"$(cat $F/run.who 2>/dev/null)\" = {} ] && \
         for f in \"/proc/$p/fd\"/*; do [ \"$f\" -ef $F/run ] && kill \"$p\" && break; done",
        quote(who)
    )
}

/// Holds the lock until it is cancelled, over as many connections as that takes.
async fn hold(
    host: Arc<Host>,
    run: RunId,
    cancel: CancellationToken,
    leaving: CancellationToken,
    told: oneshot::Sender<Held>,
) {
    let told = Mutex::new(Some(told));
    let tell = |held: Held| {
        if let Some(sender) = told.lock().ok().and_then(|mut t| t.take()) {
            let _ = sender.send(held);
        }
    };
    let work = async {
        let mut held = attempt(&host, &run, "", &tell).await;
        while held {
            held = tokio::select! {
                biased;
                () = leaving.cancelled() => false,
                held = again(&host, &run) => held,
            };
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = work => {}
    }
}

/// Takes back the lock that went with its connection, and holds it anew; false when it is not to be had any more.
async fn again(host: &Host, run: &RunId) -> bool {
    host.set_hold(Hold::Doubtful);
    let (end, other) = (Instant::now() + AGAIN, Mutex::new(None));
    let heard = |held: Held| match (held, other.lock()) {
        (Held::Ours, _) => host.set_hold(Hold::Sure),
        (Held::Other(who), Ok(mut other)) => *other = Some(who),
        (Held::Other(_), Err(_)) => {}
    };
    let lost = loop {
        tokio::time::sleep(PAUSE).await;
        // What the broken connection left on the host may hold the lock until sshd notices.
        if attempt(host, run, &end_holder(run.as_str()), &heard).await {
            return true;
        }
        let who = other.lock().ok().and_then(|mut other| other.take()).filter(|who| who != run.as_str());
        match who {
            Some(who) => break busy(host.node(), &who),
            None if Instant::now() > end => {
                let what = "the connection broke, and the host's lock with it, which could not be taken again";
                break Problem::new(Code::LinkLost, what).on(host.node());
            }
            None => {}
        }
    };
    host.set_hold(Hold::Lost(Box::new(lost)));
    false
}

/// Keeps one command open that holds the lock, until the connection is gone; tells who has the lock, and returns whether
/// it was ours. The shell text `before` comes first.
async fn attempt(host: &Host, run: &RunId, before: &str, tell: &(dyn Fn(Held) + Send + Sync)) -> bool {
    let ours = AtomicBool::new(false);
    let heard = |line: &str| match line.split_once(' ') {
        Some(("KC-LOCKED", _)) => {
            ours.store(true, Ordering::SeqCst);
            tell(Held::Ours);
        }
        Some(("KC-BUSY", who)) => tell(Held::Other(who.to_owned())),
        _ => {}
    };
    // The holder watches its parent: sshd's child goes when the connection does, and the lock with it.
    let script = format!(
        "F={LOCKS}; {before}\n\
         for n in 1 2 3 4 5 6 7 8 9 end; do [ $n = end ] && exit 1\n\
         mkdir -p -m 700 $F && command exec 9>>$F/run || continue\n\
         flock -w {GRACE} 9 || {{ echo \"KC-BUSY $(cat $F/run.who 2>/dev/null)\"; exit 0; }}\n\
         [ $F/run -ef /proc/self/fd/9 ] && break; done\n\
         echo {run} > $F/run.who; echo $$ > $F/run.pid; echo KC-LOCKED ok\n\
         parent=$PPID; while kill -0 \"$parent\" 2>/dev/null; do sleep 1 9>&-; echo KC-ALIVE || exit 0; done"
    );
    let io = Io { line: Some(&heard), sent: None };
    let _ = host.root(&script, Duration::from_secs(24 * 3600), io).await;
    ours.into_inner()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use async_trait::async_trait;

    use super::*;
    use crate::transport::{Cmd, Exit, Input, LinkError, Transport};

    /// How one try to hold the lock ends; after all of these it is held for good.
    #[derive(Clone, Copy)]
    enum Try {
        HeldAndCut,
        Cut,
        Busy(&'static str),
    }

    struct Link(Mutex<VecDeque<Try>>);

    #[async_trait]
    impl Transport for Link {
        async fn exec(&self, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError> {
            if matches!(cmd.input, Input::None) {
                return Ok(Exit { status: Some(0), stdout: b"root\n".to_vec(), stderr: vec![] });
            }
            let say = |line: &str| io.line.into_iter().for_each(|heard| heard(line));
            let next = self.0.lock().unwrap().pop_front();
            match next {
                Some(Try::HeldAndCut) => say("KC-LOCKED ok"),
                Some(Try::Cut) => {}
                Some(Try::Busy(who)) => say(&format!("KC-BUSY {who}")),
                None => {
                    say("KC-LOCKED ok");
                    std::future::pending::<()>().await;
                }
            }
            Err(LinkError::Lost("cut".into()))
        }

        async fn close(&self) {}
    }

    #[tokio::test]
    async fn a_lock_comes_back_with_the_connection_unless_another_run_was_faster() {
        for (tries, wanted) in [
            (&[Try::HeldAndCut, Try::Cut][..], None),
            // Its own holder, whose connection sshd still believes in.
            (&[Try::HeldAndCut, Try::Busy("mine")], None),
            (&[Try::HeldAndCut, Try::Cut, Try::HeldAndCut, Try::Busy("theirs")], Some(Code::HostBusy)),
        ] {
            let link = Arc::new(Link(Mutex::new(tries.iter().copied().collect())));
            let way = Arc::clone(&link) as Arc<dyn Transport>;
            let host = Arc::new(Host::open("cp".parse().unwrap(), way, None).await.unwrap());
            let lock = HostLock::take(&host, &RunId::from("mine".to_owned()), |_| false).await.unwrap();
            while !link.0.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(host.held().await.err().map(|p| p.code), wanted);
            drop(lock);
        }
    }
}

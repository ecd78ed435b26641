use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    ask,
    exit::{TERMINATED, exit_code},
    output,
};
use crate::core::{Class, Code, Problem, Problems};

/// How long what is to end at once may take before it is ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// What Ctrl-C and SIGTERM do.
///
/// A command that only looks, or still asks, ends at once. From when it changes something, the first one ends it in order,
/// and the second at once.
#[derive(Default)]
pub struct Stop {
    /// Cancelled by the first Ctrl-C.
    first: CancellationToken,
    /// Cancelled when nothing more is waited for.
    now: CancellationToken,
    in_order: AtomicBool,
    /// SIGTERM came, and no Ctrl-C before it.
    terminated: AtomicBool,
    /// Another program has the terminal.
    handed_over: AtomicBool,
}

impl Stop {
    /// Listens from here on.
    pub fn listen() -> Arc<Self> {
        let stop = Arc::new(Self::default());
        ask::give_up_with(stop.first.clone());
        // Who sends SIGTERM to a run shall not leave a host in the midst of a step either. Where nobody may listen, each ends
        // the process as it always did. SIGHUP is left alone: nohup has it ignored.
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            if let Ok(mut pressed) = signal(kind) {
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    while pressed.recv().await.is_some() {
                        stop.pressed(kind);
                        if stop.now.is_cancelled() {
                            // A thread that is busy, or waits for a pipe that nobody reads, never sees it.
                            let code = stop.exit_code(Class::Cancelled);
                            std::thread::spawn(move || {
                                std::thread::sleep(PATIENCE);
                                std::process::exit(i32::from(code));
                            });
                        }
                    }
                });
            }
        }
        stop
    }

    fn pressed(&self, kind: SignalKind) {
        if self.handed_over.load(Ordering::SeqCst) {
            return;
        }
        // Before anything ends by it.
        if kind == SignalKind::terminate() && !self.first.is_cancelled() {
            self.terminated.store(true, Ordering::SeqCst);
        }
        if !self.in_order.load(Ordering::SeqCst) || self.first.is_cancelled() {
            // First this: who sees a question unanswered must find the command ended already.
            self.now.cancel();
        } else {
            output::say("Stopping in order; Ctrl-C again stops at once.");
        }
        self.first.cancel();
    }

    /// From now on the first Ctrl-C is for the command, which listens to [`Self::first`].
    pub fn in_order(&self) {
        self.in_order.store(true, Ordering::SeqCst);
    }

    /// From now on Ctrl-C is for another program, which has the terminal and whose end is waited for.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::SeqCst);
    }

    /// How to exit with a problem of this class, by what stopped it.
    pub fn exit_code(&self, class: Class) -> u8 {
        match class {
            Class::Cancelled if self.terminated.load(Ordering::SeqCst) => TERMINATED,
            class => exit_code(class),
        }
    }

    /// The first Ctrl-C.
    pub fn first(&self) -> &CancellationToken {
        &self.first
    }

    /// Does `work` unless it is to end at once.
    pub async fn unless_now<T>(&self, work: impl Future<Output = Result<T, Problems>>) -> Result<T, Problems> {
        race(&self.now, work).await
    }

    /// Does a part of a run that may be dropped at any time: connecting, looking.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Problems>>) -> Result<T, Problems> {
        race(&self.first, work).await
    }
}

async fn race<T>(stop: &CancellationToken, work: impl Future<Output = Result<T, Problems>>) -> Result<T, Problems> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(cancelled().into()),
        ended = work => ended,
    }
}

/// The problem of what was stopped.
pub fn cancelled() -> Problem {
    Problem::new(Code::Cancelled, "stopped by Ctrl-C or SIGTERM")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn forever() -> Result<(), Problems> {
        std::future::pending().await
    }

    fn code(ended: Result<(), Problems>) -> Option<Code> {
        ended.err().and_then(|problems| problems.iter().next().map(|p| p.code))
    }

    #[tokio::test]
    async fn one_ends_a_look_and_two_a_run() {
        let look = Stop::default();
        look.pressed(SignalKind::interrupt());
        assert_eq!(code(look.unless_now(forever()).await), Some(Code::Cancelled));
        let run = Stop::default();
        run.in_order();
        run.pressed(SignalKind::interrupt());
        assert_eq!(code(run.unless_stopped(forever()).await), Some(Code::Cancelled));
        assert_eq!(code(run.unless_now(async { Ok(()) }).await), None, "it goes on to its end");
        run.pressed(SignalKind::interrupt());
        assert_eq!(code(run.unless_now(forever()).await), Some(Code::Cancelled));
        let other = Stop::default();
        other.hand_over();
        other.pressed(SignalKind::terminate());
        assert!(!other.first.is_cancelled() && !other.now.is_cancelled());
    }

    #[tokio::test]
    async fn the_exit_code_tells_the_signal_that_came_first() {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        for (signals, code) in [(&[interrupt][..], 130), (&[terminate], 143), (&[terminate, interrupt], 143)] {
            let stop = Stop::default();
            signals.iter().for_each(|kind| stop.pressed(*kind));
            assert_eq!((stop.exit_code(Class::Cancelled), stop.exit_code(Class::Connect)), (code, 4));
        }
        let stop = Stop::default();
        stop.in_order();
        [interrupt, terminate].into_iter().for_each(|kind| stop.pressed(kind));
        assert_eq!(stop.exit_code(Class::Cancelled), 130);
    }
}

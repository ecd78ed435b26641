use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Mutex, MutexGuard};

/// The line in which this hub's bookings wait before they write; clones share it.
///
/// When a popular hour opens everybody sees it free, and all but the first would open a transaction that writes only to
/// be refused in it, one after the other. Who waited here learns that somebody wrote meanwhile, and looks again first.
/// That no slot is sold twice does not depend on it: the transaction decides, whoever else writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<Line>);

#[derive(Debug, Default)]
struct Line {
    /// Fair: the first who waits is the first who gets it.
    turn: Mutex<()>,
    booked: AtomicU64,
}

/// Whose turn it is; the next one's when dropped.
pub(super) struct Mine<'a> {
    line: &'a Line,
    _turn: MutexGuard<'a, ()>,
}

impl Turn {
    /// How many bookings were written so far: what a look is as old as.
    pub fn booked(&self) -> u64 {
        self.0.booked.load(Ordering::SeqCst)
    }

    /// Waits for one's turn.
    pub async fn wait(&self) -> Mine<'_> {
        Mine { _turn: self.0.turn.lock().await, line: &self.0 }
    }
}

impl Mine<'_> {
    /// Notes that a booking was written.
    pub fn booked(&self) {
        self.line.booked.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_learns_that_another_wrote() {
        let turn = Turn::default();
        let seen = turn.booked();
        let first = turn.wait().await;
        let other = turn.clone();
        let waiting = tokio::spawn(async move {
            let _mine = other.wait().await;
            other.booked()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.booked();
        drop(first);
        assert_eq!(waiting.await.unwrap(), seen + 1);
    }
}

use crate::{
    core::Problem,
    hub::{desk::Desk, domain::Epoch},
};

/// Does what is due.
///
/// Two clerks on one database do not harm each other: each step is a compare-and-set.
#[derive(Debug, Clone)]
pub struct Clerk {
    pub(super) desk: Desk,
    pub(super) client: reqwest::Client,
    /// Before this no booking is moved off its server, and nobody is told that it cannot be.
    moves_from: Epoch,
}

/// How long after a hub began its clerk moves nothing, seconds: agents report each 10 seconds, and until they have, all of them
/// seem silent to a hub that was away for longer.
const LISTENS: i64 = 30;

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Bookings that moved on because their time had come.
    pub settled: usize,
    /// Offers that were made.
    pub offered: usize,
    /// Bookings that were moved off a server that does not take them.
    pub moved: usize,
}

impl Clerk {
    /// A clerk at a desk; `client` sends the webhooks and should follow no redirects.
    pub fn new(desk: Desk, client: reqwest::Client) -> Self {
        Self { desk, client, moves_from: Epoch(0) }
    }

    /// The same of a hub that begins to listen at `now`.
    #[must_use]
    pub fn of_hub_begun(self, now: Epoch) -> Self {
        Self { moves_from: now + LISTENS, ..self }
    }

    /// Does all that is due at `now`; called each second or so, and once at the start, where it also catches up with
    /// whatever became due while no hub ran.
    ///
    /// What is to be done is looked for by reading, and looked at once more in the transaction that does it: where nothing
    /// is due, nothing is written. Webhooks are sent apart: a slot begins and ends whatever somebody else's computer does.
    ///
    /// # Errors
    /// The first that was met; what has nothing to do with it was done all the same.
    pub async fn settle(&self, now: Epoch) -> Result<Ticked, Problem> {
        let (mut done, mut first) = (Ticked::default(), None);
        // A hub may have ended between the closing of an account and what it gives up.
        for booking in self.desk.of_closed(now).await? {
            count(&mut done.settled, &mut first, self.desk.end_of_closed(now, &booking).await);
        }
        for booking in self.desk.due(now).await? {
            count(&mut done.settled, &mut first, self.desk.settle(now, &booking).await);
        }
        let stuck = if now < self.moves_from { vec![] } else { self.desk.stuck(now, None).await? };
        for booking in stuck {
            count(&mut done.moved, &mut first, self.desk.rehouse(now, &booking.id).await);
        }
        for waiting in self.desk.waitlist(now).await? {
            count(&mut done.offered, &mut first, self.desk.offer(now, &waiting).await);
        }
        first.map_or(Ok(done), Err)
    }

    /// Forgets what is kept only for a while; called once an hour or so.
    pub async fn tidy(&self, now: Epoch) -> Result<u64, Problem> {
        self.desk.forget_answers(now).await
    }
}

/// One booking's trouble must not keep everybody's slots from beginning and ending.
fn count(done: &mut usize, first: &mut Option<Problem>, outcome: Result<bool, Problem>) {
    match outcome {
        Ok(changed) => *done += usize::from(changed),
        Err(problem) => {
            first.get_or_insert(problem);
        }
    }
}

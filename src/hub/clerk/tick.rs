use crate::{
    core::Problem,
    hub::{desk::Desk, domain::Epoch},
};

/// Does what is due. Two clerks on one database do not harm each other: each step is a compare-and-set.
#[derive(Debug, Clone)]
pub struct Clerk {
    pub(super) desk: Desk,
    pub(super) client: reqwest::Client,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Bookings that moved on because their time had come.
    pub settled: usize,
    /// Offers that were made.
    pub offered: usize,
    /// Bookings that were moved off a server that does not take them.
    pub moved: usize,
    /// Webhooks that arrived.
    pub sent: usize,
}

impl Clerk {
    /// A clerk at a desk; `client` sends the webhooks and should follow no redirects.
    pub fn new(desk: Desk, client: reqwest::Client) -> Self {
        Self { desk, client }
    }

    /// Does all that is due at `now`; called each second or so, and once at the start, where it also catches up with
    /// whatever became due while no hub ran. What is to be done is looked for by reading, and looked at once more in the
    /// transaction that does it: where nothing is due, nothing is written.
    pub async fn tick(&self, now: Epoch) -> Result<Ticked, Problem> {
        let mut done = self.settle(now).await?;
        done.sent = self.send_hooks(now).await?;
        Ok(done)
    }

    /// As [`Clerk::tick`], without webhooks.
    pub async fn settle(&self, now: Epoch) -> Result<Ticked, Problem> {
        let mut done = Ticked::default();
        for booking in self.desk.due(now).await? {
            done.settled += usize::from(self.desk.settle(now, &booking).await?);
        }
        for booking in self.desk.stuck(now).await? {
            done.moved += usize::from(self.desk.rehouse(now, &booking.id).await?);
        }
        for waiting in self.desk.waitlist(now).await? {
            done.offered += usize::from(self.desk.offer(now, &waiting).await?);
        }
        Ok(done)
    }

    /// Forgets what is kept only for a while; called once an hour or so.
    pub async fn tidy(&self, now: Epoch) -> Result<u64, Problem> {
        self.desk.forget_answers(now).await
    }
}

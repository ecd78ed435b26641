use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::{Reach, Reading};
use crate::{core::Problem, hub::gate::Slot};

/// What is left of an account's presence on the server; empty is proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remains {
    /// Processes of the account, as `PID NAME`.
    pub processes: Vec<String>,
    /// sshd's own processes that serve the account, as `PID TITLE`.
    pub sessions: Vec<String>,
    /// Open sockets of the account.
    pub sockets: Vec<String>,
}

impl Remains {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.sessions.is_empty() && self.sockets.is_empty()
    }

    /// One line for each thing, not more than ten.
    pub fn lines(&self) -> Vec<String> {
        let all = [("process", &self.processes), ("session", &self.sessions), ("socket", &self.sockets)];
        all.iter().flat_map(|(kind, things)| things.iter().map(move |t| format!("{kind} {t}"))).take(10).collect()
    }
}

/// How far [`World::clear`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// To its end: nothing is left that it looks for.
    Whole,
    /// Some of it went, and there was no time for the rest.
    Partly,
}

/// The server as the agent sees and changes it.
///
/// Every call may be repeated.
#[async_trait]
pub trait World: Send + Sync {
    /// Looks at the clocks.
    fn read_clocks(&self) -> Reading;

    /// The accounts that have a principal now, and their lines.
    fn principals(&self) -> Result<BTreeMap<String, String>, Problem>;

    /// Sets an account's principals file to this line, whole or not at all; an empty line shuts the door.
    fn set_principals(&self, account: &str, line: &str) -> Result<(), Problem>;

    /// The line that lets this slot in.
    fn principals_line(&self, slot: &Slot) -> String;

    /// Sees to it that the account exists and is a student's and nothing more.
    async fn ensure_account(&self, account: &str) -> Result<(), Problem>;

    /// Takes an account for a student's, which it was when its slot began: also who is taken out of the group in the
    /// midst of a slot, with the agent beginning anew, is put out at its end.
    fn remember(&self, account: &str);

    /// Writes a line to the account's terminals.
    async fn warn(&self, account: &str, text: &str);

    /// Gives what was written to terminals a moment to reach who reads there, before their connections end.
    async fn linger(&self) {}

    /// Ends sshd's connections and every process of the account.
    async fn evict(&self, account: &str) -> Result<(), Problem>;

    /// Removes what would start processes of the account later (linger, cron, at, its user manager), and what it left
    /// outside of its home: files, shared memory, queues. What there is no time for goes at the next call.
    async fn clear(&self, account: &str) -> Result<Cleared, Problem>;

    /// Closes what the kernel still has of the account's connections, and cuts their flows as far as there is time.
    async fn cut_flows(&self, account: &str) -> Result<(), Problem>;

    /// Lets the `open` ones of these accounts reach the machines of their labs, and no student anything else of the
    /// networks that those are in; connections of who must not any more are cut.
    async fn set_reach(&self, labs: &BTreeMap<String, Reach>, open: &BTreeSet<String>) -> Result<(), Problem>;

    /// What is left of these accounts; those with nothing are not in the answer.
    fn remains(&self, accounts: &[String]) -> Result<BTreeMap<String, Remains>, Problem>;

    /// What the account left outside of its home, as lines; empty is proof. Slower than [`World::remains`].
    async fn left_behind(&self, _account: &str) -> Result<Vec<String>, Problem> {
        Ok(vec![])
    }

    /// Whether somebody was let in by this principal, as far as that is written down: they may be gone again by now.
    async fn was_let_in(&self, _principal: &str) -> bool {
        false
    }

    /// The students' accounts of this server.
    fn accounts(&self) -> Vec<String>;
}

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::{Need, Value};
use crate::core::{NodeId, Secret, StepId};

/// What the lanes of one run know of each other: steps done, values given, nodes that failed, and who waits for what.
pub struct Board(watch::Sender<State>);

#[derive(Default)]
struct State {
    done: BTreeSet<(NodeId, StepId)>,
    /// Beside its name each value has the node that gave it: no host can speak for another.
    values: BTreeMap<(NodeId, &'static str), Secret>,
    /// Lanes that ended: whatever they did not do will not happen any more.
    over: BTreeSet<NodeId>,
    /// How many lanes, and phases beside them, are at work and do not wait.
    busy: isize,
    waiting: Vec<(NodeId, Need)>,
}

/// How waiting for a need ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// It happened.
    Yes,
    /// It will not happen in this run: its lane has ended.
    No,
    /// Everybody waits, so nothing will happen any more; here is what the node that was waited for waits for itself.
    Stuck(Vec<Need>),
}

impl State {
    fn has(&self, need: &Need) -> bool {
        match need {
            Need::Step(on, step) | Need::After(on, step) => self.done.contains(&(on.clone(), step.clone())),
            Need::Value(from, value) => self.values.contains_key(&(from.clone(), value.name)),
        }
    }

    /// Whether the one node that could meet the need has ended. Only the node named counts: two that wait for a third
    /// would take each other for hope.
    fn is_hopeless(&self, need: &Need, lanes: &[NodeId]) -> bool {
        self.over.contains(need.on()) || !lanes.contains(need.on())
    }

    /// How waiting ends as things are; `None` while there is hope.
    fn ended(&self, need: &Need, lanes: &[NodeId]) -> Option<Met> {
        match (need, self.ended_hard(need, lanes)) {
            (Need::After(..), Some(_)) => Some(Met::Yes),
            (_, ended) => ended,
        }
    }

    fn ended_hard(&self, need: &Need, lanes: &[NodeId]) -> Option<Met> {
        if self.has(need) {
            return Some(Met::Yes);
        }
        if self.is_hopeless(need, lanes) {
            return Some(Met::No);
        }
        let goes_on = |(_, need): &(NodeId, Need)| self.has(need) || self.is_hopeless(need, lanes);
        if self.busy > 0 || self.waiting.iter().any(goes_on) {
            return None;
        }
        let its = self.waiting.iter().filter(|(who, _)| who == need.on());
        Some(Met::Stuck(its.map(|(_, need)| need.clone()).collect()))
    }
}

/// Held by whoever is at work: while it is held, others may hope.
pub struct Busy<'a>(&'a Board);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|s| s.busy -= 1);
    }
}

/// Held while a lane waits.
struct Waiting<'a>(&'a Board, (NodeId, Need));

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|s| {
            s.busy += 1;
            if let Some(at) = s.waiting.iter().position(|one| *one == self.1) {
                s.waiting.swap_remove(at);
            }
        });
    }
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self(watch::channel(State::default()).0)
    }

    /// Tells that a step is done.
    pub fn step_done(&self, on: &NodeId, step: &StepId) {
        self.0.send_modify(|s| {
            s.done.insert((on.clone(), step.clone()));
        });
    }

    /// Gives a value of a node; it is kept as a secret whatever it is.
    pub fn give(&self, from: &NodeId, value: &'static Value, text: &Secret) {
        self.0.send_modify(|s| {
            s.values.insert((from.clone(), value.name), text.clone());
        });
    }

    /// A value that the node gave so far.
    pub fn value(&self, from: &NodeId, value: &'static Value) -> Option<Secret> {
        self.0.borrow().values.get(&(from.clone(), value.name)).cloned()
    }

    /// Tells that a lane has ended.
    pub fn lane_over(&self, on: &NodeId) {
        self.0.send_modify(|s| {
            s.over.insert(on.clone());
        });
    }

    /// Counts one more at work, for as long as the result lives.
    pub fn busy(&self) -> Busy<'_> {
        self.0.send_modify(|s| s.busy += 1);
        Busy(self)
    }

    /// Waits for `who`, which is at work, until `need` is met or never will be.
    pub async fn wait(&self, who: &NodeId, need: &Need, lanes: &[NodeId]) -> Met {
        let mut watch = self.0.subscribe();
        self.0.send_modify(|s| {
            s.busy -= 1;
            s.waiting.push((who.clone(), need.clone()));
        });
        let _waiting = Waiting(self, (who.clone(), need.clone()));
        loop {
            let ended = watch.borrow_and_update().ended(need, lanes);
            if let Some(met) = ended {
                return met;
            }
            if watch.changed().await.is_err() {
                return Met::No;
            }
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    static TOKEN: Value = Value { name: "token", is_one: |_| true, by_node: false };

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn step(on: &str, id: &'static str) -> Need {
        Need::Step(node(on), StepId::new(id))
    }

    #[tokio::test]
    async fn waits_and_gives_up() {
        let board = Board::new();
        let (cp, worker) = (node("cp"), node("worker-1"));
        let lanes = [cp.clone(), worker.clone()];
        let _both = (board.busy(), board.busy());
        let init = step("cp", "init");
        let wait = board.wait(&worker, &init, &lanes);
        board.step_done(&cp, &StepId::new("init"));
        assert_eq!(wait.await, Met::Yes);
        board.lane_over(&cp);
        assert_eq!(board.wait(&worker, &Need::Value(cp, &TOKEN), &lanes).await, Met::No);
        assert_eq!(board.wait(&worker, &init, &lanes).await, Met::Yes);
    }

    #[test]
    fn no_node_gives_in_the_name_of_another() {
        let board = Board::new();
        board.give(&node("worker-1"), &TOKEN, &Secret::new("mine"));
        assert!(!board.0.borrow().has(&Need::Value(node("cp"), &TOKEN)));
        assert_eq!(board.value(&node("cp"), &TOKEN), None);
        assert_eq!(board.value(&node("worker-1"), &TOKEN), Some(Secret::new("mine")));
    }

    #[tokio::test]
    async fn two_that_wait_for_a_third_give_up_together() {
        let board = Board::new();
        let lanes = [node("cp"), node("worker-1"), node("worker-2")];
        let token = Need::Value(node("cp"), &TOKEN);
        let _all = (board.busy(), board.busy());
        board.lane_over(&lanes[0]);
        let waits = futures::join!(board.wait(&lanes[1], &token, &lanes), board.wait(&lanes[2], &token, &lanes));
        assert_eq!(waits, (Met::No, Met::No));
    }

    #[tokio::test]
    async fn two_that_wait_for_each_other_are_told_so() {
        let board = Board::new();
        let lanes = [node("cp"), node("worker-1")];
        let (token, join) = (Need::Value(node("cp"), &TOKEN), step("worker-1", "join"));
        let (cp, worker) = (board.busy(), board.busy());
        let first = async {
            let met = board.wait(&lanes[1], &token, &lanes).await;
            drop(worker);
            board.lane_over(&lanes[1]);
            met
        };
        let second = async {
            let met = board.wait(&lanes[0], &join, &lanes).await;
            drop(cp);
            board.lane_over(&lanes[0]);
            met
        };
        let limit = std::time::Duration::from_secs(10);
        let met = tokio::time::timeout(limit, futures::future::join(first, second)).await.unwrap();
        assert_eq!(met, (Met::No, Met::Stuck(vec![token.clone()])), "one tells, and the other had hoped for it");
    }

    #[tokio::test]
    async fn what_comes_after_needs_no_success() {
        let board = Board::new();
        let lanes = [node("cp"), node("worker-1")];
        let (_worker, cp) = (board.busy(), board.busy());
        let drain = Need::After(node("cp"), StepId::new("drain"));
        let mut wait = Box::pin(board.wait(&lanes[1], &drain, &lanes));
        assert!(futures::poll!(&mut wait).is_pending());
        drop(cp);
        board.lane_over(&lanes[0]);
        assert_eq!(wait.await, Met::Yes);
    }

    #[tokio::test]
    async fn one_at_work_is_hope() {
        let board = Board::new();
        let lanes = [node("cp"), node("worker-1")];
        let (_worker, cp, aside) = (board.busy(), board.busy(), board.busy());
        let (image, init) = (step("cp", "import"), step("cp", "init"));
        // A lane may wait for what goes on beside it.
        let mut own = Box::pin(board.wait(&lanes[0], &image, &lanes));
        assert!(futures::poll!(&mut own).is_pending());
        let mut other = Box::pin(board.wait(&lanes[1], &init, &lanes));
        assert!(futures::poll!(&mut other).is_pending());
        board.step_done(&lanes[0], &StepId::new("import"));
        drop(aside);
        assert_eq!(other.as_mut().now_or_never(), None, "the lane goes on now");
        assert_eq!(own.await, Met::Yes);
        assert!(futures::poll!(&mut other).is_pending());
        drop(cp);
        assert_eq!(other.await, Met::Stuck(vec![]));
    }
}

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::{Need, Value};
use crate::core::{NodeId, Secret, StepId};

/// What the lanes of one run know of each other: steps done, values given, nodes that failed.
pub struct Board(watch::Sender<State>);

#[derive(Default, Clone)]
struct State {
    done: BTreeSet<(NodeId, StepId)>,
    /// Beside its name each value has the node that gave it: no host can speak for another.
    values: BTreeMap<(NodeId, &'static str), Secret>,
    /// Lanes that ended: whatever they did not do will not happen any more.
    over: BTreeSet<NodeId>,
}

/// How waiting for a need ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    /// It happened.
    Yes,
    /// It will not happen in this run.
    No,
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

    /// Whether `need` has been met already.
    pub fn has(&self, need: &Need) -> bool {
        let state = self.0.borrow();
        match need {
            Need::Step(on, step) => state.done.contains(&(on.clone(), step.clone())),
            Need::Value(from, value) => state.values.contains_key(&(from.clone(), value.name)),
        }
    }

    /// Waits until `need` is met, or until the one of `lanes` that could meet it has ended.
    pub async fn wait(&self, need: &Need, lanes: &[NodeId]) -> Met {
        let mut watch = self.0.subscribe();
        loop {
            if self.has(need) {
                return Met::Yes;
            }
            let hopeless = {
                let state = watch.borrow_and_update();
                // Only the node named counts: two that wait for a third would take each other for hope.
                let (Need::Step(on, _) | Need::Value(on, _)) = need;
                state.over.contains(on) || !lanes.contains(on)
            };
            // A lane reports its last step before it ends, so look once more.
            if hopeless {
                return if self.has(need) { Met::Yes } else { Met::No };
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
    use super::*;

    static TOKEN: Value = Value { name: "token", is_one: |_| true };

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn waits_and_gives_up() {
        let board = Board::new();
        let (cp, worker) = (node("cp"), node("worker-1"));
        let lanes = [cp.clone(), worker.clone()];
        let init = Need::Step(cp.clone(), StepId::new("init"));
        let wait = board.wait(&init, &lanes);
        board.step_done(&cp, &StepId::new("init"));
        assert_eq!(wait.await, Met::Yes);
        board.lane_over(&cp);
        assert_eq!(board.wait(&Need::Value(cp.clone(), &TOKEN), &lanes).await, Met::No);
        assert_eq!(board.wait(&init, &lanes).await, Met::Yes);
    }

    #[test]
    fn no_node_gives_in_the_name_of_another() {
        let board = Board::new();
        board.give(&node("worker-1"), &TOKEN, &Secret::new("mine"));
        assert!(!board.has(&Need::Value(node("cp"), &TOKEN)));
        assert_eq!(board.value(&node("cp"), &TOKEN), None);
        assert_eq!(board.value(&node("worker-1"), &TOKEN), Some(Secret::new("mine")));
    }

    #[tokio::test]
    async fn two_that_wait_for_a_third_give_up_together() {
        let board = Board::new();
        let lanes = [node("cp"), node("worker-1"), node("worker-2")];
        let token = Need::Value(node("cp"), &TOKEN);
        board.lane_over(&lanes[0]);
        assert_eq!(futures::join!(board.wait(&token, &lanes), board.wait(&token, &lanes)), (Met::No, Met::No));
    }
}

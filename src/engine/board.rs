use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use super::Need;
use crate::core::{NodeId, Secret, StepId};

/// What the lanes of one run know of each other: steps done, values given, nodes that failed.
pub struct Board(watch::Sender<State>);

#[derive(Default, Clone)]
struct State {
    done: BTreeSet<(NodeId, StepId)>,
    values: BTreeMap<String, Secret>,
    /// Lanes that ended: whatever they did not do will not happen any more.
    over: BTreeSet<NodeId>,
    /// What each lane that waits is waiting for.
    waiting: BTreeMap<NodeId, Need>,
}

impl State {
    fn has(&self, need: &Need) -> bool {
        match need {
            Need::Step(on, step) => self.done.contains(&(on.clone(), step.clone())),
            Need::Value(name) => self.values.contains_key(name),
        }
    }

    /// Whether nobody is left who could meet `need`: lanes that wait for each other never go on either.
    fn is_hopeless(&self, need: &Need, own: &NodeId, lanes: &[NodeId]) -> bool {
        if let Need::Step(on, _) = need
            && (self.over.contains(on) || on == own || !lanes.contains(on))
        {
            return true;
        }
        let stuck = |l: &NodeId| self.over.contains(l) || self.waiting.get(l).is_some_and(|need| !self.has(need));
        lanes.iter().all(|l| l == own || stuck(l))
    }
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

    /// Gives a value; it is kept as a secret whatever it is.
    pub fn give(&self, name: &str, value: &str) {
        self.0.send_modify(|s| {
            s.values.insert(name.to_owned(), Secret::new(value));
        });
    }

    /// A value given so far.
    pub fn value(&self, name: &str) -> Option<Secret> {
        self.0.borrow().values.get(name).cloned()
    }

    /// Every value given so far, to redact them from output.
    pub fn secrets(&self) -> Vec<Secret> {
        self.0.borrow().values.values().cloned().collect()
    }

    /// Tells that a lane has ended.
    pub fn lane_over(&self, on: &NodeId) {
        self.0.send_modify(|s| {
            s.over.insert(on.clone());
        });
    }

    /// Whether `need` has been met already.
    pub fn has(&self, need: &Need) -> bool {
        self.0.borrow().has(need)
    }

    /// Waits until `need` is met, or until no other of `lanes` can meet it any more.
    pub async fn wait(&self, need: &Need, own: &NodeId, lanes: &[NodeId]) -> Met {
        let mut watch = self.0.subscribe();
        self.0.send_modify(|s| drop(s.waiting.insert(own.clone(), need.clone())));
        let met = loop {
            {
                let state = watch.borrow_and_update();
                if state.has(need) {
                    break Met::Yes;
                }
                if state.is_hopeless(need, own, lanes) {
                    break Met::No;
                }
            }
            if watch.changed().await.is_err() {
                break Met::No;
            }
        };
        self.0.send_modify(|s| drop(s.waiting.remove(own)));
        met
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

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn waits_and_gives_up() {
        let board = Board::new();
        let (cp, worker) = (node("cp"), node("worker-1"));
        let lanes = [cp.clone(), worker.clone()];
        let init = Need::Step(cp.clone(), StepId::new("init"));
        let wait = board.wait(&init, &worker, &lanes);
        board.step_done(&cp, &StepId::new("init"));
        assert_eq!(wait.await, Met::Yes);
        board.lane_over(&cp);
        assert_eq!(board.wait(&Need::Value("ca-hash".into()), &worker, &lanes).await, Met::No);
        assert_eq!(board.wait(&init, &worker, &lanes).await, Met::Yes);
    }

    #[tokio::test]
    async fn lanes_do_not_wait_for_each_other() {
        let board = Board::new();
        let (cp, one, two) = (node("cp"), node("worker-1"), node("worker-2"));
        let lanes = [cp.clone(), one.clone(), two.clone()];
        let token = Need::Value("token".into());
        let lane = async |own: &NodeId| {
            let met = board.wait(&token, own, &lanes).await;
            board.lane_over(own);
            met
        };
        board.lane_over(&cp);
        assert_eq!(futures::join!(lane(&one), lane(&two)), (Met::No, Met::No));
    }
}

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::core::{Blob, Code, NodeId, Problem, Report, Secret, StepId};

/// One change on one host, and how to see that it is done.
#[derive(Clone)]
pub struct Step {
    /// Its name within its phase and node.
    pub id: StepId,
    /// What it does, for people, in the imperative: `write the kubelet unit`.
    pub title: String,
    /// How the live host shows that it is done.
    pub done_if: Check,
    /// What to change.
    pub change: Change,
    /// What must have happened before, on this node or others.
    pub needs: Vec<Need>,
    /// What the change gives to steps of other nodes.
    pub gives: Vec<&'static Value>,
    /// How long the change may take.
    pub limit: Duration,
    /// What its failure is called.
    pub fails_as: Code,
    /// Whether its script does not wait for the host's other changes.
    pub beside: bool,
}

/// How a live host shows that a step is done; it outranks the journal.
#[derive(Clone, PartialEq, Eq)]
pub enum Check {
    /// A reading script with exit status 0; probed before the change and again after it.
    Script(String),
    /// The same, but probed only before the change: what a best effort could not do is for a later step to judge.
    Before(String),
    /// It cannot be seen: the change runs every time, and must do no harm when repeated.
    Never,
}

/// A change as data.
///
/// Only the engine applies it.
#[derive(Clone)]
pub enum Change {
    /// A script run as root, holding the host's step lock unless the step goes beside. Lines `KC-OUT name=value` become the
    /// values that the step says it gives; a line that names any other is ordinary output.
    Script(String),
    /// Files to be put in place, and a script to run after each, with `$KC_FILE` set.
    Upload {
        /// The files, in order.
        files: Vec<Upload>,
        /// Run as root after the files arrived; empty for nothing.
        then: String,
    },
    /// Work on this computer: building a bundle, making a machine.
    Task(Arc<dyn Task>),
}

/// One file of an upload.
#[derive(Clone)]
pub struct Upload {
    /// For progress, as `kubelet`.
    pub what: String,
    /// The bytes.
    pub blob: Blob,
    /// Absolute path on the host.
    pub to: String,
    /// File mode.
    pub mode: u32,
    /// A reading script with exit status 0 where an earlier, interrupted run has done all of this file already; empty
    /// for nothing.
    pub have: String,
    /// Run as root once this file has arrived, while the next one is under way; empty for nothing.
    pub then: String,
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A step of some node, as (`cp`, `init`).
    Step(NodeId, StepId),
    /// The same, or that the node's lane has ended: what comes after goes well without it.
    After(NodeId, StepId),
    /// A value that a step of the node gives; the script sees it as the shell variable `KC_NAME`.
    Value(NodeId, &'static Value),
}

impl Need {
    /// The node that meets it.
    pub(super) fn on(&self) -> &NodeId {
        match self {
            Self::Step(on, _) | Self::After(on, _) | Self::Value(on, _) => on,
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(on, step) | Self::After(on, step) => write!(f, "the step {step} on {on}"),
            Self::Value(on, value) => write!(f, "the {} from {on}", value.name),
        }
    }
}

/// A value that one host gives and others use in their scripts.
///
/// A host is not trusted: what is not of the right form is no value, and nobody else's step hears of it.
#[derive(Debug)]
pub struct Value {
    /// Its name, as in `KC-OUT name=value`; several such lines are one value, with spaces between, where that has its form.
    pub name: &'static str,
    /// Whether a text has its form; the form leaves no room for what a shell would take for more than a word.
    pub is_one: fn(&str) -> bool,
    /// Whether it is made of `node=text` words, of which a node is sent its own alone.
    pub by_node: bool,
}

impl Value {
    /// What a node is sent of a value's text.
    pub(super) fn share(&self, text: &Secret, node: &NodeId) -> Secret {
        if !self.by_node {
            return text.clone();
        }
        let is_its_own = |word: &&str| word.split_once('=').is_some_and(|(whose, _)| whose == node.as_str());
        Secret::new(text.expose().split(' ').filter(is_its_own).collect::<Vec<_>>().join(" "))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Value {}

/// Work on this computer.
#[async_trait]
pub trait Task: Send + Sync {
    /// Whether there is nothing to do.
    async fn done(&self) -> Result<bool, Problem>;

    /// Does it.
    async fn run(&self, report: &dyn Report) -> Result<(), Problem>;
}

impl Step {
    /// A step that runs `change` unless `done_if` holds, with a limit of two minutes.
    pub fn script(id: &'static str, title: impl Into<String>, done_if: Check, change: impl Into<String>) -> Self {
        Self::new(id, title, done_if, Change::Script(change.into()))
    }

    /// A step with any change, with a limit of two minutes.
    pub fn new(id: &'static str, title: impl Into<String>, done_if: Check, change: Change) -> Self {
        Self {
            id: StepId::new(id),
            title: title.into(),
            done_if,
            change,
            needs: vec![],
            gives: vec![],
            limit: Duration::from_secs(120),
            fails_as: Code::StepFailed,
            beside: false,
        }
    }

    /// Says that its script writes nothing on its host, so that it does not wait for the host's other changes.
    #[must_use]
    pub fn beside(mut self) -> Self {
        self.beside = true;
        self
    }

    /// Adds something to wait for.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    /// Says what the change gives.
    #[must_use]
    pub fn gives(mut self, values: &[&'static Value]) -> Self {
        self.gives.extend(values);
        self
    }

    /// Sets how long the change may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets what its failure is called, where that is more than a step that went wrong.
    #[must_use]
    pub fn fails_as(mut self, code: Code) -> Self {
        self.fails_as = code;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_sent_its_own_words_where_a_value_has_such() {
        let of = |by_node, node: &str| {
            let value = Value { name: "keys", is_one: |_| true, by_node };
            value.share(&Secret::new("a-1=eA== a-10=eQ== a-1=eg=="), &node.parse().unwrap()).expose().to_owned()
        };
        assert_eq!(of(true, "a-1"), "a-1=eA== a-1=eg==");
        assert_eq!((of(true, "a").as_str(), of(true, "a-10").as_str()), ("", "a-10=eQ=="));
        assert_eq!(of(false, "a"), "a-1=eA== a-10=eQ== a-1=eg==");
    }
}

use std::time::Duration;

use super::{Host, script::reading};
use crate::{
    core::{NodeId, Problem},
    transport::{Exit, Io},
};

/// A host that can only be read: what a phase gets, so that planning cannot change anything.
///
/// It offers no upload and no way to the host beneath; its scripts read by contract, and the plan tests compare a
/// host before and after.
#[derive(Clone)]
pub struct Viewer(Host);

impl Viewer {
    /// A read-only view of `host`.
    pub fn new(host: &Host) -> Self {
        Self(host.clone())
    }

    /// The node that is looked at.
    pub fn node(&self) -> &NodeId {
        self.0.node()
    }

    /// The connection to the host as the host sees it.
    pub(super) fn peer(&self) -> &str {
        self.0.peer()
    }

    /// Runs a reading script as root.
    pub async fn read(&self, script: &str) -> Result<Exit, Problem> {
        let read = self.0.root(&reading(script), Duration::from_secs(60), Io::default()).await;
        read.map_err(|e| e.problem().during("reading its state").on(self.0.node()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::transport::{Reply, ScriptedTransport};

    #[tokio::test]
    async fn what_is_read_is_not_asked_of_the_hosts_proxy() {
        let link = ScriptedTransport::new().on("id -u", Reply::ok("root")).on("kubectl", Reply::ok(""));
        let host = Host::open("cp".parse().unwrap(), Arc::new(link.clone()), None).await.unwrap();
        Viewer::new(&host).read("kubectl get nodes").await.unwrap();
        let sent = link.ran().pop().unwrap().input;
        assert!(sent.contains(&reading("kubectl get nodes")), "{sent}");
    }
}

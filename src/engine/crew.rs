use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;

use super::{HostLock, Journal};
use crate::{
    core::{Code, NodeId, Outcome, PhaseId, Problem, Problems},
    host::{Facts, Host, SudoPassword, Viewer, script::LOCKS},
    transport::{SshTarget, SshTransport},
};

/// The hosts of a run: connected, held against other runs, their facts known.
pub struct Crew {
    /// The hosts by node.
    pub hosts: BTreeMap<NodeId, Arc<Host>>,
    /// What is known of each.
    pub fleet: BTreeMap<NodeId, Facts>,
    locks: Vec<HostLock>,
}

impl Crew {
    /// Connecting as a phase of a run that is told of in its events.
    pub const CONNECT: PhaseId = PhaseId::new("connect");

    /// Connects to every host at once, takes its lock for the run of `journal` when one is given, and gathers its facts;
    /// the error has every host's problem, not only the first.
    pub async fn muster(
        targets: &[(NodeId, SshTarget)],
        sudo_password: Option<&SudoPassword>,
        journal: Option<&Journal>,
    ) -> Result<Self, Problems> {
        let (crew, found) = Self::muster_those_that_come(targets, sudo_password, journal).await;
        if let Err(problems) = Problems::check(found) {
            crew.dismiss().await;
            return Err(problems);
        }
        Ok(crew)
    }

    /// Like [`Crew::muster`], but goes on with the hosts that can be reached; the problems of the others come beside.
    pub async fn muster_those_that_come(
        targets: &[(NodeId, SshTarget)],
        sudo_password: Option<&SudoPassword>,
        journal: Option<&Journal>,
    ) -> (Self, Vec<Problem>) {
        let each = targets.iter().map(|(node, target)| one(node, target, sudo_password, journal));
        let (mut hosts, mut fleet, mut locks, mut found) = (BTreeMap::new(), BTreeMap::new(), vec![], vec![]);
        for ((node, _), met) in targets.iter().zip(join_all(each).await) {
            match met {
                Ok((host, facts, lock)) => {
                    hosts.insert(node.clone(), host);
                    fleet.insert(node.clone(), facts);
                    locks.extend(lock);
                }
                Err(problem) => found.push(problem),
            }
        }
        (Self { hosts, fleet, locks }, found)
    }

    /// Ends every connection politely.
    pub async fn dismiss(self) {
        self.dismiss_proven().await;
    }

    /// Like [`Crew::dismiss`]; the problems name the hosts where the locks, the last that a run has there, stayed.
    pub async fn dismiss_proven(self) -> Vec<Problem> {
        let left = join_all(self.locks.into_iter().map(one_free)).await;
        join_all(self.hosts.values().map(|h| h.close())).await;
        left.into_iter().flatten().collect()
    }
}

type Met = (Arc<Host>, Facts, Option<HostLock>);

async fn one(
    node: &NodeId,
    target: &SshTarget,
    sudo_password: Option<&SudoPassword>,
    journal: Option<&Journal>,
) -> Result<Met, Problem> {
    let Some(journal) = journal else { return meet(node, target, sudo_password, None).await };
    let under_way = journal.phase_begins(&Crew::CONNECT, node, "log in and look around");
    let met = meet(node, target, sudo_password, Some(journal)).await;
    let outcome = if met.is_ok() { Outcome::AlreadyDone } else { Outcome::Failed };
    under_way.ends(outcome);
    met
}

async fn meet(
    node: &NodeId,
    target: &SshTarget,
    sudo_password: Option<&SudoPassword>,
    journal: Option<&Journal>,
) -> Result<Met, Problem> {
    let link = SshTransport::connect(target.clone()).await.map_err(|p| p.on(node))?;
    let host = Arc::new(Host::open(node.clone(), Arc::new(link), sudo_password).await?);
    let lock = match journal {
        // Whoever has a journal holds the lab on this computer: its earlier runs are over, though a host may not know.
        Some(journal) => Some(HostLock::take(&host, journal.run(), |who| journal.is_beside(who)).await?),
        None => None,
    };
    let facts = Facts::gather(&Viewer::new(&host)).await?;
    Ok((host, facts, lock))
}

async fn one_free(lock: HostLock) -> Option<Problem> {
    let on = lock.on().clone();
    if lock.release().await {
        return None;
    }
    let what = format!("{} is still there, or could not be looked for", LOCKS);
    Some(Problem::new(Code::ResetResidue, what).on(&on))
}

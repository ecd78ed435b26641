use std::sync::Arc;

use tempfile::TempDir;

use super::{Request, this_arch};
use crate::{
    bundle::Bundle,
    cli::{
        commands::{Context, sudo_password},
        store::Store,
    },
    core::{Arch, Code, EventKind, NodeId, Outcome, PhaseId, Problem, Problems, Report},
    engine::{Crew, Mode, Run, run_flow},
    flows::{self, LocalResult},
    host::{Facts, Viewer},
    phases::{Records, preflight},
    transport::SshTarget,
};

/// Preflight as a phase of a run that is told of in its events.
pub(super) const PREFLIGHT: PhaseId = PhaseId::new("preflight");

/// The hosts of a lab, open for a run, with all that the flow `up` asks of them.
pub(in crate::cli::commands) struct Site<'a> {
    cx: &'a Context,
    request: &'a Request,
    run: &'a Run,
    targets: Vec<(NodeId, SshTarget)>,
    crew: Crew,
    /// What kept the hosts away that are not in the crew.
    absent: Vec<Problem>,
    /// Where a plan keeps the host keys that it was told to accept, for as long as it looks.
    keys: Option<TempDir>,
}

impl<'a> Site<'a> {
    /// Logs in to every host; those that refuse are told of together with what preflight says of the others.
    pub(in crate::cli::commands) async fn open(
        cx: &'a Context,
        request: &'a Request,
        run: &'a Run,
        result: &LocalResult,
    ) -> Result<Self, Problems> {
        let journal = (run.mode == Mode::Apply).then_some(&*run.journal);
        let keys = passing_keys(cx, run.mode)?;
        let store = keys.as_ref().map_or_else(|| cx.store.clone(), |dir| Store::of(dir.path(), &cx.global.name));
        let meet = async {
            let targets = request.targets(&store, result).await?;
            let password = sudo_password(&request.args.connect).await?;
            let met = Crew::muster_those_that_come(&targets, Some(&password), journal).await;
            if let Some(password) = password.known() {
                run.journal.hide(password);
            }
            Ok((targets, met))
        };
        let (targets, (crew, absent)) = cx.stop.unless_stopped(meet).await?;
        Ok(Self { cx, request, run, targets, crew, absent, keys })
    }

    /// Refuses hosts that do not fit, with every problem of every host; only then gets the bundle ready for hosts that the
    /// user named.
    ///
    /// `None` in a plan where it is not built yet.
    pub(in crate::cli::commands) async fn bundle(&self, result: &LocalResult) -> Result<Option<Arc<Bundle>>, Problems> {
        let arch = self.arch()?;
        self.fit(arch).await?;
        if !self.request.is_local() {
            self.request.prepare(self.cx, self.run, result, arch).await?;
        }
        Ok(result.bundle.get().cloned())
    }

    /// What the bundle is for, or must be built for: the named one tells, else the control plane's CPU, or where that did
    /// not come another host's.
    ///
    /// Of hosts with a CPU that no bundle is for, preflight tells.
    pub(in crate::cli::commands) fn arch(&self) -> Result<Arch, Problem> {
        if let Some(arch) = self.request.bundle_arch {
            return Ok(arch);
        }
        let control_plane = self.crew.fleet.get(&self.run.lab.control_plane().name);
        let arch = control_plane.or_else(|| self.crew.fleet.values().next()).and_then(Facts::arch);
        arch.map_or_else(this_arch, Ok)
    }

    async fn fit(&self, arch: Arch) -> Result<(), Problems> {
        let args = &self.request.args;
        let allow = preflight::Allowances { undersized: args.allow_undersized, take_over: args.take_over };
        let journal = &self.run.journal;
        let nodes = self.crew.hosts.keys();
        let under_way: Vec<_> =
            nodes.map(|on| (on, journal.phase_begins(&PREFLIGHT, on, "see whether the hosts fit"))).collect();
        let crew = &self.crew;
        let look = async {
            Ok(preflight::check(&self.run.lab, &self.request.owner, &crew.hosts, &crew.fleet, arch, allow).await)
        };
        let found = self.cx.stop.unless_stopped(look).await?;
        for problem in found.warnings {
            journal.event(EventKind::Warning { problem });
        }
        for (on, under_way) in under_way {
            let refused = found.problems.iter().any(|p| p.on.as_ref().is_none_or(|node| node == on));
            let outcome = if refused { Outcome::Failed } else { Outcome::AlreadyDone };
            under_way.ends(outcome);
        }
        Problems::check(self.absent.iter().cloned().chain(found.problems).collect())
    }

    /// From here on hosts may change, so the lab is kept; one that was refused before leaves no lab behind.
    pub(super) async fn change(&self, bundle: &Arc<Bundle>) -> Result<(), Problems> {
        let records = self.cx.store.records()?;
        self.cx.store.save(&self.request.lab, &self.request.state())?;
        let ended = self.flow(bundle).await;
        let kept = self.keep_records(records).await;
        ended.and(kept.map_err(Into::into))
    }

    /// The phases on the hosts: carried out or only planned, as the run's mode says.
    pub(in crate::cli::commands) async fn flow(&self, bundle: &Arc<Bundle>) -> Result<(), Problems> {
        let phases = flows::up(&self.request.up(self.cx, bundle, &self.targets));
        let nodes: Vec<_> = self.run.lab.nodes().iter().map(|n| n.name.clone()).collect();
        run_flow(self.run, &phases, &nodes, &self.crew.hosts, &self.crew.fleet).await
    }

    /// Whether a jump host stands before the control plane.
    pub(super) fn is_behind_jump(&self) -> bool {
        let node = &self.run.lab.control_plane().name;
        self.targets.iter().any(|(of, target)| of == node && !target.jump.is_empty())
    }

    /// Logs out everywhere.
    pub(in crate::cli::commands) async fn close(self) {
        self.crew.dismiss().await;
        drop(self.keys);
    }

    /// Keeps each host's record from before `up` here too: a student may delete the host's own.
    async fn keep_records(&self, mut records: Records) -> Result<(), Problem> {
        let missing: Vec<_> = self.crew.hosts.iter().filter(|(node, _)| !records.contains_key(*node)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for (node, host) in missing {
            let before = Viewer::new(host).read("cat /var/lib/kubecamp/before 2>/dev/null").await;
            if let Some(text) = before.ok().map(|exit| exit.text()).filter(|t| !t.is_empty()) {
                records.insert(node.clone(), text);
            }
        }
        self.cx.store.keep_records(&records)
    }
}

/// The folder for host keys of a plan for a lab that there is not: it makes none, since it changes nothing.
fn passing_keys(cx: &Context, mode: Mode) -> Result<Option<TempDir>, Problem> {
    if mode == Mode::Apply || cx.store.folder().exists() {
        return Ok(None);
    }
    let made = tempfile::tempdir();
    made.map(Some).map_err(|e| Problem::new(Code::LocalFile, "a temporary folder cannot be made").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_keeps_host_keys_only_of_a_lab_that_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let apart = |mode| passing_keys(&cx, mode).unwrap().is_some();
        assert_eq!([apart(Mode::Plan), apart(Mode::Apply)], [true, false]);
        std::fs::create_dir_all(cx.store.folder()).unwrap();
        assert_eq!([apart(Mode::Plan), apart(Mode::Apply)], [false, false]);
    }
}

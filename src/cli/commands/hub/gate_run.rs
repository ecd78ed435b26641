use std::{sync::Arc, time::Duration};

use super::super::{Context, sudo_password};
use crate::{
    cli::{
        args::ConnectArgs,
        output::Show,
        store::{Login, Store},
        targets::{self, Connect},
    },
    core::{BadId, Code, EventKind, LabName, NodeId, Problem, Problems, Report, Secret},
    engine::{Crew, Journal, Lock, Mode, Phase, Run, run_flow},
    host::Host,
    inventory::{self, HostEntry},
    profile::{self, Lab},
    transport::Io,
};

/// A flow of the gate on one server, and all that it needs for a run.
pub(super) struct GateRun<'a> {
    /// What the run's events call the flow.
    pub flow: &'a str,
    /// The server as the user wrote it.
    pub host: &'a str,
    /// The server's name at the hub.
    pub server: &'a LabName,
    /// How the server is reached.
    pub connect: &'a ConnectArgs,
    /// The flow.
    pub phases: &'a [Box<dyn Phase>],
    /// What no log of the run may show.
    pub secrets: &'a [Secret],
    /// A script that only looks, when all is done; empty is none.
    pub look: &'a str,
}

impl GateRun<'_> {
    /// Carries it out, once the server let us in and `first` is done; what the look says.
    ///
    /// The engine's runs are about labs: here the lab is only a frame with one node.
    pub async fn carry_out(&self, cx: &Context, first: impl Future<Output = ()>) -> Result<String, Problems> {
        let entries = inventory::entries(&[self.host])?;
        let store = Store::of(&cx.places.labs.with_file_name("servers"), self.server);
        let lab = Lab::new(self.server.clone(), profile::load(&frame())?)?;
        let node: NodeId = self.server.as_str().parse().map_err(|e: BadId| Problem::new(Code::Usage, e.to_string()))?;
        let hosts: Vec<_> = entries.into_iter().map(|entry| (node.clone(), entry)).collect();
        let _lock = Lock::take(store.folder())?;
        cx.stop.in_order();
        let show = Show::choose(cx.global.plain, cx.global.output_events.is_some());
        let journal = Arc::new(Journal::create(&store.file("runs"), vec![show.listener(cx.global.verbose)])?);
        self.secrets.iter().for_each(|secret| journal.hide(secret));
        let run = Run::new(lab, Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
        let nodes = [node];
        journal.event(self.started(&nodes));
        let work = async {
            let crew = cx.stop.unless_stopped(self.meet(&store, &hosts, &journal)).await?;
            first.await;
            let ended = run_flow(&run, self.phases, &nodes, &crew.hosts, &crew.fleet).await;
            let mut shown = String::new();
            if let (Ok(()), Some(host), false) = (&ended, crew.hosts.values().next(), self.look.is_empty()) {
                shown = look(host, self.look).await;
            }
            crew.dismiss().await;
            ended.map(|()| shown)
        };
        let ended = work.await;
        cx.end(&run, ended)
    }

    fn started(&self, nodes: &[NodeId]) -> EventKind {
        EventKind::RunStarted {
            flow: self.flow.into(),
            lab: self.server.clone(),
            nodes: nodes.to_vec(),
            phases: std::iter::once(Crew::CONNECT).chain(self.phases.iter().map(|p| p.id())).collect(),
        }
    }

    async fn meet(&self, store: &Store, hosts: &[(NodeId, HostEntry)], journal: &Journal) -> Result<Crew, Problems> {
        let targets = targets::of_hosts(store, hosts, &Connect::of(self.connect, &Login::default())?).await?;
        let password = sudo_password(self.connect).await?;
        let met = Crew::muster(&targets, Some(&password), Some(journal)).await;
        if let Some(password) = password.known() {
            journal.hide(password);
        }
        met
    }
}

/// What a script says on a host; nothing where it fails, since nothing depends on it.
async fn look(host: &Host, script: &str) -> String {
    match host.root(script, Duration::from_secs(30), Io::default()).await {
        Ok(exit) if exit.ok() => exit.text(),
        _ => String::new(),
    }
}

/// The smallest layout, for what only needs one.
pub(super) fn frame() -> String {
    profile::Layout::SHIPPED[0].to_string()
}

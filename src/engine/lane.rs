use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};

use super::{
    Change, Check, Mode, Need, Phase, Planned, Run, Step, Upload, View,
    board::{Busy, Met},
    given::{Given, secrets_of},
};
use crate::{
    core::{Code, EventKind, NodeId, Outcome, PhaseId, Problem, Report, shell::quote},
    host::{Facts, Host, Viewer, script},
    transport::{Exit, Io, LinkError, there},
};

/// One node's way through the phases of a flow.
pub(super) struct Lane<'a> {
    run: &'a Run,
    node: &'a NodeId,
    host: Option<&'a Arc<Host>>,
    viewer: Option<Viewer>,
    fleet: &'a BTreeMap<NodeId, Facts>,
    lanes: &'a [NodeId],
}

/// How many of the last lines of remote output a problem shows.
const EVIDENCE: usize = 15;

impl<'a> Lane<'a> {
    pub(super) fn new(
        run: &'a Run,
        node: &'a NodeId,
        host: Option<&'a Arc<Host>>,
        fleet: &'a BTreeMap<NodeId, Facts>,
        lanes: &'a [NodeId],
    ) -> Self {
        Self { run, node, host, viewer: host.map(|h| Viewer::new(h)), fleet, lanes }
    }

    fn view(&self) -> View<'_> {
        View { lab: &self.run.lab, node: self.node, fleet: self.fleet, host: self.viewer.as_ref() }
    }

    /// The phases in order, those that run aside beside the ones after them; the first failure ends the lane.
    ///
    /// `busy` is the lane's own, from before any of them began.
    pub(super) async fn run(&self, phases: &[Box<dyn Phase>], busy: Busy<'_>) -> Result<(), Problem> {
        let (mut asides, mut rest) = (FuturesUnordered::new(), phases.iter());
        loop {
            let next = rest.by_ref().find(|p| p.concerns(&self.view()));
            let Some(phase) = next else { break };
            if phase.aside() && self.run.mode == Mode::Apply {
                let busy = self.run.board.busy();
                asides.push(async move {
                    let _busy = busy;
                    self.timed(phase.as_ref()).await
                });
                continue;
            }
            let mut main = Box::pin(self.timed(phase.as_ref()));
            loop {
                tokio::select! {
                    ended = &mut main => break ended?,
                    Some(ended) = asides.next() => match ended {
                        // The phase in front is stopped too, and tells its own end.
                        Err(problem) if problem.code == Code::Cancelled => {}
                        ended => ended?,
                    },
                }
            }
        }
        drop(busy);
        while let Some(ended) = asides.next().await {
            ended?;
        }
        Ok(())
    }

    /// One phase, its begin and end told.
    async fn timed(&self, phase: &dyn Phase) -> Result<(), Problem> {
        let under_way = self.run.journal.phase_begins(&phase.id(), self.node, phase.title());
        let stopped = async {
            if phase.to_its_end() && !self.run.cancel.is_cancelled() {
                std::future::pending::<()>().await;
            }
            self.run.cancel.cancelled().await;
        };
        let ended = tokio::select! {
            // Cancel comes first: no command may begin after it.
            biased;
            () = stopped => Err(Problem::new(Code::Cancelled, "stopped by Ctrl-C or SIGTERM").on(self.node)),
            ended = self.phase(phase) => ended,
        };
        let outcome = match &ended {
            Ok(outcome) => *outcome,
            Err(p) if matches!(p.code, Code::StepUnreached | Code::Cancelled) => Outcome::Skipped,
            Err(_) => Outcome::Failed,
        };
        under_way.ends(outcome);
        ended.map(drop)
    }

    async fn phase(&self, phase: &dyn Phase) -> Result<Outcome, Problem> {
        let steps = phase.steps(&self.view()).await.map_err(|p| p.during(phase.id()))?;
        let done = self.probe(&steps).await.map_err(|p| p.during(looking(phase, &steps)))?;
        let mut whole = Outcome::AlreadyDone;
        for (step, done) in steps.iter().zip(done) {
            if self.run.mode == Mode::Plan {
                self.plan(phase.id(), step, done);
                continue;
            }
            let outcome = if done { self.found_done(phase.id(), step) } else { self.change(phase.id(), step).await? };
            self.run.board.step_done(self.node, &step.id);
            self.run.count(outcome);
            if outcome == Outcome::Changed {
                whole = Outcome::Changed;
            }
        }
        Ok(whole)
    }

    fn plan(&self, phase: PhaseId, step: &Step, done: bool) {
        let name = |need: &Need| match need {
            Need::Step(on, id) | Need::After(on, id) => format!("{on}/{id}"),
            Need::Value(_, value) => value.name.to_owned(),
        };
        if let Ok(mut planned) = self.run.planned.lock() {
            planned.push(Planned {
                phase,
                on: self.node.clone(),
                step: step.id.clone(),
                title: step.title.clone(),
                done,
                depends_on: step.needs.iter().map(name).collect(),
                assumed: self.fleet.get(self.node).is_some_and(Facts::is_assumed),
            });
        }
    }

    fn found_done(&self, phase: PhaseId, step: &Step) -> Outcome {
        let (outcome, on) = (Outcome::AlreadyDone, self.node.clone());
        self.run.journal.event(EventKind::StepEnded { phase, step: step.id.clone(), on, outcome, millis: 0 });
        outcome
    }

    /// Evaluates the checks of all steps in one round trip.
    async fn probe(&self, steps: &[Step]) -> Result<Vec<bool>, Problem> {
        let mut done = vec![false; steps.len()];
        for (i, step) in steps.iter().enumerate() {
            if let Change::Task(task) = &step.change {
                done[i] = task.done().await?;
            }
        }
        let checks = steps.iter().enumerate().filter_map(|(i, step)| match &step.done_if {
            Check::Script(text) | Check::Before(text) => Some((i, text.as_str())),
            Check::Never => None,
        });
        for i in self.holding(checks).await? {
            done[i] = true;
        }
        Ok(done)
    }

    /// Which of the reading scripts end with 0, asked in one round trip.
    async fn holding<'s>(&self, checks: impl Iterator<Item = (usize, &'s str)>) -> Result<Vec<usize>, Problem> {
        let asked: Vec<_> = checks.collect();
        let (Some(viewer), Some(script)) = (&self.viewer, script::probe(asked.iter().copied())) else {
            return Ok(vec![]);
        };
        let said = viewer.read(&script).await?.text();
        let numbers = said.lines().filter_map(|l| l.strip_prefix("KC-DONE ")?.parse().ok());
        // What a host prints is not trusted to be one of ours.
        Ok(numbers.filter(|n| asked.iter().any(|(i, _)| i == n)).collect())
    }

    async fn change(&self, phase: PhaseId, step: &Step) -> Result<Outcome, Problem> {
        for need in &step.needs {
            self.wait(step, need).await?;
        }
        if let Some(host) = self.host {
            host.held().await?;
        }
        let under_way = self.run.journal.step_begins(&phase, &step.id, self.node, &step.title);
        let ended = match &step.change {
            Change::Task(task) => task.run(&*self.run.journal).await,
            Change::Script(text) => self.script(step, text).await,
            Change::Upload { files, then } => self.upload(step, files, then).await,
        };
        let outcome = if ended.is_ok() { Outcome::Changed } else { Outcome::Failed };
        under_way.ends(outcome);
        ended.map_err(|mut p| {
            p.on.get_or_insert_with(|| self.node.clone());
            if p.code == step.fails_as || matches!(p.code, Code::StepFailed | Code::StepTimeout | Code::LinkLost) {
                p.what = format!("{phase}/{}: {}", step.id, p.what);
            }
            p
        })?;
        Ok(outcome)
    }

    async fn wait(&self, step: &Step, need: &Need) -> Result<(), Problem> {
        let met = self.run.board.wait(self.node, need, self.lanes).await;
        let unreached = Problem::new(Code::StepUnreached, format!("`{}` was not tried", step.title))
            .on(self.node)
            .detail([format!("it needs {need}")]);
        match met {
            Met::Yes => Ok(()),
            Met::No => Err(unreached),
            // A host is no longer what it was when the run began, so that each waits for what the other takes for done.
            Met::Stuck(its) => Err(unreached
                .detail(its.iter().map(|other| format!("{} waits for {other}", need.on())))
                .hint("A host changed meanwhile: run the same command again, it looks at all of them anew.")),
        }
    }

    fn host(&self) -> Result<&Arc<Host>, Problem> {
        self.host
            .ok_or_else(|| Problem::new(Code::Internal, "a step for a host came to a lane without one").on(self.node))
    }

    async fn script(&self, step: &Step, text: &str) -> Result<(), Problem> {
        let needed = step.needs.iter().filter_map(|need| match need {
            Need::Value(from, value) => {
                Some((value.name.to_owned(), value.share(&self.run.board.value(from, value)?, self.node)))
            }
            Need::Step(..) | Need::After(..) => None,
        });
        let (given, values) = (Given::default(), needed.collect::<Vec<_>>());
        let script =
            if step.beside { script::beside(text, &values) } else { script::change(text, &values, step.limit) };
        let exit = self.as_root(&script, step, step.limit, &given).await?;
        if !exit.ok() {
            return Err(failed(step, &exit, "failed"));
        }
        self.settled(step).await?;
        self.give(step, given)
    }

    /// Hands on what the step gave; only now, since a step that failed in the end gave nothing.
    fn give(&self, step: &Step, given: Given) -> Result<(), Problem> {
        let given = given.all();
        for value in &step.gives {
            let text = given.get(value.name).ok_or_else(|| {
                let what = format!("`{}` gave no {} of the right form", step.title, value.name);
                Problem::new(Code::StepFailed, what).on(self.node)
            })?;
            self.run.board.give(self.node, value, text);
        }
        Ok(())
    }

    /// Proves that the change made its check true.
    async fn settled(&self, step: &Step) -> Result<(), Problem> {
        let Check::Script(check) = &step.done_if else { return Ok(()) };
        let Some(script) = script::probe([(0, check.as_str())]) else { return Ok(()) };
        let exit = self.as_root(&script, step, Duration::from_secs(60), &Given::default()).await?;
        if exit.text().lines().any(|l| l == "KC-DONE 0") {
            return Ok(());
        }
        Err(failed(step, &exit, "ran, but the host does not show its effect"))
    }

    async fn as_root(&self, script: &str, step: &Step, limit: Duration, given: &Given) -> Result<Exit, Problem> {
        let heard = |line: &str| self.heard(line, step, given);
        let io = Io { line: Some(&heard), sent: None };
        let exit = self.host()?.root(script, limit, io).await;
        exit.map_err(|e: LinkError| e.problem().on(self.node))
    }

    /// Keeps what the step says it gives, and nothing else of the same look: any program can print such a line.
    fn heard(&self, line: &str, step: &Step, given: &Given) {
        let told = line.strip_prefix("KC-OUT ").and_then(|l| l.split_once('='));
        let known = told.and_then(|(name, text)| Some((step.gives.iter().find(|v| v.name == name)?, text)));
        match known {
            Some((value, text)) => {
                secrets_of(text).for_each(|secret| self.run.journal.hide(&secret));
                given.take(value, text);
            }
            None if line.starts_with("KC-DONE") => {}
            None => self.run.journal.event(EventKind::Output { on: self.node.clone(), line: line.to_owned() }),
        }
    }

    /// Uploads one file after the other, without those that an interrupted run has done; what is to be done with a file
    /// runs while the next is under way.
    async fn upload(&self, step: &Step, files: &[Upload], then: &str) -> Result<(), Problem> {
        // Numbers below the count are of what is done already, those from there on of what has arrived.
        let there: Vec<_> = files.iter().map(|f| there(&f.to, &f.blob)).collect();
        let done = files.iter().enumerate().filter(|(_, f)| !f.have.is_empty()).map(|(i, f)| (i, f.have.as_str()));
        let arrived = there.iter().enumerate().map(|(i, text)| (files.len() + i, text.as_str()));
        let found = self.holding(done.chain(arrived)).await?;
        let arrived: Vec<_> = (0..files.len()).map(|i| found.contains(&(files.len() + i))).collect();
        let files: Vec<_> =
            files.iter().zip(arrived).enumerate().filter(|(i, _)| !found.contains(i)).map(|(_, f)| f).collect();
        let total = files.iter().map(|(f, _)| f.blob.size()).sum();
        let mut before = 0;
        let mut working: Option<futures::future::BoxFuture<'_, Result<(), Problem>>> = None;
        for (file, arrived) in files {
            let send = self.send(file, arrived, before, total);
            match working.take() {
                Some(work) => {
                    let (sent, worked) = futures::join!(send, work);
                    worked?;
                    sent?;
                }
                None => send.await?,
            }
            before += file.blob.size();
            if !file.then.is_empty() {
                working = Some(Box::pin(self.after_upload(step, file)));
            }
        }
        if let Some(work) = working {
            work.await?;
        }
        if !then.is_empty() {
            self.script(step, then).await?;
        }
        self.settled(step).await
    }

    async fn after_upload(&self, step: &Step, file: &Upload) -> Result<(), Problem> {
        let text = format!("KC_FILE={}\n{}", quote(&file.to), file.then);
        let exit = self.as_root(&script::unpack(&text, step.limit), step, step.limit, &Given::default()).await?;
        if exit.ok() { Ok(()) } else { Err(failed(step, &exit, &format!("failed for {}", file.what))) }
    }

    /// A file that was there when it was looked for is looked at once more, and gets its mode.
    async fn send(&self, file: &Upload, arrived: bool, before: u64, total: u64) -> Result<(), Problem> {
        let sent = |n: u64| self.run.journal.progress(self.node, &file.what, before + n, total);
        let io = Io { line: None, sent: Some(&sent) };
        let (host, blob) = (self.host()?, &file.blob);
        let sent = match arrived {
            true => host.put(blob, &file.to, file.mode, io).await.map(drop),
            false => host.send(blob, &file.to, file.mode, io).await,
        };
        sent.map_err(|e| {
            let mut problem = e.problem().on(self.node);
            problem.what = format!("{} to {}: {}", file.what, file.to, problem.what);
            problem
        })
    }
}

/// What a probe asks for, as the host does not say which of the checks it hangs at.
fn looking(phase: &dyn Phase, steps: &[Step]) -> String {
    let mut ids: Vec<_> = steps.iter().map(|step| step.id.to_string()).collect();
    ids.dedup();
    format!("{}, looking whether it is done already ({})", phase.id(), ids.join(", "))
}

fn failed(step: &Step, exit: &Exit, how: &str) -> Problem {
    let status = exit.status.map_or("ended by a signal".to_owned(), |s| format!("exit status {s}"));
    if exit.status == Some(script::LOCKED) {
        return Problem::new(Code::HostBusy, "an earlier step still runs on this host").detail(exit.tail(EVIDENCE));
    }
    if exit.status == Some(script::UNSEEN) {
        let what = "a tool that shows the host's state failed, so nothing was changed on this host";
        return Problem::new(Code::HostScan, what).detail(exit.tail(EVIDENCE));
    }
    Problem::new(step.fails_as, format!("`{}` {how} ({status})", step.title)).detail(exit.tail(EVIDENCE))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        engine::{Journal, Task, run_flow},
        host::Hold,
        profile::{self, Lab},
        transport::{Reply, ScriptedTransport},
    };

    fn run(cancel: &CancellationToken) -> Run {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        Run::new(lab, Mode::Apply, Arc::new(Journal::unkept(vec![])), cancel.clone())
    }

    /// Work in whose midst the user presses Ctrl-C.
    #[derive(Clone)]
    struct Work {
        cancel: CancellationToken,
        to_its_end: bool,
        ended: Arc<AtomicBool>,
    }

    #[async_trait]
    impl Phase for Work {
        fn id(&self) -> PhaseId {
            PhaseId::new("work")
        }

        fn title(&self) -> &'static str {
            "work"
        }

        fn to_its_end(&self) -> bool {
            self.to_its_end
        }

        async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
            Ok(vec![Step::new("work", "work", Check::Never, Change::Task(Arc::new(self.clone())))])
        }
    }

    #[async_trait]
    impl Task for Work {
        async fn done(&self) -> Result<bool, Problem> {
            Ok(false)
        }

        async fn run(&self, _: &dyn Report) -> Result<(), Problem> {
            self.cancel.cancel();
            tokio::task::yield_now().await;
            self.ended.store(true, Ordering::SeqCst);
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_must_not_be_cut_off_ends_before_the_run_does_and_nothing_begins_after_it() {
        for to_its_end in [false, true] {
            let cancel = CancellationToken::new();
            let ended: [Arc<AtomicBool>; 2] = Default::default();
            let phase = |ended: &Arc<AtomicBool>| -> Box<dyn Phase> {
                Box::new(Work { cancel: cancel.clone(), to_its_end, ended: Arc::clone(ended) })
            };
            let phases: Vec<_> = ended.iter().map(phase).collect();
            let flow = run_flow(&run(&cancel), &phases, &[NodeId::here()], &BTreeMap::new(), &BTreeMap::new()).await;
            assert!(flow.unwrap_err().iter().all(|p| p.code == Code::Cancelled));
            assert_eq!(ended.map(|e| e.load(Ordering::SeqCst)), [to_its_end, false]);
        }
    }

    /// One change by a script.
    struct Write;

    #[async_trait]
    impl Phase for Write {
        fn id(&self) -> PhaseId {
            PhaseId::new("write")
        }

        fn title(&self) -> &'static str {
            "write"
        }

        async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
            Ok(vec![Step::script("write", "write", Check::Never, "echo written")])
        }
    }

    #[tokio::test]
    async fn a_host_that_the_run_has_no_more_is_not_changed() {
        let node: NodeId = "cp".parse().unwrap();
        let link = ScriptedTransport::new().on("id -u", Reply::ok("root")).on("echo written", Reply::ok(""));
        let host = Arc::new(Host::open(node.clone(), Arc::new(link.clone()), None).await.unwrap());
        let phases: Vec<Box<dyn Phase>> = vec![Box::new(Write)];
        let hosts = BTreeMap::from([(node.clone(), Arc::clone(&host))]);
        let flow = async || {
            let run = run(&CancellationToken::new());
            let ended = run_flow(&run, &phases, std::slice::from_ref(&node), &hosts, &BTreeMap::new()).await;
            let written = link.ran().iter().filter(|ran| ran.input.contains("echo written")).count();
            (ended.err().and_then(|problems| problems.iter().next().map(|p| p.code)), written)
        };
        assert_eq!(flow().await, (None, 1));
        host.set_hold(Hold::Lost(Box::new(Problem::new(Code::LinkLost, "its lock is gone"))));
        assert_eq!(flow().await, (Some(Code::LinkLost), 1));
        host.set_hold(Hold::Doubtful);
        let (ended, ()) = tokio::join!(flow(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(link.ran().len(), 2, "nothing is changed while it is in doubt");
            host.set_hold(Hold::Sure);
        });
        assert_eq!(ended, (None, 2));
    }
}

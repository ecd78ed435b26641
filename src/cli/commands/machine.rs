use std::{collections::BTreeMap, path::Path};

use super::{Context, make_machines::make};
use crate::{
    cli::{
        args::{EngineCommand, MachineCommand},
        ask::confirm,
        output,
        stop::cancelled,
        store::{State as LabState, Store, Where},
    },
    core::{Class, EventKind, LabName, Outcome, Problem, Problems, Report},
    engine::Journal,
    machine::{
        Choice, Engine, EngineAt, EngineStatus, Kind, Machine, Provider, State, Wanted, provider_in, running_places,
        sleeping_engine,
    },
    render::table,
};

/// `kubecamp machine`.
pub(super) async fn machine(cx: &Context, command: MachineCommand) -> Result<(), Problems> {
    let places = cx.local_places();
    match command {
        MachineCommand::List { output } => {
            let (mut machines, running) = (vec![], running_places(&places).await?);
            let awake = running.iter().any(|place| place.netns.is_some());
            for place in running {
                machines.extend(provider_in(place, &places)?.list(None).await?);
            }
            output::value(output, &machines, |wide| listing(&machines, wide))?;
            if let (false, Ok(Some(_))) = (awake, sleeping_engine(&places)) {
                output::say(&asleep(&places.engine, &local_labs(cx)));
            }
            Ok(())
        }
        MachineCommand::Make(args) => make(cx, args).await,
        MachineCommand::Engine(command) => engine(cx, command).await,
    }
}

/// That machines may exist which nobody can list, and what starts them.
fn asleep(engine: &Path, labs: &[LabName]) -> String {
    let of = labs.first().map_or_else(|| "LAB".to_owned(), ToString::to_string);
    let labs = match labs {
        [] => String::new(),
        labs => format!(" ({})", labs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    format!(
        "note: the private engine in {} does not run, so its machines are not listed.\n\
         hint: kubecamp up --name {of} starts it with the machines of that lab{labs}.",
        engine.display()
    )
}

/// The labs on machines of this computer that may be in the private engine.
fn local_labs(cx: &Context) -> Vec<LabName> {
    let is_local = |name: &LabName| {
        let known = Store::of(&cx.places.labs, name).load();
        let elsewhere = |state: &LabState| matches!(state.engine, Some(EngineAt::Incus(_)));
        matches!(&known, Ok(Some((_, state))) if state.place == Where::Local && !elsewhere(state))
    };
    Store::all(&cx.places.labs).into_iter().filter(is_local).collect()
}

fn listing(machines: &[Machine], wide: bool) -> String {
    let heading = ["NAME", "LAB", "NODE", "KIND", "STATE", "ADDRESS"];
    let mut rows = vec![output::columns(wide, heading, ["NETWORK NAMESPACE", "HOST KEYS"])];
    rows.extend(machines.iter().map(|m| {
        let address = m.address.map(|a| a.to_string()).unwrap_or_default();
        let (kind, state) = (format!("{:?}", m.kind).to_lowercase(), format!("{:?}", m.state).to_lowercase());
        let netns = m.netns.as_deref().map_or_else(|| "-".to_owned(), netns_name);
        let keys: Vec<_> = m.host_keys.iter().filter_map(|k| k.split_whitespace().next()).collect();
        let silent = m.state == State::Running && keys.is_empty();
        let state = if silent { format!("{state}, no keys") } else { state };
        let keys = if silent { "does not tell them".to_owned() } else { keys.join(",") };
        let (lab, node) = (m.lab.to_string(), m.node.to_string());
        output::columns(wide, [&m.name, &lab, &node, &kind, &state, &address], [netns, keys])
    }));
    table(&rows)
}

/// What `ip netns exec` calls a namespace.
pub(super) fn netns_name(pin: &Path) -> String {
    pin.strip_prefix("/run/netns").unwrap_or(pin).display().to_string()
}

async fn engine(cx: &Context, command: EngineCommand) -> Result<(), Problems> {
    let engine = Engine::new(&cx.places.engine);
    let journal = cx.unkept_journal();
    if matches!(command, EngineCommand::Stop)
        && let Some(question) = stop_question(cx, &engine).await
    {
        confirm(cx.global.yes, &question).await?;
    }
    let was = engine.status().await;
    let done = match command {
        EngineCommand::Start { outbound } => start(cx, &engine, outbound, &journal).await,
        // Nothing of it is worth waiting for: Ctrl-C ends it at once, and another stop ends what is left.
        EngineCommand::Stop => engine.stop(&*journal).await,
        EngineCommand::Status { .. } => Ok(()),
    };
    let status = engine.status().await;
    let machines = match &done {
        Ok(()) => new_machines(cx, &*journal).await,
        // Whoever looks for it makes what the engine still lacks. Who reads events hears why, too.
        Err(problem) => Err(journal.failure(problem.clone())),
    };
    if !matches!(command, EngineCommand::Status { .. }) {
        let changed = (was.running, was.outbound) != (status.running, status.outbound) || was.traces != status.traces;
        let outcome = match (&done, changed) {
            (Err(problem), _) if problem.code.class() == Class::Cancelled => Outcome::Skipped,
            (Err(_), _) => Outcome::Failed,
            (Ok(()), true) => Outcome::Changed,
            (Ok(()), false) => Outcome::AlreadyDone,
        };
        let (changed, unchanged) = (u64::from(outcome == Outcome::Changed), u64::from(outcome == Outcome::AlreadyDone));
        journal.event(EventKind::RunEnded { outcome, changed, unchanged, millis: journal.millis() });
    }
    let text = status_text(&status, &machines?);
    match command {
        EngineCommand::Status { output } => cx.value(output, &status, &text)?,
        _ => cx.result(&text),
    }
    Ok(())
}

/// Starts it, until Ctrl-C: the next start goes on with what is half-started, and a stop clears it away.
async fn start(cx: &Context, engine: &Engine, outbound: bool, journal: &Journal) -> Result<(), Problem> {
    cx.stop.in_order();
    let work = async {
        engine.start(journal).await?;
        if outbound { engine.open_outbound(journal).await } else { Ok(()) }
    };
    tokio::select! {
        biased;
        () = cx.cancel.cancelled() => Err(cancelled()),
        done = work => done,
    }
}

/// What stopping ends, as a question; `None` where nothing runs.
async fn stop_question(cx: &Context, engine: &Engine) -> Option<String> {
    if engine.status().await.traces.is_empty() {
        return None;
    }
    let places = cx.local_places();
    let provider = match engine.running().await {
        Ok(Some(place)) => provider_in(place, &places).ok(),
        _ => None,
    };
    let machines = match provider {
        Some(provider) => provider.list(None).await.ok(),
        None => None,
    };
    let what = match machines {
        Some(machines) => stopping(&machines)?,
        // Machines outlive a killed engine, which then cannot name them.
        None => "it does not answer, so nobody can tell which labs' machines stop".to_owned(),
    };
    Some(format!("Stopping the private engine in {}: {what}.\nGo on?", places.engine.display()))
}

/// The machines that run, by lab; `None` when none does.
fn stopping(machines: &[Machine]) -> Option<String> {
    let mut labs: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for machine in machines.iter().filter(|m| m.state != State::Stopped) {
        labs.entry(&machine.lab).or_default().push(machine.node.to_string());
    }
    let each: Vec<_> = labs.iter().map(|(lab, nodes)| format!("lab {lab} ({})", nodes.join(", "))).collect();
    (!each.is_empty()).then(|| format!("the machines of {} stop, with all that runs on them", each.join(" and ")))
}

fn status_text(status: &EngineStatus, machines: &str) -> String {
    let word = if status.running { "runs" } else { "does not run" };
    let mut text = format!("The private engine in {} {word}.\n", status.dir.display());
    // There are dozens of processes, and only their numbers differ.
    let number = |trace: &str| trace.strip_prefix("process ").map(str::to_owned);
    let processes: Vec<String> = status.traces.iter().filter_map(|trace| number(trace)).collect();
    if !processes.is_empty() {
        text.push_str(&format!("  processes: {}\n", processes.join(", ")));
    }
    for trace in status.traces.iter().filter(|trace| number(trace).is_none()) {
        text.push_str(&format!("  {trace}\n"));
    }
    let reach =
        if status.outbound { "what this computer reaches" } else { "each other and nothing else (see --outbound)" };
    if status.running {
        text.push_str(&format!("Its machines reach {reach}.\n"));
    }
    text.push_str(&format!("{machines}.\n"));
    text
}

/// Of what kind new machines are, and why.
pub(super) async fn new_machines(cx: &Context, report: &dyn Report) -> Result<String, Problem> {
    let (places, auto) = (cx.local_places(), Wanted::Auto);
    let choice = match Engine::new(&cx.places.engine).running().await? {
        Some(place) => Choice::make(auto, &place, &places.kvm(), report).await?,
        None => Choice::foreseen(auto, &places.kvm(), report).await,
    };
    let kind = if choice.kind == Kind::Vm { "virtual machines" } else { "system containers" };
    Ok(format!("New machines are {kind}: {}", choice.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(lab: &str, node: &str, state: State) -> Machine {
        Machine {
            name: format!("{lab}-{node}"),
            lab: lab.parse().unwrap(),
            node: node.parse().unwrap(),
            kind: Kind::Container,
            state,
            address: None,
            netns: None,
            host_keys: vec![],
        }
    }

    #[test]
    fn a_machine_that_does_not_tell_its_keys_is_shown_so() {
        let mut all = [machine("lab", "cp", State::Running), machine("lab", "worker-1", State::Stopped)];
        let text = listing(&all, true);
        assert!(text.contains("running, no keys") && text.contains("does not tell them"), "{text}");
        all[0].host_keys = vec!["ssh-ed25519 AAAA".into()];
        assert!(!listing(&all, false).contains("no keys"));
    }

    #[test]
    fn a_namespace_is_named_as_ip_netns_exec_takes_it() {
        let cp = Machine { netns: Some("/run/netns/kubecamp-297d1a2d".into()), ..machine("lab", "cp", State::Running) };
        let text = listing(std::slice::from_ref(&cp), true);
        assert!(text.contains("  NETWORK NAMESPACE ") && text.contains("  kubecamp-297d1a2d "), "{text}");
        assert!(!text.contains("/run/netns"), "{text}");
        assert!(serde_json::to_string(&cp).unwrap().contains("/run/netns/kubecamp-297d1a2d"));
    }

    fn status(running: bool, traces: &[&str]) -> EngineStatus {
        EngineStatus {
            running,
            outbound: false,
            dir: "/data/engine".into(),
            netns: "/run/netns/x".into(),
            pid: None,
            version: None,
            traces: traces.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn an_engine_that_does_not_run_has_machines_that_reach_nothing() {
        assert!(status_text(&status(true, &[]), "x").contains("Its machines reach each other"));
        let stopped = status_text(&status(false, &[]), "New machines are containers");
        assert_eq!(stopped, "The private engine in /data/engine does not run.\nNew machines are containers.\n");
    }

    #[test]
    fn processes_of_an_engine_are_one_line() {
        let text = status_text(&status(true, &["process 12", "process 130", "mount /data/engine/shmounts"]), "x");
        assert!(text.contains(" runs.\n  processes: 12, 130\n  mount /data/engine/shmounts\nIts machines"), "{text}");
    }

    #[test]
    fn machines_of_an_engine_that_sleeps_are_not_kept_back_silently() {
        let text = asleep(Path::new("/data/engine"), &["a".parse().unwrap(), "b".parse().unwrap()]);
        assert!(text.contains("/data/engine does not run") && text.contains("up --name a starts"), "{text}");
        assert!(text.ends_with("(a, b)."), "{text}");
        assert!(
            asleep(Path::new("/x"), &[]).ends_with("kubecamp up --name LAB starts it with the machines of that lab.")
        );
    }

    #[test]
    fn the_labs_that_stop_are_named() {
        let all = [
            machine("lab", "cp", State::Running),
            machine("team7", "cp", State::Running),
            machine("lab", "worker-1", State::Other),
            machine("old", "cp", State::Stopped),
        ];
        let text = stopping(&all).unwrap();
        assert!(text.contains("lab lab (cp, worker-1) and lab team7 (cp) stop"), "{text}");
        assert_eq!(stopping(&all[3..]), None);
    }
}

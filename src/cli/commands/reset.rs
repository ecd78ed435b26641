use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Context, status, sudo_password};
use crate::{
    bundle::Cache,
    cli::{
        args::{DownArgs, ResetArgs},
        ask::confirm,
        output,
        stop::cancelled,
        store::{State, Where},
    },
    core::{Class, Code, EventKind, NodeId, Outcome, Problem, Problems, Report, shell::printable},
    engine::{Crew, Mode, Run, run_flow},
    flows,
    host::{Facts, fact},
    machine::{IncusProvider, LocalPlaces, Provider, place_of, provider_in, sleeping_engine},
    phases::{Owner, Records, remove_unfinished},
    profile::Lab,
};

/// `kubecamp reset`.
pub(super) async fn reset(cx: &Context, args: ResetArgs) -> Result<(), Problems> {
    let seen = cx.store.need(&cx.global.name)?;
    let (lab, state) = &seen;
    let hosts = hosts_text(lab, state, |_| true);
    let question = format!(
        "Reset removes the lab {} from {hosts}: its cluster, everything deployed in it, and all of its data there.\nGo on?",
        lab.name()
    );
    confirm(cx.global.yes, &question).await?;
    let _lock = cx.lock(Some(&seen))?;
    let cleaned = clean(cx, &args, lab, state, false).await?;
    output::say(&clean_text(lab, state, &cleaned.unrecorded));
    Ok(())
}

/// What there is after a reset, and what to do with it. Nobody can tell how hosts were that are `unrecorded`.
fn clean_text(lab: &Lab, state: &State, unrecorded: &[NodeId]) -> String {
    let (name, flag) = (lab.name(), lab.name().flag());
    let mut text = String::new();
    if lab.nodes().iter().any(|node| !unrecorded.contains(&node.name)) {
        let hosts = hosts_text(lab, state, |node| !unrecorded.contains(node));
        text = format!("{hosts}: as before the lab {name}, and proven to be.\n");
    }
    if !unrecorded.is_empty() {
        let hosts = hosts_text(lab, state, |node| unrecorded.contains(node));
        text.push_str(&format!(
            "{hosts}: nothing of what up makes is left there, and no record tells how it was before the lab {name}. What was \
             not known was left alone: IP forwarding (net.ipv4.ip_forward) may have been off.\n"
        ));
    }
    format!("{text}kubecamp{flag} up brings it up again.")
}

/// `kubecamp down`: hosts are reset and forgotten; local machines are removed as they are.
pub(super) async fn down(cx: &Context, args: DownArgs) -> Result<(), Problems> {
    let seen = cx.store.need(&cx.global.name)?;
    let (lab, state) = &seen;
    let hosts = hosts_text(lab, state, |_| true);
    let what = match state.place {
        Where::Local => "removes the machines with everything on them",
        Where::Hosts(_) => "resets the hosts, losing the cluster and all of its data there,",
    };
    // Hosts of another lab are not reset; machines go with whatever is on them, and nobody is asked where yes was said.
    let others = match state.place {
        Where::Local if !cx.global.yes => status::of_others(cx, lab, state, &args.reset.connect).await,
        _ => vec![],
    };
    let question = format!("Down {what} and forgets the lab {}: {hosts}.\n{}Go on?", lab.name(), warned(&others));
    confirm(cx.global.yes, &question).await?;
    let _lock = cx.lock(Some(&seen))?;
    match state.place {
        Where::Local => match remove_machines(cx, lab, state).await {
            Err(problems) if args.forget_unreachable && problems.iter().all(is_engine_away) => {
                confirm(cx.global.yes, &left_question(lab)).await?;
                problems.iter().for_each(|p| output::say(&format!("warning: no machine was removed: {p}")));
            }
            ended => ended?,
        },
        Where::Hosts(_) => {
            let left = clean(cx, &args.reset, lab, state, args.forget_unreachable).await?.left;
            if !left.is_empty() {
                let asked = confirm(cx.global.yes, &leave_question(lab, &left)).await;
                asked.map_err(|declined| kept(declined, lab, &left))?;
                left.iter().for_each(|p| output::say(&format!("warning: the host was not reset: {p}")));
            }
        }
    }
    cx.store.forget()?;
    output::say(&format!("The lab {} is gone. Its run logs stay in {}.", lab.name(), cx.store.file("runs").display()));
    Ok(())
}

/// What goes with machines that carry another lab by now, as a line of a question.
fn warned(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!("Another lab's cluster goes with them: {}.\n", printable(&others.join(", ")))
}

/// The hosts or machines of these nodes of the lab.
fn hosts_text(lab: &Lab, state: &State, of: impl Fn(&NodeId) -> bool) -> String {
    let names: Vec<String> = match &state.place {
        Where::Local => {
            let nodes = lab.nodes().iter().map(|n| &n.name).filter(|node| of(node));
            nodes.map(|node| format!("machine {}-{node}", lab.name())).collect()
        }
        Where::Hosts(hosts) => {
            hosts.iter().filter(|(node, _)| of(node)).map(|(node, host)| format!("{node} ({host})")).collect()
        }
    };
    names.join(", ")
}

/// What a reset that went well leaves to be told.
struct Cleaned {
    /// The hosts that were out of reach, and are not clean.
    left: Vec<Problem>,
    /// The hosts of which neither they nor the lab's folder know how they were before `up`.
    unrecorded: Vec<NodeId>,
}

/// The problem of a host that could not be reset, with the way out where there is none other.
fn or_forget(problem: Problem, lab: &Lab, state: &State) -> Problem {
    if state.place == Where::Local || !is_away(&problem) { problem } else { with_forget(problem, lab) }
}

/// The problem with the way out behind its other hints.
fn with_forget(problem: Problem, lab: &Lab) -> Problem {
    // Its code's own hint would hide behind another.
    let hints = problem.all_hints();
    let bare = Problem { hints: vec![], ..problem };
    hints.into_iter().fold(bare, Problem::hint).hint(format!(
        "If it is gone for good: kubecamp{} down --forget-unreachable forgets the lab all the same.",
        lab.name().flag()
    ))
}

/// Whether the host is out of this lab's reach, rather than only busy or in trouble.
fn is_away(problem: &Problem) -> bool {
    problem.code.class() == Class::Connect || problem.code == Code::HostTaken
}

/// Whether the engine of a lab's machines cannot be had, so that nobody can remove them: it is the user's Incus and does
/// not answer, or kubecamp's own and does not start.
fn is_engine_away(problem: &Problem) -> bool {
    matches!(problem.code, Code::EngineStart | Code::EngineHangs | Code::LocalTools)
}

/// What stays behind when the lab is forgotten without its engine.
fn left_question(lab: &Lab) -> String {
    format!(
        "The engine of the lab's machines cannot be had. Where they are still there, they stay with everything on them, \
         and no lab will know of them: kubecamp machine list shows them once their engine runs.\nForget the lab {} all the \
         same?",
        lab.name()
    )
}

/// What stays behind when the lab is forgotten.
fn leave_question(lab: &Lab, left: &[Problem]) -> String {
    let hosts: String = left.iter().map(|p| format!("  {p}\n")).collect();
    format!(
        "These hosts were not reset, and keep whatever the lab {} has there: its cluster, its data, its settings.\n{hosts}\
         Nobody will know how they were before. Forget the lab all the same?",
        lab.name()
    )
}

/// The refusal to forget what stays behind; by then all the other hosts were reset.
fn kept(declined: Problem, lab: &Lab, left: &[Problem]) -> Problem {
    if left.len() >= lab.nodes().len() {
        return declined;
    }
    Problem { what: "the lab is kept; its other hosts were reset".to_owned(), ..declined }
}

/// Resets every host that can be reached and is the lab's; those that are not are problems at the end, not a reason to
/// leave the others dirty. Those are returned where `forgive` says that the lab may go without them.
async fn clean(cx: &Context, args: &ResetArgs, lab: &Lab, state: &State, forgive: bool) -> Result<Cleaned, Problems> {
    let records = cx.store.records()?;
    let journal = cx.journal()?;
    let run = Run::new(lab.clone(), Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let ended = carry_out(cx, args, lab, state, records, &run).await;
    let ended = ended.and_then(|done| match done.left.is_empty() || (forgive && done.left.iter().all(is_away)) {
        true => Ok(done),
        false => Err(done.left.into()),
    });
    cx.end(&run, ended)
}

/// What is to be told of the hosts, when nothing went wrong on those that were in reach.
async fn carry_out(
    cx: &Context,
    args: &ResetArgs,
    lab: &Lab,
    state: &State,
    records: Records,
    run: &Run,
) -> Result<Cleaned, Problems> {
    let recorded: BTreeSet<NodeId> = records.keys().cloned().collect();
    let phases = flows::reset(records);
    let nodes: Vec<_> = lab.nodes().iter().map(|n| n.name.clone()).collect();
    run.journal.event(EventKind::RunStarted {
        flow: "reset".into(),
        lab: lab.name().clone(),
        nodes: nodes.clone(),
        phases: std::iter::once(Crew::CONNECT).chain(phases.iter().map(|p| p.id())).collect(),
    });
    let targets = cx.stop.unless_stopped(cx.targets(lab, state, &args.connect)).await?;
    let flag = lab.name().flag();
    let mut left: Vec<Problem> = nodes
        .iter()
        .filter(|n| !targets.iter().any(|(t, _)| t == *n))
        .map(|n| {
            Problem::new(Code::MachineStart, "the machine does not run, so it could not be reset").on(n).hint(format!(
                "Start the lab with `kubecamp{flag} up` and reset it then, or remove its machines with \
                     `kubecamp{flag} down`."
            ))
        })
        .collect();
    let meet = async {
        let password = sudo_password(&args.connect).await?;
        let met = Crew::muster_those_that_come(&targets, Some(&password), Some(&run.journal)).await;
        if let Some(password) = password.known() {
            run.journal.hide(password);
        }
        Ok(met)
    };
    let (crew, absent) = cx.stop.unless_stopped(meet).await?;
    let (ours, taken) = sort(lab, &state.owner(), &crew.fleet);
    left.extend(absent.into_iter().chain(taken).map(|p| or_forget(p, lab, state)));
    let present: Vec<NodeId> = nodes.into_iter().filter(|n| ours.contains_key(n)).collect();
    let ended = run_flow(run, &phases, &present, &crew.hosts, &ours).await;
    let found = causes_first(ended, crew.dismiss_proven().await);
    if !found.is_empty() {
        return Err(left.into_iter().chain(found).collect::<Vec<_>>().into());
    }
    if left.is_empty() {
        forget_cluster(cx, lab, state)?;
    }
    // A lab that is clean already was told of when it became so.
    let unknown = |node: &&NodeId| !state.clean && !recorded.contains(*node) && !ours[*node].yes(fact::RECORDED);
    let unrecorded = present.iter().filter(unknown).cloned().collect();
    Ok(Cleaned { left, unrecorded })
}

/// What went wrong on the hosts that came. A lock that `stayed` there is mostly the effect of what failed before, and the
/// first problem decides the exit code.
fn causes_first(ended: Result<(), Problems>, stayed: Vec<Problem>) -> Vec<Problem> {
    let mut found = ended.err().map(Problems::into_vec).unwrap_or_default();
    found.extend(stayed);
    found
}

/// The facts of the hosts that may be reset; one that carries another lab by now is that lab's, and a problem here.
fn sort(lab: &Lab, owner: &Owner, fleet: &BTreeMap<NodeId, Facts>) -> (BTreeMap<NodeId, Facts>, Vec<Problem>) {
    let (mut ours, mut taken) = (BTreeMap::new(), vec![]);
    for (node, facts) in fleet {
        match owner.claim(lab.name(), facts).problem(lab.name()) {
            Some(problem) => taken.push(problem.on(node)),
            None => drop(ours.insert(node.clone(), facts.clone())),
        }
    }
    (ours, taken)
}

/// The hosts are clean: the next `up` records them anew and may bring up something else.
fn forget_cluster(cx: &Context, lab: &Lab, state: &State) -> Result<(), Problem> {
    cx.store.keep_records(&Default::default())?;
    match std::fs::remove_file(cx.store.file("kubeconfig")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Problem::new(Code::LocalFile, "the kubeconfig cannot be removed").because(e));
        }
        _ => {}
    }
    cx.store.save(lab, &State { clean: true, ..state.clone() })
}

/// Removes the lab's machines, as a run with a log of its own.
async fn remove_machines(cx: &Context, lab: &Lab, state: &State) -> Result<(), Problems> {
    let run = Run::new(lab.clone(), Mode::Apply, cx.journal()?, cx.cancel.clone());
    let here = vec![NodeId::here()];
    run.journal.event(EventKind::RunStarted {
        flow: "down".into(),
        lab: lab.name().clone(),
        nodes: here,
        phases: vec![],
    });
    let ended = remove_each(cx, lab, state, &run).await;
    let ended = ended.map_err(|problem| if is_engine_away(&problem) { with_forget(problem, lab) } else { problem });
    cx.end(&run, ended.map_err(Into::into))
}

async fn remove_each(cx: &Context, lab: &Lab, state: &State, run: &Run) -> Result<(), Problem> {
    let Some(provider) = provider_awake(cx, lab, state, run).await? else { return Ok(()) };
    let others = provider.of_others(lab.name(), &state.owner().tenant(false)).await?;
    // Those that exist rather than those of the profile: an earlier profile may have had more.
    for machine in provider.list(Some(lab.name())).await? {
        if cx.cancel.is_cancelled() {
            return Err(cancelled());
        }
        if others.contains(&machine.name) {
            let text =
                format!("machine {} stays: it is of another lab that is called {} too", machine.name, lab.name());
            run.journal.note(&NodeId::here(), &text);
            continue;
        }
        provider.remove(lab.name(), &machine.node).await?;
        run.count(Outcome::Changed);
        run.journal.note(&NodeId::here(), &format!("machine {} is removed", machine.name));
    }
    // A killed up may have left one that belongs to no lab.
    remove_unfinished(&provider, &Cache::new(&cx.places.cache)).await
}

/// The provider of the lab's machines. Without its engine nothing of a machine runs, as after a restart of the computer,
/// but the engine's folder still has its disk: kubecamp's own engine is started for it. `None` where it has no machine.
async fn provider_awake(cx: &Context, lab: &Lab, state: &State, run: &Run) -> Result<Option<IncusProvider>, Problem> {
    let places = LocalPlaces { at: state.engine.clone(), ..cx.local_places() };
    if let Some(place) = place_of(&places, lab.name()).await? {
        return provider_in(place, &places).map(Some);
    }
    let Some(engine) = sleeping_engine(&places)? else { return Ok(None) };
    let place = tokio::select! {
        biased;
        () = cx.cancel.cancelled() => return Err(cancelled()),
        place = engine.start(&*run.journal) => place?,
    };
    provider_in(place, &places).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        machine::{EngineAt, FakeIncus, Kind},
        profile,
    };

    #[test]
    fn the_hosts_of_another_lab_are_not_reset() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("3x2c4g").unwrap()).unwrap();
        let owner = State::new(Where::Local).owner();
        let says = [format!("lab=lab\nlab.id={}", owner.id), "lab=lab\nlab.id=another".into(), String::new()];
        let fleet = lab.nodes().iter().zip(says).map(|(n, text)| (n.name.clone(), Facts::parse(&text))).collect();
        let (ours, taken) = sort(&lab, &owner, &fleet);
        // The last one lost all that it knew: whether it was ours, reset sees by what is there.
        assert_eq!(ours.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["cp", "worker-2"]);
        let taken: Vec<_> = taken.iter().map(|p| (p.on.as_ref().unwrap().as_str(), p.code)).collect();
        assert_eq!(taken, [("worker-1", Code::HostTaken)]);
    }

    /// Its engine was noted, and then something kept `up` from starting it.
    #[tokio::test]
    async fn a_lab_whose_engine_never_ran_goes_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let lab = Lab::new(cx.global.name.clone(), profile::load("1x4c12g").unwrap()).unwrap();
        let engine = dir.path().join("engine");
        let state = State { engine: Some(EngineAt::Private(engine.clone())), ..State::new(Where::Local) };
        remove_machines(&cx, &lab, &state).await.unwrap();
        assert!(!engine.exists());
    }

    /// Its user has removed that Incus, and kubecamp will not find the machines any more.
    #[tokio::test]
    async fn a_lab_whose_incus_is_gone_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut cx = Context::of_test(dir.path());
        cx.global.yes = true;
        let lab = Lab::new(cx.global.name.clone(), profile::load("1x4c12g").unwrap()).unwrap();
        let engine = Some(EngineAt::Incus(dir.path().join("none.socket")));
        cx.store.save(&lab, &State { engine, ..State::new(Where::Local) }).unwrap();
        let reset = ResetArgs { connect: Default::default() };
        let problems = down(&cx, DownArgs { forget_unreachable: false, reset: reset.clone() }).await.unwrap_err();
        let hints = problems.iter().next().unwrap().all_hints();
        assert!(hints[0].starts_with("Start it") && hints[1].contains("down --forget-unreachable"), "{hints:?}");
        assert!(cx.store.load().unwrap().is_some());
        down(&cx, DownArgs { forget_unreachable: true, reset }).await.unwrap();
        assert!(cx.store.load().unwrap().is_none());
    }

    /// Somebody else's, in an Incus that both use.
    #[tokio::test]
    async fn machines_of_another_lab_of_that_name_stay() {
        let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut cx = Context::of_test(dir.path());
        cx.places.cache = dir.path().join("cache");
        let lab = Lab::new(cx.global.name.clone(), profile::load("2x4c8g").unwrap()).unwrap();
        let state = State::new(Where::Local);
        let machine = |node: &str, id: &str| {
            json!({"name": format!("lab-{node}"), "status": "Stopped", "type": "container", "config":
                {"user.kubecamp.lab": "lab", "user.kubecamp.node": node, "user.kubecamp.lab-id": id}})
        };
        let (ours, theirs) = (machine("cp", state.owner().id.as_str()), machine("worker-1", "theirs"));
        let nic = json!({"type": "nic", "nictype": "macvlan"});
        let fake = FakeIncus::new([
            ("GET ", json!({"auth": "trusted", "environment": {"server_version": "6.0.4"}})),
            ("GET /profiles/default", json!({"devices": {"root": {"path": "/", "pool": "p"}, "eth0": nic}})),
            ("GET /instances?recursion=1", json!([ours, theirs])),
            ("GET /instances?recursion=2", json!([ours, theirs])),
            ("GET /instances/lab-cp", ours.clone()),
            ("GET /instances/lab-worker-1", theirs.clone()),
        ]);
        let engine = Some(fake.provider(&home, Kind::Container).at());
        remove_machines(&cx, &lab, &State { engine, ..state }).await.unwrap();
        let mut gone = fake.requests();
        gone.retain(|asked| asked.starts_with("DELETE "));
        assert_eq!(gone, ["DELETE /instances/lab-cp"]);
    }

    #[test]
    fn what_failed_is_told_before_the_lock_that_stayed() {
        let problem = |code| Problem::new(code, "x");
        let codes = |found: Vec<Problem>| found.iter().map(|p| p.code).collect::<Vec<_>>();
        let (failed, stayed) = (problem(Code::LinkLost).into(), vec![problem(Code::ResetResidue)]);
        assert_eq!(codes(causes_first(Err(failed), stayed.clone())), [Code::LinkLost, Code::ResetResidue]);
        assert_eq!(codes(causes_first(Ok(()), stayed)), [Code::ResetResidue]);
        assert!(causes_first(Ok(()), vec![]).is_empty());
    }

    #[test]
    fn only_hosts_out_of_reach_may_be_left_behind() {
        let problem = |code| Problem::new(code, "x");
        let hosts = State::new(Where::Hosts(vec![]));
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        for (code, away) in [
            (Code::HostUnreachable, true),
            (Code::HostAuth, true),
            (Code::HostTaken, true),
            (Code::HostBusy, false),
            (Code::ResetResidue, false),
        ] {
            assert_eq!(is_away(&problem(code)), away, "{code}");
            let hints = or_forget(problem(code), &lab, &hosts).all_hints();
            assert_eq!((hints[0].as_str(), hints.len()), (code.hint(), if away { 2 } else { 1 }), "{code}");
        }
        let declined = |left| kept(problem(Code::Declined), &lab, &vec![problem(Code::HostUnreachable); left]);
        assert_eq!(declined(1).what, "the lab is kept; its other hosts were reset");
        assert_eq!((declined(1).code, declined(2).what.as_str()), (Code::Declined, "x"), "no host was reset");
        let told = or_forget(problem(Code::HostUnreachable), &lab, &State::new(Where::Local));
        assert_eq!(told.all_hints().len(), 1, "the machines of this computer go with down in any case");
    }

    #[test]
    fn who_is_asked_hears_of_the_other_lab_on_the_machines() {
        assert_eq!(warned(&[]), "");
        let others = ["cp is of lab team9\x1b[2J".to_owned()];
        assert_eq!(warned(&others), "Another lab's cluster goes with them: cp is of lab team9\\x1b[2J.\n");
    }

    #[test]
    fn a_host_without_a_record_is_not_called_as_before() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let told = |unrecorded: &[&str]| {
            let unrecorded: Vec<NodeId> = unrecorded.iter().map(|node| node.parse().unwrap()).collect();
            clean_text(&lab, &State::new(Where::Local), &unrecorded)
        };
        let [proven, unknown] =
            [": as before the lab lab, and proven to be.", ": nothing of what up makes is left there"];
        assert!(told(&[]).starts_with(&format!("machine lab-cp, machine lab-worker-1{proven}\nkubecamp up ")));
        let one = told(&["worker-1"]);
        assert!(one.starts_with(&format!("machine lab-cp{proven}\nmachine lab-worker-1{unknown}")), "{one}");
        assert!(one.contains("net.ipv4.ip_forward") && one.ends_with("\nkubecamp up brings it up again."), "{one}");
        assert!(!told(&["cp", "worker-1"]).contains("proven"));
    }

    #[test]
    fn what_to_type_next_is_of_this_lab_and_not_of_the_default_one() {
        let named = |name: &str| Lab::new(name.parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let told = |name| {
            let gone = with_forget(Problem::new(Code::HostUnreachable, "x"), &named(name));
            (clean_text(&named(name), &State::new(Where::Local), &[]), gone.all_hints().pop().unwrap_or_default())
        };
        let (clean, gone) = told("plain");
        assert!(clean.ends_with("\nkubecamp --name plain up brings it up again."), "{clean}");
        assert!(gone.contains("kubecamp --name plain down --forget-unreachable"), "{gone}");
        let (clean, gone) = told("lab");
        assert!(clean.ends_with("\nkubecamp up brings it up again."), "{clean}");
        assert!(gone.contains("kubecamp down --forget-unreachable"), "{gone}");
    }
}

use std::{collections::BTreeMap, sync::Arc};

use super::{Context, first_line, up};
use crate::{
    cli::{
        args::MakeArgs,
        output,
        store::{State, Where},
        targets,
    },
    core::{Code, EventKind, NodeId, Problem, Problems, Report},
    engine::{Crew, Mode, Phase, Run, run_flow},
    flows::{self, LocalResult},
    machine::{Choice, Engine, LocalPlaces, Machine, Packages, Recipe, Tenant, must_be_ours, settle},
    phases::{Owner, SudoUser},
    profile::{self, Lab},
    render::table,
};

/// `kubecamp machine make`: a lab's machines without Kubernetes.
pub(super) async fn make(cx: &Context, args: MakeArgs) -> Result<(), Problems> {
    if args.suite.is_some() {
        // Refused before anything is installed for it.
        Recipe::here(args.suite.as_deref())?;
    }
    let known = cx.store.load()?;
    let (lab, mut state) = wanted(cx, &args, known.clone())?;
    let user = match args.sudo_user {
        Some(user) => {
            Some(SudoUser { user, password: args.sudo_password_file.as_deref().map(first_line).transpose()? })
        }
        None => None,
    };
    let mut packages = Choice::packages(args.machines)?;
    if args.outbound {
        packages = packages.and(Engine::outbound_packages());
    }
    up::agree_to_packages(cx, &packages).await?;
    let places = LocalPlaces { at: state.engine.take(), ..cx.local_places() };
    let at = settle(&places, lab.name()).await?;
    let owner = state.owner();
    state.id = Some(owner.id.clone());
    let tenant = Owner { known: known.is_some(), ..owner }.tenant(false);
    must_be_ours(&places, lab.name(), &tenant).await?;
    if known.is_none() && !args.allow_undersized {
        up::disk_must_hold(&lab, &at)?;
    }
    let at = Some(at);
    state.engine.clone_from(&at);
    let _lock = cx.lock(known.as_ref())?;
    let journal = cx.journal()?;
    if let Some(password) = user.as_ref().and_then(|u| u.password.as_ref()) {
        journal.hide(password);
    }
    cx.store.save(&lab, &state)?;
    let run = Run::new(lab, Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let places = LocalPlaces { at, suite: args.suite, kind: args.machines, outbound: args.outbound, ..places };
    let made = carry_out(cx, places, packages, tenant, user, &run).await;
    let machines = cx.end(&run, made)?;
    cx.result(&machines_text(&machines));
    next(cx, &machines);
    Ok(())
}

/// The lab to be: what exists stays as it is, and counts as clean when it is new.
fn wanted(cx: &Context, args: &MakeArgs, known: Option<(Lab, State)>) -> Result<(Lab, State), Problems> {
    let lab = match (&known, args.layout) {
        // Judged as any that is to be made: an older version may have taken what this one does not.
        (Some((lab, _)), None) => Lab::new(lab.name().clone(), lab.profile().clone())?,
        (_, Some(layout)) => Lab::new(cx.global.name.clone(), profile::load(&layout.to_string())?)?,
        (None, None) => {
            let layout = up::largest_layout(args.allow_undersized)?;
            Lab::new(cx.global.name.clone(), profile::load(&layout.to_string())?)?
        }
    };
    match known {
        Some((old, state)) if old.nodes() == lab.nodes() && state.place == Where::Local => Ok((old, state)),
        Some((old, _)) => {
            let what = format!("the lab {} exists as {} on other machines", old.name(), old.layout());
            let hint = format!("Remove it first: kubecamp{} down.", old.name().flag());
            Err(Problem::new(Code::LabDiffers, what).hint(hint).into())
        }
        None => {
            if !args.allow_undersized {
                up::must_hold(&lab, &cx.places)?;
            }
            Ok((lab, State { clean: true, ..State::new(Where::Local) }))
        }
    }
}

async fn carry_out(
    cx: &Context,
    places: LocalPlaces,
    packages: Packages,
    tenant: Tenant,
    user: Option<SudoUser>,
    run: &Run,
) -> Result<Vec<Machine>, Problems> {
    let (_, key) = cx.store.key()?;
    let result = LocalResult::default();
    let phases = flows::bare_machines(places, packages, tenant, key, &result);
    let here = [NodeId::here()];
    let mut nodes = here.to_vec();
    nodes.extend(run.lab.nodes().iter().map(|n| n.name.clone()));
    let of_user = user.iter().flat_map(|user| [Crew::CONNECT, user.id()]);
    run.journal.event(EventKind::RunStarted {
        flow: "machine-make".into(),
        lab: run.lab.name().clone(),
        nodes: nodes.clone(),
        phases: phases.iter().map(|p| p.id()).chain(of_user).collect(),
    });
    run_flow(run, &phases, &here, &BTreeMap::new(), &BTreeMap::new()).await?;
    let machines = result.machines.get().cloned();
    let machines = machines.ok_or_else(|| Problem::new(Code::Internal, "the machines did not get ready"))?;
    if let Some(user) = user {
        let targets = targets::of_machines(&cx.store, &machines)?;
        let meet = Crew::muster(&targets, None, Some(&run.journal));
        let crew = cx.stop.unless_stopped(meet).await?;
        let phases: Vec<Box<dyn Phase>> = vec![Box::new(user)];
        let ended = run_flow(run, &phases, &nodes[1..], &crew.hosts, &crew.fleet).await;
        crew.dismiss().await;
        ended?;
    }
    Ok(machines)
}

fn machines_text(machines: &[Machine]) -> String {
    let mut rows = vec![["NODE", "ADDRESS"].map(str::to_owned).to_vec()];
    rows.extend(machines.iter().map(|m| {
        let address = m.address.map(|a| a.to_string()).unwrap_or_default();
        vec![m.node.to_string(), address]
    }));
    table(&rows)
}

fn next(cx: &Context, machines: &[Machine]) {
    let name = &cx.global.name;
    let flag = name.flag();
    let first = machines.first().map(|m| m.node.to_string()).unwrap_or_default();
    output::say(&format!(
        "The machines of the lab {name} run; there is no Kubernetes on them.\nNext:\n  kubecamp{flag} ssh {first}\n  kubecamp{flag} up      # makes a cluster of them\n  kubecamp{flag} down    # removes them"
    ));
    if let Some(netns) = machines.iter().find_map(|m| m.netns.as_ref()) {
        output::say(&format!(
            "Their addresses live in the network namespace {}; the key of root is {}.",
            netns.display(),
            cx.store.file("key").display()
        ));
    }
}

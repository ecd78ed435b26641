use std::{path::Path, sync::Arc};

use super::super::{Context, first_line, sudo_password};
use crate::{
    bundle::Bundle,
    cli::{
        args::{ConnectArgs, EnrollArgs, UnenrollArgs},
        ask::confirm,
        output::{self, Show},
        store::Store,
        targets,
    },
    core::{Code, EventKind, LabName, NodeId, Problem, Problems, Report, Secret},
    engine::{Crew, Journal, Lock, Mode, Phase, Run, run_flow},
    flows,
    hub::gate,
    inventory,
    phases::{Enrolment, GateLeave, GateMachines},
    profile::{self, Lab},
};

/// `kubecamp hub enroll`.
pub(super) async fn enroll(cx: &Context, args: EnrollArgs) -> Result<(), Problems> {
    let with = enrolment(&args)?;
    let question = format!(
        "Enroll puts the gate on {}: members of the group {} then come in by their slots only, and what they run outside \
         of them is ended. The key in {} lets {} in at any time.\nGo on?",
        args.host,
        args.group,
        args.admin_key.display(),
        args.admin
    );
    confirm(cx.global.yes, &question).await?;
    let hide = [with.token.clone()];
    carry_out(cx, "hub-enroll", &args.host, &args.server, &args.connect, &flows::enroll(with), &hide).await?;
    output::say(&format!(
        "{} is the hub's server {}. Its agent's log: journalctl -u kubecamp-agent there.\nNext: try the break-glass key, ssh {}@{}.",
        args.host, args.server, args.admin, args.host
    ));
    Ok(())
}

/// `kubecamp hub unenroll`.
pub(super) async fn unenroll(cx: &Context, args: UnenrollArgs) -> Result<(), Problems> {
    let accounts = match args.remove_accounts {
        true => "removes the accounts of its members with their homes",
        false => "closes the accounts of its members and keeps their homes",
    };
    let question = format!(
        "Unenroll takes the gate off {}, ends whatever members of the group {} run there, and {accounts}.\nGo on?",
        args.host, args.group
    );
    confirm(cx.global.yes, &question).await?;
    let leave = GateLeave { group: args.group, remove_accounts: args.remove_accounts };
    carry_out(cx, "hub-unenroll", &args.host, &args.server, &args.connect, &flows::unenroll(leave), &[]).await?;
    output::say(&format!("{} is as it was before it was enrolled as {}.", args.host, args.server));
    Ok(())
}

/// Reads every file first: bad input changes nothing.
fn enrolment(args: &EnrollArgs) -> Result<Enrolment, Problems> {
    let mut found = vec![];
    let mut key = |file: &Path| match public_line(file) {
        Ok(line) => line,
        Err(problem) => {
            found.push(problem);
            String::new()
        }
    };
    let (user_ca, plan_key, admin_key) = (key(&args.user_ca), key(&args.plan_key), key(&args.admin_key));
    let mut text = |file: &Option<std::path::PathBuf>| match file.as_deref().map(read).transpose() {
        Ok(text) => text,
        Err(problem) => {
            found.push(problem);
            None
        }
    };
    let (hub_ca, more) = (text(&args.hub_ca), text(&args.agent_config));
    let token = first_line(&args.token_file).unwrap_or_else(|problem| {
        found.push(problem);
        Secret::new("")
    });
    let program = match &args.program {
        Some(file) => file.clone(),
        None => std::env::current_exe()
            .map_err(|e| Problem::new(Code::LocalFile, "this program's own file is not to be found").because(e))?,
    };
    let group_ok = gate::is_account(&args.group) && gate::is_account(&format!("x{}", args.admin));
    if !group_ok {
        found.push(Problem::new(Code::Usage, "--group and --admin are plain Unix names"));
    }
    if args.machines.is_some() && more.iter().flat_map(|text| text.lines()).any(|l| l.starts_with("machines:")) {
        found.push(Problem::new(Code::Usage, "--machines and --agent-config both say how machines are made"));
    }
    if let Some(Err(problem)) = args.bundle.as_deref().map(Bundle::open) {
        found.push(problem);
    }
    Problems::check(found)?;
    Ok(Enrolment {
        server: args.server.to_string(),
        hub: args.hub.clone(),
        token,
        user_ca,
        plan_key,
        hub_ca,
        admin_key,
        admin: args.admin.clone(),
        program,
        group: args.group.clone(),
        permit_open: args.permit_open.clone(),
        exempt: args.exempt.clone(),
        labs: args.machines.map(|kind| GateMachines { kind, bundle: args.bundle.clone() }),
        more: more.unwrap_or_default(),
    })
}

fn read(file: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(file)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", file.display())).because(e))
}

fn public_line(file: &Path) -> Result<String, Problem> {
    let text = read(file)?;
    gate::public_key(&text).map_err(|p| p.detail([format!("in {}", file.display())]))?;
    Ok(text.trim().to_owned())
}

/// Runs a flow on one server. The engine's runs are about labs; here the lab is only a frame with one node.
async fn carry_out(
    cx: &Context,
    flow: &str,
    host: &str,
    server: &LabName,
    connect: &ConnectArgs,
    phases: &[Box<dyn Phase>],
    hide: &[Secret],
) -> Result<(), Problems> {
    let entries = inventory::entries(&[host])?;
    let store = Store::of(&cx.places.labs.with_file_name("servers"), server);
    let frame = profile::Layout::SHIPPED.first().map(ToString::to_string).unwrap_or_default();
    let lab = Lab::new(server.clone(), profile::load(&frame)?)?;
    let node: NodeId =
        server.as_str().parse().map_err(|e: crate::core::BadId| Problem::new(Code::Usage, e.to_string()))?;
    let hosts: Vec<_> = entries.into_iter().map(|entry| (node.clone(), entry)).collect();
    let _lock = Lock::take(store.folder())?;
    cx.stop.in_order();
    let show = Show::choose(cx.global.plain, cx.global.output_events.is_some());
    let journal = Arc::new(Journal::create(&store.file("runs"), vec![show.listener(cx.global.verbose)])?);
    hide.iter().for_each(|secret| journal.hide(secret));
    let run = Run::new(lab, Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let nodes = [node];
    journal.event(EventKind::RunStarted {
        flow: flow.into(),
        lab: server.clone(),
        nodes: nodes.to_vec(),
        phases: std::iter::once(Crew::CONNECT).chain(phases.iter().map(|p| p.id())).collect(),
    });
    let meet = async {
        let targets = targets::of_hosts(&store, &hosts, &connect.into()).await?;
        let password = sudo_password(connect).await?;
        let met = Crew::muster(&targets, Some(&password), Some(&journal)).await;
        if let Some(password) = password.known() {
            journal.hide(password);
        }
        met
    };
    let work = async {
        let crew = cx.stop.unless_stopped(meet).await?;
        let ended = run_flow(&run, phases, &nodes, &crew.hosts, &crew.fleet).await;
        crew.dismiss().await;
        ended
    };
    let ended = work.await;
    cx.end(&run, ended)
}

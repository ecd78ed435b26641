use super::{Context, make_machines::make};
use crate::{
    cli::{
        args::{EngineCommand, MachineCommand},
        output::{self, Show},
    },
    core::Problems,
    engine::Journal,
    machine::{Choice, Engine, Kind, Machine, Provider, Wanted},
    phases::{provider_in, running_place},
    render::table,
};

/// `kubecamp machine`.
pub(super) async fn machine(cx: &Context, command: MachineCommand) -> Result<(), Problems> {
    let places = cx.local_places();
    match command {
        MachineCommand::List { output } => {
            let machines = match running_place(&places).await? {
                Some(place) => provider_in(place, &places)?.list(None).await?,
                None => vec![],
            };
            Ok(output::value(output, &machines, |wide| listing(&machines, wide))?)
        }
        MachineCommand::Make(args) => make(cx, args).await,
        MachineCommand::Engine(command) => engine(cx, command).await,
    }
}

fn listing(machines: &[Machine], wide: bool) -> String {
    let heading = ["NAME", "LAB", "NODE", "KIND", "STATE", "ADDRESS"];
    let mut rows = vec![output::columns(wide, heading, ["NAMESPACE", "HOST KEYS"])];
    rows.extend(machines.iter().map(|m| {
        let address = m.address.map(|a| a.to_string()).unwrap_or_default();
        let (kind, state) = (format!("{:?}", m.kind).to_lowercase(), format!("{:?}", m.state).to_lowercase());
        let netns = m.netns.as_ref().map_or_else(|| "-".to_owned(), |n| n.display().to_string());
        let keys: Vec<_> = m.host_keys.iter().filter_map(|k| k.split_whitespace().next()).collect();
        let (lab, node) = (m.lab.to_string(), m.node.to_string());
        output::columns(wide, [&m.name, &lab, &node, &kind, &state, &address], [netns, keys.join(",")])
    }));
    table(&rows)
}

async fn engine(cx: &Context, command: EngineCommand) -> Result<(), Problems> {
    let engine = Engine::new(&cx.places.engine);
    let show = Show::choose(cx.global.plain, false);
    let journal = Journal::unkept(vec![show.listener(cx.global.verbose)]);
    match command {
        EngineCommand::Start { outbound } => {
            engine.start(&journal).await?;
            if outbound {
                engine.open_outbound(&journal).await?;
            }
        }
        EngineCommand::Stop => engine.stop(&journal).await?,
        EngineCommand::Status => {}
    }
    let status = engine.status().await;
    let word = if status.running { "runs" } else { "does not run" };
    let mut text = format!("The private engine in {} {word}.\n", status.dir.display());
    for trace in &status.traces {
        text.push_str(&format!("  {trace}\n"));
    }
    let reach =
        if status.outbound { "what this computer reaches" } else { "each other and nothing else (see --outbound)" };
    text.push_str(&format!("Its machines reach {reach}.\n"));
    let (places, auto) = (cx.local_places(), Wanted::Auto);
    let choice = match engine.running().await? {
        Some(place) => Choice::make(auto, &place, &places.kvm(), &journal).await?,
        None => Choice::foreseen(auto, &places.kvm(), &journal).await,
    };
    let kind = if choice.kind == Kind::Vm { "virtual machines" } else { "system containers" };
    text.push_str(&format!("New machines are {kind}: {}.\n", choice.why));
    output::data(&text);
    Ok(())
}

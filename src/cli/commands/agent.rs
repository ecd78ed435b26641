use std::{sync::Arc, time::Duration};

use super::Context;
use crate::{
    cli::{args::AgentArgs, output},
    core::{Code, Problem, Problems},
    engine::Lock,
    hub::gate::agent::{
        Agent, Config, HandOver, HttpLink, HubLink, Journal, Link, Linux, Machines, Program, World, serve,
    },
};

/// How long it may take to give the labs' engine the way out that is configured.
const SETTLES: Duration = Duration::from_secs(10);

/// `kubecamp agent`: keeps the door of this server until it is told to stop.
pub(super) async fn agent(cx: &Context, args: AgentArgs) -> Result<(), Problems> {
    let config = Config::load(&args.config)?;
    let link = HttpLink::of(&config)?;
    if args.check {
        output::say(&format!("{} is sound.", args.config.display()));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(Code::GateConfig, "the agent needs root: it ends other users' processes").into());
    }
    cx.stop.in_order();
    let _lock = Lock::take(&config.state)?;
    let journal = Journal::open(&config.state)?;
    let world: Arc<dyn World> = Arc::new(Linux::new(config.places()));
    let hand: Arc<dyn HandOver> = match &config.machines {
        Some(machines) => {
            // Doors do not wait for an engine that hangs.
            let labs = Program::here(machines);
            if let Ok(Err(problem)) = tokio::time::timeout(SETTLES, labs.settle_way_out()).await {
                output::say(&problem.to_string());
            }
            Arc::new(Machines::here(machines))
        }
        None => Arc::new(config.commands.clone()),
    };
    let key = config.plan_key()?;
    let agent = Agent::new(&config.state, &config.server, key, journal, Arc::clone(&world), hand, config.limits());
    let link = link.map(|hub| Link {
        hub: Arc::new(hub) as Arc<dyn HubLink>,
        poll: Duration::from_secs(config.poll),
        server: config.server.clone(),
    });
    output::say(&format!("kubecamp agent of the server {}", config.server));
    // Only tests halt an agent in its midst.
    let _ = serve(agent, world, link, &output::say, &cx.cancel).await;
    Ok(())
}

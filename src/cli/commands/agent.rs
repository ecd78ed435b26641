use std::{path::Path, sync::Arc, time::Duration};

use russh::keys::PublicKey;

use super::Context;
use crate::{
    cli::{args::AgentArgs, output},
    core::{Code, Problem, Problems},
    engine::Lock,
    hub::gate::agent::{
        Agent, Bare, Config, HandOver, HttpLink, HubLink, Journal, Link, Linux, Machines, Program, World, serve,
        shut_all,
    },
};

/// How long it may take to give the labs' engine the way out that is configured.
const SETTLES: Duration = Duration::from_secs(10);

/// What an agent begins with.
struct Ready {
    config: Config,
    link: Option<HttpLink>,
    key: PublicKey,
    journal: Journal,
    lock: Lock,
}

/// `kubecamp agent`: keeps the door of this server until it is told to stop.
pub(super) async fn agent(cx: &Context, args: AgentArgs) -> Result<(), Problems> {
    if args.check {
        HttpLink::of(&Config::load(&args.config)?)?;
        output::say(&format!("{} is sound.", args.config.display()));
        return Ok(());
    }
    let Ready { config, link, key, journal, lock: _lock } = match ready(&args.config) {
        Ok(ready) => ready,
        Err(problem) => {
            // Another one works; should it have ended since, its doors are its next one's to shut.
            if problem.code != Code::LabBusy {
                shut(&args.config).await;
            }
            return Err(problem.into());
        }
    };
    cx.stop.in_order();
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

fn ready(file: &Path) -> Result<Ready, Problem> {
    let config = Config::load(file)?;
    let link = HttpLink::of(&config)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(Code::GateConfig, "the agent needs root: it ends other users' processes"));
    }
    let key = config.plan_key()?;
    let lock = Lock::take(&config.state)?;
    let journal = Journal::open(&config.state)?;
    Ok(Ready { config, link, key, journal, lock })
}

/// Shuts every door of an agent that cannot begin: nobody else would, when a slot ends.
async fn shut(file: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bare = Bare::of(file);
    let lock = bare.state.exists().then(|| Lock::take(&bare.state));
    // An agent that works keeps its doors, whoever starts another one.
    if matches!(&lock, Some(Err(busy)) if busy.code == Code::LabBusy) {
        return;
    }
    for problem in shut_all(&Linux::new(bare.places())).await {
        output::say(&problem.to_string());
    }
}

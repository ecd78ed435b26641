use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use russh::keys::PublicKey;

use super::Context;
use crate::{
    cli::{args::AgentArgs, output},
    core::{Code, Problem, Problems},
    engine::Lock,
    hub::gate::agent::{
        Agent, Bare, Config, HandOver, HttpLink, HubLink, Journal, Link, Linux, Machines, MachinesConfig, Program,
        World, drop_unused_bundles, reach_hub, serve, shut_all,
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
    /// Of its state, and of its doors.
    locks: (Lock, Option<Lock>),
}

/// `kubecamp agent`: keeps the door of this server until it is told to stop.
pub(super) async fn agent(cx: &Context, args: AgentArgs) -> Result<(), Problems> {
    if args.check {
        HttpLink::of(&Config::load(&args.config)?)?;
        output::say(&format!("{} is sound.", args.config.display()));
        return Ok(());
    }
    if args.reach {
        reach_hub(&Config::load(&args.config)?).await?;
        output::say("The hub answers.");
        return Ok(());
    }
    let Ready { config, link, key, journal, locks: _locks } = match ready(&args.config) {
        Ok(ready) => ready,
        Err(problem) => {
            // An agent that works keeps its doors, whoever starts another one.
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
            tidy(machines.clone());
            // Doors do not wait for an engine that hangs.
            let labs = Program::here(machines);
            if let Ok(Err(problem)) = tokio::time::timeout(SETTLES, labs.settle_way_out()).await {
                output::say(&problem.to_string());
            }
            Arc::new(Machines::here(machines).limited(config.hand_over_limit()))
        }
        None => Arc::new(config.commands.clone()),
    };
    let agent = Agent::new(&config.state, &config.server, key, journal, Arc::clone(&world), hand, config.limits());
    let link = link.map(|hub| Link {
        hub: Arc::new(hub) as Arc<dyn HubLink>,
        poll: config.poll(),
        server: config.server.clone(),
    });
    output::say(&format!("kubecamp agent of the server {}", config.server));
    // Only tests halt an agent in its midst.
    let _ = serve(agent, world, link, &output::say, &cx.cancel).await;
    Ok(())
}

/// Removes bundles that no lab of the server needs any more, beside the agent's work: files of gigabytes take their time.
fn tidy(machines: MachinesConfig) {
    tokio::task::spawn_blocking(move || match drop_unused_bundles(&machines, SystemTime::now()) {
        Ok(gone) => gone.iter().for_each(|file| output::say(&format!("removed {}: no lab needs it", file.display()))),
        Err(problem) => output::say(&problem.to_string()),
    });
}

fn ready(file: &Path) -> Result<Ready, Problem> {
    let config = Config::load(file)?;
    let link = HttpLink::of(&config)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(Code::GateConfig, "the agent needs root: it ends other users' processes"));
    }
    let key = config.plan_key()?;
    let state = Lock::take(&config.state)?;
    let doors = match lock_doors(&config.principals) {
        Err(busy) if busy.code == Code::LabBusy => return Err(busy),
        // No full disk may keep the agent from its doors.
        doors => doors.ok(),
    };
    let journal = Journal::open(&config.state)?;
    Ok(Ready { config, link, key, journal, locks: (state, doors) })
}

/// The lock of these doors themselves: another agent may have them by another configuration, with another state.
fn lock_doors(principals: &Path) -> Result<Lock, Problem> {
    // No account has such a name.
    Lock::take_file(&principals.join(".agent"), |holder| {
        Problem::new(Code::LabBusy, format!("another agent keeps the doors of this server (process {holder})"))
    })
}

/// Shuts every door of an agent that cannot begin: nobody else would, when a slot ends.
async fn shut(file: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let bare = Bare::of(file);
    let doors = lock_doors(&bare.principals);
    if matches!(&doors, Err(busy) if busy.code == Code::LabBusy) {
        return;
    }
    for problem in shut_all(&Linux::new(bare.places())).await {
        output::say(&problem.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::gate::HubKey,
        phases::gate_paths::{HOME, PRINCIPALS, STATE},
    };

    #[test]
    fn an_agent_that_is_told_of_no_places_takes_those_of_an_enrolment() {
        let key = HubKey::generate("plan").unwrap().public_line().unwrap();
        let text = format!("server: s1\nplan-key: {key}\nmachines: {{kind: vm}}\n");
        let config = Config::parse(&text, "a test").unwrap();
        assert_eq!((config.principals.as_path(), config.state.as_path()), (Path::new(PRINCIPALS), Path::new(STATE)));
        assert_eq!(config.machines.unwrap().home, Path::new(HOME));
    }

    #[test]
    fn doors_have_one_keeper_whatever_its_configuration_and_state() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = lock_doors(dir.path()).unwrap();
        let busy = lock_doors(dir.path()).unwrap_err();
        assert_eq!(busy.code, Code::LabBusy);
        assert!(busy.what.contains(&std::process::id().to_string()), "{busy}");
        let bare = Bare { principals: dir.path().into(), group: "kubecamp-students".into() };
        assert!(Linux::new(bare.places()).principals().unwrap().is_empty(), "it is nobody's door");
        drop(keeper);
        assert!(lock_doors(dir.path()).is_ok());
        assert_eq!(lock_doors(&dir.path().join("none")).unwrap_err().code, Code::LocalFile);
    }
}

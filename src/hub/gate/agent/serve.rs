use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Agent, Halted, HubLink, Reading, World, time::ahead_of};
use crate::{
    core::Problem,
    hub::gate::{Came, Events, Heartbeat, Report, SignedPlan},
};

/// What the courier is to tell the hub.
#[derive(Debug, Clone, Default, PartialEq)]
struct Outgoing {
    revision: u64,
    ahead: Option<i64>,
    holding: Vec<(String, crate::hub::gate::SlotState)>,
    came: Vec<Came>,
    queue: Vec<Report>,
    /// The plan at hand grows old, or there is none.
    renew: bool,
    /// Why the plan that came last was not taken.
    refused: Option<String>,
    makes_labs: bool,
}

impl Outgoing {
    /// By what the agent knows now; `refused` is why the plan that came last was not taken.
    fn of(agent: &Agent, refused: Option<String>) -> Self {
        Self {
            revision: agent.revision(),
            ahead: agent.timeline().ahead(),
            holding: agent.holding(),
            came: agent.came(),
            queue: agent.queue(),
            renew: agent.wants_plan(),
            refused,
            makes_labs: agent.makes_labs(),
        }
    }
}

/// What the courier brings.
enum News {
    Plan(SignedPlan),
    Clock { reading: Reading, ahead: i64 },
    Acknowledged(u64),
    Lost(Problem),
    Found,
}

/// How the agent reaches its hub, and how often.
pub struct Link {
    /// The way there.
    pub hub: Arc<dyn HubLink>,
    /// The pause between two questions.
    pub poll: Duration,
    /// This server's name.
    pub server: String,
}

/// Keeps the doors until it is cancelled; `say` gets a line for each thing worth a log.
///
/// A link that is lost, slow or lying changes nothing about when a slot starts or ends.
pub async fn serve(
    mut agent: Agent,
    world: Arc<dyn World>,
    link: Option<Link>,
    say: &(dyn Fn(&str) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<(), Halted> {
    if let Some(problem) = agent.recall_plan()? {
        say(&problem.to_string());
    }
    let (tell, told) = watch::channel(Outgoing::default());
    let (bring, mut brought) = mpsc::channel(16);
    let mut inbox = Inbox { say, said: BTreeMap::new(), was_lost: false, refused: None };
    // When the last tick ended, by the boot clock. Apart from what is told: that wakes the courier where it changes.
    let ticked = Arc::new(AtomicI64::new(world.read_clocks().boot));
    let courier = link.map(|link| tokio::spawn(courier(link, world, Arc::clone(&ticked), told, bring)));
    let ended = loop {
        let wait = match agent.tick().await {
            Ok(wait) => wait,
            Err(halted) => break Err(halted),
        };
        ticked.store(agent.clocks().boot, Relaxed);
        let out = Outgoing::of(&agent, inbox.refused.clone());
        tell.send_if_modified(|old| std::mem::replace(old, out.clone()) != out);
        agent.log().iter().for_each(|line| say(line));
        inbox.say_troubles(agent.troubles());
        tokio::select! {
            () = cancel.cancelled() => break Ok(()),
            () = tokio::time::sleep(wait) => {}
            Some(news) = brought.recv(), if courier.is_some() => {
                if let Err(halted) = inbox.take_all(&mut agent, news, &mut brought) {
                    break Err(halted);
                }
            }
        }
    };
    if let Some(task) = courier {
        task.abort();
    }
    ended
}

/// Where the news comes in, and what was said of it: each thing is said once.
struct Inbox<'a> {
    say: &'a (dyn Fn(&str) + Send + Sync),
    /// The troubles that were said last.
    said: BTreeMap<String, String>,
    /// Whether the hub was not reached when it was asked last.
    was_lost: bool,
    /// Why the plan that came last was not taken.
    refused: Option<String>,
}

impl Inbox<'_> {
    /// Says all troubles, where they are not those that were said last.
    fn say_troubles(&mut self, troubles: &BTreeMap<String, String>) {
        if *troubles != self.said {
            self.said.clone_from(troubles);
            self.said.iter().for_each(|(what, why)| (self.say)(&format!("{what}: {why}")));
        }
    }

    /// Hands the agent all that was brought: one of them for each tick would leave a plan no room where ticks are slow.
    fn take_all(&mut self, agent: &mut Agent, first: News, brought: &mut mpsc::Receiver<News>) -> Result<(), Halted> {
        let mut next = Some(first);
        while let Some(news) = next {
            self.take(agent, news)?;
            next = brought.try_recv().ok();
        }
        Ok(())
    }

    fn take(&mut self, agent: &mut Agent, news: News) -> Result<(), Halted> {
        match news {
            News::Plan(signed) => {
                let outcome = agent.accept(&signed)?;
                self.refused = outcome.as_ref().err().map(|problem| match problem.detail.is_empty() {
                    true => problem.what.clone(),
                    false => problem.detail.join("; "),
                });
                if let Err(problem) = outcome {
                    (self.say)(&problem.to_string());
                }
            }
            News::Clock { reading, ahead } => {
                if ahead.abs() > 2000 {
                    (self.say)(&format!("the clock here differs from the hub's by {ahead} ms"));
                }
                agent.measured(&reading, ahead);
            }
            News::Acknowledged(upto) => agent.acknowledged(upto)?,
            News::Lost(problem) => {
                if !std::mem::replace(&mut self.was_lost, true) {
                    (self.say)(&format!("{problem}\nthe plan at hand stays in force"));
                }
            }
            News::Found => self.was_lost = false,
        }
        Ok(())
    }
}

/// Asks and tells in turns; new reports go at once while the hub answers.
async fn courier(
    link: Link,
    world: Arc<dyn World>,
    ticked: Arc<AtomicI64>,
    mut told: watch::Receiver<Outgoing>,
    bring: mpsc::Sender<News>,
) {
    loop {
        let out = told.borrow_and_update().clone();
        let round = round(&link, &*world, &ticked, &out, &bring).await;
        let answered = round.is_ok();
        let news = round.map_or_else(News::Lost, |()| News::Found);
        // What an agent that hangs does not take comes anew in the next round: the hub goes on hearing that it hangs.
        let _ = bring.try_send(news);
        if bring.is_closed() {
            return;
        }
        let pause = tokio::time::sleep(link.poll);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                changed = told.changed(), if answered => {
                    if changed.is_err() {
                        return;
                    }
                    if !told.borrow().queue.is_empty() {
                        break;
                    }
                }
            }
        }
    }
}

async fn round(
    link: &Link,
    world: &dyn World,
    ticked: &AtomicI64,
    out: &Outgoing,
    bring: &mpsc::Sender<News>,
) -> Result<(), Problem> {
    let before = world.read_clocks();
    let heartbeat = Heartbeat {
        server: link.server.clone(),
        revision: out.revision,
        clock: before.wall,
        ahead: out.ahead,
        holding: out.holding.clone(),
        came: out.came.clone(),
        tick_age: Some((before.boot - ticked.load(Relaxed)).max(0)),
        refused: out.refused.clone(),
        makes_labs: Some(out.makes_labs),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let answer = link.hub.heartbeat(&heartbeat).await?;
    let after = world.read_clocks();
    // The hub read its clock somewhere between; a slow answer or a clock set meanwhile measures nothing.
    let took = after.boot - before.boot;
    if took <= 5000 && (after.wall - before.wall - took).abs() < 500 {
        let ahead = ahead_of(before.wall + took / 2, answer.clock);
        let _ = bring.try_send(News::Clock { reading: after, ahead });
    }
    let mut planned = Ok(());
    if answer.revision != out.revision || out.renew {
        match link.hub.plan().await {
            Ok(plan) => {
                let _ = bring.try_send(News::Plan(plan));
            }
            // A hub that has none to give is told all the same what became of the slots.
            Err(problem) => planned = Err(problem),
        }
    }
    if !out.queue.is_empty() {
        let events = Events { server: link.server.clone(), events: out.queue.clone() };
        let answer = link.hub.events(&events).await?;
        let _ = bring.try_send(News::Acknowledged(answer.accepted));
    }
    planned
}

use proptest::prelude::*;

use super::sim::{Death, Post, slot};
use crate::{
    core::Problem,
    hub::gate::{Slot, SlotState, Wanted, agent::Halted},
};

/// What befalls the agent.
#[derive(Debug, Clone)]
enum Blow {
    Pass(i64),
    Kill(usize, u8),
    Clock(i64),
    Restart(i64),
    Take(usize),
    /// Whether labs of one account come up.
    Labs(bool),
    Hear,
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        5 => (1i64..90).prop_map(Blow::Pass),
        3 => (0usize..12, 0u8..3).prop_map(|(at, how)| Blow::Kill(at, how)),
        1 => (-7200i64..7200).prop_map(Blow::Clock),
        1 => (1i64..120).prop_map(Blow::Restart),
        1 => (0usize..6).prop_map(Blow::Take),
        1 => any::<bool>().prop_map(Blow::Labs),
        1 => Just(Blow::Hear),
    ]
}

/// Lengths and pauses, and whose account.
fn slots() -> impl Strategy<Value = Vec<(i64, i64, bool)>> {
    proptest::collection::vec((5i64..120, 0i64..60, any::<bool>()), 1..6)
}

/// What a wall clock may show after a restart of the machine, in milliseconds ahead of the truth.
///
/// One that runs ahead then cannot be told from a long time off. Nor can one that is behind by no more than the time off,
/// two minutes here at most, and the minute and the look since time was written down. One that is further behind shuts
/// the doors.
fn after_restart(ahead: i64) -> i64 {
    if ahead > -182_000 { 0 } else { ahead }
}

/// Slots that follow each other on their places, and when the last of them ends: in turns on one place, or `beside` each
/// other where each account has its own.
fn laid_out(lengths: &[(i64, i64, bool)], beside: bool) -> (Vec<Slot>, i64) {
    let mut free_from = [20, 20];
    let mut slots = vec![];
    for (i, (length, pause, whose)) in lengths.iter().enumerate() {
        let account = if *whose { "kct-a" } else { "kct-b" };
        let place = u32::from(beside && !*whose);
        let starts = free_from[place as usize];
        slots.push(Slot { place, ..slot(&i.to_string(), account, starts, starts + length) });
        free_from[place as usize] += length + pause;
    }
    (slots, free_from[0].max(free_from[1]))
}

/// An agent with its slots, and what has befallen it.
struct Life {
    post: Post,
    slots: Vec<Slot>,
    /// In true seconds after the start of the test.
    now: i64,
    revision: u64,
    alive: Result<(), Halted>,
}

impl Life {
    fn new(slots: Vec<Slot>) -> Self {
        let mut post = Post::new();
        let alive = post.plan(1, &slots).map(|taken| taken.unwrap());
        Self { post, slots, now: 0, revision: 1, alive }
    }

    /// A process that begins looks at its doors before it hears of anything else.
    async fn begin(&mut self, mortal: Option<(usize, Death)>) {
        self.alive = self.post.reborn(mortal);
        if self.alive.is_ok() {
            self.alive = self.post.agent.tick().await.map(drop);
        }
    }

    async fn until(&mut self, second: i64) {
        let alive = self.post.until(second).await;
        self.alive = self.alive.and(alive);
    }

    /// The hub's next plan.
    fn plan(&mut self) -> Result<Result<(), Problem>, Halted> {
        self.revision += 1;
        self.post.plan(self.revision, &self.slots)
    }

    async fn suffer(&mut self, blow: Blow) {
        if self.alive.is_err() {
            self.post.sim.pass(300);
            self.begin(None).await;
        }
        match blow {
            Blow::Pass(seconds) => {
                self.now += seconds;
                self.until(self.now).await;
            }
            Blow::Kill(lines, how) => {
                let how = [Death::Before, Death::Torn, Death::After][usize::from(how)];
                self.begin(Some((lines, how))).await;
            }
            Blow::Clock(ahead) => self.post.sim.at().wall_ahead = ahead * 1000,
            Blow::Restart(down) => {
                let ahead = after_restart(self.post.sim.at().wall_ahead);
                self.post.sim.at().wall_ahead = ahead;
                self.post.sim.restart(down * 1000);
                self.post.sim.at().labs.clear();
                self.now += down;
                self.begin(None).await;
            }
            Blow::Take(which) => {
                if let Some(slot) = self.slots.get_mut(which) {
                    slot.wanted = Wanted::Cancelled;
                }
                let taken = self.plan().map(drop);
                self.alive = self.alive.and(taken);
            }
            Blow::Labs(true) => self.post.sim.at().broken.clear(),
            Blow::Labs(false) => drop(self.post.sim.at().broken.insert("arm kct-a".into())),
            Blow::Hear => {
                let heard = self.post.hear();
                self.alive = self.alive.and(heard);
            }
        }
        self.post.right();
    }

    /// Leaves it alone with a right clock until the last slot, which ends at `second`, is long over.
    async fn rest(&mut self, second: i64) {
        self.post.sim.at().wall_ahead = 0;
        self.post.sim.at().broken.clear();
        self.post.reborn(None).unwrap();
        self.plan().unwrap().unwrap();
        let reading = self.post.agent.clocks();
        self.post.agent.measured(&reading, 0);
        self.post.until(second.max(self.now) + 200).await.unwrap();
        self.post.hear().unwrap();
        self.post.right();
    }

    /// Everything came to its end: panics if anything of anybody is left, or the states of a slot went backwards.
    fn must_be_over(&self) {
        let server = self.post.sim.at();
        assert!(server.doors.values().all(String::is_empty) && server.processes.is_empty() && server.cron.is_empty());
        assert!(server.labs.is_empty());
        drop(server);
        for (booking, held) in self.post.agent.ledger().slots {
            assert_eq!(held.state(), SlotState::Done, "{booking}");
        }
        for i in 0..self.slots.len() {
            let states = self.post.states(&i.to_string());
            assert!(states.windows(2).all(|w| w[0] <= w[1]), "{i} went {states:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, nobody is in outside of a slot, no lab meets another in its place, and states only go forward;
    /// in turns on one place, or beside each other where each account has its own.
    #[test]
    fn nobody_is_in_outside_of_a_slot(
        lengths in slots(),
        beside in any::<bool>(),
        blows in proptest::collection::vec(blow(), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (slots, at) = laid_out(&lengths, beside);
            let mut life = Life::new(slots);
            for blow in blows {
                life.suffer(blow).await;
            }
            life.rest(at).await;
            life.must_be_over();
        });
    }
}

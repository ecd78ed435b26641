use proptest::prelude::*;

use super::sim::{Death, Post, slot};
use crate::hub::gate::{Slot, SlotState, Wanted, agent::Halted};

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

/// A process that begins looks at its doors before it hears of anything else.
async fn begin(post: &mut Post, mortal: Option<(usize, Death)>) -> Result<(), Halted> {
    post.reborn(mortal)?;
    post.agent.tick().await.map(drop)
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
            let mut free_from = [20, 20];
            let mut slots = vec![];
            for (i, (length, pause, whose)) in lengths.iter().enumerate() {
                let account = if *whose { "kct-a" } else { "kct-b" };
                let place = u32::from(beside && !*whose);
                let starts = free_from[place as usize];
                slots.push(Slot { place, ..slot(&i.to_string(), account, starts, starts + length) });
                free_from[place as usize] += length + pause;
            }
            let at = free_from[0].max(free_from[1]);
            let mut post = Post::new();
            let (mut now, mut revision) = (0, 1);
            let mut alive = post.plan(revision, &slots).map(|taken| taken.unwrap());
            for blow in blows {
                if alive.is_err() {
                    post.sim.pass(300);
                    alive = begin(&mut post, None).await;
                }
                match blow {
                    Blow::Pass(seconds) => {
                        now += seconds;
                        alive = alive.and(post.until(now).await);
                    }
                    Blow::Kill(lines, how) => {
                        let how = [Death::Before, Death::Torn, Death::After][usize::from(how)];
                        alive = begin(&mut post, Some((lines, how))).await;
                    }
                    Blow::Clock(ahead) => post.sim.at().wall_ahead = ahead * 1000,
                    Blow::Restart(down) => {
                        let ahead = after_restart(post.sim.at().wall_ahead);
                        post.sim.at().wall_ahead = ahead;
                        post.sim.restart(down * 1000);
                        post.sim.at().labs.clear();
                        now += down;
                        alive = begin(&mut post, None).await;
                    }
                    Blow::Take(which) => {
                        revision += 1;
                        if let Some(slot) = slots.get_mut(which) {
                            slot.wanted = Wanted::Cancelled;
                        }
                        alive = alive.and(post.plan(revision, &slots).map(drop));
                    }
                    Blow::Labs(true) => post.sim.at().broken.clear(),
                    Blow::Labs(false) => drop(post.sim.at().broken.insert("arm kct-a".into())),
                    Blow::Hear => alive = alive.and(post.hear()),
                }
                post.right();
            }
            // Left alone with a right clock, everything comes to its end.
            post.sim.at().wall_ahead = 0;
            post.sim.at().broken.clear();
            post.reborn(None).unwrap();
            revision += 1;
            post.plan(revision, &slots).unwrap().unwrap();
            let reading = post.agent.clocks();
            post.agent.measured(&reading, 0);
            let last: Result<(), Halted> = post.until(at.max(now) + 200).await;
            last.unwrap();
            post.hear().unwrap();
            post.right();
            let server = post.sim.at();
            assert!(server.doors.values().all(String::is_empty) && server.processes.is_empty() && server.cron.is_empty());
            assert!(server.labs.is_empty());
            drop(server);
            for (booking, held) in post.agent.ledger().slots {
                assert_eq!(held.state(), SlotState::Done, "{booking}");
            }
            for i in 0..slots.len() {
                let states = post.states(&i.to_string());
                assert!(states.windows(2).all(|w| w[0] <= w[1]), "{i} went {states:?}");
            }
        });
    }
}

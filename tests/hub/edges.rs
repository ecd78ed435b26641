//! kill -9 around the steps of a slot that its straight life never takes: the waitlist, gifts, moves, delays, no-shows,
//! quarantine, an account that is closed.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Stdio},
    time::{Duration, Instant},
};

use kubecamp::{
    core::{Code, Problem},
    hub::{
        clerk::Clerk,
        desk::{Caller, Desk, Edit, NewPerson, NewServer, Report, Step},
        domain::{Booking, BookingId, CourseId, Free, Mode, PersonId, Role, ServerId, State},
        store::{Listing, Store},
    },
};

use super::{
    crash::{DATABASE, ROUND, child, killed_after},
    world::{NOW, at, clerk, generous, healthy, new_server, person, who, window, wish},
};

/// In this order in each round.
const EDGES: [&str; 15] = [
    "cancelled",
    "offered",
    "lapsed",
    "accepted",
    "extended",
    "given",
    "refused",
    "moved",
    "delayed",
    "armed late",
    "no-show",
    "cleared",
    "quarantined",
    "waits in vain",
    "account closed",
];

/// Those at which the database is killed once more, and right after.
const ONCE_MORE: [&str; 7] = ["lapsed", "accepted", "extended", "given", "moved", "no-show", "quarantined"];

/// Set where the child outlives its database, and goes on when it is told so.
const LASTS: &str = "KUBECAMP_TEST_CRASH_LASTS";
/// The test that is the child.
const CHILD: &str = "hub::edges::child_on_all_edges";

/// A course of one round, with its own people and servers: what a killed round leaves open is in no later one's way.
async fn camp_of(desk: &Desk, round: usize) {
    let (course, group): (CourseId, _) = (format!("c{round}").parse().unwrap(), format!("g{round}"));
    desk.put_course(&Caller::Console, NOW, &course, "A round", &generous(), None).await.unwrap();
    desk.put_group(&Caller::Console, NOW, &group.parse().unwrap(), &course).await.unwrap();
    for of in ["a", "b", "c"] {
        person(desk, &format!("{of}{round}"), Some(&group)).await;
    }
    for of in ["x", "y"] {
        let new = new_server(&format!("{of}{round}"), Mode::Exclusive, 8, 32);
        let new = NewServer { course: Some(course.clone()), ..new };
        desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    }
}

/// Killed as soon as each edge begins, and as soon as it is done.
pub async fn killed_at_each(desk: &Desk, url: &str) {
    // The last one comes to its end, so that all edges are checked.
    let rounds = 2 * EDGES.len() + 1;
    for round in 1..=rounds {
        camp_of(desk, round).await;
        killed_after(CHILD, url, round, round);
        healthy(desk).await;
    }
    comes_to_its_end(desk, rounds).await;
}

/// A hub that starts again drives on what lies open: nothing is kept for somebody for ever.
async fn comes_to_its_end(desk: &Desk, rounds: usize) {
    clerk(desk).settle(at(1_000_000)).await.unwrap();
    healthy(desk).await;
    let all = desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap();
    assert!(all.len() > rounds, "{}", all.len());
    for booking in all {
        assert!(booking.state.is_final() || booking.state.is_begun(), "{booking:?}");
    }
}

/// As above, and what is killed is the database: its hub lives on, and asks again by the same key for what had no answer.
pub async fn database_killed_at_each(desk: &Desk, url: &str, end: impl Fn() + Sync, begin: impl Fn()) {
    for round in 1..=2 {
        camp_of(desk, round).await;
        let mut hub = child(CHILD, url, round);
        let mut hub = hub.env(LASTS, "1").stdin(Stdio::piped()).spawn().unwrap();
        let mut go_on = hub.stdin.take().unwrap();
        let (mut kills, mut repeats) = (0, 0);
        for line in BufReader::new(hub.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let Some((what, edge)) = line.split_once(' ') else { continue };
            let once_more = round == 2 && ONCE_MORE.contains(&edge);
            match what {
                "again" => repeats += 1,
                "changing" if round == 1 || once_more => {
                    killed_in_the_midst(&mut go_on, kills, &end);
                    begin();
                    kills += 1;
                }
                "changed" if once_more => {
                    end();
                    begin();
                    writeln!(go_on).unwrap();
                }
                "changing" | "changed" if edge != "all" => writeln!(go_on).unwrap(),
                _ => {}
            }
        }
        assert!(hub.wait().unwrap().success(), "round {round}: the hub did not go on");
        assert_eq!(kills, if round == 1 { EDGES.len() } else { ONCE_MORE.len() });
        // Where it was dead before anything was asked there was no answer for sure.
        assert!(repeats >= kills.div_ceil(3), "round {round}: {repeats} repeats for {kills} kills");
        healthy(desk).await;
    }
    comes_to_its_end(desk, 2).await;
}

/// Kills the database when the child goes on: each third time before that, else about at the same time.
fn killed_in_the_midst(go_on: &mut ChildStdin, kills: usize, end: &(impl Fn() + Sync)) {
    if kills.is_multiple_of(3) {
        end();
        writeln!(go_on).unwrap();
        // Until the hub has asked once in vain.
        std::thread::sleep(Duration::from_millis(100));
        return;
    }
    std::thread::scope(|both| {
        both.spawn(end);
        // It takes some milliseconds to find all of its processes, and a change takes no more.
        std::thread::sleep(Duration::from_micros(u64::from(rand::random::<u8>()) * 48));
        writeln!(go_on).unwrap();
    });
}

/// Lets the parent say when the child goes on.
fn is_told_to_go_on() {
    if env::var_os(LASTS).is_some() {
        std::io::stdin().read_line(&mut String::new()).unwrap();
    }
}

/// What is answered in the end, however often the database is gone meanwhile.
#[expect(clippy::print_stdout, reason = "the parent counts these lines")]
async fn lasting<T>(mut ask: impl AsyncFnMut() -> Result<T, Problem>) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Err(problem) if problem.code == Code::HubDatabase && began.elapsed() < Duration::from_secs(60) => {
                println!("\nagain {}", problem.code);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome.unwrap(),
        }
    }
}

#[ignore = "run by the tests above, as the process that is killed, or whose database is"]
#[expect(clippy::print_stdout, reason = "the parent counts these lines")]
#[tokio::test]
async fn child_on_all_edges() {
    let (Ok(url), Ok(round)) = (env::var(DATABASE), env::var(ROUND)) else { return };
    let desk = Desk::new(Store::open(&url).await.unwrap());
    let mut hub = Hub { clerk: clerk(&desk), desk, round, told: 0, ids: BTreeMap::new() };
    let taken = hub.book('c', 'x', 0, (240, 300)).await;
    hub.ids.insert("taken", taken);
    let waits = hub.desk.wait(&who(&hub.name('a')), NOW, None, &wish(Some(&hub.name('x')), 240, 300)).await.unwrap();
    hub.ids.insert("slot", waits.id);
    for edge in EDGES {
        hub.prepare(edge).await;
        println!("\nchanging {edge}");
        is_told_to_go_on();
        hub.go(edge).await;
        println!("\nchanged {edge}");
        is_told_to_go_on();
        hub.check(edge).await;
    }
    println!("\nchanged all");
}

/// The hub that is killed, and the bookings of its round by what they are for.
struct Hub {
    desk: Desk,
    clerk: Clerk,
    round: String,
    /// The number of the last report.
    told: i64,
    ids: BTreeMap<&'static str, BookingId>,
}

impl Hub {
    /// Somebody or something of this round.
    fn name(&self, of: char) -> String {
        format!("{of}{}", self.round)
    }

    async fn book(&self, of: char, on: char, minute: i64, (from, to): (i64, i64)) -> BookingId {
        let wish = wish(Some(&self.name(on)), from, to);
        self.desk.book(&who(&self.name(of)), at(minute), None, &wish).await.unwrap().id
    }

    async fn report(&mut self, of: &str, steps: &[Step], minute: i64) {
        let server: ServerId = self.name('x').parse().unwrap();
        for step in steps {
            self.told += 1;
            let (number, booking, moment) = (self.told, self.ids[of].clone(), at(minute));
            let note = (*step == Step::Refused).then(|| "there is no key".to_owned());
            let report = [Report { number, booking, account: None, step: *step, moment, note }];
            let agent = Caller::Agent(server.clone());
            lasting(async || self.desk.report(&agent, moment, &server, &report).await).await;
        }
    }

    async fn see(&self, of: &str) -> Booking {
        self.desk.booking(&Caller::Console, NOW, &self.ids[of]).await.unwrap()
    }

    async fn settle(&self, minute: i64) {
        lasting(async || self.clerk.settle(at(minute)).await).await;
    }

    /// What comes before an edge and is none of these.
    async fn prepare(&mut self, edge: &str) {
        match edge {
            // Who let an offer lapse is asked again when somebody has given that time up since.
            "accepted" => {
                let meanwhile = self.book('c', 'x', 12, (240, 300)).await;
                let c = who(&self.name('c'));
                self.desk.cancel(&c, at(13), None, &meanwhile, &Edit::default()).await.unwrap();
                self.settle(13).await;
            }
            "delayed" => {
                let (first, next) =
                    (self.book('a', 'x', 20, (30, 90)).await, self.book('b', 'x', 20, (120, 180)).await);
                self.ids.extend([("first", first), ("next", next)]);
                let steps = [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving];
                self.report("first", &steps, 90).await;
            }
            "armed late" => self.report("first", &[Step::Resetting, Step::Done], 125).await,
            "no-show" => self.report("next", &[Step::Active], 130).await,
            "quarantined" => {
                let dirty = self.book('c', 'x', 147, (360, 390)).await;
                self.ids.insert("dirty", dirty);
                self.report("dirty", &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending], 147).await;
            }
            "waits in vain" => {
                let kept = self.book('c', 'y', 148, (420, 450)).await;
                self.ids.insert("kept", kept);
            }
            "account closed" => {
                let more = self.book('b', 'y', 149, (480, 510)).await;
                self.ids.insert("more", more);
            }
            _ => {}
        }
    }

    async fn go(&mut self, edge: &str) {
        let (plain, a, b) = (Edit::default(), who(&self.name('a')), who(&self.name('b')));
        let (slot, key) = (self.ids["slot"].clone(), Some(edge));
        match edge {
            "cancelled" => {
                let (c, taken) = (who(&self.name('c')), self.ids["taken"].clone());
                lasting(async || self.desk.cancel(&c, at(1), key, &taken, &plain).await).await;
            }
            "offered" => self.settle(2).await,
            "lapsed" => self.settle(12).await,
            "accepted" => drop(lasting(async || self.desk.accept(&a, at(13), key, &slot).await).await),
            "extended" => {
                lasting(async || self.desk.extend(&a, at(14), key, &slot, at(330), &plain).await).await;
            }
            "given" => {
                let to = self.name('b').parse().unwrap();
                lasting(async || self.desk.give(&a, at(15), key, &slot, &to, &plain).await).await;
            }
            "refused" => self.report("slot", &[Step::Refused], 16).await,
            "moved" => {
                let to =
                    Free { server: self.name('y').parse().unwrap(), window: window(240, 330), lab: None, limit: None };
                lasting(async || self.desk.move_to(&b, at(17), key, &slot, &to, &plain).await).await;
            }
            "delayed" => self.settle(120).await,
            "armed late" => self.report("next", &[Step::Arming], 130).await,
            "no-show" => self.settle(145).await,
            "cleared" => self.report("next", &[Step::Done], 146).await,
            "quarantined" => self.report("dirty", &[Step::Quarantined], 147).await,
            "waits in vain" => {
                let wish = wish(Some(&self.name('y')), 420, 450);
                let waits = lasting(async || self.desk.wait(&b, at(148), key, &wish).await).await;
                self.ids.insert("in vain", waits.id);
            }
            _ => self.close_account().await,
        }
    }

    /// Closes the account of who has a slot that was given and moved, another one, and a wait.
    async fn close_account(&self) {
        let id: PersonId = self.name('b').parse().unwrap();
        lasting(async || -> Result<(), Problem> {
            let there = self.desk.person(&Caller::Console, at(150), &id).await?;
            if !there.active {
                // It was closed without an answer: what is left of it the clerk ends.
                return self.clerk.settle(at(150)).await.map(drop);
            }
            let (name, role) = (there.name, Role::Student);
            let out = NewPerson { id: id.clone(), name, role, active: Some(false), zone: None, keys: vec![] };
            self.desk.put_person(&Caller::Console, at(150), &out, Some(there.version)).await.map(drop)
        })
        .await;
    }

    /// That an edge led where it leads: else nothing was killed there.
    async fn check(&self, edge: &str) {
        let (of, state) = match edge {
            "cancelled" => ("taken", State::Cancelled),
            "offered" => ("slot", State::Offered),
            "lapsed" => ("slot", State::Waitlisted),
            "delayed" => ("next", State::Delayed),
            "armed late" => ("next", State::Arming),
            "no-show" | "cleared" => ("next", State::NoShow),
            "quarantined" => ("dirty", State::Quarantined),
            "waits in vain" => ("in vain", State::Waitlisted),
            "account closed" => ("slot", State::Cancelled),
            _ => ("slot", State::Booked),
        };
        let after = self.see(of).await;
        assert_eq!(after.state, state, "{edge}");
        let holds = match edge {
            "lapsed" => after.lapses == 1,
            "extended" => after.window == window(240, 330),
            "given" => after.person.as_str() == self.name('b'),
            "refused" => after.refused.is_some(),
            "moved" => after.server.as_ref().is_some_and(|on| on.as_str() == self.name('y')),
            "account closed" => {
                let (more, waits) = (self.see("more").await, self.see("in vain").await);
                (more.state, waits.state) == (State::Cancelled, State::Cancelled)
            }
            _ => true,
        };
        assert!(holds, "{edge}: {after:?}");
    }
}

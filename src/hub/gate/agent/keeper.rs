use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use russh::keys::PublicKey;
use tokio::task::JoinHandle;

use super::{
    Entry, Halted, HandOver, Held, Journal, Now, Reading, Step, Timeline, World, ending::Since, halting::Halt, journal,
};
use crate::{
    core::Problem,
    hub::gate::{Epoch, Plan, Reason, SignedPlan, Slot, SlotState, Wanted, plan::refused},
};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long before its start a slot's lab is brought up, in seconds.
    pub lead: Epoch,
    /// How long evicting is tried before the slot is quarantined, in seconds; it is tried on after that.
    pub evict: i64,
    /// How long a lab is kept that has no slot, in seconds; 0 is for ever.
    pub keep: Epoch,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lead: 300, evict: 30, keep: 0 }
    }
}

/// The keeper of the door: [`Agent::tick`] looks at clocks, plan and journal, and does what is due.
pub struct Agent {
    pub(super) world: Arc<dyn World>,
    pub(super) hand: Arc<dyn HandOver>,
    pub(super) journal: Mutex<Journal>,
    pub(super) timeline: Timeline,
    pub(super) plan: Option<Plan>,
    /// A newer plan that the disk did not take: what it ends ends, and all else waits.
    unkept: Option<Plan>,
    pub(super) limits: Limits,
    pub(super) wall: Epoch,
    /// Work on labs that takes long, beside the ticks.
    pub(super) work: BTreeMap<String, (Step, JoinHandle<Result<(), Problem>>)>,
    /// Looks at the accounts of slots that are to open, by booking.
    pub(super) asking: BTreeMap<String, JoinHandle<Result<(), Problem>>>,
    /// Since when a slot is being ended.
    pub(super) ending: BTreeMap<String, Since>,
    /// How far the machines of quarantined slots are stopped.
    pub(super) halting: BTreeMap<String, Halt>,
    /// What was told already, so that it is told once.
    pub(super) refused: BTreeMap<String, String>,
    pub(super) strays: BTreeSet<String>,
    pub(super) troubles: BTreeMap<String, String>,
    /// Accounts that reach the machines of their labs.
    pub(super) reaching: BTreeSet<String>,
    /// Bookings whose labs were up and may have been stopped, by a restart of the server before this process began or with all machines
    /// since; and from when on, by the boot clock in milliseconds, they are looked at.
    pub(super) found_up: BTreeMap<String, i64>,
    /// The run of all machines, as last seen: see [`HandOver::era`].
    pub(super) era: Option<String>,
    /// Whether the labs that the server keeps may be others than those that were told.
    pub(super) labs_due: bool,
    /// Whether this process has told which labs there are.
    pub(super) labs_told: bool,
    /// The lab that is being removed, by account.
    pub(super) retiring: Option<(String, JoinHandle<Result<(), Problem>>)>,
    /// Before this time of the boot clock no lab is removed, in milliseconds.
    pub(super) retire_from: i64,
    /// What a log is to say yet.
    pub(super) lines: Mutex<Vec<String>>,
    trust: Trust,
}

/// Whose plans count.
struct Trust {
    folder: PathBuf,
    server: String,
    key: PublicKey,
}

impl Agent {
    /// An agent over its folder: its journal and the plan that it had.
    pub fn new(
        folder: &Path,
        server: &str,
        key: PublicKey,
        journal: Journal,
        world: Arc<dyn World>,
        hand: Arc<dyn HandOver>,
        limits: Limits,
    ) -> Self {
        let timeline = Timeline::new(journal.ledger().anchor.clone());
        let begun = journal.ledger().slots.values().filter(|h| !h.is_over());
        begun.for_each(|h| world.remember(&h.slot.account));
        let up = journal.ledger().slots.values().filter(|h| h.has_lab());
        let found_up = up.map(|h| (h.slot.booking.clone(), 0)).collect();
        let era = hand.era();
        let trust = Trust { folder: folder.to_owned(), server: server.to_owned(), key };
        Self {
            world,
            hand,
            journal: Mutex::new(journal),
            timeline,
            plan: None,
            unkept: None,
            limits,
            wall: 0,
            work: BTreeMap::new(),
            asking: BTreeMap::new(),
            ending: BTreeMap::new(),
            halting: BTreeMap::new(),
            refused: BTreeMap::new(),
            strays: BTreeSet::new(),
            troubles: BTreeMap::new(),
            reaching: BTreeSet::new(),
            found_up,
            era,
            labs_due: true,
            labs_told: false,
            retiring: None,
            retire_from: 0,
            lines: Mutex::default(),
            trust,
        }
    }

    /// The name of its server.
    pub(super) fn server(&self) -> &str {
        &self.trust.server
    }

    /// Its clocks.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Looks at the server's clocks.
    pub fn clocks(&self) -> Reading {
        self.world.read_clocks()
    }

    /// Whether half of the plan's life is over, or there is none.
    pub fn wants_plan(&self) -> bool {
        self.plan.as_ref().is_none_or(|p| self.wall >= p.issued_at + (p.expires_at - p.issued_at) / 2)
    }

    /// What goes wrong and is tried again, by what it concerns.
    pub fn troubles(&self) -> &BTreeMap<String, String> {
        &self.troubles
    }

    /// The wall clock was found to be so many milliseconds ahead of the hub's.
    pub fn measured(&mut self, reading: &Reading, ahead: i64) {
        self.timeline.measured(reading, ahead);
    }

    /// Goes on with the plan of before, if it is still one.
    ///
    /// Without a plan nothing is open.
    pub fn recall_plan(&mut self) -> Result<Option<Problem>, Halted> {
        let file = self.trust.folder.join("plan.json");
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        match serde_json::from_str::<SignedPlan>(&text) {
            Ok(signed) => self.accept(&signed).map(Result::err),
            Err(e) => Ok(Some(refused("the copy on the disk cannot be read".into()).because(e))),
        }
    }

    /// Works by this plan from now on, unless it is not the hub's, not for this server, expired, or older than one
    /// that was accepted before.
    pub fn accept(&mut self, signed: &SignedPlan) -> Result<Result<(), Problem>, Halted> {
        let reading = self.world.read_clocks();
        self.wall = reading.wall / 1000;
        let now = self.timeline.look(&reading);
        self.remember_time()?;
        let plan = match self.judge(signed, now) {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(Ok(())),
            Err(problem) => return Ok(Err(problem)),
        };
        // On the disk first: a killed agent must not know the revision without its plan.
        let file = self.trust.folder.join("plan.json");
        let kept = serde_json::to_vec(signed).map_err(|e| refused("it cannot be kept".into()).because(e)).and_then(
            // The one that was recalled from there needs no room on a full disk.
            |bytes| match fs::read(&file) {
                Ok(there) if there == bytes => Ok(()),
                _ => journal::replace(&file, &bytes, 0o600),
            },
        );
        if let Err(problem) = kept {
            self.end_by(plan);
            return Ok(Err(problem));
        }
        // A hub whose clock was set back issues newer ones at an earlier time.
        let (revision, issued_at) = (plan.revision, plan.issued_at);
        drop(self.unkept.take_if(|known| known.revision <= revision || known.issued_at <= issued_at));
        if plan.revision > self.books().ledger().revision {
            self.write(Entry::Plan { revision: plan.revision })?;
        }
        // Who has a slot by now was not told yet why it does not begin.
        let holder = |plan: &Plan, booking: &str| {
            let slot = plan.slots.iter().find(|s| s.booking == booking);
            slot.map(|s| s.account.clone())
        };
        if let Some(known) = &self.plan {
            self.refused.retain(|booking, _| holder(known, booking) == holder(&plan, booking));
        }
        self.plan = Some(plan);
        self.forget()?;
        Ok(Ok(()))
    }

    /// Ends do not wait for a disk: what this plan ends will end, though its revision is not acknowledged.
    fn end_by(&mut self, plan: Plan) {
        let is_newer = |known: &Plan| (known.revision, known.issued_at) < (plan.revision, plan.issued_at);
        let ends_more = self.plan.as_ref().is_none_or(|at_hand| at_hand.revision < plan.revision);
        if ends_more && self.unkept.as_ref().is_none_or(is_newer) {
            self.unkept = Some(plan);
        }
    }

    fn judge(&self, signed: &SignedPlan, now: Now) -> Result<Option<Plan>, Problem> {
        let plan = signed.open(&self.trust.key, &self.trust.server)?;
        let known = self.books().ledger().revision;
        if plan.revision < known {
            return Err(refused(format!("it has revision {}, and {known} was accepted before", plan.revision)));
        }
        if now.late >= plan.expires_at * 1000 {
            return Err(refused("it has expired".into()));
        }
        let same = self.plan.as_ref().filter(|at_hand| at_hand.revision == plan.revision);
        match same {
            Some(at_hand) if at_hand.expires_at >= plan.expires_at => Ok(None),
            // Signed anew the same revision lives longer and reaches further: to slots that were too far ahead before,
            // though nothing was changed. Only of one moment there is one list; a newer hub may tell more of its people.
            Some(at_hand) if at_hand.issued_at >= plan.issued_at && !are_as(&at_hand.slots, &plan.slots) => {
                Err(refused(format!("revision {known} was accepted with other slots")))
            }
            _ => Ok(Some(plan)),
        }
    }

    /// Slots that are over, told, and no longer in the plan.
    fn forget(&self) -> Result<(), Halted> {
        let ledger = self.ledger();
        let Some(plan) = &self.plan else { return Ok(()) };
        let gone = |booking: &str| plan.slot(booking).is_none();
        let told = |booking: &str| !ledger.queue.iter().any(|r| r.kind.booking() == Some(booking));
        let over = ledger.slots.values().filter(|h| h.is_over()).map(|h| h.slot.booking.clone());
        let bookings: Vec<_> = over.chain(ledger.missed.clone()).filter(|b| gone(b) && told(b)).collect();
        bookings.into_iter().try_for_each(|booking| self.write(Entry::Forgotten { booking }))
    }

    /// Does what is due, and says how long nothing will be.
    pub async fn tick(&mut self) -> Result<Duration, Halted> {
        let reading = self.world.read_clocks();
        self.wall = reading.wall / 1000;
        let now = self.timeline.look(&reading);
        let lost = self.timeline.is_lost(&reading);
        let shut = self.take_principals(now);
        if lost {
            // Whose slot is over by now nobody can say, so nobody comes in while the rest is done.
            self.keep_doors(lost);
        }
        self.keep_reach(now, lost).await;
        self.books().settle()?;
        self.remember_time()?;
        self.follow_plan()?;
        self.shut_doors(now, reading.boot, &shut).await?;
        self.keep_doors(lost);
        self.end_all(&reading).await?;
        self.halt_failed(reading.boot).await;
        self.heed_era();
        self.work_on_labs().await?;
        let doubt = self.timeline.doubt(&reading);
        self.take_new(now, doubt.as_deref()).await?;
        self.work_on_labs().await?;
        self.open_doors(now, doubt.as_deref()).await?;
        self.keep_reach(now, lost).await;
        self.revive(reading.boot).await;
        self.tell(now).await?;
        self.sweep(lost).await?;
        self.retire_labs(now, &reading, doubt.as_deref()).await?;
        self.tell_labs()?;
        Ok(self.until_next(now))
    }

    /// The plan, while it is in force.
    pub(super) fn valid_plan(&self, now: Now) -> Option<&Plan> {
        self.plan.as_ref().filter(|p| now.late < p.expires_at * 1000)
    }

    /// Keeps a late time on the disk, so that a restart with a wrong clock is noticed.
    fn remember_time(&self) -> Result<(), Halted> {
        let Some(anchor) = self.timeline.anchor() else { return Ok(()) };
        let known = self.books().ledger().anchor.clone();
        let stale = |known: &super::Anchor| {
            (&known.boot_id, known.lost) != (&anchor.boot_id, anchor.lost) || (anchor.wall - known.wall).abs() > 60_000
        };
        if known.as_ref().is_none_or(stale) { self.write(Entry::Time { anchor: anchor.clone() }) } else { Ok(()) }
    }

    /// Takes over new ends of slots that are not yet ending, and what an admin cleared.
    fn follow_plan(&self) -> Result<(), Halted> {
        let Some(plan) = &self.plan else { return Ok(()) };
        for held in self.slots_that(|h| !h.is_over()) {
            let booking = held.slot.booking.clone();
            let cleared = held.failed.is_some() && plan.revision > held.failed_at && plan.cleared.contains(&booking);
            if cleared {
                self.write(Entry::Cleared { booking, revision: plan.revision })?;
            } else if held.state() <= SlotState::Active
                && let Some(slot) = plan.slot(&booking)
                && *slot != held.slot
                && is_same_door(slot, &held.slot)
            {
                self.write(Entry::Taken { slot: slot.clone() })?;
            }
        }
        Ok(())
    }

    /// Why a slot that has not ended must end now.
    pub(super) fn why_end(&self, held: &Held, now: Now) -> Option<Reason> {
        if held.failed.is_some() || held.state() > SlotState::Active {
            return None;
        }
        let Some(plan) = self.valid_plan(now) else { return Some(Reason::PlanExpired) };
        std::iter::once(plan).chain(&self.unkept).find_map(|plan| ends_by(plan, held, now))
    }

    /// Why a slot is ended, in the words of who did so.
    pub(super) fn word_on(&self, booking: &str) -> Option<&str> {
        let mut known = self.unkept.iter().chain(&self.plan).filter_map(|plan| plan.slot(booking));
        known.find_map(|slot| slot.why.as_deref())
    }

    /// Takes slots whose lab must be brought up, once their place is free.
    async fn take_new(&mut self, now: Now, doubt: Option<&str>) -> Result<(), Halted> {
        let Some(plan) = self.valid_plan(now) else { return Ok(()) };
        let mut due: Vec<Slot> =
            plan.slots.iter().filter(|s| s.wanted == Wanted::Open || is_given_up(s)).cloned().collect();
        due.sort_by_key(|s| s.starts);
        for slot in due {
            if self.has_had(&slot, now) {
                continue;
            }
            // The journal in which it had begun is gone, as after a reinstallation, or it never began.
            if is_given_up(&slot) || now.late >= slot.ends * 1000 {
                self.write(Entry::Missed { booking: slot.booking })?;
                continue;
            }
            if now.early < (slot.starts - self.limits.lead) * 1000 || self.is_in_use(&slot) {
                continue;
            }
            if let Some(why) = doubt.map(str::to_owned).or_else(|| self.no_disk()) {
                self.refuse(&slot.booking, why)?;
                continue;
            }
            // Nothing is begun for somebody who cannot be let in: the server is fit for whoever comes after.
            let fit = match self.hand.fit(&slot) {
                Ok(()) => self.world.ensure_account(&slot.account).await,
                unfit => unfit,
            };
            if let Err(problem) = fit {
                self.refuse(&slot.booking, problem.to_string())?;
                continue;
            }
            self.refused.remove(&slot.booking);
            self.stop_retiring(&slot.account).await;
            self.write(Entry::Taken { slot })?;
        }
        Ok(())
    }

    /// Whether a slot was taken or missed already, and does not begin anew.
    fn has_had(&self, slot: &Slot, now: Now) -> bool {
        // What was given away while it was armed is over for who had it, and begins anew for who has it now.
        // So it does where it was given back meanwhile.
        let is_back = |h: &Held| h.was_taken_away() && !is_given_up(slot) && now.late < slot.ends * 1000;
        let is_known = |h: &Held| !h.is_over() || (is_same_door(slot, &h.slot) && !is_back(h));
        let books = self.books();
        let ledger = books.ledger();
        ledger.slots.get(&slot.booking).is_some_and(is_known) || ledger.missed.contains(&slot.booking)
    }

    /// Whether another slot that is not over has the place or the account.
    fn is_in_use(&self, slot: &Slot) -> bool {
        let taken = |h: &Held| !h.is_over() && (h.slot.place == slot.place || h.slot.account == slot.account);
        self.books().ledger().slots.values().any(taken)
    }

    /// A door opens only when that can be written down, and by the newest plan.
    pub(super) fn no_disk(&self) -> Option<String> {
        if self.unkept.is_some() {
            return Some("the agent cannot write down the hub's plan".to_owned());
        }
        self.books().is_owing().then(|| "the agent cannot write its journal".to_owned())
    }

    /// Tells the hub why a slot is not armed or opened, once for each cause; numbers in it may change with each look.
    pub(super) fn refuse(&mut self, booking: &str, why: String) -> Result<(), Halted> {
        let cause = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        let told = self.refused.insert(booking.to_owned(), why.clone());
        if told.is_some_and(|before| cause(&before) == cause(&why)) {
            return Ok(());
        }
        self.write(Entry::Refused { booking: booking.to_owned(), why })
    }

    /// Until the next boundary, at most a second: clocks are set and plans come at any time.
    fn until_next(&self, now: Now) -> Duration {
        let busy = !self.work.is_empty() || !self.asking.is_empty() || !self.ending.is_empty();
        let mut wait = if busy { 50 } else { 1000 };
        for slot in self.plan.iter().chain(&self.unkept).flat_map(|p| &p.slots) {
            for (moment, clock) in [
                ((slot.starts - self.limits.lead) * 1000, now.early),
                (slot.starts * 1000, now.early),
                (slot.ends * 1000, now.late),
            ] {
                if moment > clock {
                    wait = wait.min(moment - clock);
                }
            }
        }
        Duration::from_millis(u64::try_from(wait.max(10)).unwrap_or(1000))
    }
}

/// Why a plan ends a slot that has not ended.
fn ends_by(plan: &Plan, held: &Held, now: Now) -> Option<Reason> {
    match plan.slot(&held.slot.booking) {
        None => Some(Reason::Cancelled),
        Some(slot) if !is_same_door(slot, &held.slot) => Some(Reason::Cancelled),
        Some(slot) => match slot.wanted {
            Wanted::Cancelled => Some(Reason::Cancelled),
            Wanted::Released => Some(Reason::Released),
            Wanted::NoShow => Some(Reason::NoShow),
            Wanted::Overridden => Some(Reason::Overridden),
            Wanted::Open => (now.late >= slot.ends * 1000).then_some(Reason::Over),
        },
    }
}

/// Whether a slot was given up before its end: such a one is in a plan only where it has begun.
fn is_given_up(slot: &Slot) -> bool {
    matches!(slot.wanted, Wanted::Released | Wanted::Overridden)
}

/// Whether two plans say the same of every slot.
fn are_as(some: &[Slot], others: &[Slot]) -> bool {
    some.len() == others.len() && some.iter().zip(others).all(|(a, b)| a.is_as(b))
}

/// Whether two versions of a booking are about the same account and place; otherwise the old one has to end.
fn is_same_door(a: &Slot, b: &Slot) -> bool {
    (&a.account, a.place, &a.principal) == (&b.account, b.place, &b.principal)
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.work.values().for_each(|(_, task)| task.abort());
        self.asking.values().for_each(JoinHandle::abort);
        self.retiring.iter().for_each(|(_, task)| task.abort());
        for halt in self.halting.values() {
            if let Halt::Runs(task) = halt {
                task.abort();
            }
        }
    }
}

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};

use super::{HandOver, Kept, Labs, MachinesConfig, Program, Reach};
use crate::{
    core::{Blob, Bytes, Code, GIB, LabName, Problem},
    hub::gate::{Slot, public_key},
    machine::{Engine, EngineAt, LocalPlaces, Machine, Place, Provider, State, no_engine, place_of, provider_in},
    profile::{self, Lab},
};

/// Where a lab's machines are.
pub struct Ground {
    /// What makes, stops and keeps them.
    pub provider: Arc<dyn Provider>,
    /// The engine that they are in; none where there is no way to them to be guarded.
    pub place: Option<Place>,
}

/// Finds where a lab's machines are anew each time: their engine may have been started since.
type Source = Box<dyn Fn(LabName) -> BoxFuture<'static, Result<Ground, Problem>> + Send + Sync>;

/// Hands labs over that live in machines on this server: each holder has a lab of their own, stopped and kept between
/// slots with its addresses, so that its cluster goes on where it was.
pub struct Machines {
    labs: Arc<dyn Labs>,
    source: Source,
    /// The folder that remembers the ways to the labs.
    ways: PathBuf,
    /// What could not be put into homes, by account.
    lacking: Mutex<BTreeMap<String, String>>,
    /// How many machines the labs have that are being made.
    making: Making,
    /// Held by who looks whether there is room: two that look at once would both find the room of one.
    looking: tokio::sync::Mutex<()>,
    /// How long saving, resetting and proving may each take.
    limit: Duration,
    /// The private engine of this server, whether it is used or not.
    engine: Option<Engine>,
}

/// How many machines, by lab.
type Making = Mutex<BTreeMap<LabName, u64>>;

/// Room on the machines' disk for a lab that is being made; given back when that has come to its end, however.
struct Room<'a> {
    making: &'a Making,
    lab: LabName,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        entries(self.making).remove(&self.lab);
    }
}

fn entries<K, V>(of: &Mutex<BTreeMap<K, V>>) -> MutexGuard<'_, BTreeMap<K, V>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a new machine takes of the disk until its lab is up, at the least; all of its own disk may come to be used.
const FRESH: u64 = 4 * GIB;

/// How long the private engine may take to start. Its own program gives up after two minutes and clears away what it began;
/// this counts where that hangs too, or waits for another start that does. Without an end to it nothing could be said to the
/// holder before the slot's own.
const START_LIMIT: Duration = Duration::from_secs(180);

/// How long saving, resetting and proving may each take where nothing else is said: what each call of an engine may take,
/// with one that hangs and is started anew before.
///
/// A place whose hand-over comes to no end is nobody's, and an admin must hear of it.
pub(super) const HAND_OVER_LIMIT: Duration = Duration::from_secs(900);

/// The snapshot of the last slot's end, for a lab that does not come up any more.
const SAVED: &str = "kubecamp-saved";

impl Machines {
    /// Machines of this server's Incus, else of the private engine, which is started where it does not run: a restart
    /// of the server has ended it.
    pub fn here(config: &MachinesConfig) -> Self {
        let labs = Arc::new(Program::here(config));
        let places = LocalPlaces {
            engine: labs.engine(),
            at: None,
            images: labs.images(),
            suite: None,
            kind: config.kind,
            outbound: false,
        };
        let noted = Arc::clone(&labs);
        let find = move |lab: LabName| -> BoxFuture<'static, Result<Ground, Problem>> {
            let (at, places, program) = (noted.noted_engine(&lab), places.clone(), Arc::clone(&noted));
            Box::pin(async move {
                let places = LocalPlaces { at: at?, ..places };
                let place = match (place_of(&places, &lab).await?, &places.at) {
                    (Some(place), _) => place,
                    (None, Some(at @ EngineAt::Incus(_))) => return Err(at.absent()),
                    (None, _) => {
                        within(START_LIMIT, program.start_engine(&lab)).await?;
                        place_of(&places, &lab).await?.ok_or_else(|| no_engine(&places, &lab))?
                    }
                };
                let provider = Arc::new(provider_in(place.clone(), &places)?);
                Ok(Ground { provider, place: Some(place) })
            })
        };
        let engine = Some(Engine::new(&labs.engine()));
        Self { engine, ..Self::of(labs, Box::new(find), config.home.join("reach")) }
    }

    /// Labs of another maker, in machines of another provider; the ways to them are remembered in the folder `ways`.
    pub fn of(labs: Arc<dyn Labs>, source: Source, ways: PathBuf) -> Self {
        let (making, looking) = (Making::default(), tokio::sync::Mutex::default());
        let lacking = Mutex::default();
        Self { labs, source, ways, lacking, making, looking, limit: HAND_OVER_LIMIT, engine: None }
    }

    /// The same, whose saving, resetting and proving may each take so long.
    pub fn limited(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// A step of the hand-over, to its end or its limit.
    async fn in_time(
        &self,
        what: &str,
        slot: &Slot,
        step: impl Future<Output = Result<(), Problem>> + Send,
    ) -> Result<(), Problem> {
        let late = |_| {
            let what = format!("{what} the lab of {} took longer than {} s", slot.account, self.limit.as_secs());
            Err(Problem::new(Code::GateHandOver, what))
        };
        tokio::time::timeout(self.limit, step).await.unwrap_or_else(late)
    }

    /// Stops the lab and takes a snapshot of its machines.
    async fn keep(&self, slot: &Slot) -> Result<(), Problem> {
        let lab = lab_of(&slot.account)?;
        // Stopped first: a snapshot of a running disk is that of a machine whose power failed.
        let Some((ground, machines)) = self.stop(&lab).await? else { return Ok(()) };
        let snapshots = machines.iter().map(|m| ground.provider.snapshot(&lab, &m.node, SAVED));
        join_all(snapshots).await.into_iter().collect()
    }

    /// Succeeds where no machine of the lab runs.
    async fn are_stopped(&self, slot: &Slot) -> Result<(), Problem> {
        let Some((_, machines)) = self.machines(&lab_of(&slot.account)?).await? else { return Ok(()) };
        let running: Vec<_> = machines.iter().filter(|m| m.state != State::Stopped).map(|m| m.name.clone()).collect();
        if running.is_empty() {
            return Ok(());
        }
        Err(Problem::new(Code::GateHandOver, "machines of the last holder still run").detail(running))
    }

    /// The machines of the slot's lab; none, and no engine is started to look, where there is no lab.
    async fn machines(&self, lab: &LabName) -> Result<Option<(Ground, Vec<Machine>)>, Problem> {
        match self.labs.known(lab)? {
            Some(_) => self.found(lab).await.map(Some),
            None => Ok(None),
        }
    }

    /// The machines that the engine has of a lab.
    async fn found(&self, lab: &LabName) -> Result<(Ground, Vec<Machine>), Problem> {
        let ground = (self.source)(lab.clone()).await?;
        let machines = ground.provider.list(Some(lab)).await?;
        Ok((ground, machines))
    }

    /// Stops the lab's machines; a run of a killed agent, which might start them again, is ended first.
    async fn stop(&self, lab: &LabName) -> Result<Option<(Ground, Vec<Machine>)>, Problem> {
        let _alone = self.labs.alone(lab).await?;
        let known = self.labs.known(lab);
        if matches!(known, Ok(None)) {
            return Ok(None);
        }
        // Those of a lab that cannot be read too, whose slot is over; that these were all is then not said.
        let (ground, machines) = self.found(lab).await?;
        let running = machines.iter().filter(|m| m.state != State::Stopped);
        let stops = running.map(|m| ground.provider.stop(lab, &m.node));
        join_all(stops).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        known?;
        Ok(Some((ground, machines)))
    }

    /// Brings the holder's saved lab up, or a fresh one where there is none of this layout. One that does not come up
    /// goes back to the snapshot of its last slot; where that does not help it is handed over as it is, with the problem
    /// that is given: what its holder did in it is not thrown away unasked.
    async fn bring_up(&self, slot: &Slot, lab: &LabName, layout: &str) -> Result<Option<Problem>, Problem> {
        let Some(known) = self.labs.known(lab)? else {
            let _room = self.room_for(lab, layout, 0).await?;
            return self.labs.up(lab, layout).await.map(|()| None);
        };
        // A lab of another layout cannot become this one.
        // A wish that cannot be looked for stays, and counts when it can.
        if known.layout().to_string() != layout || self.labs.is_unwanted(slot).await.unwrap_or(false) {
            return self.begin_anew(slot, lab, layout, &known).await;
        }
        // Nobody has had it yet: its making was cut off. It goes on whatever room there is, and counts for who asks meanwhile.
        let cut_off = !self.was_handed(slot);
        let making = cut_off.then(|| self.take_room(lab, known.nodes().len() as u64));
        let Err(first) = self.labs.up(lab, layout).await else { return Ok(None) };
        drop(making);
        // Neither a snapshot nor a look at the machines can be had without it.
        if first.code == Code::EngineHangs {
            return Err(first);
        }
        if cut_off {
            return self.begin_anew(slot, lab, layout, &known).await;
        }
        let again = match self.restore(lab).await {
            Ok(()) => self.labs.up(lab, layout).await,
            Err(problem) => Err(problem),
        };
        let Err(second) = again else { return Ok(None) };
        if self.runs(lab).await? { Ok(Some(second)) } else { Err(first) }
    }

    /// Whether all machines of a lab run and can be logged in to.
    async fn runs(&self, lab: &LabName) -> Result<bool, Problem> {
        let up = |m: &Machine| m.state == State::Running && !m.host_keys.is_empty();
        Ok(self.machines(lab).await?.is_some_and(|(_, machines)| !machines.is_empty() && machines.iter().all(up)))
    }

    /// Hands a lab that is up to the slot's holder, with what is wrong with it.
    async fn give(&self, slot: &Slot, lab: &LabName, trouble: Option<&Problem>) -> Result<(), Problem> {
        let (ground, machines) = self.machines(lab).await?.ok_or_else(|| {
            Problem::new(Code::GateHandOver, format!("the lab of {} is gone as soon as it is up", slot.account))
        })?;
        way(&ground, &machines).await?.keep(&self.ways, &slot.account)?;
        let lacking = self.labs.hand(slot, lab, &machines, trouble).await?;
        let text: Vec<_> = lacking.iter().map(ToString::to_string).collect();
        match text.is_empty() {
            true => entries(&self.lacking).remove(&slot.account),
            false => entries(&self.lacking).insert(slot.account.clone(), text.join("\n")),
        };
        Ok(())
    }

    /// Whether the slot's holder ever had the lab that is there.
    fn was_handed(&self, slot: &Slot) -> bool {
        self.ways.join(&slot.account).exists()
    }

    /// Makes a lab in place of another one, which goes only where there is room for it: a refusal throws nothing away.
    async fn begin_anew(
        &self,
        slot: &Slot,
        lab: &LabName,
        layout: &str,
        old: &Lab,
    ) -> Result<Option<Problem>, Problem> {
        // One that was cut off in its making may have taken little of the disk, and nobody loses it: it goes first.
        let room = match self.was_handed(slot) {
            true => Some(self.room_for(lab, layout, old.nodes().len()).await?),
            false => None,
        };
        // Only now: of who is refused the wish for a fresh lab stays too. Before the lab goes: a death in between must not
        // leave the wish to be met by the lab that comes.
        self.labs.heed(slot).await?;
        self.remove(&slot.account, lab).await?;
        let _room = match room {
            Some(room) => room,
            None => self.room_for(lab, layout, 0).await?,
        };
        self.labs.up(lab, layout).await.map(|()| None)
    }

    async fn remove(&self, account: &str, lab: &LabName) -> Result<(), Problem> {
        // Its machines are removed only by an engine that runs.
        self.machines(lab).await?;
        // Before the lab goes: whoever is killed here must not leave a way by which what is half made counts as a saved lab.
        let _ = fs::remove_file(self.ways.join(account));
        self.labs.down(lab).await
    }

    /// Room for a new lab, before which so many machines go. It is refused where the machines' disk has none: it would fill
    /// it, under those that run too.
    async fn room_for(&self, lab: &LabName, layout: &str, going: usize) -> Result<Room<'_>, Problem> {
        let machines = profile::load(layout).map_or(0, |profile| profile.nodes.len() as u64);
        // Before it is this one's turn to look: an engine that hangs as it starts must not hold up all the others.
        let ground = match (self.source)(lab.clone()).await {
            // `up` would wait for it in vain once more.
            Err(problem) if problem.code == Code::EngineHangs => return Err(problem),
            // What else is wrong with the engine `up` says better.
            ground => ground.ok(),
        };
        let _looking = self.looking.lock().await;
        if let Some(Ground { provider, .. }) = ground
            && let Ok(Some(disk)) = provider.space().await
        {
            let making: u64 = entries(&self.making).values().sum();
            has_room(machines, going as u64, making, disk, Reach::all(&self.ways).len())?;
        }
        Ok(self.take_room(lab, machines))
    }

    /// Room for so many machines of a lab, without a look at whether there is any.
    fn take_room(&self, lab: &LabName, machines: u64) -> Room<'_> {
        entries(&self.making).insert(lab.clone(), machines);
        Room { making: &self.making, lab: lab.clone() }
    }

    async fn restore(&self, lab: &LabName) -> Result<(), Problem> {
        let Some((ground, machines)) = self.machines(lab).await? else { return Ok(()) };
        let restored = machines.iter().map(|m| ground.provider.restore(lab, &m.node, SAVED));
        join_all(restored).await.into_iter().collect()
    }
}

/// A start of the engine, for so long at most. One that takes longer is dropped, which ends its program.
async fn within(limit: Duration, start: impl Future<Output = Result<(), Problem>>) -> Result<(), Problem> {
    let late = |_| {
        let what = format!("the private machine engine of this server did not start within {} s", limit.as_secs());
        Err(Problem::new(Code::EngineHangs, what).hint("See daemon.log in its folder: data/engine in the gate's home."))
    };
    tokio::time::timeout(limit, start).await.unwrap_or_else(late)
}

/// Whether the disk, of which so much is free of all, has room for so many new machines beside the labs that are `kept`, when
/// those that are `going` have gone: each has taken as much as a new one does at the least. What those that are in `making`
/// have taken by now is counted twice: one lab too few is better than a disk that is full under all of them.
fn has_room(machines: u64, going: u64, making: u64, (free, all): (Bytes, Bytes), kept: usize) -> Result<(), Problem> {
    let disk = |machines: u64| Bytes(FRESH.saturating_mul(machines));
    let (least, freed, taken) = (disk(machines), disk(going), disk(making));
    if free.0.saturating_add(freed.0) >= least.0.saturating_add(taken.0) {
        return Ok(());
    }
    let what = format!("the disk of this server's labs has {free} of {all} left, and a new lab needs {least} at least");
    let others = (making > 0).then(|| format!("labs that are being made need {taken} of it"));
    let stays = (going > 0).then(|| format!("the lab in whose place it comes would give {freed} back, and stays"));
    Err(Problem::new(Code::GateHandOver, what)
        .detail([format!("labs that are kept here: {kept}")].into_iter().chain(others).chain(stays))
        .hint("Remove those that nobody needs, or keep them for fewer days: docs/guide/gate.md."))
}

/// The way to the machines. A private engine's network is reached from this server only after one was opened.
async fn way(ground: &Ground, machines: &[Machine]) -> Result<Reach, Problem> {
    let addresses = machines.iter().filter_map(|m| m.address).collect();
    let Some(place) = &ground.place else { return Ok(Reach { addresses, ..Reach::default() }) };
    let (bridge, networks) = match place.bridge().await? {
        Some((bridge, networks)) => (Some(bridge), networks),
        // Whose network it is nobody here knows: the machines alone are guarded.
        None => (None, machines.iter().filter_map(|m| m.address).map(|a| a.to_string()).collect()),
    };
    let EngineAt::Private(dir) = place.at() else {
        return Ok(Reach { addresses, networks, device: bridge, table: None });
    };
    let network = networks.iter().find(|n| !n.contains(':')).map(String::as_str).unwrap_or_default();
    let table = Some(Engine::new(&dir).open_way(network).await?);
    Ok(Reach { addresses, networks, device: None, table })
}

/// The lab of an account on this server. An account's name may be longer than a lab's, and have a `_`.
fn lab_of(account: &str) -> Result<LabName, Problem> {
    let plain = format!("gate-{account}");
    let name = match plain.parse::<LabName>() {
        Ok(name) if plain.len() <= 24 => return Ok(name),
        _ => format!("gate-x{}", &Blob::from_bytes(account.as_bytes()).sha256()[..20]),
    };
    name.parse().map_err(|e: crate::core::BadId| Problem::new(Code::Internal, "the lab of an account").because(e))
}

#[async_trait]
impl HandOver for Machines {
    fn fit(&self, slot: &Slot) -> Result<(), Problem> {
        let Some(layout) = &slot.layout else { return Ok(()) };
        let unfit =
            |why: &str| Problem::new(Code::GateHandOver, format!("no lab can be made for {}: {why}", slot.account));
        if profile::shipped_text(layout).is_none() {
            return Err(unfit(&format!("this server knows no layout {layout}")).hint("Book another layout."));
        }
        // Without a key there is no ssh to the nodes, but kubectl on the server works.
        let mut fit = Ok(());
        for key in slot.keys() {
            match public_key(key) {
                Ok(_) => return Ok(()),
                Err(e) => fit = Err(unfit("what they have as a public key at the hub is none").because(e)),
            }
        }
        fit
    }

    fn saves(&self, slot: &Slot) -> bool {
        // One that cannot be read is there, and nothing throws it away.
        lab_of(&slot.account).is_ok_and(|lab| !matches!(self.labs.known(&lab), Ok(None)))
    }

    async fn save(&self, slot: &Slot) -> Result<(), Problem> {
        self.in_time("saving", slot, self.keep(slot)).await
    }

    async fn reset(&self, slot: &Slot) -> Result<(), Problem> {
        self.in_time("stopping", slot, self.halt(slot)).await
    }

    async fn halt(&self, slot: &Slot) -> Result<(), Problem> {
        self.stop(&lab_of(&slot.account)?).await.map(drop)
    }

    async fn prove(&self, slot: &Slot) -> Result<(), Problem> {
        self.in_time("proving that nothing runs of", slot, self.are_stopped(slot)).await
    }

    async fn arm(&self, slot: &Slot) -> Result<(), Problem> {
        let Some(layout) = &slot.layout else { return Ok(()) };
        let lab = lab_of(&slot.account)?;
        // A run that a killed agent began is ended; what it has done is not done again.
        drop(self.labs.alone(&lab).await?);
        let trouble = self.bring_up(slot, &lab, layout).await?;
        self.give(slot, &lab, trouble.as_ref()).await
    }

    async fn revive(&self, slot: &Slot) -> Result<(), Problem> {
        let Some(layout) = &slot.layout else { return Ok(()) };
        let lab = lab_of(&slot.account)?;
        let Some((ground, machines)) = self.machines(&lab).await? else { return Ok(()) };
        // What runs is its holder's, in whatever state; a try before this one may have opened no way to it.
        if machines.iter().all(|m| m.state != State::Stopped) {
            let whole = !machines.is_empty() && machines.iter().all(|m| m.address.is_some());
            return if whole { way(&ground, &machines).await?.keep(&self.ways, &slot.account) } else { Ok(()) };
        }
        drop(self.labs.alone(&lab).await?);
        // Its holder is in the midst of it: nothing goes back to a snapshot, and who wishes a fresh lab means the next slot.
        let trouble = match self.labs.up(&lab, layout).await {
            // Without an engine nothing more can be asked.
            Err(problem) if problem.code == Code::EngineHangs => return Err(problem),
            Err(problem) if !self.runs(&lab).await.unwrap_or(false) => return Err(problem),
            ended => ended.err(),
        };
        self.give(slot, &lab, trouble.as_ref()).await
    }

    fn lacking(&self, account: &str) -> Option<String> {
        entries(&self.lacking).get(account).cloned()
    }

    fn era(&self) -> Option<String> {
        self.engine.as_ref().and_then(Engine::era)
    }

    async fn retire(&self, account: &str) -> Result<(), Problem> {
        let lab = lab_of(account)?;
        // A run that a killed agent began is ended.
        drop(self.labs.alone(&lab).await?);
        self.remove(account, &lab).await
    }

    fn reach(&self) -> BTreeMap<String, Reach> {
        Reach::all(&self.ways)
    }

    fn kept(&self) -> BTreeMap<String, Option<Kept>> {
        // Whoever has a way to a lab has had it; one whose making was cut off is made anew.
        let keep = |account: String| {
            let lab = lab_of(&account).ok()?;
            let kept = match self.labs.known(&lab) {
                Ok(known) => Some(Kept { lab: lab.to_string(), layout: known?.layout().to_string() }),
                Err(_) => None,
            };
            Some((account, kept))
        };
        Reach::all(&self.ways).into_keys().filter_map(keep).collect()
    }
}

#[cfg(test)]
mod tests;

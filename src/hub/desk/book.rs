use serde::Serialize;

use super::{
    Caller, Desk,
    fit::{by_lab, candidates, servers},
    prefer::{Locks, preferred},
    rules::{self, Standing},
    taken::Survey,
    transaction::transact_once,
    turn::Mine,
    wish::BookRequest,
};
use crate::{
    core::{Class, Code, Problem},
    hub::{
        domain::{
            Ask, Booking, BookingId, Epoch, Free, Ground, Mode, NEAR, Policy, SeriesId, Server, State, Window,
            alternatives, around, find_place, nearest,
        },
        store::Tx,
    },
    profile::Layout,
};

/// Why a slot cannot be had, and up to three that can.
#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    /// Why not.
    pub problem: Problem,
    /// Free slots of the same length nearest to the wish; empty unless another slot would help.
    pub alternatives: Vec<Free>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, alternatives: vec![] }
    }
}

impl Desk {
    /// Books a slot: `booked`, or why not with three alternatives.
    ///
    /// A repeated `key` gets the first answer.
    pub async fn book(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &BookRequest,
    ) -> Result<Booking, Refusal> {
        let wish = wish.stated()?;
        let wish: &BookRequest = &wish;
        let turn = self.turn_to_book(caller, now, key, wish).await?;
        let mut sold = None;
        let outcome = async {
            transact_once!(self, caller, now, key, ("book", wish), |tx| {
                let (booking, server) = place(&mut tx, caller, wish, None).await?;
                sold = Some((booking.id.clone(), server));
                Ok(booking)
            })
        };
        match outcome.await {
            Ok(booking) => {
                if let Some((placed, server)) = &sold {
                    self.taken.sold(server, placed, &booking);
                }
                turn.booked();
                Ok(booking)
            }
            Err(problem) => {
                drop(turn);
                match self.look(caller, now, None, wish, wish.window.starts).await {
                    Ok(Some(mut look)) => Err(look.refuse(wish, problem).await),
                    _ => Err(problem.into()),
                }
            }
        }
    }

    /// Waits until it is somebody's turn to book, with nobody asked before them any more; or says at once why they cannot
    /// have what they wish.
    async fn turn_to_book(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &BookRequest,
    ) -> Result<Mine<'_>, Refusal> {
        let mut looked = false;
        loop {
            let seen = self.turn.booked();
            if let Some(refusal) = self.refused_at_once(caller, now, key, wish).await? {
                return Err(refusal);
            }
            // A teacher's reason goes past the waitlist as past other rules.
            let person = wish.person.as_ref().or(caller.person());
            if wish.reason.is_none() && self.ask_who_waits(now, wish.window, person, wish.server.as_ref()).await? {
                continue;
            }
            let turn = self.turn.wait().await;
            // Once is enough: nobody shall look for ever while others book.
            if looked || self.turn.booked() == seen {
                return Ok(turn);
            }
            looked = true;
        }
    }

    /// Why a wish cannot be had by what is on disk already; none when it has to be tried.
    ///
    /// When a popular hour opens nearly everybody is refused: they need not wait for the one who writes.
    async fn refused_at_once(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &BookRequest,
    ) -> Result<Option<Refusal>, Problem> {
        let Some(mut look) = self.look(caller, now, key, wish, wish.window.starts).await? else { return Ok(None) };
        match look.obstacle(wish).await {
            None => Ok(None),
            Some(problem) => Ok(Some(look.refuse(wish, problem).await)),
        }
    }

    /// Looks at what is on disk from a moment on, for whom a wish is.
    ///
    /// None where the key is known: its answer comes with the rows that would be seen here, or not at all.
    pub(super) async fn look(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        wish: &BookRequest,
        from: Epoch,
    ) -> Result<Option<Look>, Problem> {
        let mut tx = self.store.read(now).await?;
        if let Some(key) = key
            && tx.knows_key(&caller.name(), key).await?
        {
            return Ok(None);
        }
        let standing = standing_of(&mut tx, caller, wish).await?;
        let survey = self.taken.survey(&mut tx, from).await?;
        Ok(Some(Look { tx, standing, survey }))
    }
}

/// What is on disk, for somebody who wishes for a slot.
pub(super) struct Look {
    tx: Tx,
    standing: Standing,
    survey: Survey,
}

impl Look {
    /// Why a wish cannot be had; none when it can.
    pub async fn obstacle(&mut self, wish: &BookRequest) -> Option<Problem> {
        seek(&mut self.tx, &self.standing, wish, None, Some(&self.survey)).await.err()
    }

    /// Adds alternatives where another slot would help.
    ///
    /// It never hides the first problem behind a second one.
    pub async fn refuse(&mut self, wish: &BookRequest, problem: Problem) -> Refusal {
        if !is_helped(&problem) {
            return problem.into();
        }
        let alternatives = self.instead(wish).await.unwrap_or_default();
        Refusal { problem, alternatives }
    }

    /// Up to three free slots instead of a wish, on any server: near it, and further away only where there are too few.
    ///
    /// None of them overlaps what the person holds already, so none repeats a wish that was refused for that; and on each
    /// server there is room for the lab that would run there.
    pub async fn instead(&mut self, wish: &BookRequest) -> Result<Vec<Free>, Problem> {
        let (tx, standing, survey) = (&mut self.tx, &self.standing, &self.survey);
        let now = tx.now();
        let (starts, length) = (wish.window.starts, wish.window.length());
        let policy = &standing.course.policy;
        let by_lab = by_lab(candidates(survey.servers(None)?, standing, wish)?);
        let horizon = i64::from(policy.horizon);
        let Some(widest) = around(policy, now, wish.window, horizon.max(NEAR)) else { return Ok(vec![]) };
        let own = tx.windows_of(&standing.person.id, widest, None).await?;
        let mut found = vec![];
        for days in [NEAR, horizon] {
            let Some(within) = around(policy, now, wish.window, days) else { continue };
            found.clear();
            for (layout, servers) in &by_lab {
                let grounds = survey.grounds(tx, servers.clone(), within).await?;
                let ask = Ask { layout: *layout, length, within, labs: &standing.labs, apart: &own };
                found.extend(alternatives(&grounds, policy, now, starts, ask, 3));
            }
            nearest(&mut found, starts, 3);
            if found.len() == 3 {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether another slot would help.
pub(super) fn is_helped(problem: &Problem) -> bool {
    matches!(problem.code.class(), Class::Conflict | Class::Closed) && problem.code != Code::BookStale
}

/// Whom a wish is for, when whoever asks may wish it.
pub(super) async fn standing_of(tx: &mut Tx, caller: &Caller, wish: &BookRequest) -> Result<Standing, Problem> {
    let person = wish.person.as_ref().or(caller.person());
    let person = person
        .ok_or_else(|| Problem::new(Code::HubInvalid, "say for whom the slot is").hint("Name them: --person LOGIN."))?;
    if caller.person() != Some(person) && !caller.is_teacher() {
        return Err(Problem::new(Code::HubDenied, "only a teacher can book for somebody else"));
    }
    if wish.reason.is_some() {
        caller.needs_teacher()?;
    }
    rules::standing(tx, person, wish.course.as_ref()).await
}

/// A booking for a wish, without a place yet.
pub(super) fn fresh(standing: &Standing, layout: Layout, wish: &BookRequest, now: Epoch) -> Booking {
    Booking {
        id: BookingId::from_random(rand::random()),
        server: None,
        place: None,
        person: standing.person.id.clone(),
        course: standing.course.id.clone(),
        group: standing.group.clone(),
        layout,
        window: wish.window,
        busy_until: wish.window.ends,
        state: State::Booked,
        since: now,
        version: 1,
        created: now,
        updated: now,
        offer_until: None,
        came: None,
        charged: wish.window.length(),
        lapses: 0,
        series: None,
        wished: wish.server.clone(),
        note: wish.reason.clone(),
        refused: None,
        stranded: None,
        moves: 0,
        labels: wish.labels.clone(),
        ended_by: None,
    }
}

/// A place that a wish can have.
struct Found {
    server: Server,
    place: u32,
    layout: Layout,
}

/// Why a wish passed by the servers that were looked at.
#[derive(Default)]
struct Passed {
    /// What is said where no server takes it.
    why: Option<Problem>,
    /// Those whose time is taken, each with the lab that would run there.
    taken: Vec<(Ground, Layout)>,
}

impl Passed {
    /// Nothing is booked there at that time: this is said only where nothing else is to be said.
    fn out_of_time(&mut self, problem: Problem) {
        self.why = self.why.take().or(Some(problem));
    }

    /// The server has no place for it.
    fn without_place(&mut self, problem: Problem, ground: Ground, layout: Layout) {
        if problem.code == Code::BookConflict {
            self.taken.push((ground, layout));
        }
        // What is only taken can be waited for, whatever else is silent.
        let kept = self.why.take().filter(|why| why.code == Code::BookConflict && problem.code == Code::ServerSilent);
        self.why = kept.or(Some(problem));
    }
}

/// Looks for the first server that takes a wish, by every rule, beginning where the saved lab is.
///
/// A transaction that only reads gives the `survey` it has made; one that writes reads under the server's lock.
/// Locks: servers by name, then the person, then the group.
async fn seek(
    tx: &mut Tx,
    standing: &Standing,
    wish: &BookRequest,
    series: Option<&SeriesId>,
    survey: Option<&Survey>,
) -> Result<Found, Problem> {
    let (now, as_override) = (tx.now(), wish.reason.is_some());
    let servers = match survey {
        Some(survey) => survey.servers(wish.server.as_ref())?,
        None => servers(tx, wish).await?,
    };
    let by_name = candidates(servers, standing, wish)?;
    let mut locks = Locks::new(&by_name);
    let mut passed = Passed::default();
    for (server, layout) in preferred(by_name, &standing.labs) {
        if let Err(problem) = in_time(&standing.course.policy, &server, now, wish) {
            passed.out_of_time(problem);
            continue;
        }
        let ground = match survey {
            Some(survey) => survey.ground(tx, server, wish.window).await?,
            None => {
                let server = locks.take(tx, &server.id).await?;
                rules::ground(tx, server, wish.window).await?
            }
        };
        match on(now, &ground, wish.window, layout, as_override) {
            Err(problem) => passed.without_place(problem, ground, layout),
            Ok(place) => {
                may_have(tx, standing, wish, series).await?;
                return Ok(Found { server: ground.server, place, layout });
            }
        }
    }
    if let Some(own) = own_slot(tx, standing, &passed.taken, wish.window, as_override).await? {
        return Err(rules::twice(&own));
    }
    Err(passed.why.unwrap_or_else(|| Problem::new(Code::Internal, "a wish was looked at on no server")))
}

/// Refuses a wish at a time at which nothing is booked on a server by the course's rules. Only the raster is a server's own,
/// by the clock of its zone: another one may be on it.
fn in_time(policy: &Policy, server: &Server, now: Epoch, wish: &BookRequest) -> Result<(), Problem> {
    // A teacher who says why keeps to what a slot can be at all.
    match wish.reason.is_some() {
        true => policy.shape(server, now, wish.window),
        false => policy.allows(server, now, wish.window),
    }
}

/// Refuses somebody who may not have a place that is free: by what they hold at that time or ahead, or by a quota. Locks the
/// person, then the group.
async fn may_have(
    tx: &mut Tx,
    standing: &Standing,
    wish: &BookRequest,
    series: Option<&SeriesId>,
) -> Result<(), Problem> {
    let (person, policy, now) = (&standing.person.id, &standing.course.policy, tx.now());
    rules::lock(tx, standing).await?;
    rules::not_twice(tx, person, wish.window, None).await?;
    if wish.reason.is_some() {
        return Ok(());
    }
    rules::not_too_many(tx, policy, person, now, None, series).await?;
    rules::within_quota(tx, policy, person, standing.group.as_ref(), wish.window, None).await
}

/// The slot that somebody holds themselves, where nothing else is in the way on one of the servers whose time is taken:
/// they shall not wait for it.
async fn own_slot(
    tx: &mut Tx,
    standing: &Standing,
    taken: &[(Ground, Layout)],
    window: Window,
    as_override: bool,
) -> Result<Option<Booking>, Problem> {
    if taken.is_empty() {
        return Ok(None);
    }
    let now = tx.now();
    let own = rules::held_then(tx, &standing.person.id, window).await?;
    let alone = |(ground, layout): &(Ground, Layout)| {
        let mut without = ground.clone();
        own.iter().for_each(|b| without.held.remove(&b.id));
        on(now, &without, window, *layout, as_override).is_ok()
    };
    // Nearly everybody who is refused holds nothing then, and is not kept waiting by a second look.
    let found = !own.is_empty() && taken.iter().any(alone);
    Ok(own.into_iter().next().filter(|_| found))
}

/// Puts a wish on the first server that takes it; that server is as it was before.
pub(super) async fn place(
    tx: &mut Tx,
    caller: &Caller,
    wish: &BookRequest,
    series: Option<SeriesId>,
) -> Result<(Booking, Server), Problem> {
    let standing = standing_of(tx, caller, wish).await?;
    let Found { server, place, layout } = seek(tx, &standing, wish, series.as_ref(), None).await?;
    let mut new = fresh(&standing, layout, wish, tx.now());
    new.busy_until = server.busy(wish.window).ends;
    (new.server, new.place, new.series) = (Some(server.id.clone()), Some(place), series);
    let action = if wish.reason.is_some() { "booking.override" } else { "booking.new" };
    tx.add_booking(&new, action, wish.reason.clone()).await?;
    Ok((new, server))
}

/// Whether a server takes bookings in a window; opening hours are what a teacher may go past.
pub(super) fn opens(ground: &Ground, window: Window, as_override: bool) -> Result<(), Problem> {
    match ground.server.takes(&ground.closed, window) {
        Err(problem) if as_override && problem.code == Code::BookClosed => Ok(()),
        outcome => outcome,
    }
}

/// The place that a window gets on a server, or why not.
///
/// A teacher who says why may know that a silent one comes back.
pub(super) fn on(
    now: Epoch,
    ground: &Ground,
    window: Window,
    layout: Layout,
    as_override: bool,
) -> Result<u32, Problem> {
    opens(ground, window, as_override)?;
    if !as_override {
        ground.server.hears_in_time(now, window.starts)?;
    }
    let busy = ground.server.busy(window);
    find_place(&ground.server, &ground.held, busy, layout).ok_or_else(|| {
        let server = &ground.server.id;
        if ground.lacks_buffer(window, layout) {
            // Nothing is booked then: that the server is taken would be no answer to who looks at the table.
            let minutes = (ground.server.buffer + 59) / 60;
            return Problem::new(
                Code::BookConflict,
                format!("server {server} keeps {minutes} minutes between two slots, and another is nearer to {window}"),
            );
        }
        match ground.server.mode {
            Mode::Exclusive => Problem::new(Code::BookConflict, format!("server {server} is taken at {window}")),
            Mode::Shared => {
                Problem::new(Code::BookConflict, format!("server {server} has no room for {layout} at {window}"))
            }
        }
    })
}

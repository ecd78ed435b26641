use super::{
    Caller, Desk,
    book::opens,
    change::{Edit, load},
    rehouse::suits,
    rules,
    transaction::transact_once,
    waitlist::had_their_turn,
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, BookingId, Epoch, Ground, Policy, Server, State, Window, find_place},
        store::{Listing, Tx},
    },
};

/// An agent asks for its plan each 5 s where nobody set another time. What lasts no longer than two of them is over on its
/// server before that has heard of another end, and opens no more, seconds.
const HEARS: i64 = 10;

impl Desk {
    /// Moves a slot's end back, when the time after it is free and nobody waits for it.
    ///
    /// A teacher who says why goes past quotas and opening hours, never past another booking.
    pub async fn extend(
        &self,
        caller: &Caller,
        now: Epoch,
        key: Option<&str>,
        id: &BookingId,
        ends: Epoch,
        edit: &Edit,
    ) -> Result<Booking, Problem> {
        let edit = &edit.stated()?;
        transact_once!(self, caller, now, key, ("extend", id, ends, edit), |tx| {
            let before = load(&mut tx, id, edit).await?;
            let who = caller.over(&before, edit.reason.as_deref())?;
            let as_override = caller.is_teacher() && edit.reason.is_some();
            let window = longer(&before, now, ends)?;
            tx.lock_person(&before.person).await?;
            let way = Way::of(&mut tx, &before, window, as_override).await?;
            way.is_free(now, window).map_err(|problem| way.told(now, window, problem))?;
            if !as_override {
                let group = before.group.as_ref();
                rules::within_quota(&mut tx, &way.policy, &before.person, group, window, Some(id)).await?;
            }
            let charged = before.charged + (ends - before.window.ends);
            let busy_until = way.ground.server.busy(window).ends;
            let note = edit.reason.clone().filter(|_| as_override).or_else(|| before.note.clone());
            let next = Booking { window, busy_until, charged, note, ..before.clone() };
            tx.change_booking(&before, next, who, "booking.extend", edit.reason.clone()).await
        })
    }
}

/// The window of a slot that lasts until `ends`, when it still can.
fn longer(before: &Booking, now: Epoch, ends: Epoch) -> Result<Window, Problem> {
    let movable = matches!(before.state, State::Booked | State::Arming | State::Active);
    let over = || {
        let what = format!("booking {} is {} until {}", before.id, before.state, before.window.ends);
        Problem::new(Code::BookState, what)
    };
    if matches!(before.state, State::Waitlisted | State::Offered) {
        let what = format!("booking {} is {}, and only what is booked can be made longer", before.id, before.state);
        return Err(Problem::new(Code::BookState, what).hint("Leave it, and wait for or book a longer time."));
    }
    if !movable || before.window.ends <= now || before.ended_by.is_some() {
        return Err(over());
    }
    if before.window.ends < now + HEARS {
        return Err(over().hint("Its server would not hear of it before that: book what is free after it."));
    }
    if ends <= before.window.ends {
        return Err(Problem::new(Code::BookWindow, format!("{ends} is not after {}", before.window.ends)));
    }
    Window::new(before.window.starts, ends).map_err(|why| Problem::new(Code::BookWindow, why))
}

/// What can be in the way of a slot that is to last longer; hours of quotas are looked at apart.
struct Way<'a> {
    before: &'a Booking,
    place: u32,
    policy: Policy,
    /// Its server, without the slot itself.
    ground: Ground,
    /// What others wait for there, or anywhere.
    waits: Vec<Window>,
    /// What else its holder has.
    own: Vec<Window>,
    as_override: bool,
}

impl<'a> Way<'a> {
    /// Looks as far as `window`. Its server and its holder are locked.
    async fn of(tx: &mut Tx, before: &'a Booking, window: Window, as_override: bool) -> Result<Self, Problem> {
        let (Some(server), Some(place)) = (&before.server, before.place) else {
            return Err(Problem::new(Code::Internal, format!("booking {} has no place", before.id)));
        };
        let server = tx.server(server).await?;
        let policy = tx.course(&before.course).await?.policy;
        let mut ground = rules::ground(tx, server, window).await?;
        ground.held.remove(&before.id);
        let waits = match Window::new(before.busy_until, ground.server.busy(window).ends) {
            Ok(more) => waited_for(tx, before, &ground.server, more).await?,
            Err(_) => vec![],
        };
        let own = tx.windows_of(&before.person, window, Some(&before.id)).await?;
        Ok(Self { before, place, policy, ground, waits, own, as_override })
    }

    fn is_free(&self, now: Epoch, window: Window) -> Result<(), Problem> {
        let Self { before, ground, .. } = self;
        let busy = ground.server.busy(window);
        self.policy.shape(&ground.server, now, window)?;
        opens(ground, window, self.as_override)?;
        if !self.as_override && ground.server.hears_in_time_from(now).is_some_and(|first| before.window.ends < first) {
            let what = format!("the agent of server {} is silent, and would end it as it was booked", ground.server.id);
            return Err(Problem::new(Code::ServerSilent, what).hint("Extend it once the server is heard again."));
        }
        let more = Window { starts: before.busy_until, ends: busy.ends };
        if let Some(first) = self.waits.iter().find(|wait| wait.overlaps(more)) {
            return Err(Problem::new(Code::BookWaiting, format!("somebody waits for {first}")));
        }
        // It cannot move to another place while it runs, so its own has to be free, and the layouts have to fit.
        let taken = ground.held.near(busy).any(|h| h.place == self.place);
        if taken || find_place(&ground.server, &ground.held, busy, before.layout).is_none() {
            let what = format!("server {} is taken after {}", ground.server.id, before.window.ends);
            return Err(Problem::new(Code::BookConflict, what));
        }
        match self.own.iter().find(|own| own.overlaps(window)) {
            Some(own) => Err(Problem::new(Code::BookOwn, format!("{} holds another booking at {own}", before.person))),
            None => Ok(()),
        }
    }

    /// The last end on the raster, before that of `wish`, until which nothing is in the way.
    fn latest(&self, now: Epoch, wish: Window) -> Option<Epoch> {
        let ends = self.before.window.ends;
        let later = Window { starts: ends + 1, ends: wish.ends };
        let lines = self.policy.grid.lines(&self.ground.server.zone, later);
        lines.take_while(|end| self.is_free(now, Window { starts: wish.starts, ends: *end }).is_ok()).last()
    }

    /// The refusal, with how much longer it can last: other slots are no help to who is at work.
    fn told(&self, now: Epoch, wish: Window, mut problem: Problem) -> Problem {
        if problem.code == Code::BookGrid {
            // Those are of the whole slot, and who extends one says by how much.
            problem.hints.clear();
            return problem.hint(format!("Extend it by full steps of {} minutes.", u16::from(self.policy.grid)));
        }
        match self.latest(now, wish) {
            Some(end) => problem.hint(format!("Nothing is in the way until {end}: extend it to there at most.")),
            None => problem.hint(format!("It cannot last longer than until {}.", self.before.window.ends)),
        }
    }
}

/// What others wait for in a time that an extension would take, on this server or on any. Whose course, lab or labels this
/// one does not have would never be offered it.
async fn waited_for(tx: &mut Tx, own: &Booking, server: &Server, more: Window) -> Result<Vec<Window>, Problem> {
    let want = Listing { state: Some(State::Waitlisted), within: Some(more), ..Listing::default() };
    let named = |b: &Booking| b.wished.as_ref().is_none_or(|wished| *wished == server.id);
    let here = |b: &Booking| b.person != own.person && named(b) && suits(server, b);
    let mut windows = vec![];
    for wait in tx.bookings(&want).await?.into_iter().filter(here) {
        if !had_their_turn(tx, &wait).await? {
            windows.push(wait.window);
        }
    }
    Ok(windows)
}

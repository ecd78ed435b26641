use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Caller, Desk,
    fit::{candidates, servers},
    prefer::meant,
    rules,
    wish::BookRequest,
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{
            Ask, Booking, BookingId, CourseId, Epoch, Free, Health, Maintenance, PersonId, SavedLab, Server, ServerId,
            State, Window, free_slots, places,
        },
        store::{AuditRow, EventRow, Listing},
    },
    profile::Layout,
};

/// What is looked for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreeRequest {
    /// For whom; none is oneself.
    #[serde(default)]
    pub person: Option<PersonId>,
    /// In which course; needed only by somebody who is in several.
    #[serde(default)]
    pub course: Option<CourseId>,
    /// On which server; none is any.
    #[serde(default)]
    pub server: Option<ServerId>,
    /// Labels that the server must have.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// The lab; none is the smallest shipped one.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2x4c8g")]
    pub layout: Option<Layout>,
    /// How long, minutes.
    pub minutes: u32,
    /// The slot lies inside of this.
    pub within: Window,
    /// Whether a step of the raster that runs when `within` begins counts, too, where it can be booked.
    #[serde(default)]
    pub running: bool,
    /// How many at most, up to 200.
    pub most: usize,
}

/// A server in a week's table.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WeekServer {
    /// The server.
    pub server: Server,
    /// How many bookings it takes at a time.
    pub places: u32,
    /// When it is open.
    pub open: Vec<Window>,
    /// When it is closed for work.
    pub maintenance: Vec<Maintenance>,
    /// Its bookings that hold a place or held one, by start.
    #[schema(value_type = Vec<Booking>)]
    pub bookings: Arc<[Booking]>,
}

/// Everything that a table of a week shows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Week {
    /// The window that it shows.
    pub window: Window,
    /// By name.
    pub servers: Vec<WeekServer>,
    /// Who waits for any server.
    pub waiting: Vec<Booking>,
}

/// What of an event is only for whom it concerns and for teachers; alternatives say where somebody's saved labs are.
const PRIVATE: &[&str] = &["note", "health_note", "refused", "account", "alternatives"];

fn keep_apart(payload: &mut Value) {
    let Some(fields) = payload.as_object_mut() else { return };
    PRIVATE.iter().for_each(|name| drop(fields.remove(*name)));
    // A booking that was moved or refused is told with what became of it.
    if let Some(booking) = fields.get_mut("booking") {
        keep_apart(booking);
    }
}

/// Takes out what is only for the holder and for teachers.
fn seen_by(caller: &Caller, mut booking: Booking) -> Booking {
    if !caller.is_teacher() && caller.person() != Some(&booking.person) {
        booking.note = None;
        booking.refused = None;
    }
    booking
}

/// As [`seen_by`], of a server: what its agent found where it could not prove a place clean names processes and files.
pub(super) fn server_seen_by(caller: &Caller, mut server: Server) -> Server {
    if !caller.is_teacher() && server.health == Health::Quarantined {
        server.health_note = None;
    }
    server
}

/// As [`seen_by`]; what hides nothing is not copied.
fn all_seen_by(caller: &Caller, bookings: Arc<[Booking]>) -> Arc<[Booking]> {
    if caller.is_teacher() || bookings.iter().all(|b| b.note.is_none() && b.refused.is_none()) {
        return bookings;
    }
    bookings.iter().map(|b| seen_by(caller, b.clone())).collect()
}

impl Desk {
    /// A booking by its id.
    pub async fn booking(&self, caller: &Caller, now: Epoch, id: &BookingId) -> Result<Booking, Problem> {
        Ok(seen_by(caller, self.store.read(now).await?.booking(id).await?))
    }

    /// Bookings by start.
    ///
    /// Everybody sees who holds what; notes are for the holder and for teachers. A server that there is not is refused,
    /// unless it is one that was removed and had some.
    pub async fn bookings(&self, caller: &Caller, now: Epoch, want: &Listing) -> Result<Vec<Booking>, Problem> {
        let mut tx = self.store.read(now).await?;
        let found = tx.bookings(want).await?;
        if let (Some(server), true) = (&want.server, found.is_empty())
            && !tx.ever_booked(server).await?
        {
            tx.server(server).await?;
        }
        Ok(found.into_iter().map(|b| seen_by(caller, b)).collect())
    }

    /// As [`Desk::bookings`], for a calendar of a person or a server.
    ///
    /// What was given away or moved elsewhere is in it too, as cancelled: a calendar keeps for ever what it is not told to
    /// drop.
    pub async fn calendar(&self, caller: &Caller, now: Epoch, want: &Listing) -> Result<Vec<Booking>, Problem> {
        let mut tx = self.store.read(now).await?;
        let mut found = tx.bookings(want).await?;
        let mut gone = match (&want.person, &want.server) {
            (Some(person), _) => tx.left(&format!("person:{person}")).await?,
            (None, Some(server)) => tx.left(&format!("server:{server}")).await?,
            (None, None) => BTreeMap::new(),
        };
        found.iter().for_each(|there| drop(gone.remove(&there.id)));
        gone.retain(|_, b| want.within.is_none_or(|within| b.busy().overlaps(within)));
        found.extend(gone.into_values().map(|b| Booking { state: State::Cancelled, ..b }));
        found.sort_by(|a, b| (a.window.starts, &a.id).cmp(&(b.window.starts, &b.id)));
        Ok(found.into_iter().map(|b| seen_by(caller, b)).collect())
    }

    /// Where somebody's saved labs are: one's own, or anybody's for a teacher.
    pub async fn labs(&self, caller: &Caller, now: Epoch, person: Option<&PersonId>) -> Result<Vec<SavedLab>, Problem> {
        let person = person.or(caller.person());
        let person = person
            .ok_or_else(|| Problem::new(Code::HubInvalid, "say whose labs").hint("Name them: --person LOGIN."))?;
        caller.needs_self(person)?;
        self.store.read(now).await?.labs_of(person).await
    }

    /// The first free slots that fit and overlap none that the person holds, earliest first.
    ///
    /// What could never be had is refused as a booking would be; none found means that all is taken or closed. Each that a
    /// limit of the person's own keeps from them says which one.
    pub async fn free(&self, caller: &Caller, now: Epoch, want: &FreeRequest) -> Result<Vec<Free>, Problem> {
        let length = i64::from(want.minutes) * 60;
        if length == 0 || length > 7 * 86_400 || want.within.length() > 100 * 86_400 {
            return Err(Problem::new(Code::BookWindow, "ask for 1 minute to 7 days, within 100 days at most"));
        }
        let person = want.person.as_ref().or(caller.person());
        let person = person.ok_or_else(|| {
            Problem::new(Code::HubInvalid, "say for whom the slot is").hint("Name them: --person LOGIN.")
        })?;
        caller.needs_self(person)?;
        let mut tx = self.store.read(now).await?;
        let standing = rules::standing(&mut tx, person, want.course.as_ref()).await?;
        standing.course.policy.has_length(length)?;
        let layout = want.layout.unwrap_or(Layout::floor(3));
        // Such a step is a day long at most; from where on it can be booked is for the course's rules to say.
        let early = if want.running { 86_400 } else { 0 };
        let within = Window { starts: want.within.starts - early, ..want.within };
        let wish = BookRequest {
            person: None,
            course: None,
            server: want.server.clone(),
            labels: want.labels.clone(),
            layout: Some(layout),
            window: within,
            reason: None,
        };
        let mut grounds = vec![];
        let servers = servers(&mut tx, &wish).await?;
        for (server, _) in candidates(servers, &standing, &wish)? {
            grounds.push(rules::ground(&mut tx, server, within).await?);
        }
        let labs = meant(&standing.labs, want.layout, layout);
        let own = tx.windows_of(person, within, None).await?;
        let ask = Ask { layout, length, within, labs: &labs, apart: &own };
        let mut found = free_slots(&grounds, &standing.course.policy, now, ask, want.most.min(200));
        rules::note_limits(&mut tx, &standing, &mut found).await?;
        Ok(found)
    }

    /// The table of a week, or of any window of up to 35 days.
    pub async fn week(&self, caller: &Caller, now: Epoch, window: Window) -> Result<Week, Problem> {
        if window.length() > 35 * 86_400 {
            return Err(Problem::new(Code::BookWindow, "a table shows 35 days at most"));
        }
        let mut tx = self.store.read(now).await?;
        let (servers, closed) = (tx.servers().await?, tx.maintenance(window).await?);
        let waiting = Listing { state: Some(State::Waitlisted), within: Some(window), ..Listing::default() };
        let waiting = tx.bookings(&waiting).await?.into_iter().map(|b| seen_by(caller, b)).collect();
        let mut rows = vec![];
        for server in servers {
            let open = server.opening.windows(&server.zone, window).into_iter();
            rows.push(WeekServer {
                places: places(&server),
                open: open.filter_map(|w| w.common(window)).collect(),
                maintenance: closed.iter().filter(|m| m.server == server.id).cloned().collect(),
                bookings: all_seen_by(caller, self.weeks.bookings(&mut tx, &server, window).await?),
                server: server_seen_by(caller, server),
            });
        }
        Ok(Week { window, servers: rows, waiting })
    }

    /// The newest audit rows, newest first, at most 1000.
    ///
    /// Students see only those of their own doing.
    pub async fn audit(
        &self,
        caller: &Caller,
        now: Epoch,
        subject: Option<String>,
        actor: Option<String>,
        most: i64,
    ) -> Result<Vec<AuditRow>, Problem> {
        let actor = if caller.is_teacher() { actor } else { Some(caller.name()) };
        self.store.read(now).await?.audit_newest(subject, actor, most.clamp(1, 1000)).await
    }

    /// What happened after event `after`, at most 1000; for the event stream.
    ///
    /// Students do not see others' notes.
    pub async fn events(&self, caller: &Caller, now: Epoch, after: i64, most: i64) -> Result<Vec<EventRow>, Problem> {
        let mut events = self.store.read(now).await?.events_after(after, most.clamp(1, 1000)).await?;
        for event in &mut events {
            let own = caller.is_teacher() || (event.person.is_some() && event.person.as_ref() == caller.person());
            if !own {
                keep_apart(&mut event.payload);
            }
        }
        Ok(events)
    }

    /// The newest event's number, from which a stream begins.
    pub async fn last_event(&self, now: Epoch) -> Result<i64, Problem> {
        self.store.read(now).await?.last_event().await
    }

    /// What the clock of the database says; none where it is this computer's.
    pub async fn clock(&self, now: Epoch) -> Result<Option<Epoch>, Problem> {
        self.store.glance(now).await?.clock().await
    }

    /// Whether the hub can keep anything at this moment.
    pub async fn writable(&self, now: Epoch) -> Result<(), Problem> {
        self.store.writable(now).await
    }
}

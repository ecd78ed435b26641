use serde::Serialize;

use super::{Civil, Words, refusals::noted, week::health_key};
use crate::hub::{
    desk::Caller,
    domain::{Beginning, Booking, Epoch, Policy, SavedLab, Server, State},
};

/// A booking for its holder or a teacher: when, where it stands, what can be done with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slot {
    /// Its id.
    pub id: String,
    /// Its version; a form that was made for an older one is refused.
    pub version: i64,
    /// The server; none while waiting for any.
    pub server: Option<String>,
    /// Who holds it.
    pub person: String,
    /// Whether the viewer does.
    pub own: bool,
    /// The lab, or that there is only a login.
    pub layout: String,
    /// When, in the viewer's zone.
    pub when: String,
    /// When, in UTC.
    pub utc: String,
    /// How long.
    pub length: String,
    /// Its first second.
    pub starts: i64,
    /// The first second after it.
    pub ends: i64,
    /// The state's name: also its class in the style sheet.
    pub state: String,
    /// The state for people.
    pub state_text: String,
    /// Counts down to its start or end; none when both are over or it will not begin.
    pub countdown: Option<Countdown>,
    /// Why it is where it is.
    pub note: Option<String>,
    /// Whether that is because it was moved to another server, which its holder is to see.
    pub moved: bool,
    /// Why its server does not take it.
    pub trouble: Option<String>,
    /// With which lab it begins; none where no saved lab has to do with it.
    pub lab: Option<String>,
    /// What its state does not say: that it ends although nobody has heard of it, that its holder had their turn, or that
    /// nobody enrolled its server yet.
    pub stands: Option<String>,
    /// What can be done.
    pub can: Can,
    /// How to get in; none while nobody is let in by it: it is an offer, waits, or is over.
    pub connect: Option<Connect>,
}

/// What counts down; the script goes on where the server's text stops.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Countdown {
    /// Up to when.
    pub until: i64,
    /// `starts`, `ends` or `offer`: which sentence.
    pub kind: &'static str,
    /// The sentence with a gap, for the script.
    pub pattern: String,
    /// The sentence now.
    pub text: String,
}

/// What the viewer can do with a booking.
///
/// The desk decides again when they do.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Can {
    /// Say yes to the offer.
    pub accept: bool,
    /// Give it up before it begins, or stop waiting.
    pub cancel: bool,
    /// End it early.
    pub release: bool,
    /// Give it to somebody else.
    pub give: bool,
    /// New ends: the moment, and the text for people.
    pub extend: Vec<(i64, String)>,
    /// Whether a reason is needed, because it is somebody else's.
    pub reason: bool,
    /// Whether there is anything at all.
    pub any: bool,
}

/// How to get into the server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Connect {
    /// The command that fetches the certificate and connects.
    pub book: String,
    /// The lines for plain ssh: the certificate is fetched first, so they are two.
    pub ssh: String,
    /// Whether the gate is open now.
    pub open: bool,
}

impl Slot {
    /// The view of a booking; `server` is its own, when it has one.
    pub fn new(booking: &Booking, server: Option<&Server>, policy: &Policy, see: &Look<'_>) -> Self {
        let words = Words::of(see.civil.lang);
        let own = see.caller.person() == Some(&booking.person);
        Self {
            id: booking.id.to_string(),
            version: booking.version,
            server: booking.server.as_ref().or(booking.wished.as_ref()).map(ToString::to_string),
            person: booking.person.to_string(),
            own,
            layout: match server.and_then(|server| server.makes_labs) {
                Some(false) => words.get("login_only").to_owned(),
                _ => booking.layout.to_string(),
            },
            when: see.civil.span(booking.window),
            utc: see.civil.utc(booking.window),
            length: see.civil.length(booking.window.length()),
            starts: booking.window.starts.0,
            ends: booking.window.ends.0,
            state: booking.state.to_string(),
            state_text: words.get(state_key(booking.state)).to_owned(),
            countdown: countdown(booking, see),
            note: booking.note.as_ref().map(|note| noted(&see.civil.zone.told(note), see.civil.lang)),
            moved: booking.moves > 0 && booking.note.is_some() && booking.state.is_unbegun(),
            trouble: trouble(booking, server, see),
            lab: lab(booking, see),
            stands: stands(booking, server, see.now).map(|key| words.get(key).to_owned()),
            can: can(booking, policy, own, see),
            connect: server.filter(|_| booking.state.is_usable() && own).map(|_| connect(booking)),
        }
    }
}

/// Who looks, when, and how moments are written for them.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// When.
    pub now: Epoch,
    /// In which zone and language.
    pub civil: &'a Civil,
    /// The saved labs of whose bookings are looked at.
    pub labs: &'a [SavedLab],
}

/// What somebody finds there, in words.
pub(super) fn beginning(begins: &Beginning, words: &Words) -> String {
    match begins {
        Beginning::Saved => words.get("lab_saved").to_owned(),
        Beginning::Fresh { saved_on } => words.say("lab_elsewhere", &[("server", saved_on.as_str())]),
        Beginning::Anew { instead_of } => words.say("lab_anew", &[("layout", &instead_of.to_string())]),
    }
}

/// The catalogue's key of what its state does not say.
fn stands(booking: &Booking, server: Option<&Server>, now: Epoch) -> Option<&'static str> {
    let opens_to_nobody = || booking.window.ends > now && server.is_some_and(Server::is_strange);
    match booking.state {
        State::Waitlisted if booking.lapses > 0 => Some("wait_asked"),
        State::Booked | State::Delayed if booking.ended_by.is_some() => Some("ended_unheard"),
        State::Booked | State::Delayed if opens_to_nobody() => Some("slot_unenrolled"),
        _ => None,
    }
}

/// With which lab a slot begins; once it has begun, its lab is the saved one.
fn lab(booking: &Booking, see: &Look<'_>) -> Option<String> {
    let server = booking.server.as_ref().filter(|_| booking.state.is_ahead())?;
    let labs: Vec<SavedLab> = see.labs.iter().filter(|lab| lab.person == booking.person).cloned().collect();
    Some(beginning(&Beginning::of(&labs, server, booking.layout)?, Words::of(see.civil.lang)))
}

/// What is known against its taking place: its server is out of use, or the agent there refuses it.
fn trouble(booking: &Booking, server: Option<&Server>, see: &Look<'_>) -> Option<String> {
    let (unbegun, words) = (booking.state.is_unbegun(), Words::of(see.civil.lang));
    let out = |s: &Server| {
        let note = s.health_note.as_deref().unwrap_or_default();
        health_key(s.health).map(|key| format!("{}: {}", s.id, words.say(key, &[("why", note)])))
    };
    let health = server.filter(|_| unbegun).and_then(out);
    let why = health.or_else(|| booking.refused.clone().filter(|_| unbegun || booking.state == State::Arming))?;
    Some(words.say("slot_trouble", &[("why", &see.civil.zone.told(&why))]))
}

fn countdown(booking: &Booking, see: &Look<'_>) -> Option<Countdown> {
    let (until, kind) = match booking.state {
        State::Offered => (booking.offer_until?, "offer"),
        State::Booked | State::Waitlisted | State::Delayed if booking.window.starts > see.now => {
            (booking.window.starts, "starts")
        }
        State::Booked | State::Delayed | State::Arming | State::Active => (booking.window.ends, "ends"),
        _ => return None,
    };
    let words = Words::of(see.civil.lang);
    let pattern = words.get(match kind {
        "offer" => "offer_until",
        "starts" => "starts_in",
        _ => "ends_in",
    });
    let left = see.civil.length(until - see.now);
    (until > see.now).then(|| Countdown {
        until: until.0,
        kind,
        pattern: pattern.to_owned(),
        text: pattern.replace("{left}", &left),
    })
}

fn can(booking: &Booking, policy: &Policy, own: bool, see: &Look<'_>) -> Can {
    if !own && !see.caller.is_teacher() {
        return Can::default();
    }
    let lasts = booking.window.ends > see.now && booking.ended_by.is_none();
    let running = matches!(booking.state, State::Arming | State::Active) && lasts;
    let ahead = matches!(booking.state, State::Booked | State::Delayed | State::Offered | State::Waitlisted);
    let extensible = matches!(booking.state, State::Booked | State::Arming | State::Active);
    let extend = if extensible && lasts { ends(booking, policy, see) } else { vec![] };
    let can = Can {
        accept: booking.state == State::Offered && booking.offer_until.is_some_and(|until| until > see.now),
        cancel: ahead && booking.ended_by.is_none(),
        release: running,
        give: booking.state == State::Booked && booking.window.starts > see.now,
        extend,
        reason: !own,
        any: false,
    };
    let any = can.accept || can.cancel || can.release || can.give || !can.extend.is_empty();
    Can { any, ..can }
}

/// The next ends on the raster, up to the longest booking, eight at most.
fn ends(booking: &Booking, policy: &Policy, see: &Look<'_>) -> Vec<(i64, String)> {
    let step = policy.grid.seconds();
    let longest = booking.window.starts + i64::from(policy.longest) * 60;
    let all = (1..=8).map(|n| booking.window.ends + n * step).take_while(|end| *end <= longest);
    let text = |end: Epoch| format!("{} (+{})", see.civil.time(end), see.civil.length(end - booking.window.ends));
    all.map(|end| (end.0, text(end))).collect()
}

fn connect(booking: &Booking) -> Connect {
    let id = &booking.id;
    Connect {
        book: format!("kubecamp book ssh {id}"),
        ssh: format!("kubecamp book ssh {id} --write slot.conf\nssh -F slot.conf kubecamp-{id}"),
        open: booking.state == State::Active,
    }
}

/// The catalogue's key of a state.
pub(super) fn state_key(state: State) -> &'static str {
    match state {
        State::Waitlisted => "state_waitlisted",
        State::Offered => "state_offered",
        State::Booked => "state_booked",
        State::Delayed => "state_delayed",
        State::Arming => "state_arming",
        State::Active => "state_active",
        State::Ending => "state_ending",
        State::Saving => "state_saving",
        State::Resetting => "state_resetting",
        State::Done => "state_done",
        State::Cancelled => "state_cancelled",
        State::NoShow => "state_no_show",
        State::Quarantined => "state_quarantined",
    }
}

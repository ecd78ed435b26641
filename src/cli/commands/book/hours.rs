use crate::{
    cli::clock::{local, own_zone},
    core::{Code, Problem},
    hub::domain::{Beginning, Booking, Epoch, State},
};

/// A moment as who reads it lives, with the zone's name.
pub(super) fn moment(at: Epoch) -> String {
    format!("{} ({})", local(at), own_zone())
}

/// Refuses a slot that is over.
///
/// A slot that runs by the hub's word is not refused because a clock here is wrong.
pub(super) fn check_not_over(booking: &Booking, now: Epoch) -> Result<(), Problem> {
    let ahead = matches!(booking.state, State::Booked | State::Delayed | State::Arming);
    let past = matches!(booking.state, State::Ending | State::Saving | State::Resetting | State::Done);
    let cut_short = booking.ended_by.is_some();
    let why = match booking.state {
        State::NoShow => "nobody came in time".to_owned(),
        State::Cancelled => "it was cancelled".to_owned(),
        State::Quarantined => "its server is in quarantine".to_owned(),
        _ if cut_short => "it was ended early".to_owned(),
        _ if past || (ahead && now >= booking.window.ends) => format!("it ended {}", moment(booking.window.ends)),
        _ => return Ok(()),
    };
    let problem = Problem::new(Code::BookOver, format!("slot {} is over: {why}", booking.id));
    Err(problem.detail(booking.note.clone()))
}

/// Refuses a slot whose door is not open yet, and says when it begins and with what.
///
/// As with its end, a slot that runs is not asked for the time.
pub(super) fn check_begun(
    booking: &Booking,
    is_login: bool,
    begins: Option<&Beginning>,
    now: Epoch,
) -> Result<(), Problem> {
    let starts = booking.window.starts;
    if booking.state == State::Active || now >= starts {
        return Ok(());
    }
    let what = format!("slot {} begins {}, in {}", booking.id, moment(starts), length(starts - now));
    let lab = begins.map(|begins| format!(", with {begins}")).unwrap_or_default();
    Err(Problem::new(Code::BookEarly, what).detail([format!("{}{lab}", place(booking, is_login))]))
}

/// What a slot whose hour has come waits for on its server, and since when.
///
/// None where its door is open, and where its server has told nothing: it may be open then.
pub(super) fn awaited(booking: &Booking) -> Option<String> {
    let what = match booking.state {
        State::Arming => "its server is bringing the lab up",
        State::Delayed => "its server is not ready for it",
        _ => return None,
    };
    Some(format!("{what}, since {}", moment(booking.since)))
}

/// The problem that a slot whose hour has come is not open yet.
pub(super) fn not_open(booking: &Booking, why: &str) -> Problem {
    Problem::new(Code::BookEarly, format!("slot {} is not open yet: {why}", booking.id))
        .detail(booking.refused.clone())
        .hint(format!("To wait until it is open: kubecamp book ssh {}, without --no-wait.", booking.id))
}

/// Where one lands: the server and the lab, or only a login.
pub(super) fn place(booking: &Booking, is_login: bool) -> String {
    let server = booking.server.as_ref().map_or_else(|| "no server yet".to_owned(), |server| format!("on {server}"));
    match is_login {
        true => format!("{server}: a login, as no labs are made there"),
        false => format!("{server}: a lab of {}", booking.layout),
    }
}

/// A length for people, rounded up: who comes back then finds the door open.
fn length(seconds: i64) -> String {
    let minutes = (seconds + 59) / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn booking(state: State) -> Booking {
        serde_json::from_value(json!({
            "id": "b1", "server": "one", "person": "amy", "course": "k8s", "layout": "2x4c8g",
            "window": { "starts": 1000, "ends": 2000 }, "busy_until": 2000, "state": state, "since": 0,
            "version": 1, "created": 0, "updated": 0, "charged": 1000, "lapses": 0,
        }))
        .unwrap()
    }

    fn early(state: State, now: i64) -> Option<Problem> {
        check_begun(&booking(state), false, Some(&Beginning::Saved), Epoch(now)).err()
    }

    #[test]
    fn a_slot_that_has_not_begun_says_when_and_where() {
        let problem = early(State::Booked, 940).unwrap();
        assert_eq!(problem.code, Code::BookEarly);
        assert!(problem.what.starts_with("slot b1 begins ") && problem.what.ends_with(", in 1 min"), "{problem}");
        assert!(problem.what.contains(&moment(Epoch(1000))), "{problem}");
        assert_eq!(problem.detail, ["on one: a lab of 2x4c8g, with the saved lab"]);
        let login = check_begun(&booking(State::Booked), true, None, Epoch(940)).unwrap_err();
        assert_eq!(login.detail, ["on one: a login, as no labs are made there"]);
        assert!(early(State::Arming, 999).is_some() && early(State::Delayed, 999).is_some());
        assert!(early(State::Booked, 1000).is_none() && early(State::Arming, 1001).is_none());
        assert!(early(State::Active, 10).is_none(), "the hub's word counts, not the clock here");
    }

    #[test]
    fn a_slot_that_is_not_open_yet_says_what_it_waits_for_and_since_when() {
        let since = |state| Booking { since: Epoch(900), ..booking(state) };
        let why = awaited(&since(State::Arming)).unwrap();
        assert_eq!(why, format!("its server is bringing the lab up, since {}", moment(Epoch(900))));
        assert!(awaited(&since(State::Delayed)).unwrap().contains("is not ready"));
        assert!(awaited(&since(State::Active)).is_none() && awaited(&since(State::Booked)).is_none());
        let problem = not_open(&since(State::Arming), &why);
        assert_eq!(problem.code, Code::BookEarly, "as before its hour");
        assert!(problem.what.starts_with("slot b1 is not open yet: its server is bringing"), "{problem}");
        assert!(problem.all_hints()[0].contains("kubecamp book ssh b1"), "{problem}");
    }

    #[test]
    fn a_slot_that_is_over_says_so() {
        let over = |booking: &Booking, now| check_not_over(booking, Epoch(now)).err().map(|p| (p.code, p.what));
        let done = over(&booking(State::Done), 2500).unwrap();
        assert_eq!(done, (Code::BookOver, format!("slot b1 is over: it ended {}", moment(Epoch(2000)))));
        assert!(over(&booking(State::Booked), 2000).is_some() && over(&booking(State::Saving), 10).is_some());
        assert!(over(&booking(State::Booked), 1999).is_none());
        assert!(over(&booking(State::Active), 9999).is_none(), "the hub's word counts, not the clock here");
        for (state, why) in [
            (State::NoShow, "nobody came in time"),
            (State::Cancelled, "it was cancelled"),
            (State::Quarantined, "its server is in quarantine"),
        ] {
            let noted = Booking { note: Some("the disk is full".to_owned()), ..booking(state) };
            let problem = check_not_over(&noted, Epoch(1500)).unwrap_err();
            assert_eq!((problem.code, problem.what), (Code::BookOver, format!("slot b1 is over: {why}")));
            assert_eq!(problem.detail, ["the disk is full"]);
        }
        let given_back = Booking { ended_by: Some(crate::hub::domain::Who::Holder), ..booking(State::Active) };
        assert_eq!(over(&given_back, 1500).unwrap().1, "slot b1 is over: it was ended early");
    }

    #[test]
    fn lengths_are_said_as_people_say_them() {
        let all = [1, 60, 61, 3600, 3660, 90_000].map(length);
        assert_eq!(all, ["1 min", "1 min", "2 min", "1 h", "1 h 1 min", "25 h"]);
    }
}

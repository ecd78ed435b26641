//! What the page of a booking says of it, by where it stands.

use super::*;

/// The page of a booking for its holder.
fn shown(booking: &Booking, lang: Lang) -> String {
    let (policy, caller, civil, one) = (Policy::default(), amy(), civil("UTC", lang), server("one"));
    let look = Look { caller: &caller, now: at("2026-11-23T08:00:00Z"), civil: &civil, labs: &[] };
    let slot = Slot::new(booking, Some(&one), &policy, &look);
    let one = One { slot, once: "x".into(), people: vec![], stuck: false, instead: vec![], series: None, entry: None };
    page(lang, Some("Amy"), &one, "booking.html")
}

#[test]
fn only_what_lets_somebody_in_says_how_to_connect() {
    for state in State::ALL {
        let booking = Booking { state, ..booking(1, "amy", at("2026-11-23T09:00:00Z"), 60) };
        let text = shown(&booking, Lang::En);
        let opens = matches!(state, State::Booked | State::Delayed | State::Arming | State::Active);
        for told in ["Connect:", "How to connect", "kubecamp book ssh"] {
            assert_eq!(text.contains(told), opens, "{state}: {told}");
        }
    }
}

//! What of a week is free, for whom: by room, and by the rules of each of the viewer's courses.

use super::*;

#[test]
fn a_shared_server_is_free_only_where_a_lab_has_room() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let midnight = at("2026-11-24T00:00:00Z");
    // Its lab of 16 GiB leaves 14 GiB of 30, which is one more lab, or 10 GiB of 26, which is none.
    let bob = booking(1, "bob", at("2026-11-23T10:00:00Z"), 110);
    let both = vec![(at("2026-11-23T08:00:00Z"), at("2026-11-23T09:50:00Z")), (at("2026-11-23T12:00:00Z"), midnight)];
    for (gib, want) in [(32, vec![(now, midnight)]), (28, both)] {
        let mut one = open(&civil, now, vec![bob.clone()]);
        (one.server.mode, one.server.memory) = (Mode::Shared, Bytes::gib(gib));
        one.places = places(&one.server);
        assert_eq!(one.places, 2, "a place is left in any case");
        let view = view(&civil, now, vec![one]);
        let free = view.days[0].rows[0].items.iter().filter(|item| item.kind == "free");
        let free: Vec<(Epoch, Epoch)> =
            free.map(|item| (Epoch(item.starts.unwrap()), Epoch(item.ends.unwrap()))).collect();
        assert_eq!(free, want, "{gib} GiB");
    }
}

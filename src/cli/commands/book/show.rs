use crate::{
    cli::{
        clock::{local, own_zone, zoned},
        output::{self, Format},
    },
    core::{Problem, shell::printable},
    hub::domain::{Booking, ClassPlan, ClassRow, Epoch, Free, Health, LAB_GONE, PersonId, Server, State, Window},
    render::{count, table},
};

/// Where a column is of moments it says by which clock, once.
fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| if *n == "STARTS" { zoned(n) } else { (*n).to_owned() }).collect()
}

fn dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

pub(super) fn bookings(format: Format, all: &[Booking]) -> Result<(), Problem> {
    let wide = format == Format::Wide;
    output::value(format, &all, |_| {
        let mut rows = vec![heading(&["ID", "STATE", "STARTS", "ENDS", "SERVER", "LAYOUT", "PERSON"])];
        if wide {
            rows[0].extend(heading(&["COURSE", "GROUP", "PLACE", "SERIES", "VERSION", "NOTE"]));
        }
        for b in all {
            let mut row = vec![
                b.id.to_string(),
                b.state.to_string(),
                local(b.window.starts),
                local(b.window.ends),
                dash(b.server.as_ref()),
                b.layout.to_string(),
                b.person.to_string(),
            ];
            if wide {
                let note = told(b.note.as_deref().unwrap_or("-"));
                let more = [
                    b.course.to_string(),
                    dash(b.group.as_ref()),
                    dash(b.place.as_ref()),
                    dash(b.series.as_ref()),
                    b.version.to_string(),
                    note,
                ];
                row.extend(more);
            }
            rows.push(row);
        }
        table(&rows)
    })
}

/// A text of the hub by this computer's clock.
fn told(text: &str) -> String {
    printable(&own_zone().told(text))
}

/// Says on stderr what of bookings a table does not show: which are offered, not taken by their servers, or moved.
pub(super) fn remarks(all: &[Booking], me: &PersonId) {
    all.iter().filter_map(|b| remark(b, me)).for_each(|line| output::say(&line));
}

/// Says on stderr which of one's slots are gone, though nobody gave them up: no table of what is ahead shows them.
pub(super) fn losses(all: &[Booking], now: Epoch) {
    all.iter().filter(|b| b.is_lost(now)).for_each(|b| output::say(&loss(b)));
}

fn loss(b: &Booking) -> String {
    let what = match b.state {
        State::Quarantined => "ended, its server is quarantined",
        _ if b.is_cut_short() => "was ended",
        _ => "was cancelled",
    };
    let why = b.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    told(&format!("{}: your slot {} {what}{why}", b.id, b.window))
}

fn remark(b: &Booking, me: &PersonId) -> Option<String> {
    let id = &b.id;
    if let (State::Offered, Some(until)) = (b.state, b.offer_until) {
        if b.person != *me {
            return Some(told(&format!("{id}: offered to {} until {until}", b.person)));
        }
        return Some(told(&format!("{id}: offered until {until}; take it: kubecamp book accept {id}")));
    }
    if b.state == State::Waitlisted && b.lapses > 0 {
        let how = "you are asked again only when somebody gives it up; while it is free, book it";
        return Some(format!("{id}: it was offered and nobody said yes: {how}"));
    }
    if !matches!(b.state, State::Booked | State::Delayed) {
        return None;
    }
    if b.ended_by.is_some() {
        let how = "it counts until then, if the server tells that it took place";
        return Some(format!("{id}: it was ended while its server was not heard: {how}"));
    }
    if b.refused.is_some() || b.stranded.is_some() {
        let why = b.refused.as_deref().unwrap_or("it is out of use or in maintenance, and no other is free");
        return Some(format!("{id}: its server does not take it: {}. See: kubecamp book move {id}", told(why)));
    }
    let note = b.note.as_deref()?;
    match b.moves {
        0 if note.contains(LAB_GONE) => Some(told(&format!("{id}: {note}"))),
        0 => None,
        _ => Some(format!("{id}: it was moved: {}", told(note))),
    }
}

pub(super) fn frees(format: Format, all: &[Free]) -> Result<(), Problem> {
    output::value(format, &all, |_| table(&free_rows(all)))
}

fn free_rows(all: &[Free]) -> Vec<Vec<String>> {
    let mut rows = vec![heading(&["STARTS", "ENDS", "SERVER"])];
    rows.extend(all.iter().map(|f| vec![local(f.window.starts), local(f.window.ends), f.server.to_string()]));
    // Who has no saved lab has nothing to choose by, and whom no limit keeps from anything nothing to read.
    let labs = all.iter().any(|f| f.lab.is_some()).then(|| all.iter().map(|f| dash(f.lab.as_ref())).collect());
    let limit = |f: &Free| f.limit.as_deref().map_or_else(|| "-".to_owned(), told);
    let limits = all.iter().any(|f| f.limit.is_some()).then(|| all.iter().map(limit).collect());
    let columns: [(&str, Option<Vec<String>>); 2] = [("LAB", labs), ("LIMIT", limits)];
    for (name, column) in columns {
        let Some(column) = column else { continue };
        let column = std::iter::once(name.to_owned()).chain(column);
        rows.iter_mut().zip(column).for_each(|(row, text)| row.push(text));
    }
    rows
}

/// Which of some servers are out of use, as more of an answer to who found nothing free; none where none is.
pub(super) fn out_of_use(all: &[Server]) -> Option<String> {
    let why = |server: &Server| server.health_note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    let is = |server: &Server| format!("{} is {}{}", server.id, server.health.as_str(), why(server));
    let out: Vec<String> = all.iter().filter(|server| server.health != Health::Healthy).map(is).collect();
    (!out.is_empty()).then(|| told(&format!("Out of use: {}. Nothing is sold there meanwhile.", out.join(", "))))
}

/// Says that there is nothing to list, and what may be why.
pub(super) fn none_free(minutes: u32, from: Option<Epoch>, now: Epoch) -> String {
    let over = if from.is_some_and(|from| from < now) { "over, " } else { "" };
    let from = from.map_or_else(|| "now".to_owned(), local);
    format!(
        "No slot of {minutes} minutes is free in the two weeks from {from}: all is {over}closed, taken, too far ahead or \
         at hours in which you hold another. Look later with --from, or wait: kubecamp book wait START --for {minutes}m."
    )
}

pub(super) fn plan_text(format: Format, plan: &ClassPlan) -> Result<(), Problem> {
    output::value(format, plan, |_| {
        let mut rows = vec![heading(&["ROUND", "PERSON", "STARTS", "ENDS", "SERVER", "WHY"])];
        for row in &plan.rows {
            let slot = row.slot();
            let time = |pick: fn(Window) -> Epoch| slot.map(|(_, window)| local(pick(window)));
            rows.push(vec![
                row.round.to_string(),
                row.person.to_string(),
                dash(time(|window| window.starts).as_ref()),
                dash(time(|window| window.ends).as_ref()),
                dash(slot.map(|(server, _)| server)),
                row.why.clone(),
            ]);
        }
        table(&rows)
    })
}

/// What a plan gives to nobody, as lines for people: how many slots there are not, and whose with why.
pub(super) fn unserved(plan: &ClassPlan) -> Vec<String> {
    let without: Vec<_> = plan.rows.iter().filter(|row| row.slot().is_none()).collect();
    if without.is_empty() {
        return vec![];
    }
    let head =
        format!("note: of {} the plan has no slot for {}:", count(plan.rows.len() as u64, "line"), without.len());
    let line = |row: &&ClassRow| format!("  {}, round {}: {}", row.person, row.round, told(&row.why));
    std::iter::once(head).chain(without.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hub::domain::Beginning;

    fn booking(more: &serde_json::Value) -> Booking {
        let mut all = json!({
            "id": "b7k2", "server": "big", "place": 0, "person": "amy", "course": "k8s", "group": null,
            "layout": "2x4c8g", "window": { "starts": 1_795_467_600, "ends": 1_795_474_800 },
            "busy_until": 1_795_475_400, "state": "booked", "since": 0, "version": 1, "created": 0, "updated": 0,
            "offer_until": null, "came": null, "charged": 7200, "lapses": 0, "series": null, "wished": null,
            "note": null, "refused": null, "stranded": null, "moves": 0, "labels": [], "ended_by": null,
        });
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_holder_hears_what_became_of_a_slot() {
        let amy = "amy".parse().unwrap();
        let said = |more: serde_json::Value| remark(&booking(&more), &amy);
        assert_eq!(said(json!({ "note": "exam" })), None, "a teacher's reason is no news");
        let moved = said(json!({ "note": "server one is away: fan; moved to big", "moves": 1 }));
        assert_eq!(moved.as_deref(), Some("b7k2: it was moved: server one is away: fan; moved to big"));
        let fresh = "the lab that was saved on big is gone: it begins with a fresh one";
        assert_eq!(said(json!({ "note": fresh })), Some(format!("b7k2: {fresh}")));
        let stranded = said(json!({ "stranded": 1_795_467_600, "moves": 1, "note": "x" })).unwrap();
        assert!(stranded.ends_with("no other is free. See: kubecamp book move b7k2"), "{stranded}");
        let offered = said(json!({ "state": "offered", "offer_until": 1_795_467_000 })).unwrap();
        let until = told("2026-11-23T20:50:00Z");
        assert_eq!(offered, format!("b7k2: offered until {until}; take it: kubecamp book accept b7k2"));
        assert_eq!(said(json!({ "state": "cancelled", "refused": "no key" })), None, "it is over");
        assert_eq!(said(json!({ "state": "waitlisted" })), None);
        let lapsed = said(json!({ "state": "waitlisted", "lapses": 1 })).unwrap();
        assert!(lapsed.contains("asked again only when somebody gives it up"), "{lapsed}");
        let unheard = said(json!({ "ended_by": "holder", "moves": 1, "note": "x" })).unwrap();
        assert!(unheard.contains("ended while its server was not heard"), "{unheard}");
    }

    #[test]
    fn who_finds_nothing_free_hears_which_servers_are_out_of_use() {
        let server = |id: &str, health: &str, note: Option<&str>| -> Server {
            serde_json::from_value(json!({
                "id": id, "address": "h", "course": null, "cores": 8, "memory": "32GiB", "labels": [],
                "opening": "always", "zone": "UTC", "buffer": 600, "mode": "exclusive", "health": health,
                "health_note": note, "occupant": null, "revision": 1, "issued": 1, "acked": 0, "seen": null,
                "clock_offset": 0, "version": 1,
            }))
            .unwrap()
        };
        let (one, two) = (server("one", "quarantined", None), server("two", "away", Some("a fan")));
        assert_eq!(out_of_use(&[server("six", "healthy", Some("it is in"))]), None);
        let said = out_of_use(&[one, two]).unwrap();
        assert!(said.starts_with("Out of use: one is quarantined, two is away (a fan). "), "{said}");
    }

    #[test]
    fn what_is_over_is_not_only_closed_or_taken() {
        let told = |from: Option<i64>| none_free(60, from.map(Epoch), Epoch(1_795_467_600));
        assert!(told(Some(1_795_467_599)).contains(": all is over, closed, taken"));
        assert!(
            told(Some(1_795_467_600)).contains(": all is closed") && told(None).contains("from now: all is closed")
        );
    }

    #[test]
    fn a_free_slot_says_which_limit_keeps_it_from_who_asks() {
        let free = |more: serde_json::Value| -> Free {
            let mut all = json!({ "server": "one", "window": { "starts": 1_795_467_600, "ends": 1_795_474_800 } });
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(all).unwrap()
        };
        let ends = |all: &[Free]| free_rows(all).into_iter().map(|row| row[2..].join("|")).collect::<Vec<_>>();
        assert_eq!(ends(&[free(json!({}))]), ["SERVER", "one"]);
        let limit = free(json!({ "limit": "amy has 3 bookings ahead, and 3 are allowed" }));
        let lines = ["SERVER|LIMIT", "one|-", "one|amy has 3 bookings ahead, and 3 are allowed"];
        assert_eq!(ends(&[free(json!({})), limit.clone()]), lines);
        let saved = Free { lab: Some(Beginning::Saved), ..limit };
        assert_eq!(ends(&[saved])[0], "SERVER|LAB|LIMIT");
    }

    #[test]
    fn who_gets_nothing_of_a_plan_is_named_with_why() {
        let given = json!({ "server": "one", "place": 0, "window": { "starts": 1_795_467_600, "ends": 1_795_474_800 },
            "wish": null });
        let why = "has as many bookings ahead as are allowed, 4";
        let plan: ClassPlan = serde_json::from_value(json!({ "wished": 0, "given": 1, "rows": [
            { "person": "amy", "round": 1, "given": given, "why": "had 0.0 h before" },
            { "person": "bob", "round": 1, "given": null, "why": why },
            { "person": "amy", "round": 2, "given": null, "why": "no slot is left" },
        ] }))
        .unwrap();
        let lines = [
            "note: of 3 lines the plan has no slot for 2:".to_owned(),
            format!("  bob, round 1: {why}"),
            "  amy, round 2: no slot is left".to_owned(),
        ];
        assert_eq!(unserved(&plan), lines);
        assert!(unserved(&ClassPlan { rows: plan.rows[..1].to_vec(), ..plan }).is_empty());
    }

    #[test]
    fn what_was_taken_from_its_holder_is_told_until_its_time_is_over() {
        let gone = booking(&json!({ "state": "cancelled", "note": "fire drill" }));
        assert!(loss(&gone).ends_with(" was cancelled: fire drill"), "{}", loss(&gone));
        assert!(gone.is_lost(Epoch(1_795_474_799)) && !gone.is_lost(Epoch(1_795_474_800)));
        assert!(!booking(&json!({ "state": "cancelled" })).is_lost(Epoch(0)), "given up by its holder");
        let ended = |by: &str| booking(&json!({ "state": "done", "ended_by": by, "note": "fire drill" }));
        assert!(loss(&ended("teacher")).ends_with(" was ended: fire drill"), "{}", loss(&ended("teacher")));
        let day = 1_795_474_800 + Booking::TOLD;
        assert!(ended("teacher").is_lost(Epoch(day - 1)) && !ended("teacher").is_lost(Epoch(day)));
        assert!(!ended("holder").is_lost(Epoch(0)), "given back by its holder");
        let dirty = booking(&json!({ "state": "quarantined" }));
        assert!(dirty.is_lost(Epoch(0)) && loss(&dirty).ends_with(" ended, its server is quarantined"));
    }

    #[test]
    fn an_offer_to_somebody_else_is_not_for_who_reads_it() {
        let b = booking(&json!({ "state": "offered", "offer_until": 1_795_467_000, "person": "eve" }));
        let said = remark(&b, &"amy".parse().unwrap()).unwrap();
        assert!(said.starts_with("b7k2: offered to eve until ") && !said.contains("accept"), "{said}");
    }
}

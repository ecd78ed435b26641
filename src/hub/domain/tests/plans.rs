use proptest::prelude::*;

use super::*;
use crate::profile::Layout;

const NOW: &str = "2026-11-23T07:00:00Z";

fn ask() -> Ask<'static> {
    let within = window("2026-11-23T08:00:00Z", "2026-11-23T20:00:00Z");
    Ask { layout: Layout::SHIPPED[0], length: 3600, within, labs: &[], apart: &[] }
}

fn student(login: &str, used: i64, hours: &[i64]) -> Student {
    let start = at("2026-11-23T00:00:00Z");
    let wish = |h: &i64| Wish { within: Window { starts: start + h * 3600, ends: start + (h + 1) * 3600 } };
    Student {
        person: login.parse().unwrap(),
        wishes: hours.iter().map(wish).collect(),
        used,
        taken: vec![],
        has: vec![],
        room: None,
        labs: vec![],
    }
}

fn grounds() -> Vec<Ground> {
    vec![ground(server("a", Mode::Exclusive, 8, 32)), ground(server("b", Mode::Exclusive, 8, 32))]
}

fn plan(students: &[Student], slots: u32) -> ClassPlan {
    plan_class(&grounds(), &Policy::default(), at(NOW), students, ask(), slots)
}

#[test]
fn the_plan_says_who_got_what_and_why() {
    let table = plan(
        &[student("amy", 7200, &[9]), student("bob", 0, &[9]), student("cem", 0, &[9, 12]), student("dan", 3600, &[])],
        1,
    );
    let rows: Vec<String> = table
        .rows
        .iter()
        .map(|r| {
            let given = r.given.as_ref().unwrap();
            format!("{} {} {} {}", r.person, given.server, given.window.starts, r.why)
        })
        .collect();
    assert_eq!(
        rows,
        [
            "bob a 2026-11-23T09:00:00Z had 0.0 h before; wish 1 was free",
            "cem b 2026-11-23T09:00:00Z had 0.0 h before; wish 1 was free",
            "dan a 2026-11-23T10:30:00Z had 1.0 h before; no wishes: the next free slot",
            "amy b 2026-11-23T10:30:00Z had 2.0 h before; none of 1 wishes was free: the next free slot",
        ]
    );
    assert_eq!((table.given, table.wished), (4, 2));
}

#[test]
fn a_wish_without_room_for_a_slot_is_not_called_taken() {
    let noon = window("2026-11-23T12:00:00Z", "2026-11-23T14:00:00Z");
    let late = window("2026-11-23T19:00:00Z", "2026-11-23T23:00:00Z");
    let wishing = |login: &str, used: i64, hours: &[i64], more: Window| {
        let mut student = student(login, used, hours);
        student.wishes.push(Wish { within: more });
        student
    };
    let students = [
        wishing("amy", 0, &[], noon),
        wishing("bob", 3600, &[9], noon),
        wishing("cem", 7200, &[9], noon),
        // Of the plan's time it has an hour.
        wishing("dan", 10_800, &[9], late),
    ];
    let table = plan_class(&grounds(), &Policy::default(), at(NOW), &students, Ask { length: 7200, ..ask() }, 1);
    assert_eq!(
        table.rows.iter().map(|r| format!("{} {}", r.person, r.why)).collect::<Vec<_>>(),
        [
            "amy had 0.0 h before; wish 1 was free",
            "bob had 1.0 h before; wish 2 was free, 1 better wishes were taken, closed or too short",
            "cem had 2.0 h before; none of 2 wishes was free, 1 of them without room for 120 minutes: the next free slot",
            "dan had 3.0 h before; none of 2 wishes has room for 120 minutes: the next free slot",
        ]
    );
}

#[test]
fn that_no_server_is_in_use_is_told() {
    let whys = |grounds: &[Ground]| {
        let within = window("2026-11-23T09:00:00Z", "2026-11-23T10:00:00Z");
        let students = [student("amy", 0, &[]), student("bob", 0, &[9])];
        let table = plan_class(grounds, &Policy::default(), at(NOW), &students, Ask { within, ..ask() }, 1);
        table.rows.into_iter().map(|r| format!("{} {}", r.person, r.why)).collect::<Vec<_>>()
    };
    let mut grounds = grounds();
    grounds[0].server.health = Health::Away;
    assert_eq!(
        whys(&grounds),
        ["bob had 0.0 h before; wish 1 was free", "amy had 0.0 h before; no wishes, and no slot is left"]
    );
    grounds[1].server.health = Health::Quarantined;
    assert_eq!(
        whys(&grounds),
        [
            "amy had 0.0 h before; no wishes, and all servers are out of use",
            "bob had 0.0 h before; none of 1 wishes was free, and all servers are out of use",
        ]
    );
}

#[test]
fn of_two_servers_that_are_free_the_one_with_the_saved_lab_is_given() {
    let mut amy = student("amy", 0, &[9]);
    let (server, layout) = ("b".parse().unwrap(), Layout::SHIPPED[0]);
    amy.labs = vec![SavedLab { server, person: amy.person.clone(), name: "gate-amy".into(), layout, since: Epoch(1) }];
    let table = plan(&[amy, student("bob", 0, &[9])], 1);
    let row = |r: &ClassRow| format!("{} {} {}", r.person, r.given.as_ref().unwrap().server, r.why);
    assert_eq!(
        table.rows.iter().map(row).collect::<Vec<_>>(),
        [
            "amy b had 0.0 h before; wish 1 was free; it begins with the saved lab",
            "bob a had 0.0 h before; wish 1 was free"
        ]
    );
}

#[test]
fn who_has_a_slot_gets_what_is_missing_and_nobody_more_than_allowed() {
    let mut amy = student("amy", 0, &[9]);
    let window = window("2026-11-23T14:00:00Z", "2026-11-23T15:00:00Z");
    (amy.has, amy.taken) = (vec![Free { server: "b".parse().unwrap(), window, lab: None, limit: None }], vec![window]);
    let mut bob = student("bob", 0, &[9]);
    bob.room = Some(1);
    let table = plan(&[amy, bob], 2);
    let row = |r: &ClassRow| format!("{} {} {} {}", r.round, r.person, r.given.is_some(), r.why);
    assert_eq!(
        table.rows.iter().map(row).collect::<Vec<_>>(),
        [
            "1 amy false has this slot already",
            "1 bob true had 0.0 h before; wish 1 was free",
            "2 amy true had 1.0 h before; wish 1 was free",
            "2 bob false has as many bookings ahead as are allowed, 3",
        ]
    );
    assert_eq!((table.rows[0].has.as_ref().map(|has| has.window), table.given), (Some(window), 2));
}

#[test]
fn nobody_gets_a_second_slot_before_everybody_had_a_first() {
    let students: Vec<Student> = ["amy", "bob", "cem", "dan", "eve"].iter().map(|n| student(n, 0, &[8, 9])).collect();
    let table = plan(&students, 3);
    assert_eq!(table.rows.len(), 15);
    for round in 1..=3 {
        let mut logins: Vec<&str> = table.rows.iter().filter(|r| r.round == round).map(|r| r.person.as_str()).collect();
        logins.sort_unstable();
        assert_eq!(logins, ["amy", "bob", "cem", "dan", "eve"]);
    }
}

#[test]
fn a_plan_of_an_older_hub_has_no_stamp() {
    let plan = plan(&[student("amy", 0, &[9])], 1);
    let mut told = serde_json::to_value(&plan).unwrap();
    assert!(!told.as_object_mut().unwrap().remove("stamp").unwrap().as_str().unwrap().is_empty());
    assert_eq!(serde_json::from_value::<ClassPlan>(told).unwrap(), ClassPlan { stamp: String::new(), ..plan });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_input_changes_nothing_and_slots_are_apart(
        wishes in prop::collection::vec((0i64..20, prop::collection::vec(8i64..20, 0..4)), 1..8), seed in any::<u64>(),
    ) {
        let students: Vec<Student> = wishes.iter().enumerate().map(|(n, (used, hours))| student(&format!("s{n}"), used * 600, hours)).collect();
        let first = plan(&students, 2);
        let mut turned = students.clone();
        turned.rotate_left((seed % students.len() as u64) as usize);
        let mut others = grounds();
        others.reverse();
        let second = plan_class(&others, &Policy::default(), at(NOW), &turned, ask(), 2);
        prop_assert_eq!(&first, &second);

        let given: Vec<_> = first.rows.iter().filter_map(|r| Some((&r.person, r.given.as_ref()?))).collect();
        for (n, (person, a)) in given.iter().enumerate() {
            prop_assert!(ask().within.covers(a.window));
            for (other, b) in &given[..n] {
                let busy = |g: &Given| g.window.longer(600);
                prop_assert!(a.server != b.server || !busy(a).overlaps(busy(b)));
                prop_assert!(person != other || !a.window.overlaps(b.window));
            }
        }
    }
}

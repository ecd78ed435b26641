//! What a class plan says of why somebody gets a slot, in Chinese.

use std::collections::BTreeSet;

use super::*;

/// Somebody who would like an hour at each of these hours of the day.
fn student(login: &str, used: i64, hours: &[i64]) -> Student {
    let person = login.parse().unwrap();
    let wishes = hours.iter().map(|hour| wish(*hour, *hour + 1)).collect();
    Student { person, wishes, used, taken: vec![], has: vec![], room: None, labs: vec![] }
}

fn wish(from: i64, to: i64) -> Wish {
    Wish { within: hours(from, to) }
}

fn hours(from: i64, to: i64) -> Window {
    let midnight = at("2026-11-23T00:00:00Z");
    Window { starts: midnight + from * 3600, ends: midnight + to * 3600 }
}

fn lab(server: &str, layout: &str) -> SavedLab {
    let (server, person, layout) = (server.parse().unwrap(), "amy".parse().unwrap(), layout.parse().unwrap());
    SavedLab { server, person, name: "gate-amy".into(), layout, since: Epoch(1) }
}

fn plan(servers: &[Server], students: &[Student], length: i64, within: Window) -> Vec<ClassRow> {
    let ground = |server: &Server| Ground { server: server.clone(), held: Calendar::default(), closed: vec![] };
    let grounds: Vec<Ground> = servers.iter().map(ground).collect();
    let ask = Ask { layout: "1x4c12g".parse().unwrap(), length, within, labs: &[], apart: &[] };
    plan_class(&grounds, &Policy::default(), at("2026-11-23T07:00:00Z"), students, ask, 2).rows
}

/// Plans in which every kind of reason is given.
fn rows() -> Vec<ClassRow> {
    let (one, two, day) = (server("one"), server("two"), hours(8, 20));
    let away = Server { health: Health::Away, ..server("one") };
    let held = Free { server: one.id.clone(), window: hours(14, 15), lab: None, limit: None };
    let has = Student { has: vec![held], taken: vec![hours(14, 15)], ..student("amy", 0, &[]) };
    let full = Student { room: Some(1), ..student("bob", 0, &[9]) };
    let later = [student("cem", 3600, &[9, 12]), student("dan", 7200, &[]), student("eve", 10_800, &[9])];
    let long = |login: &str, used, short: &[i64], wished: Wish| {
        let mut student = student(login, used, short);
        student.wishes.push(wished);
        student
    };
    let noon = [long("amy", 0, &[], wish(12, 14)), long("bob", 3600, &[9], wish(12, 14))];
    let none = [long("cem", 7200, &[9], wish(12, 14)), long("dan", 10_800, &[9], wish(19, 23))];
    let kept = |login: &str, labs: SavedLab| Student { labs: vec![labs], ..student(login, 0, &[]) };
    let labs =
        [kept("amy", lab("one", "1x4c12g")), kept("bob", lab("one", "2x4c8g")), kept("cem", lab("far", "1x4c12g"))];
    let one = std::slice::from_ref(&one);
    [
        plan(one, &[&[has, full][..], &later[..]].concat(), 3600, day),
        plan(&[one[0].clone(), two], &[noon, none].concat(), 7200, day),
        plan(one, &labs, 3600, day),
        plan(one, &[student("amy", 0, &[]), student("bob", 0, &[9])], 3600, hours(9, 10)),
        plan(&[away], &[student("amy", 0, &[])], 3600, day),
    ]
    .concat()
}

#[test]
fn why_a_plan_gives_a_slot_is_told_in_chinese() {
    let clock = civil("UTC", Lang::Zh);
    let mut told = String::new();
    for row in rows() {
        for piece in class::line(&row, &clock).why {
            assert!(!piece.foreign, "{}", row.why);
            told += &piece.text;
        }
        told.push('\n');
    }
    let words = told.split(|c: char| !c.is_ascii_alphanumeric());
    let words: BTreeSet<&str> = words.filter(|word| word.contains(|c: char| c.is_ascii_alphabetic())).collect();
    assert_eq!(words, BTreeSet::from(["2x4c8g", "far"]), "only a layout and a server: {told}");
    for (en, zh) in refusals::catalogue("words/zh-reasons.txt") {
        assert!(zh.split(['{', '}']).step_by(2).all(|text| told.contains(text)), "no plan says: {en}\n{told}");
    }
}

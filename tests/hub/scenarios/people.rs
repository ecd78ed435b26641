//! Who may do what, and that somebody always may.

use std::{fs, process::Command};

use kubecamp::{
    core::{Code, Secret},
    hub::{
        desk::{Caller, Desk, NewPerson, Roster},
        domain::{Policy, Role},
        gate::HubKey,
        store::TokenKind,
    },
};

use crate::hub::{
    camp::key_pair,
    world::{NOW, at, book, camp, healthy, who},
};

fn admin(login: &str) -> NewPerson {
    let id = login.parse().unwrap();
    NewPerson { id, name: login.into(), role: Role::Admin, active: None, zone: None, keys: vec![] }
}

pub async fn the_last_admin_stays(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let console = Caller::Console;
    let ann = desk.put_person(&console, NOW, &admin("ann"), None).await.unwrap();
    let own = Caller::Person { id: ann.id.clone(), role: Role::Admin };
    let student = NewPerson { role: Role::Student, ..admin("ann") };
    let gone = NewPerson { active: Some(false), ..admin("ann") };
    for caller in [&own, &console] {
        for change in [&student, &gone] {
            let problem = desk.put_person(caller, NOW, change, Some(1)).await.unwrap_err();
            assert_eq!(problem.code, Code::HubDenied, "{problem}");
            assert!(problem.what.contains("last active admin") && !problem.hints.is_empty(), "{problem}");
        }
    }
    assert_eq!(desk.person(&own, NOW, &ann.id).await.unwrap(), ann, "nothing was changed");
    let named = NewPerson { name: "Ann".into(), ..admin("ann") };
    assert_eq!(desk.put_person(&own, NOW, &named, Some(1)).await.unwrap().name, "Ann");
    // One who is out is no other admin.
    let out = NewPerson { active: Some(false), ..admin("bea") };
    desk.put_person(&console, NOW, &out, None).await.unwrap();
    assert_eq!(desk.put_person(&own, NOW, &student, Some(2)).await.unwrap_err().code, Code::HubDenied);
    desk.put_person(&console, NOW, &admin("bea"), Some(1)).await.unwrap();
    assert_eq!(desk.put_person(&own, NOW, &student, Some(2)).await.unwrap().role, Role::Student);
    assert_eq!(desk.put_person(&console, NOW, &out, Some(2)).await.unwrap_err().code, Code::HubDenied);
    healthy(&desk).await;
}

pub async fn who_is_added_twice_under_one_key_keeps_what_they_hold(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let console = Caller::Console;
    let eve = NewPerson { role: Role::Student, active: Some(false), ..admin("eve") };
    let added = desk.add_person(&console, NOW, Some("k"), &eve).await.unwrap();
    desk.put_person(&console, NOW, &NewPerson { active: None, ..eve.clone() }, Some(1)).await.unwrap();
    desk.set_member(&console, NOW, &eve.id, &"red".parse().unwrap(), true).await.unwrap();
    let booked = book(&desk, "eve", 60, 120).await;
    assert_eq!(desk.add_person(&console, NOW, Some("k"), &eve).await.unwrap(), added);
    assert_eq!(desk.booking(&who("eve"), NOW, &booked.id).await.unwrap(), booked, "a repeat changes nothing");
    healthy(&desk).await;
}

pub async fn who_joins_another_group_of_a_course_leaves_the_one_before(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let (console, amy) = (Caller::Console, "amy".parse().unwrap());
    let net = "net".parse().unwrap();
    desk.put_course(&console, NOW, &net, "Networks", &Policy::default(), None).await.unwrap();
    desk.put_group(&console, NOW, &"lan".parse().unwrap(), &net).await.unwrap();
    for (group, wanted) in [("lan", "lan,red"), ("blue", "blue,lan"), ("blue", "blue,lan"), ("red", "lan,red")] {
        desk.set_member(&console, NOW, &amy, &group.parse().unwrap(), true).await.unwrap();
        let groups = desk.person(&console, NOW, &amy).await.unwrap().groups;
        assert_eq!(groups.iter().map(|g| g.as_str()).collect::<Vec<_>>().join(","), wanted, "{group}");
    }
    healthy(&desk).await;
}

pub async fn who_takes_a_key_away_ends_what_it_signed_in(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let (amy, folder) = (who("amy"), tempfile::tempdir().unwrap());
    let (key, lost) = key_pair(folder.path(), "key");
    let text = folder.path().join("text");
    let kept = HubKey::generate("desk").unwrap().public_line().unwrap();
    desk.set_own_keys(&amy, NOW, std::slice::from_ref(&lost), None, None).await.unwrap();
    let challenge = desk.challenge(NOW, &"amy".parse().unwrap(), None).await.unwrap();
    fs::write(&text, &challenge.text).unwrap();
    let sign = ["-Y", "sign", "-n", "kubecamp-login", "-f"];
    assert!(Command::new("ssh-keygen").args(sign).arg(&key).arg(&text).output().unwrap().status.success());
    let signed = fs::read_to_string(text.with_extension("sig")).unwrap();
    let by_key = desk.answer(NOW, &challenge.text, &signed, "laptop", "192.0.2.1").await.unwrap().text;
    let script = desk.make_token(&amy, NOW, TokenKind::Api, "script").await.unwrap().text;
    let link = desk.make_link(&who("tea"), NOW, &"amy".parse().unwrap()).await.unwrap();
    let session = desk.use_link(NOW, &link.text, "browser").await.unwrap().text;
    let good = async |token: &Secret| match desk.caller_of(at(1), token).await {
        Ok(caller) => caller == amy,
        Err(problem) if problem.code == Code::HubSignIn => false,
        Err(problem) => panic!("{problem}"),
    };

    let called_anew = format!("{} anew", lost.trim());
    desk.set_own_keys(&amy, NOW, &[lost, kept.clone()], None, Some(&session)).await.unwrap();
    assert!(good(&by_key).await && good(&script).await, "one more key ends nothing");
    desk.set_own_keys(&amy, NOW, &[called_anew, kept.clone()], None, Some(&session)).await.unwrap();
    assert!(good(&by_key).await && good(&script).await, "nor does another comment");
    desk.set_own_keys(&amy, NOW, std::slice::from_ref(&kept), None, Some(&session)).await.unwrap();
    assert!(!good(&by_key).await && !good(&script).await && good(&session).await);
    let audit = desk.audit(&Caller::Console, NOW, None, None, 1000).await.unwrap();
    let ended: Vec<_> = audit.iter().filter(|row| row.action == "token.revoke").collect();
    assert_eq!(ended.len(), 2);
    assert!(ended.iter().all(|row| row.reason.as_deref() == Some("an SSH key was removed")), "{ended:?}");

    let (own, other) = (
        desk.make_token(&amy, NOW, TokenKind::Api, "own").await.unwrap().text,
        desk.make_token(&amy, NOW, TokenKind::Api, "other").await.unwrap().text,
    );
    desk.set_own_keys(&amy, NOW, &[], None, Some(&own)).await.unwrap();
    assert!(good(&own).await && !good(&other).await, "by which it was asked for stays");
    // What was asked for by a token that ended while its request was read brings nothing of it back.
    for kind in [TokenKind::Api, TokenKind::Feed] {
        let late = desk.make_token_with(&amy, NOW, kind, "late", &other).await.unwrap_err();
        assert_eq!(late.code, Code::HubSignIn, "{kind:?}");
    }
    let late = desk.set_own_keys(&amy, NOW, std::slice::from_ref(&kept), None, Some(&other)).await.unwrap_err();
    assert_eq!((late.code, desk.tokens(&amy, NOW, &"amy".parse().unwrap()).await.unwrap().len()), (Code::HubSignIn, 2));
    let third = desk.make_token_with(&amy, NOW, TokenKind::Api, "third", &own).await.unwrap().text;
    assert!(good(&third).await);
    let there = desk.set_own_keys(&amy, NOW, &[kept], None, Some(&own)).await.unwrap();
    let row = NewPerson { id: there.id, name: there.name, role: there.role, active: None, zone: None, keys: vec![] };
    desk.put_person(&who("tea"), NOW, &row, Some(there.version)).await.unwrap();
    assert!(!good(&own).await && good(&session).await, "a teacher takes keys away too");
    healthy(&desk).await;
}

/// A teacher's token that is good, and one of theirs that ended while what they asked for by it was read.
async fn good_and_ended(desk: &Desk) -> (Secret, Secret) {
    camp(desk, &Policy::default()).await;
    let tea = who("tea");
    let good = desk.make_token(&tea, NOW, TokenKind::Api, "good").await.unwrap().text;
    let ended = desk.make_token(&tea, NOW, TokenKind::Api, "ended").await.unwrap().text;
    desk.sign_out(&tea, NOW, &ended).await.unwrap();
    (good, ended)
}

fn with_a_key(login: &str) -> NewPerson {
    let key = HubKey::generate("desk").unwrap().public_line().unwrap();
    NewPerson { role: Role::Student, keys: vec![key], ..admin(login) }
}

pub async fn a_sign_in_that_has_ended_changes_nobody(desk: Desk) {
    let (good, ended) = good_and_ended(&desk).await;
    let (tea, amy) = (who("tea"), with_a_key("amy"));
    let before = desk.person(&tea, NOW, &amy.id).await.unwrap();
    let late = desk.put_person_with(&tea, NOW, &amy, Some(before.version), &ended).await.unwrap_err();
    assert_eq!((late.code, desk.person(&tea, NOW, &amy.id).await.unwrap()), (Code::HubSignIn, before.clone()));
    let after = desk.put_person_with(&tea, NOW, &amy, Some(before.version), &good).await.unwrap();
    assert_eq!(after.keys.len(), 1);
    healthy(&desk).await;
}

pub async fn a_sign_in_that_has_ended_adds_nobody(desk: Desk) {
    let (good, ended) = good_and_ended(&desk).await;
    let (tea, eve) = (who("tea"), with_a_key("eve"));
    for key in [None, Some("k")] {
        let late = desk.add_person_with(&tea, NOW, key, &eve, &ended).await.unwrap_err();
        assert_eq!(late.code, Code::HubSignIn, "{key:?}");
    }
    assert_eq!(desk.person(&tea, NOW, &eve.id).await.unwrap_err().code, Code::HubUnknown);
    assert_eq!(desk.add_person_with(&tea, NOW, Some("k"), &eve, &good).await.unwrap().keys.len(), 1);
    healthy(&desk).await;
}

pub async fn a_sign_in_that_has_ended_imports_no_roster(desk: Desk) {
    let (good, ended) = good_and_ended(&desk).await;
    let (tea, course, key) = (who("tea"), "k8s".parse().unwrap(), with_a_key("amy").keys.remove(0));
    let text = format!("amy,AMY,red,UTC,{key}\neve,Eve,red\n");
    let roster = Roster { course: &course, file: "r", text: &text };
    let before = desk.people(&tea, NOW).await.unwrap();
    let late = desk.import_roster(&tea, NOW, None, roster, Some(&ended)).await.unwrap_err();
    assert_eq!(late.iter().next().unwrap().code, Code::HubSignIn);
    assert_eq!(desk.people(&tea, NOW).await.unwrap(), before);
    let done = desk.import_roster(&tea, NOW, None, roster, Some(&good)).await.unwrap();
    assert_eq!((done.added, done.changed), (1, 1));
    healthy(&desk).await;
}

pub async fn a_sign_in_that_has_ended_makes_no_link(desk: Desk) {
    let (good, ended) = good_and_ended(&desk).await;
    let (tea, amy) = (who("tea"), "amy".parse().unwrap());
    let late = desk.make_link_with(&tea, NOW, &amy, &ended).await.unwrap_err();
    assert_eq!(late.code, Code::HubSignIn);
    let link = desk.make_link_with(&tea, NOW, &amy, &good).await.unwrap();
    assert!(desk.use_link(NOW, &link.text, "browser").await.is_ok());
    healthy(&desk).await;
}

pub async fn of_too_many_tokens_the_one_ends_that_was_out_of_use_longest(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let (amy, mut made) = (who("amy"), vec![]);
    for minute in 0..50 {
        made.push(desk.make_token(&amy, at(minute), TokenKind::Api, "script").await.unwrap());
    }
    let feed = desk.make_token(&amy, NOW, TokenKind::Feed, "calendar").await.unwrap();
    assert_eq!(desk.caller_of(at(50), &made[0].text).await.unwrap(), amy);
    let last = desk.make_token(&amy, at(51), TokenKind::Api, "script").await.unwrap();
    assert_eq!(desk.caller_of(at(51), &made[1].text).await.unwrap_err().code, Code::HubSignIn);
    for kept in [&made[0], &made[2], &last] {
        assert_eq!(desk.caller_of(at(51), &kept.text).await.unwrap(), amy);
    }
    let tokens = desk.tokens(&amy, at(51), &"amy".parse().unwrap()).await.unwrap();
    assert_eq!(tokens.iter().filter(|row| row.kind == TokenKind::Api).count(), 50);
    assert!(tokens.iter().any(|row| row.id == feed.row.id), "others do not count");
    let audit = desk.audit(&Caller::Console, NOW, None, None, 1000).await.unwrap();
    let ended: Vec<_> = audit.iter().filter(|row| row.action == "token.revoke").map(|row| &row.subject).collect();
    assert_eq!(ended, [&format!("token:{}", made[1].row.id)]);
    healthy(&desk).await;
}

pub async fn of_several_links_for_somebody_the_last_one_counts(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let (amy, bob) = ("amy".parse().unwrap(), "bob".parse().unwrap());
    let used = desk.make_link(&who("tea"), NOW, &amy).await.unwrap();
    let session = desk.use_link(NOW, &used.text, "browser").await.unwrap().text;
    let astray = desk.make_link(&who("tea"), at(1), &amy).await.unwrap();
    let of_bob = desk.make_link(&who("tea"), at(1), &bob).await.unwrap();
    let last = desk.make_link(&who("tea"), at(2), &amy).await.unwrap();
    assert_eq!(desk.use_link(at(3), &astray.text, "browser").await.unwrap_err().code, Code::HubSignIn);
    for link in [&of_bob, &last] {
        desk.use_link(at(3), &link.text, "browser").await.unwrap();
    }
    assert_eq!(desk.caller_of(at(3), &session).await.unwrap(), who("amy"), "who is signed in stays so");
    let audit = desk.audit(&Caller::Console, at(3), None, None, 1000).await.unwrap();
    let ended: Vec<_> = audit.iter().filter(|row| row.action == "token.revoke").collect();
    assert_eq!(ended.len(), 1, "what was used or has expired does not end once more: {ended:?}");
    assert_eq!(ended[0].subject, format!("token:{}", astray.row.id));
    assert_eq!(ended[0].reason.as_deref(), Some("a newer link was made"));
    healthy(&desk).await;
}

pub async fn nobody_is_called_as_what_every_server_has(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    for name in ["root", "crontabs", "atjobs", "tabs"] {
        let new = NewPerson { role: Role::Student, ..admin(name) };
        assert_eq!(desk.put_person(&Caller::Console, NOW, &new, None).await.unwrap_err().code, Code::HubInvalid);
    }
    healthy(&desk).await;
}

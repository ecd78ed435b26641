//! Who may do what, and that somebody always may.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, NewPerson},
        domain::{Policy, Role},
    },
};

use crate::hub::world::{NOW, book, camp, healthy, who};

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

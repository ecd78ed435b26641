//! Forms: what they keep, and what becomes of one that lacks something or says something else.

use kubecamp::hub::{
    desk::{Caller, NewPerson, NewServer},
    domain::{Mode, Policy, Role},
    gate::HubKey,
    store::Listing,
};
use reqwest::{Method, StatusCode, header};

use crate::hub::{
    browser::{Browser, field},
    served::Hub,
    world::{NOW, book, healthy, new_server},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_on_a_page_of_ours() {
    let hub = Hub::start().await;
    let tea = Browser::sign_in(&hub, "tea").await;
    for (path, status) in [
        ("/teacher/audit?page=x", 422),
        ("/?from=1&from=2", 422),
        ("/settings?lang=en&lang=zh", 422),
        ("/settings?zone=Mars/Base", 422),
        ("/booking/%ff", 404),
        ("/booking/none", 404),
        ("/assets/none", 404),
        ("/?from=%00", 400),
    ] {
        let answer = tea.ask(Method::GET, path).header(header::ACCEPT_LANGUAGE, "zh").send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("<html lang=\"zh-Hans\">") && text.contains("KC-HUB-"), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_form_lacks_is_told_in_chinese_too() {
    let hub = Hub::start().await;
    let id = book(&hub.desk, "amy", 60, 120).await.id;
    let amy = Browser::sign_in(&hub, "amy").await;
    let amy = Browser { cookie: format!("{}; kubecamp_lang=zh", amy.cookie), ..amy };
    let given = amy.post(&format!("/booking/{id}/give"), &[("to", " ")]).await;
    assert_eq!(given.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let text = given.text().await.unwrap();
    assert!(text.contains("请说明转让给谁") && !text.contains("is not a"), "{text}");
    let key = amy.post(&format!("/booking/{id}/certificate"), &[("key", "ssh-ed25519 AAAA")]).await;
    let text = key.text().await.unwrap();
    assert!(text.contains("这不是 OpenSSH 公钥") && !text.contains("invalid"), "{text}");
    let nowhere = amy.ask(Method::GET, "/settings?zone=Mars/Base").send().await.unwrap();
    let text = nowhere.text().await.unwrap();
    assert!(text.contains("没有名为 Mars/Base 的时区"), "{text}");
    let kept = amy.ask(Method::GET, "/settings?zone=Europe/Berlin").send().await.unwrap();
    assert_eq!(kept.status(), StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_by_a_form() {
    let hub = Hub::start().await;
    let amy = Browser::sign_in(&hub, "amy").await;
    let version = field(&amy.page("/keys").await, "version");
    let key = HubKey::generate("x").unwrap().public_line().unwrap();
    let lines = format!("\r\n{key}\r\n\r\n");
    let saved = amy.post("/keys", &[("keys", lines.as_str()), ("version", version.as_str())]).await;
    assert_eq!(saved.status(), StatusCode::SEE_OTHER);
    let shown = amy.page("/keys").await;
    assert!(shown.contains(key.split(' ').nth(1).unwrap()), "{shown}");
    let stale = amy.post("/keys", &[("keys", ""), ("version", version.as_str())]).await;
    assert_eq!(stale.status(), StatusCode::CONFLICT);
    let wrong = amy.post("/keys", &[("keys", "ssh-rsa <b>x</b>")]).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let text = wrong.text().await.unwrap();
    assert!(text.contains("KC-HUB-INVALID") && text.contains("&lt;b&gt;") && !text.contains("<b>x"), "{text}");
    let forged = amy.send("/keys", &[("keys", "")]).await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_is_told_by_the_viewers_clock() {
    let hub = Hub::start().await;
    let (id, zone) = ("eve".parse().unwrap(), "Europe/Berlin".parse().ok());
    let eve = NewPerson { id, name: "Eve".into(), role: Role::Student, active: None, zone, keys: vec![] };
    hub.desk.put_person(&Caller::Console, NOW, &eve, None).await.unwrap();
    hub.desk.set_member(&Caller::Console, NOW, &eve.id, &"red".parse().unwrap(), true).await.unwrap();
    let slot = book(&hub.desk, "eve", 60, 120).await;
    let (form, ends) = (format!("/booking/{}/extend", slot.id), slot.window.ends.0.to_string());
    let own = Browser::sign_in(&hub, "eve").await;
    let cookie = format!("{}; kubecamp_zone=Asia/Shanghai", own.cookie);
    let abroad = Browser { hub: &hub, cookie, csrf: own.csrf.clone() };
    for (viewer, time) in [(&own, "11:00"), (&abroad, "18:00")] {
        let refused = viewer.post(&form, &[("ends", ends.as_str())]).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let text = refused.text().await.unwrap();
        assert!(text.contains(&format!("2026-11-23 {time} is not after 2026-11-23 {time} (")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_two_courses_chooses_one() {
    let hub = Hub::start().await;
    let (console, net) = (Caller::Console, "net".parse().unwrap());
    hub.desk.put_course(&console, NOW, &net, "Networks", &Policy::default(), None).await.unwrap();
    hub.desk.put_group(&console, NOW, &"lan".parse().unwrap(), &net).await.unwrap();
    hub.desk.set_member(&console, NOW, &"amy".parse().unwrap(), &"lan".parse().unwrap(), true).await.unwrap();
    let own = NewServer { course: Some(net.clone()), ..new_server("lab", Mode::Exclusive, 8, 32) };
    hub.desk.put_server(&console, NOW, &own, None).await.unwrap();
    let (amy, bob) = (Browser::sign_in(&hub, "amy").await, Browser::sign_in(&hub, "bob").await);
    assert!(!bob.page("/").await.contains("name=\"course\""), "one course is no choice");
    // The first group of cem is of the course with more hours; he meets the limit of the other one first.
    hub.desk.put_group(&console, NOW, &"wan".parse().unwrap(), &net).await.unwrap();
    hub.desk.set_member(&console, NOW, &"cem".parse().unwrap(), &"wan".parse().unwrap(), true).await.unwrap();
    let used = Browser::sign_in(&hub, "tea").await.page("/teacher").await;
    let of_cem = used.split("aria-label=\"cem ").next().unwrap().rsplit("<meter").next().unwrap();
    assert!(of_cem.contains("max=\"12\""), "{of_cem}");
    let shown = amy.page("/").await;
    assert!(shown.contains("<label for=\"f-course\">Course</label>"), "{shown}");
    // Her first group by name is of this one.
    let option = |id: &str, rest: &str| format!("<option value=\"{id}\" data-grid=\"30\" data-step=\"1800\"{rest}");
    let (net, k8s) = (&option("net", " selected>Networks"), &option("k8s", " selected>Kubernetes"));
    assert!(shown.contains(net) && shown.contains(&option("k8s", ">")), "{shown}");
    assert!(amy.page("/?server=lab&at=1795510800").await.contains(net));
    assert!(shown.contains("<option value=\"lab\" data-course=\"net\">"), "{shown}");
    let fields = |act: &'static str, server: &'static str, course: &'static str| {
        let time = [("start", "2026-11-24T14:00"), ("end", "2026-11-24T15:00"), ("layout", "1x4c12g")];
        [("server", server), ("course", course), ("act", act), time[0], time[1], time[2]]
    };
    let unsaid = amy.post("/book", &fields("book", "lab", "")).await;
    assert_eq!(unsaid.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(bob.post("/book", &fields("book", "one", "")).await.status(), StatusCode::SEE_OTHER);
    // A conflict's other slots and its form keep the course.
    let taken = amy.post("/book", &fields("book", "one", "k8s")).await;
    assert_eq!(taken.status(), StatusCode::CONFLICT);
    let taken = taken.text().await.unwrap();
    assert_eq!(taken.matches("name=\"course\" value=\"k8s\"").count(), 3, "{taken}");
    assert!(taken.contains(k8s), "{taken}");
    assert!(taken.contains("server one is taken at 2026-11-24 14:00–15:00 (UTC)"), "by the viewer's clock: {taken}");
    assert_eq!(amy.post("/book", &fields("wait", "one", "k8s")).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(amy.post("/book", &fields("book", "lab", "net")).await.status(), StatusCode::SEE_OTHER);
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_does_something_unknown_books_nothing() {
    let hub = Hub::start().await;
    let amy = Browser::sign_in(&hub, "amy").await;
    let form = |act: &'static str| {
        [("server", "one"), ("start", "2026-11-24T14:00"), ("end", "2026-11-24T15:00"), ("act", act)]
    };
    for act in ["bad", "Book", "book "] {
        let refused = amy.post("/book", &form(act)).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{act}");
        let text = refused.text().await.unwrap();
        assert!(text.contains("KC-HUB-INVALID") && text.contains("value=\"2026-11-24T14:00\""), "{act}: {text}");
    }
    assert!(hub.desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap().is_empty());
    assert_eq!(amy.post("/book", &form("")).await.status(), StatusCode::SEE_OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_advises_is_no_command() {
    let hub = Hub::start().await;
    let amy = Browser::sign_in(&hub, "amy").await;
    let zh = Browser { cookie: format!("{}; kubecamp_lang=zh", amy.cookie), csrf: amy.csrf.clone(), hub: &hub };
    let form = [("server", "one"), ("start", "2026-11-24T14:00"), ("end", "2026-11-24T15:00"), ("act", "wait")];
    for (viewer, advice) in [(&amy, "<li>Nobody needs to wait for it.</li>"), (&zh, "<li>无需候补。</li>")] {
        let text = viewer.post("/book", &form).await.text().await.unwrap();
        assert!(text.contains("KC-BOOK-STATE") && text.contains(advice), "{text}");
        assert!(!text.contains("kubecamp book"), "{text}");
    }
}

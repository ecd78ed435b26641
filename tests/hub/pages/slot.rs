//! The page of a slot, and what the first page tells of slots.

use kubecamp::hub::{
    desk::{Caller, Edit, NewPerson},
    domain::State,
    gate::HubKey,
    store::Listing,
};
use reqwest::{Method, StatusCode, header};
use russh::keys::{Certificate, HashAlg, PublicKey};

use crate::hub::{
    browser::{Browser, field},
    served::Hub,
    world::{NOW, at, because, book, clerk, healthy, weekly, who, wish},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_from_its_holder_stands_on_the_first_page() {
    let hub = Hub::start().await;
    let (own, taken) = (book(&hub.desk, "amy", 60, 120).await, book(&hub.desk, "amy", 180, 240).await);
    hub.desk.cancel(&who("amy"), NOW, None, &own.id, &because("I am ill")).await.unwrap();
    hub.desk.cancel(&who("tea"), NOW, None, &taken.id, &because("fire drill")).await.unwrap();
    let amy = Browser::sign_in(&hub, "amy").await;
    let page = amy.page("/").await;
    assert!(page.contains("No longer yours") && page.contains("cancelled: fire drill"), "{page}");
    assert!(page.contains(&format!("/booking/{}", taken.id)) && !page.contains(own.id.as_str()), "{page}");
    let tea = Browser::sign_in(&hub, "tea").await;
    assert!(!tea.page("/").await.contains("No longer yours"), "it was not hers");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_let_an_offer_lapse_is_told_once_what_becomes_of_the_wait() {
    let hub = Hub::start().await;
    let (clerk, taken) = (clerk(&hub.desk), book(&hub.desk, "dan", 240, 300).await);
    let waits = hub.desk.wait(&who("amy"), NOW, None, &wish(Some("one"), 240, 300)).await.unwrap();
    hub.desk.cancel(&who("dan"), at(1), None, &taken.id, &Edit::default()).await.unwrap();
    for minute in [2, 12] {
        clerk.settle(at(minute)).await.unwrap();
    }
    let page = Browser::sign_in(&hub, "amy").await.page(&format!("/booking/{}", waits.id)).await;
    assert!(page.contains("You are asked again only when") && !page.contains("You would not be asked now"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_slot_gives_its_certificate_as_a_file() {
    let hub = Hub::start().await;
    let line = |comment: &str| HubKey::generate(comment).unwrap().public_line().unwrap();
    let (known, other, host) = (line("laptop"), line("desk"), line("root@one"));
    hub.desk.set_own_keys(&who("amy"), NOW, std::slice::from_ref(&known), None, None).await.unwrap();
    let hosts = std::slice::from_ref(&host);
    hub.desk.set_host_keys(&Caller::Console, NOW, &"one".parse().unwrap(), hosts).await.unwrap();
    let id = book(&hub.desk, "amy", 60, 120).await.id;
    let (path, form) = (format!("/booking/{id}"), format!("/booking/{id}/certificate"));
    let amy = Browser::sign_in(&hub, "amy").await;
    let shown = amy.page(&path).await;
    let print = |line: &str| PublicKey::from_openssh(line).unwrap().fingerprint(HashAlg::Sha256);
    let option = format!(">laptop (ssh-ed25519 {})</option>", print(&known));
    for word in [format!("action=\"{form}\""), option, print(&host).to_string(), "amy@192.0.2.1".into()] {
        assert!(shown.contains(&word), "{word}: {shown}");
    }
    let chinese = amy.ask(Method::GET, &path).header(header::ACCEPT_LANGUAGE, "zh").send().await.unwrap();
    assert!(chinese.text().await.unwrap().contains(">下载证书</button>"));

    let pasted = format!("\r\n{other}\r\n");
    for (fields, key) in [
        ([("known", known.as_str()), ("key", "")], &known),
        ([("known", known.as_str()), ("key", pasted.as_str())], &other),
    ] {
        let answer = amy.post(&form, &fields).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let name = format!("attachment; filename=\"kubecamp-{id}-cert.pub\"");
        assert_eq!(answer.headers()[header::CONTENT_DISPOSITION], name.as_str());
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/octet-stream");
        let certificate = Certificate::from_openssh(answer.text().await.unwrap().trim_end()).unwrap();
        assert_eq!(certificate.public_key(), PublicKey::from_openssh(key).unwrap().key_data());
        assert_eq!(certificate.valid_principals(), [format!("slot-{id}-amy")]);
        assert_eq!(certificate.valid_before(), at(120).0.cast_unsigned());
    }

    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n";
    for (key, told) in [("", "OpenSSH public key"), ("ssh-ed25519 AAAA", "KC-GATE-KEY"), (private, "a private key")] {
        let wrong = amy.post(&form, &[("key", key)]).await;
        assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let text = wrong.text().await.unwrap();
        assert!(text.contains(told) && !text.contains("b3BlbnNzaC1rZXktdjE"), "{told}: {text}");
    }
    let fields = [("known", known.as_str())];
    assert_eq!(amy.send(&form, &fields).await.status(), StatusCode::FORBIDDEN, "the page's own token is missing");
    for stranger in [Browser::sign_in(&hub, "bob").await, Browser::sign_in(&hub, "tea").await] {
        assert!(!stranger.page(&path).await.contains(&form), "it is hers alone");
        assert_eq!(stranger.post(&form, &fields).await.status(), StatusCode::FORBIDDEN);
    }

    hub.desk.cancel(&who("amy"), NOW, None, &id, &Edit::default()).await.unwrap();
    assert!(!amy.page(&path).await.contains(&form), "it is given up");
    assert_eq!(amy.post(&form, &fields).await.status(), StatusCode::CONFLICT);
    let other = format!("/booking/{}", book(&hub.desk, "amy", 60, 120).await.id);
    assert!(amy.page(&other).await.contains("/certificate\""));
    hub.set_now(at(120));
    assert!(!amy.page(&other).await.contains("/certificate\""), "it is over");
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_given_to_nobody_whose_account_is_closed() {
    let hub = Hub::start().await;
    let path = format!("/booking/{}", book(&hub.desk, "amy", 60, 120).await.id);
    let amy = Browser::sign_in(&hub, "amy").await;
    let offered = async |login: &str| amy.page(&path).await.contains(&format!("<option>{login}</option>"));
    assert!(offered("bob").await && offered("cem").await && !offered("amy").await);
    let bob = hub.desk.person(&Caller::Console, NOW, &"bob".parse().unwrap()).await.unwrap();
    let (id, name, role) = (bob.id, bob.name, bob.role);
    let out = NewPerson { id, name, role, active: Some(false), zone: None, keys: vec![] };
    hub.desk.put_person(&Caller::Console, NOW, &out, Some(bob.version)).await.unwrap();
    assert!(!offered("bob").await && offered("cem").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recurrence_is_given_up_on_the_page_of_any_of_its_slots() {
    let hub = Hub::start().await;
    let request = weekly("UTC", "2026-11-23T09:00:00", "2026-11-23T10:00:00", 3);
    let made = hub.desk.book_weekly(&who("amy"), NOW, None, &request).await.unwrap();
    let (amy, bob) = (Browser::sign_in(&hub, "amy").await, Browser::sign_in(&hub, "bob").await);
    let path = format!("/booking/{}", made[1].booking.id);
    let form = format!("{path}/cancel-series");
    let shown = amy.page(&path).await;
    assert!(shown.contains(&format!("action=\"{form}\"")) && shown.contains("have not begun: 3<"), "{shown}");
    let chinese = amy.ask(Method::GET, &path).header(header::ACCEPT_LANGUAGE, "zh").send().await.unwrap();
    let chinese = chinese.text().await.unwrap();
    assert!(chinese.contains("尚未开始的时段： 3<") && chinese.contains(">全部取消</button>"), "{chinese}");
    assert!(!bob.page(&path).await.contains("cancel-series"), "it is not his");
    let tea = Browser::sign_in(&hub, "tea").await;
    assert!(tea.page(&path).await.contains("id=\"r-series\""), "a teacher says why");
    let (version, once) = (field(&shown, "version"), field(&shown, "once"));
    let fields = [("version", version.as_str()), ("once", once.as_str())];
    assert_eq!(bob.post(&form, &fields).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(amy.send(&form, &fields).await.status(), StatusCode::FORBIDDEN, "the page's own token is missing");
    assert_eq!(amy.post(&form, &[("version", "7")]).await.status(), StatusCode::CONFLICT);
    let alone = book(&hub.desk, "amy", 180, 240).await.id;
    let none = amy.post(&format!("/booking/{alone}/cancel-series"), &[]).await;
    assert_eq!(none.status(), StatusCode::CONFLICT, "it belongs to no recurrence");
    for _ in ["a click", "the same once more"] {
        let done = amy.post(&form, &fields).await;
        assert_eq!(done.status(), StatusCode::SEE_OTHER);
        assert_eq!(done.headers()[header::LOCATION].to_str().unwrap(), path);
    }
    let all = hub.desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap();
    assert_eq!(all.len(), made.len() + 1);
    for booking in all {
        assert_eq!(booking.state == State::Cancelled, booking.id != alone, "{}", booking.id);
    }
    assert!(!amy.page(&path).await.contains("cancel-series"), "nothing of it is ahead");
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_booked_on_a_server_that_is_gone_is_still_shown() {
    let hub = Hub::start().await;
    let readers = [Browser::sign_in(&hub, "amy").await, Browser::sign_in(&hub, "tea").await];
    let id = book(&hub.desk, "amy", 60, 120).await.id;
    hub.desk.cancel(&who("amy"), NOW, None, &id, &Edit::default()).await.unwrap();
    hub.desk.remove_server(&Caller::Console, NOW, &"one".parse().unwrap(), None).await.unwrap();
    for reader in readers {
        let shown = reader.page(&format!("/booking/{id}")).await;
        assert!(shown.contains(id.as_str()), "{shown}");
    }
    healthy(&hub.desk).await;
}

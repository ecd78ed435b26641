//! The pages as browsers without scripts use them: forms, refusals, and requests that no honest browser sends.

use kubecamp::hub::{
    desk::{Caller, Edit, NewPerson, NewServer, WeeklyRequest},
    domain::{Mode, Policy, Role, State, Weekly},
    gate::HubKey,
    http::pages::PAGES,
    store::Listing,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::{Method, Response, StatusCode, header};
use russh::keys::{Certificate, HashAlg, PublicKey};

use super::{
    served::Hub,
    world::{NOW, at, because, book, clerk, generous, healthy, new_server, who, wish},
};

/// Somebody who is signed in with a cookie.
pub struct Browser<'a> {
    hub: &'a Hub,
    cookie: String,
    csrf: String,
}

fn field(page: &str, name: &str) -> String {
    let value = page.split(&format!("name=\"{name}\" value=\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("there is no field {name}: {page}")).to_owned()
}

impl<'a> Browser<'a> {
    pub async fn sign_in(hub: &'a Hub, login: &str) -> Self {
        let link = hub.desk.make_link(&Caller::Console, NOW, &login.parse().unwrap()).await.unwrap();
        let session = hub.desk.use_link(NOW, &link.text, "browser").await.unwrap();
        let cookie = format!("kubecamp={}", session.text.expose());
        let mut browser = Self { hub, cookie, csrf: String::new() };
        browser.csrf = field(&browser.page("/").await, "csrf");
        browser
    }

    fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.hub.ask(method, path, "").header(header::ACCEPT, "text/html");
        request.header(header::COOKIE, &self.cookie)
    }

    pub async fn page(&self, path: &str) -> String {
        let answer = self.ask(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", self.csrf.as_str())]).collect();
        self.send(path, &fields).await
    }

    async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut body = reqwest::Url::parse("http://form/").unwrap();
        body.query_pairs_mut().extend_pairs(fields);
        let kind = "application/x-www-form-urlencoded";
        let request = self.ask(Method::POST, path).header(header::CONTENT_TYPE, kind);
        request.body(body.query().unwrap_or_default().to_owned()).send().await.unwrap()
    }
}

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
    let option = format!(">ssh-ed25519 {}</option>", print(&known));
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
async fn a_class_is_planned_and_booked_on_a_page() {
    let hub = Hub::start().await;
    let amy = Browser::sign_in(&hub, "amy").await;
    let denied = amy.ask(Method::GET, "/teacher/class").send().await.unwrap();
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    let tea = Browser::sign_in(&hub, "tea").await;
    let empty = tea.page("/teacher/class").await;
    assert!(empty.contains("name=\"minutes\"") && !empty.contains("value=\"book\""), "{empty}");
    let fields = |act: &'static str, wishes: &'static str, seen: &str, once: &str| {
        [
            ("course", "k8s"),
            ("layout", "1x4c12g"),
            ("minutes", "60"),
            ("slots", "1"),
            ("start", "2026-11-24T08:00"),
            ("end", "2026-11-25T20:00"),
            ("wishes", wishes),
            ("act", act),
            ("seen", seen),
            ("once", once),
        ]
        .map(|(name, value)| (name, value.to_owned()))
    };
    let sent = async |fields: [(&'static str, String); 10]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = tea.post("/teacher/class", &fields).await;
        (answer.status(), answer.text().await.unwrap())
    };
    let wishes = "bob: 2026-11-24T14:00/17:00\namy: 2026-11-24T14:00/15:00";
    let (status, shown) = sent(fields("plan", wishes, "", "")).await;
    assert_eq!(status, StatusCode::OK, "{shown}");
    assert!(shown.contains("4 slots are given, 2 of them as wished."), "{shown}");
    let none = hub.desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap();
    assert!(none.is_empty(), "nothing is booked by looking");
    let (seen, once) = (field(&shown, "seen"), field(&shown, "once"));
    let (status, other) = sent(fields("book", "", &seen, &once)).await;
    assert!(status == StatusCode::OK && other.contains("another one than you saw"), "{other}");
    assert_eq!(sent(fields("book", wishes, &seen, &once)).await.0, StatusCode::SEE_OTHER);
    let made = hub.desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap();
    assert_eq!(made.len(), 4);
    assert_eq!(
        sent(fields("book", wishes, &seen, &once)).await.0,
        StatusCode::SEE_OTHER,
        "a second click changes nothing"
    );
    let (status, again) = sent(fields("book", wishes, &seen, "")).await;
    assert!(status == StatusCode::OK && again.contains("another one than you saw"), "{again}");
    let (status, wrong) = sent(fields("plan", "amy: <i>soon</i>", "", "")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.contains("line 1: ") && !wrong.contains("<i>soon"), "{wrong}");
    assert_eq!(hub.desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap().len(), 4);
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recurrence_is_given_up_on_the_page_of_any_of_its_slots() {
    let hub = Hub::start().await;
    let weekly = Weekly {
        zone: "UTC".parse().unwrap(),
        starts: "2026-11-23T09:00:00".parse().unwrap(),
        ends: "2026-11-23T10:00:00".parse().unwrap(),
        weeks: 3,
    };
    let request = WeeklyRequest { first: wish(Some("one"), 60, 120), weekly };
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
    for booking in hub.desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap() {
        assert_eq!(booking.state == State::Cancelled, booking.id != alone, "{}", booking.id);
    }
    assert!(!amy.page(&path).await.contains("cancel-series"), "nothing of it is ahead");
    healthy(&hub.desk).await;
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
async fn a_teacher_books_for_anybody_and_for_themself() {
    let hub = Hub::start().await;
    let tea = Browser::sign_in(&hub, "tea").await;
    // In no group: the only course there is stands in the form.
    let course = field(&tea.page("/").await, "course");
    let fields = |start: &'static str, end: &'static str, person: &'static str| {
        [("server", "one"), ("start", start), ("end", end), ("person", person), ("course", "k8s"), ("act", "book")]
    };
    assert_eq!(course, "k8s");
    let own = tea.post("/book", &fields("2026-11-24T09:00", "2026-11-24T10:00", "")).await;
    assert_eq!(own.status(), StatusCode::SEE_OTHER);
    let other = tea.post("/book", &fields("2026-11-24T12:00", "2026-11-24T13:00", "bob")).await;
    assert_eq!(other.status(), StatusCode::SEE_OTHER);
    hub.desk.put_course(&Caller::Console, NOW, &"net".parse().unwrap(), "N", &Policy::default(), None).await.unwrap();
    assert!(tea.page("/").await.contains("<option value=\"\">the one they are in</option>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_sees_all_that_somebody_has_ahead() {
    let hub = Hub::with(&Policy { horizon: 366, ..generous() }, 0).await;
    for day in [1, 40, 300] {
        book(&hub.desk, "amy", day * 1440, day * 1440 + 60).await;
    }
    let shown = Browser::sign_in(&hub, "tea").await.page("/teacher").await;
    for row in ["amy <small>", "red <small>"] {
        let row = shown.split(&format!("<th scope=\"row\">{row}")).nth(1).and_then(|rest| rest.split("</tr>").next());
        assert!(row.unwrap().ends_with("<td>3</td><td>0</td>"), "{row:?}");
    }
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

const TEXTS: &[&str] = &[
    "",
    "one",
    "amy",
    "tea",
    "k8s",
    "1",
    "-1",
    "9223372036854775807",
    "1795424400",
    "1795428000",
    "99999999999999999999",
    "2026-11-24T14:00",
    "2026-11-24T15:00",
    "2026-11-24T14:07",
    "2026-11-24",
    "0000-00-00T00:00",
    "9999-12-31T23:59",
    "book",
    "wait",
    "plan",
    "healthy",
    "1x4c12g",
    "2x4c8g",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}",
    "{% include \"base.html\" %}",
    "../../etc/passwd",
    "//evil.example",
    "a\r\nSet-Cookie: x=y",
    "\u{202e}evil",
    "\u{0}",
    "zh",
    "Asia/Shanghai",
    "amy: 2026-11-24T14:00/18:00",
    "ssh-ed25519 AAAA",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
];

/// Every field that a form or an address of the pages has.
const FIELDS: &[&str] = &[
    "server",
    "start",
    "end",
    "starts_at",
    "ends_at",
    "layout",
    "person",
    "reason",
    "act",
    "once",
    "version",
    "ends",
    "to",
    "course",
    "minutes",
    "slots",
    "wishes",
    "seen",
    "keys",
    "key",
    "known",
    "health",
    "code",
    "from",
    "at",
    "page",
    "about",
    "by",
    "lang",
    "zone",
    "back",
];

fn text(rng: &mut StdRng, known: &[&str]) -> String {
    let from = if rng.random_bool(0.3) { known } else { TEXTS };
    (*from.choose(rng).unwrap()).to_owned()
}

/// A form that is nearly right for its route, with some fields spoilt.
fn form(rng: &mut StdRng, path: &str, known: &[&str]) -> Vec<(&'static str, String)> {
    let right: &[(&'static str, &str)] = match path {
        "/book" => &[
            ("server", "one"),
            ("start", "2026-11-24T14:00"),
            ("end", "2026-11-24T15:00"),
            ("layout", "1x4c12g"),
            ("act", "book"),
        ],
        "/teacher/class" => &[
            ("course", "k8s"),
            ("layout", "1x4c12g"),
            ("minutes", "60"),
            ("slots", "1"),
            ("start", "2026-11-24T08:00"),
            ("end", "2026-11-25T20:00"),
            ("act", "plan"),
        ],
        "/teacher/server/{id}" => &[("health", "away"), ("reason", "x")],
        "/teacher/link" => &[("person", "amy")],
        "/booking/{id}/{what}" => &[("reason", "x"), ("ends", "1795428000"), ("to", "bob")],
        _ => &[],
    };
    let mut fields: Vec<(&'static str, String)> = right.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    for _ in 0..rng.random_range(0..3) {
        match fields.len() {
            0 => {}
            n => fields[rng.random_range(0..n)].1 = text(rng, known),
        }
    }
    for _ in 0..rng.random_range(0..3) {
        fields.push((*FIELDS.choose(rng).unwrap(), text(rng, known)));
    }
    fields
}

fn filled(rng: &mut StdRng, path: &str, known: &[&str]) -> reqwest::Url {
    let mut url = reqwest::Url::parse("http://hub/").unwrap();
    let parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| match part {
            "{what}" if rng.random_bool(0.8) => {
                (*["cancel", "cancel-series", "release", "accept", "extend", "give"].choose(rng).unwrap()).to_owned()
            }
            "{name}" if rng.random_bool(0.5) => "hub.css".to_owned(),
            part if part.starts_with('{') => text(rng, known),
            part => part.to_owned(),
        })
        .collect();
    url.path_segments_mut().unwrap().clear().extend(&parts);
    for _ in 0..rng.random_range(0..4) {
        let value = text(rng, known);
        url.query_pairs_mut().append_pair(FIELDS.choose(rng).unwrap(), &value);
    }
    url
}

/// What every answer of a page must be, whatever was asked.
async fn sound(answer: Response, what: &str) -> bool {
    let status = answer.status();
    assert!(!status.is_server_error(), "{what}: {status} {:?}", answer.text().await);
    let headers = answer.headers().clone();
    for cookie in headers.get_all(header::SET_COOKIE) {
        assert!(cookie.to_str().unwrap().starts_with("kubecamp"), "{what}: {cookie:?}");
    }
    if status.is_redirection() {
        let to = headers[header::LOCATION].to_str().unwrap();
        assert!(to.starts_with('/') && !to.starts_with("//"), "{what} leads to {to}");
        return true;
    }
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let asset = what.contains("/assets/") && status.is_success();
    assert!(asset || kind == "text/html; charset=utf-8", "{what}: {kind}");
    let text = answer.text().await.unwrap();
    for bad in ["<script>alert", "<img src=x", "<b>x"] {
        assert!(!text.contains(bad), "{what}: {bad} in {text}");
    }
    assert!(asset || text.trim_end().ends_with("</html>"), "{what}: {text}");
    status.is_success()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_breaks_a_page() {
    no_form_breaks(&Hub::start().await).await;
}

/// Fills in the pages of a hub as no honest browser does.
pub async fn no_form_breaks(hub: &Hub) {
    let booking = book(&hub.desk, "amy", 60, 120).await.id.to_string();
    hub.admin().await;
    let (amy, tea, ann) = (
        Browser::sign_in(hub, "amy").await,
        Browser::sign_in(hub, "tea").await,
        Browser::sign_in(hub, "root-ann").await,
    );
    let nobody = Browser { hub, cookie: "kubecamp=kct_wrong".into(), csrf: "0".into() };
    let known = [booking.as_str(), "one", "amy", "bob", "k8s", "red"];
    let seed = 20_261_125;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut good, mut bad) = (0, 0);
    for round in 0..1500 {
        let (method, path) = *PAGES.choose(&mut rng).unwrap();
        let who = *[&amy, &tea, &ann, &nobody].choose(&mut rng).unwrap();
        let url = filled(&mut rng, path, &known);
        let place = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let what = format!("seed {seed} round {round} {method} {place}");
        let answer = if method == "get" {
            who.ask(Method::GET, &place).send().await.unwrap()
        } else if path == "/sign-out" || rng.random_bool(0.1) {
            // Whoever is signed out would be nobody for the rest of the rounds.
            who.send(&place, &[("csrf", "wrong")]).await
        } else {
            let fields = form(&mut rng, path, &known);
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
            who.post(&place, &fields).await
        };
        if sound(answer, &what).await { good += 1 } else { bad += 1 }
    }
    assert!(good > 200 && bad > 200, "{good} good, {bad} bad: the fuzz does not reach what it should");
    healthy(&hub.desk).await;
}

//! What a teacher reads on their pages, and what an admin changes there.

use kubecamp::hub::{
    desk::{Caller, Step},
    domain::{Health, Mode, Policy},
    store::Listing,
};
use reqwest::{Method, StatusCode, header};

use crate::hub::{
    browser::{Browser, field},
    served::Hub,
    world::{NOW, at, because, book, clerk, generous, healthy, reports, server, who, wish},
};

/// The rest of a table's row that begins so.
fn row<'a>(page: &'a str, head: &str) -> &'a str {
    let after = page.split(&format!("<th scope=\"row\">{head}")).nth(1);
    after.and_then(|rest| rest.split("</tr>").next()).unwrap_or_else(|| panic!("there is no {head}: {page}"))
}

/// Where a button leads; none where it is not there.
fn leads(page: &str, button: &str) -> Option<String> {
    let (before, _) = page.split_once(&format!("\">{button}</a>"))?;
    Some(before.rsplit_once("href=\"")?.1.replace("&amp;", "&"))
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
    for head in ["amy <small>", "red <small>"] {
        let line = row(&shown, head);
        assert!(line.ends_with("<td>3</td><td>0</td>"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_server_shows_all_who_hold_it_now() {
    let hub = Hub::start().await;
    server(&hub.desk, "two", Mode::Shared, 16, 64).await;
    for (login, from) in [("amy", 0), ("bob", 30), ("cem", 60)] {
        hub.desk.book(&who(login), NOW, None, &wish(Some("two"), from, 120)).await.unwrap();
    }
    book(&hub.desk, "dan", 0, 60).await;
    hub.set_now(at(45));
    let page = Browser::sign_in(&hub, "tea").await.page("/teacher").await;
    let (one, two) = (row(&page, "one<"), row(&page, "two<"));
    assert!(two.contains("<td>amy, booked<br>bob, booked</td>"), "{two}");
    assert!(one.contains("<td>dan, booked</td>"), "{one}");
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_sees_who_never_came() {
    let hub = Hub::start().await;
    let booking = book(&hub.desk, "amy", 0, 60).await;
    let tea = Browser::sign_in(&hub, "tea").await;
    let below = |page: &str| {
        let section = page.split("<h2>No-shows</h2>").nth(1).and_then(|rest| rest.split("</section>").next());
        section.unwrap().to_owned()
    };
    let before = below(&tea.page("/teacher").await);
    assert!(before.contains("None.") && !before.contains("<li>"), "{before}");
    reports(&hub.desk, 1, &booking, &[Step::Arming, Step::Active], 0).await;
    clerk(&hub.desk).settle(at(15)).await.unwrap();
    hub.set_now(at(16));
    let page = tea.page("/teacher").await;
    let after = below(&page);
    assert!(after.contains(&format!("<li><a href=\"/booking/{}\">amy, one, ", booking.id)), "{after}");
    assert!(after.matches("<li>").count() == 1 && !after.contains("None."), "{after}");
    // The last columns: what is ahead, and no-shows.
    for (head, missed) in [("amy <small>", 1), ("red <small>", 1), ("bob <small>", 0), ("blue <small>", 0)] {
        let line = row(&page, head);
        assert!(line.ends_with(&format!("<td>0</td><td>{missed}</td>")), "{head}: {line}");
    }
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_clears_a_quarantine_by_a_form_that_a_teacher_does_not_get() {
    let hub = Hub::start().await;
    let (console, one) = (Caller::Console, "one".parse().unwrap());
    hub.desk.set_health(&console, NOW, None, &one, Health::Quarantined, "a process is left").await.unwrap();
    hub.admin().await;
    let (tea, ann) = (Browser::sign_in(&hub, "tea").await, Browser::sign_in(&hub, "root-ann").await);
    let path = "/teacher/server/one";
    for (viewer, may_clear) in [(&tea, false), (&ann, true)] {
        let page = viewer.page("/teacher").await;
        let line = row(&page, "one<");
        let badge =
            "<span class=\"badge quarantined\">quarantined</span><div class=\"long\">a process is left</div></td>";
        assert!(line.contains(badge), "{line}");
        assert_eq!(line.contains(&format!("action=\"{path}\"")), may_clear, "{line}");
        assert_eq!(line.contains("value=\"healthy\">Clear</button>"), may_clear, "{line}");
        assert_eq!(page.contains("An admin can take servers out of use"), !may_clear, "{page}");
    }
    let health = async || hub.desk.server(&console, NOW, &one).await.unwrap().health;
    let fields = [("health", "healthy"), ("reason", "looked after")];
    assert_eq!(tea.post(path, &fields).await.status(), StatusCode::FORBIDDEN);
    let unsaid = ann.post(path, &[("health", "healthy"), ("reason", " ")]).await;
    assert!(unsaid.status().is_client_error() && health().await == Health::Quarantined, "{}", unsaid.status());
    let cleared = ann.post(path, &fields).await;
    assert_eq!(cleared.status(), StatusCode::SEE_OTHER);
    assert_eq!(cleared.headers()[header::LOCATION], "/teacher#servers");
    assert_eq!(health().await, Health::Healthy);
    let page = ann.page("/teacher").await;
    let line = row(&page, "one<");
    assert!(
        line.contains("<span class=\"badge warn\">not enrolled</span></td>") && line.contains("value=\"away\""),
        "{line}"
    );
    let audit = ann.page("/teacher/audit?about=server:one").await;
    assert!(audit.contains("<td>person:root-ann</td><td>server.health</td><td>server:one</td>"), "{audit}");
    assert!(audit.contains("<td class=\"long\">looked after</td>"), "{audit}");
    healthy(&hub.desk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_tells_who_did_what_and_why() {
    let hub = Hub::start().await;
    let (id, other) = (book(&hub.desk, "amy", 60, 120).await.id, book(&hub.desk, "bob", 180, 240).await.id);
    hub.desk.cancel(&who("tea"), NOW, None, &id, &because("fire drill")).await.unwrap();
    let tea = Browser::sign_in(&hub, "tea").await;
    let page = tea.page(&format!("/teacher/audit?about=booking:{id}")).await;
    let lines: Vec<&str> = page.split("<tr><td>").skip(1).collect();
    let about = format!("<td><a href=\"/booking/{id}\">booking:{id}</a></td>");
    let (given_up, booked) = ("<td>person:tea</td><td>booking.cancel</td>", "<td>person:amy</td><td>booking.new</td>");
    let ends = [
        "</td><td class=\"long\">booked → cancelled</td><td class=\"long\">fire drill</td></tr>",
        "</td><td class=\"long\">booked</td>",
    ];
    for ((line, begins), ends) in lines.iter().zip([given_up, booked]).zip(ends) {
        assert!(
            line.contains(&format!("{begins}{about}<td class=\"long\">for amy, on one, ")) && line.contains(ends),
            "{page}"
        );
    }
    assert!(lines.len() == 2 && !page.contains(other.as_str()), "{page}");
    hub.desk.make_link(&who("tea"), NOW, &"amy".parse().unwrap()).await.unwrap();
    let of_amy = tea.page("/teacher/audit?about=person:amy").await;
    assert!(
        of_amy.contains("<td class=\"long\">sign-in link, for amy</td>") && of_amy.contains("booking.cancel"),
        "{of_amy}"
    );
    assert!(!of_amy.contains(other.as_str()), "{of_amy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_read_page_by_page() {
    let hub = Hub::start().await;
    for hour in 1..=60 {
        book(&hub.desk, "bob", hour * 60, hour * 60 + 30).await;
    }
    let numbers = |page: &str| -> Vec<i64> {
        let lines = page.split("<tr><td>").skip(1);
        lines.map(|line| line.split("</td>").next().unwrap().parse().unwrap()).collect()
    };
    let tea = Browser::sign_in(&hub, "tea").await;
    let first = tea.page("/teacher/audit?by=person:bob").await;
    assert_eq!((numbers(&first).len(), leads(&first, "Newer")), (50, None));
    let older = leads(&first, "Older").unwrap();
    assert_eq!(older, "/teacher/audit?page=2&about=&by=person:bob");
    let second = tea.page(&older).await;
    assert_eq!((numbers(&second).len(), leads(&second, "Older")), (10, None));
    let all = [numbers(&first), numbers(&second)].concat();
    assert!(all.is_sorted_by(|newer, older| newer > older), "{all:?}");
    let back = tea.page(&leads(&second, "Newer").unwrap()).await;
    assert_eq!(numbers(&back), numbers(&first));
}

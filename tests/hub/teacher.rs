//! What a teacher reads on their pages, and what an admin changes there.

use kubecamp::hub::domain::Mode;

use super::{
    pages::Browser,
    served::Hub,
    world::{NOW, at, book, healthy, server, who, wish},
};

/// The rest of a table's row that begins so.
fn row<'a>(page: &'a str, head: &str) -> &'a str {
    let after = page.split(&format!("<th scope=\"row\">{head}")).nth(1);
    after.and_then(|rest| rest.split("</tr>").next()).unwrap_or_else(|| panic!("there is no {head}: {page}"))
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

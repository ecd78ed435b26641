//! What a hub takes of memory. How long it takes is measured by `benches/hub.sh`, on a computer that does nothing else.

use kubecamp::hub::{
    desk::{BookRequest, Caller, Desk, NewServer},
    domain::{Epoch, Mode, Window},
    http::Clock,
};
use reqwest::Method;

use super::{
    processes::{Process, ask, slot, token},
    world::{NOW, camp, generous, new_server, who, wish},
};

const PEOPLE: [&str; 4] = ["amy", "bob", "cem", "dan"];
/// Servers beside the camp's own, and the half hours of a week: 10,080 bookings.
const SERVERS: i64 = 30;
const SLOTS: i64 = 7 * 48;
/// What a hub may take, in MiB.
const BOUND: u64 = 100;

/// Lets every half hour of a week be somebody's on all servers. One of them is booked; the others are copies of it in the
/// database itself, since to book them takes longer than all else here.
async fn fill(desk: &Desk, url: &str, now: Epoch, monday: Epoch) {
    for n in 0..SERVERS {
        let new = NewServer { buffer: 0, ..new_server(&format!("w{n}"), Mode::Exclusive, 8, 32) };
        desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    }
    let window = Window { starts: monday, ends: monday + 1800 };
    let first = BookRequest { window, ..wish(Some("w0"), 0, 30) };
    desk.book(&who("amy"), now, None, &first).await.unwrap();
    let mut database = rusqlite::Connection::open(url.trim_start_matches("sqlite://")).unwrap();
    let transaction = database.transaction().unwrap();
    transaction.execute("CREATE TEMP TABLE form AS SELECT * FROM bookings", ()).unwrap();
    {
        let change = "UPDATE form SET id = ?1, server = ?2, person = ?3, starts = ?4, ends = ?5, busy_until = ?5";
        let mut change = transaction.prepare(change).unwrap();
        let mut copy = transaction.prepare("INSERT INTO bookings SELECT * FROM form").unwrap();
        for n in 1..SERVERS * SLOTS {
            let (id, server) = (format!("b{n:013}"), format!("w{}", n % SERVERS));
            let starts = monday.0 + n / SERVERS * 1800;
            change.execute((id, server, PEOPLE[n as usize % PEOPLE.len()], starts, starts + 1800)).unwrap();
            copy.execute(()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// A size that the system tells of a process, in MiB.
fn mib(hub: &Process, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.id().as_raw_pid())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    size.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// What of a hub is its program. The one that is shipped is small; one that is built for development is several times that,
/// and counts as well.
fn program(hub: &Process) -> u64 {
    if cfg!(debug_assertions) { mib(hub, "RssFile:") } else { 0 }
}

/// A week of ten thousand bookings is asked for again and again, as a page and by the API, and 64 clients want the same slots:
/// nothing of that makes a hub large.
pub async fn ten_thousand_bookings_take_little(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    let now = Clock::system().now();
    // The first Monday after tomorrow; the day of number 4 was one.
    let monday = Epoch(((now.0 / 86_400 + 4) / 7 * 7 + 4) * 86_400);
    fill(desk, url, now, monday).await;
    let folder = tempfile::tempdir().unwrap();
    let hub = Process::start(folder.path(), "hub", url);
    let client = hub.client();

    let tea = token(desk, "tea", now).await;
    let page = format!("http://hub/?from={}", monday.timestamp().strftime("%Y-%m-%d"));
    let json = format!("http://hub/api/v1/week?from={}&to={}", monday.0, monday.0 + 7 * 86_400);
    // A system that is short of memory takes parts of a program away, so one look at the end may find less than there was.
    let mut most_program = 0;
    for _ in 0..3 {
        for (url, each) in [(&page, "class=\"taken "), (&json, "\"starts\"")] {
            let answer = client.get(url).bearer_auth(&tea).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200, "{url}");
            let shown = answer.text().await.unwrap().matches(each).count() as i64;
            assert!(shown >= SERVERS * SLOTS, "{url} shows {shown}");
            most_program = most_program.max(program(&hub));
        }
    }

    let mut tokens = vec![];
    for login in PEOPLE {
        tokens.push(token(desk, login, now).await);
    }
    let clients = (0..64).map(|n: usize| {
        let (client, token) = (hub.client(), tokens[n % tokens.len()].clone());
        tokio::spawn(async move {
            for hour in 0..8 {
                let (key, body) = (format!("{n}-{hour}"), slot(now, hour));
                let sent = Some((key.as_str(), &body));
                let (status, answer) = ask(&client, Method::POST, "/api/v1/bookings", &token, sent).await.unwrap();
                assert!(status == 201 || (400..500).contains(&status), "{status} {answer}");
            }
        })
    });
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }

    let program = most_program.max(program(&hub));
    let most = mib(&hub, "VmHWM:").saturating_sub(program);
    assert!(most < BOUND, "the hub had {most} MiB at one time, beside {program} MiB of its program");
}

//! The command line where its hub's answer is lost on the way: it asks again by the same key, and nothing is done twice.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use crate::hub::camp::{Camp, Ended, hour, kubecamp};

/// What becomes of the first `POST`.
#[derive(Clone, Copy)]
enum Fault {
    /// The hub does it, and its answer is lost.
    Lost,
    /// As above, and the hub is away for a while, as one that was killed and begins again.
    Away,
    /// The hub says that its database failed.
    Database,
    /// The hub is done with it when the connection to its database is lost.
    Told,
}

/// The `Idempotency-Key` of each `POST` that came.
type Keys = Arc<Mutex<Vec<String>>>;

/// A message of HTTP with a length, whole; none where the other side has nothing more to say.
fn message(from: &mut UnixStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = vec![];
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes.clone()).unwrap();
    let length = value(&head, "content-length").map_or(0usize, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    bytes.extend(body);
    Some((head, bytes))
}

fn value(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    found.next().map(|(_, text)| text.trim().to_owned())
}

/// Stands before a hub's socket, and does that to the first `POST`.
fn proxy(socket: &Path, hub: PathBuf, fault: Fault) -> Keys {
    let (socket, keys) = (socket.to_owned(), Keys::default());
    let seen = Arc::clone(&keys);
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, socket, hub, seen) = (client.unwrap(), socket.clone(), hub.clone(), Arc::clone(&seen));
            std::thread::spawn(move || {
                let is_cut = serve(&mut client, &hub, fault, &seen);
                let is_away = is_cut && matches!(fault, Fault::Away);
                let aside = socket.with_extension("aside");
                if is_away {
                    fs::rename(&socket, &aside).unwrap();
                }
                drop(client);
                if is_away {
                    std::thread::sleep(Duration::from_millis(1500));
                    fs::rename(&aside, &socket).unwrap();
                }
            });
        }
    });
    keys
}

/// Passes the requests of one connection on; whether it is to be cut before an answer.
fn serve(client: &mut UnixStream, hub: &Path, fault: Fault, seen: &Keys) -> bool {
    while let Some((head, bytes)) = message(client) {
        let is_post = head.starts_with("POST ");
        let is_first = is_post && seen.lock().unwrap().is_empty();
        if is_post {
            seen.lock().unwrap().push(value(&head, "idempotency-key").unwrap_or_default());
        }
        let mut answer = failure();
        if !(is_first && matches!(fault, Fault::Database)) {
            let mut on = UnixStream::connect(hub).unwrap();
            on.write_all(&bytes).unwrap();
            let (status, told) = message(&mut on).unwrap();
            assert!(!is_first || status.starts_with("HTTP/1.1 2"), "{status}");
            if !(is_first && matches!(fault, Fault::Told)) {
                answer = told;
            }
        }
        if is_first && matches!(fault, Fault::Lost | Fault::Away) {
            return true;
        }
        if client.write_all(&answer).is_err() {
            break;
        }
    }
    false
}

/// What a hub answers whose database failed.
fn failure() -> Vec<u8> {
    let body = serde_json::json!({ "type": "urn:kubecamp:KC-HUB-DATABASE", "title": "The database failed.",
        "status": 500, "detail": "the database refused a request", "code": "KC-HUB-DATABASE", "hints": ["Look."] });
    let body = body.to_string();
    let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/problem+json";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Runs a command by the way of a proxy. A token goes to the hub that gave it only, so it is named.
fn by(camp: &Camp, socket: &Path, args: &[&str]) -> Ended {
    let kept = fs::read_to_string(camp.home.path().join("config/hub.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    let mut command = kubecamp(camp.home.path(), args);
    command.arg("--hub").arg(format!("unix:{}", socket.display()));
    let ended = command.env("KUBECAMP_HUB_TOKEN", kept["token"].as_str().unwrap()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
}

#[test]
fn what_was_done_without_an_answer_is_asked_again_by_its_key() {
    let camp = Camp::start();
    let (_, first) = camp.amys_slot();
    camp.ok(&["book", "cancel", &first]);
    let hub = camp.home.path().join("hub.sock");
    for (n, fault) in [Fault::Lost, Fault::Away, Fault::Database, Fault::Told].into_iter().enumerate() {
        let socket = camp.home.path().join(format!("proxy{n}.sock"));
        let keys = proxy(&socket, hub.clone(), fault);
        let start = hour(3 + 2 * n as i64);
        let made = by(&camp, &socket, &["book", "new", &start, "--for", "1h", "--layout", "1x4c12g", "-o", "json"]);
        assert_eq!(made.code, 0, "{n}: {}", made.err);
        assert!(made.err.contains("the next try is in 1 s"), "{n}: {}", made.err);
        let made: Value = serde_json::from_str(&made.out).unwrap();
        let rows = camp.json(&["book", "ls"]);
        assert_eq!(rows.as_array().unwrap().len(), 1, "{n}: {rows}");
        assert_eq!(rows[0]["id"], made[0]["id"], "{n}");
        let keys = keys.lock().unwrap().clone();
        assert!(keys.len() == 2 && keys[0] == keys[1] && keys[0].len() == 32, "{n}: {keys:?}");
        camp.ok(&["book", "cancel", rows[0]["id"].as_str().unwrap()]);
    }
    // Who was never there is told at once.
    let nowhere = by(&camp, &camp.home.path().join("nowhere.sock"), &["book", "ls"]);
    assert!(nowhere.code == 4 && nowhere.err.contains("KC-HUB-AWAY"), "{}", nowhere.err);
    assert!(!nowhere.err.contains("next try"), "{}", nowhere.err);
}

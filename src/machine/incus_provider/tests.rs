//! What the provider asks of an Incus, told by a fake one on a Unix socket.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as Held},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::*;
use crate::{
    core::Quiet,
    machine::{AptSources, Recipe, incus::Incus},
};

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgQFc8zDQmswu6VtXXF9tinN/YQnqJ0ftWy5q5ssAmI";

/// An Incus that answers a fixed text for each `METHOD /path`, or for one time of it, as `METHOD /path #0`, and notes what
/// it was asked.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    answers: Arc<BTreeMap<String, String>>,
    asked: Arc<Held<Vec<(String, Value)>>>,
}

impl Fake {
    /// Values are answered in an envelope, text as it is; every other request that changes something succeeds.
    pub(crate) fn new(answers: impl IntoIterator<Item = (impl Into<String>, Value)>) -> Self {
        let text = |value: Value| match value {
            Value::String(text) => text,
            value => json!({"type": "sync", "metadata": value}).to_string(),
        };
        let answers = answers.into_iter().map(|(key, value)| (key.into(), text(value))).collect();
        Self { answers: Arc::new(answers), asked: Arc::default() }
    }

    /// A provider of machines of this kind in this Incus.
    pub(crate) fn provider(&self, dir: &tempfile::TempDir, kind: Kind) -> IncusProvider {
        let socket = dir.path().join("unix.socket");
        let (listener, fake) = (UnixListener::bind(&socket).unwrap(), self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                fake.answer(stream).await;
            }
        });
        let nic = Nic::Managed { network: "br".into(), gateway: Ipv4Addr::new(10, 1, 0, 1), prefix: 24 };
        let incus = Incus::new(&socket).unwrap();
        let place = Place { incus, pool: "pool".into(), nic, netns: None, title: "a fake Incus".into() };
        let sources = AptSources::parse("deb http://mirror.example/debian bookworm main", "");
        let recipe = Recipe {
            suite: "trixie".into(),
            arch: "amd64".into(),
            machine: "x86_64",
            kind,
            kernel: "linux-image-cloud-amd64".into(),
            sources: Ok(sources.main("bookworm").map(|s| s.uri.clone()).into_iter().collect()),
        };
        IncusProvider::new(place, NodeImage::new(dir.path(), recipe), "the test wants it")
    }

    async fn answer(&self, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        stream.read_line(&mut first).await.unwrap();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            length = line.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let asked = first.trim().trim_end_matches(" HTTP/1.1").replace("/1.0", "");
        let fallback = if asked.starts_with("GET") {
            json!({"type": "error", "error": "not found"})
        } else {
            json!({"type": "sync", "metadata": {}})
        };
        let before = self.bodies(&asked).len();
        let text = self.answers.get(&format!("{asked} #{before}")).or_else(|| self.answers.get(&asked));
        let text = text.cloned().unwrap_or_else(|| fallback.to_string());
        let status = if text.starts_with(r#"{"error":"not found""#) { "404 Not Found" } else { "200 OK" };
        self.asked.lock().unwrap().push((asked, serde_json::from_slice(&body).unwrap_or_default()));
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        stream.get_mut().write_all((head + &text).as_bytes()).await.unwrap();
    }

    /// Every request, as `METHOD /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(key, _)| key.clone()).collect()
    }

    /// The bodies that came with this request.
    fn bodies(&self, request: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(key, _)| key == request).map(|(_, body)| body.clone()).collect()
    }
}

fn spec() -> MachineSpec {
    MachineSpec { image: ImageRef::Prepared("v1".into()), ..settings::tests::spec() }
}

fn instance(kind: &str, more: Value) -> Value {
    let mut config = json!({settings::LAB: "lab", settings::NODE: "cp1"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let devices = json!({"eth0": {"ipv4.address": "10.1.0.2"}});
    json!({"name": "lab-cp1", "status": "Running", "type": kind, "config": config, "devices": devices})
}

#[tokio::test]
async fn a_new_machine_is_of_the_chosen_kind_with_its_layouts_limits() {
    for (kind, name) in [(Kind::Vm, "virtual-machine"), (Kind::Container, "container")] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new([("GET /networks/br/leases", json!([])), ("GET /instances?recursion=1", json!([]))]);
        fake.provider(&dir, kind).create(&spec(), &Quiet).await.unwrap();
        let made = fake.bodies("POST /instances").remove(0);
        assert_eq!((&made["type"], &made["name"]), (&json!(name), &json!("lab-cp1")));
        assert_eq!(made["source"], json!({"type": "copy", "source": "kubecamp-image-v1", "instance_only": true}));
        let config = &made["config"];
        assert_eq!((&config["limits.cpu"], &config["limits.memory"]), (&json!("2"), &json!("4294967296")));
        assert_eq!(made["devices"]["root"]["size"], json!("32212254720"));
        assert_eq!(made["devices"]["eth0"]["ipv4.address"], json!("10.1.0.2"));
        let vm = kind == Kind::Vm;
        assert_eq!(made["devices"]["kmsg"].is_null(), vm);
        assert_eq!(config["raw.qemu"].is_string(), vm);
        assert_eq!(config["security.privileged"].is_string(), !vm);
    }
}

#[tokio::test]
async fn a_machine_gets_its_new_size_while_it_runs_or_else_with_a_stop() {
    let container = |more: Value| -> Instance { serde_json::from_value(instance("container", more)).unwrap() };
    let (patch, state) = ("PATCH /instances/lab-cp1", "PUT /instances/lab-cp1/state");
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let provider = fake.provider(&dir, Kind::Container);
    let same = container(json!({"limits.cpu": "2", "limits.memory": "4294967296"}));
    assert!(!provider.adjust(&same, &spec(), &Quiet).await.unwrap());
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
    let small = container(json!({"limits.cpu": "1", "limits.memory": "4294967296"}));
    assert!(!provider.adjust(&small, &spec(), &Quiet).await.unwrap());
    assert_eq!(
        (fake.requests(), fake.bodies(patch)),
        (vec![patch.to_owned()], vec![json!({"config": {"limits.cpu": "2"}})])
    );

    // A virtual machine learns of it by a new start, which `ensure` gives it.
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::default());
    let machine = Instance { kind: "virtual-machine".into(), ..small.clone() };
    assert!(fake.provider(&dir, Kind::Vm).adjust(&machine, &spec(), &Quiet).await.unwrap());
    assert_eq!(fake.requests(), [state, patch]);

    // What Incus refuses in the end leaves the machine running as it was.
    let refusal = Value::String(json!({"type": "error", "error": "not found"}).to_string());
    let (dir, fake) = (tempfile::tempdir().unwrap(), Fake::new([(patch, refusal)]));
    let problem = fake.provider(&dir, Kind::Container).adjust(&small, &spec(), &Quiet).await.unwrap_err();
    assert_eq!((problem.code, problem.on), (Code::EngineCall, Some(spec().node)));
    assert_eq!(fake.requests(), [patch, state, patch, state]);
    let actions: Vec<_> = fake.bodies(state).iter().map(|body| body["action"].clone()).collect();
    assert_eq!(actions, ["stop", "start"]);
}

#[tokio::test]
async fn a_virtual_machines_host_key_comes_from_its_console_and_is_kept() {
    let (dir, console) = (tempfile::tempdir().unwrap(), format!("boot\r\nkubecamp-host-key: {HOST_KEY} \r\n"));
    let fake = Fake::new([
        ("GET /instances?recursion=2", json!([instance("virtual-machine", json!({}))])),
        ("GET /instances/lab-cp1/console", Value::String(console)),
    ]);
    // A provider that would make containers shows virtual machines as what they are.
    let machines = fake.provider(&dir, Kind::Container).list(None).await.unwrap();
    assert_eq!((machines[0].kind, machines[0].state), (Kind::Vm, State::Running));
    assert_eq!(machines[0].host_keys, [HOST_KEY]);
    assert_eq!(fake.bodies("PATCH /instances/lab-cp1"), [json!({"config": {"user.kubecamp.host-key": HOST_KEY}})]);
    assert!(fake.bodies("POST /instances/lab-cp1/exec").is_empty(), "there is no agent in it");

    let (dir, known) = (tempfile::tempdir().unwrap(), json!({"user.kubecamp.host-key": HOST_KEY}));
    let fake = Fake::new([("GET /instances?recursion=2", json!([instance("virtual-machine", known)]))]);
    assert_eq!(fake.provider(&dir, Kind::Vm).list(None).await.unwrap()[0].host_keys, [HOST_KEY]);
    assert!(fake.bodies("GET /instances/lab-cp1/console").is_empty());
}

#[tokio::test]
async fn a_containers_usual_key_is_read_without_a_command_in_it() {
    let file = "GET /instances/lab-cp1/files?path=/etc/ssh/ssh_host_ed25519_key.pub";
    for (text, commands) in [(HOST_KEY, 0), ("ecdsa-sha2-nistp256 AAAA", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new([
            ("GET /instances/lab-cp1", instance("container", json!({}))),
            (file, json!(format!("{text}\nother.example ssh-ed25519 BBBB\n"))),
            ("POST /instances/lab-cp1/exec", json!({"return": 1, "output": {}})),
        ]);
        let machine = fake.provider(&dir, Kind::Container).get(&spec().lab, &spec().node).await.unwrap().unwrap();
        assert_eq!(machine.host_keys, if commands == 0 { vec![HOST_KEY] } else { vec![] });
        assert_eq!(fake.bodies("POST /instances/lab-cp1/exec").len(), commands, "{text}");
    }
}

#[tokio::test]
async fn a_machine_that_cannot_tell_its_keys_hides_nobody_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let other = json!({"name": "old-w", "status": "Stopped", "type": "container",
        "config": {settings::LAB: "old", settings::NODE: "w"}});
    let broken = instance("container", json!({}));
    let fake = Fake::new([
        ("GET /instances?recursion=2", json!([broken, other])),
        ("GET /instances/lab-cp1", broken.clone()),
        // What Incus answers where a command fails: nothing was printed.
        ("POST /instances/lab-cp1/exec", json!({"return": 1, "output": {}})),
    ]);
    let provider = fake.provider(&dir, Kind::Container);
    let alone = provider.get(&spec().lab, &spec().node).await.unwrap().unwrap();
    assert_eq!((alone.name.as_str(), alone.state), ("lab-cp1", State::Running));
    assert!(provider.get(&"old".parse().unwrap(), &"w".parse().unwrap()).await.unwrap().is_none());
    assert!(fake.bodies("GET /instances?recursion=2").is_empty(), "for one machine all need not be asked");
    let machines = provider.list(None).await.unwrap();
    assert_eq!(machines.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["lab-cp1", "old-w"]);
    assert_eq!((machines[0].state, machines[0].host_keys.len()), (State::Running, 0));
    assert_eq!(fake.bodies("POST /instances/lab-cp1/exec").len(), 2, "it was asked each time");
    provider.remove(&spec().lab, &spec().node).await.unwrap();
    assert_eq!(fake.bodies("DELETE /instances/lab-cp1").len(), 1);
}

#[tokio::test]
async fn a_published_virtual_machine_forgets_who_it_was() {
    let (dir, known) = (tempfile::tempdir().unwrap(), json!({"user.kubecamp.host-key": HOST_KEY}));
    let fake = Fake::new([("GET /instances/lab-cp1", instance("virtual-machine", known))]);
    let (lab, node) = (spec().lab, spec().node);
    fake.provider(&dir, Kind::Vm).publish(&lab, &node, "v1").await.unwrap();
    let ends = fake.bodies("PUT /instances/lab-cp1/state");
    assert_eq!(ends, [json!({"action": "stop", "timeout": 30, "force": false})]);
    let marks = &fake.bodies("PATCH /instances/lab-cp1")[0]["config"];
    assert_eq!((&marks["user.kubecamp.host-key"], &marks["user.kubecamp.image"]), (&json!(""), &json!("v1")));
    assert_eq!(fake.bodies("POST /instances/lab-cp1"), [json!({"name": "kubecamp-image-v1"})]);
}

#[tokio::test]
async fn what_another_user_of_the_same_incus_was_faster_with_is_taken() {
    let template = json!({"name": "kubecamp-image-v1", "status": "Stopped", "type": "container",
        "config": {"user.kubecamp.image": "v1"}});
    let (dir, machine) = (tempfile::tempdir().unwrap(), instance("container", json!({})));
    let fake = Fake::new([
        ("GET /instances/lab-cp1", machine),
        ("GET /instances/kubecamp-image-v1", template),
        ("POST /images/aliases", Value::String(json!({"type": "error", "error": "not found"}).to_string())),
        ("GET /images/aliases/node", json!({"target": "theirs"})),
    ]);
    let provider = fake.provider(&dir, Kind::Container);
    provider.publish(&spec().lab, &spec().node, "v1").await.unwrap();
    assert_eq!(fake.bodies("DELETE /instances/lab-cp1").len(), 1);
    assert!(fake.bodies("DELETE /instances/kubecamp-image-v1").is_empty(), "machines may be copied from it");
    assert!(fake.bodies("PATCH /instances/lab-cp1").is_empty());

    let incus = &provider.place.incus;
    assert_eq!(incus.name_image("ours".into(), "node").await.unwrap(), "theirs");
    assert_eq!(fake.bodies("DELETE /images/ours").len(), 1);
    incus.name_image("ours".into(), "another").await.unwrap_err();
}

#[tokio::test]
async fn a_publication_that_was_cut_off_is_removed_with_its_machine() {
    let dir = tempfile::tempdir().unwrap();
    let mut half = instance("container", json!({settings::LAB: "", settings::NODE: "", "user.kubecamp.image": "v1"}));
    half["status"] = json!("Stopped");
    let fake = Fake::new([("GET /instances/lab-cp1", half.clone()), ("GET /instances?recursion=1", json!([half]))]);
    let provider = fake.provider(&dir, Kind::Container);
    assert_eq!(provider.images().await.unwrap(), ["v1"]);
    provider.remove(&spec().lab, &spec().node).await.unwrap();
    assert_eq!(fake.bodies("DELETE /instances/lab-cp1").len(), 1);
    // Somebody else's instance of that name is still refused.
    let (dir, other) = (tempfile::tempdir().unwrap(), instance("container", json!({settings::LAB: "other"})));
    let fake = Fake::new([("GET /instances/lab-cp1", other)]);
    fake.provider(&dir, Kind::Container).remove(&spec().lab, &spec().node).await.unwrap_err();
}

#[tokio::test]
async fn what_a_killed_run_asked_for_is_waited_for() {
    let (start, remove) = ("PUT /instances/lab-cp1/state", "DELETE /instances/lab-cp1");
    let begun = |id: &str| {
        let answer = json!({"type": "async", "operation": format!("/1.0/operations/{id}")});
        Value::String(answer.to_string())
    };
    let refused = |words: &str| json!({"status_code": 400, "err": words});
    let fake = Fake::new([
        (format!("{start} #0"), begun("busy")),
        (format!("{start} #1"), begun("runs")),
        (format!("{start} #2"), begun("busy")),
        (format!("{start} #3"), begun("ends")),
        (format!("{remove} #0"), begun("busy")),
        ("GET /operations/busy/wait?timeout=30".to_owned(), refused("Instance is busy running a \"create\" operation")),
        ("GET /operations/runs/wait?timeout=30".to_owned(), refused("The instance is already running")),
        ("GET /operations/ends/wait?timeout=30".to_owned(), refused("The instance is already stopped")),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let provider = fake.provider(&dir, Kind::Container);
    provider.place.incus.start("lab-cp1").await.unwrap();
    provider.place.incus.stop("lab-cp1", None).await.unwrap();
    assert!(provider.place.incus.delete_instance("lab-cp1").await.unwrap());
    assert_eq!((fake.bodies(start).len(), fake.bodies(remove).len()), (4, 2));
}

#[tokio::test]
async fn a_machine_that_started_since_it_was_looked_at_is_removed_all_the_same() {
    let (stop, remove) = ("PUT /instances/lab-cp1/state", "DELETE /instances/lab-cp1");
    let runs = instance("container", json!({}));
    let mut stopped = runs.clone();
    stopped["status"] = json!("Stopped");
    let begun = Value::String(json!({"type": "async", "operation": "/1.0/operations/gone"}).to_string());
    let fake = Fake::new([
        ("GET /instances/lab-cp1 #0".to_owned(), stopped.clone()),
        ("GET /instances/lab-cp1 #1".to_owned(), stopped),
        ("GET /instances/lab-cp1".to_owned(), runs),
        (format!("{remove} #0"), begun),
        ("GET /operations/gone/wait?timeout=30".to_owned(), json!({"status_code": 400, "err": "Instance is running"})),
    ]);
    let dir = tempfile::tempdir().unwrap();
    fake.provider(&dir, Kind::Container).remove(&spec().lab, &spec().node).await.unwrap();
    assert_eq!((fake.bodies(stop).len(), fake.bodies(remove).len()), (1, 2));
}

#[tokio::test]
async fn each_kind_says_what_it_is_and_costs() {
    for (kind, words) in [(Kind::Vm, "kernel and memory of its own"), (Kind::Container, "share this computer's kernel")]
    {
        let dir = tempfile::tempdir().unwrap();
        let said = Fake::default().provider(&dir, kind).describe();
        assert!(said.contains(words) && said.ends_with("(the test wants it)"), "{said}");
    }
}

#[tokio::test]
async fn what_is_left_of_the_disk_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let [used, total] = [150, 200].map(|gib| Bytes::gib(gib).0);
    let resources = json!({"space": {"used": used, "total": total}, "inodes": {}});
    let fake = Fake::new([("GET /storage-pools/pool/resources", resources)]);
    let provider = fake.provider(&dir, Kind::Vm);
    assert_eq!(provider.space().await.unwrap(), Some((Bytes::gib(50), Bytes::gib(200))));
}

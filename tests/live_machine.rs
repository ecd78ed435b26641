//! Real machines in a private engine. They need root and the engine's packages, and fail where these lack.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, join_all};
use kubecamp::{
    core::{Bytes, Code, LabId, LabName, MIB, NodeId, Problem, Quiet},
    engine::Lock,
    hub::gate::{
        Slot,
        agent::{Ground, HandOver, Labs, Machines},
    },
    machine::{
        Engine, ImageRef, IncusProvider, Machine, MachineSpec, NodeImage, Packages, Provider, Recipe, State, Tenant,
    },
    profile::{self, Lab},
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE1xZbFa0eSH3yRNKMSpTKvCLKPKV0LfZD0uU8VS9m9G test";

/// A private engine that is gone when the test ends, however it ends.
struct Bench {
    engine: Engine,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// An engine in a fixed folder of this name: what a killed earlier run left there is in the way on purpose.
    fn new(name: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let missing = runtime.block_on(Packages::here().missing());
        assert!(missing.is_empty(), "live tests of machines need these packages: {}", missing.join(" "));
        let dir = std::env::temp_dir().join(format!("kc-live-{name}"));
        let engine = Engine::new(&dir);
        runtime.block_on(engine.erase(&Quiet)).unwrap();
        Self { engine, dir, runtime }
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    async fn provider(&self) -> IncusProvider {
        let place = self.engine.start(&Quiet).await.unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
        IncusProvider::new(place, NodeImage::new(&cache, Recipe::here(None).unwrap()), "the test wants it")
    }

    fn pid(&self) -> i32 {
        self.run(self.engine.status()).pid.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let erased = self.runtime.block_on(self.engine.erase(&Quiet));
        if !std::thread::panicking() {
            erased.unwrap();
            assert!(!self.dir.exists());
        }
    }
}

fn spec(node: &str) -> MachineSpec {
    MachineSpec {
        lab: "lab".parse().unwrap(),
        tenant: Tenant { id: LabId::new("0123"), known: true, takes_over: false },
        node: node.parse().unwrap(),
        cores: 1,
        memory: Bytes(512 * MIB),
        disk: Bytes::gib(1),
        authorized_key: KEY.to_owned(),
        image: ImageRef::Node,
    }
}

fn id(node: &str) -> NodeId {
    node.parse().unwrap()
}

/// Runs a shell line in a machine, through its init's namespaces.
fn inside(dir: &Path, machine: &str, line: &str) -> String {
    let mut command = Command::new("incus");
    command.args(["exec", machine, "--", "sh", "-c", line]);
    command.env("INCUS_DIR", dir.join("incus")).env("INCUS_CONF", dir.join("client"));
    let out = command.output().unwrap();
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn until(limit: u64, what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(limit);
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {limit} s");
        std::thread::yield_now();
    }
}

#[test]
fn live_three_machines_come_up_snapshot_and_go() {
    let bench = Bench::new("three");
    let dir = bench.dir.clone();
    let provider = bench.run(async {
        let provider = bench.provider().await;
        let clock = Instant::now();
        provider.prepare(&Quiet).await.unwrap();
        eprintln!("node image {:?}", clock.elapsed());
        provider
    });
    let specs = [spec("cp1"), spec("n1"), spec("n2")];
    let clock = Instant::now();
    let made = bench.run(join_all(specs.iter().map(|s| provider.ensure(s, &Quiet))));
    eprintln!("three machines {:?}", clock.elapsed());
    for machine in made {
        let machine = machine.unwrap();
        assert_eq!(machine.state, State::Running);
        assert!(machine.address.is_some() && machine.netns.is_some());
        assert!(machine.host_keys.iter().any(|k| k.starts_with("ssh-ed25519 ")), "{:?}", machine.host_keys);
    }
    let clock = Instant::now();
    bench.run(provider.ensure(&specs[0], &Quiet)).unwrap();
    eprintln!("ensure again {:?}", clock.elapsed());
    assert_eq!(bench.run(provider.list(None)).unwrap().len(), 3);
    assert_eq!(bench.run(provider.list(Some(&"other".parse().unwrap()))).unwrap().len(), 0);

    let lab = "lab".parse().unwrap();
    inside(&dir, "lab-n1", "echo before > /root/mark; sync");
    let clock = Instant::now();
    bench.run(provider.snapshot(&lab, &id("n1"), "clean")).unwrap();
    eprintln!("snapshot {:?}", clock.elapsed());
    inside(&dir, "lab-n1", "echo after > /root/mark");
    let clock = Instant::now();
    bench.run(provider.restore(&lab, &id("n1"), "clean")).unwrap();
    eprintln!("restore {:?}", clock.elapsed());
    assert_eq!(inside(&dir, "lab-n1", "cat /root/mark"), "before");
    assert_eq!(bench.run(provider.restore(&lab, &id("n1"), "none")).unwrap_err().code, Code::MachineStart);

    let clock = Instant::now();
    let nodes = [id("cp1"), id("n1"), id("n2")];
    for removed in bench.run(join_all(nodes.iter().map(|n| provider.remove(&lab, n)))) {
        removed.unwrap();
    }
    eprintln!("removed {:?}", clock.elapsed());
    bench.run(provider.remove(&lab, &id("n1"))).unwrap();
    assert_eq!(bench.run(provider.list(None)).unwrap().len(), 0);
    let clock = Instant::now();
    bench.run(bench.engine.stop(&Quiet)).unwrap();
    eprintln!("stopped {:?}", clock.elapsed());
    let status = bench.run(bench.engine.status());
    assert!(!status.running && status.traces.is_empty(), "{status:?}");
}

#[test]
fn live_a_machine_has_what_kubelet_looks_for_and_its_limits_hold() {
    let bench = Bench::new("node");
    let provider = bench.run(bench.provider());
    bench.run(provider.ensure(&spec("cp1"), &Quiet)).unwrap();
    let ask = |line: &str| inside(&bench.dir, "lab-cp1", line);
    let state = || ask("systemctl is-system-running");
    until(20, "systemd is running", || state() == "running");
    assert_eq!(ask("hostname; getent hosts cp1 | awk '{print $2}'"), "cp1\ncp1");
    assert_eq!(
        ask("test -c /dev/kmsg && d=$(awk '$2==\"/\"{print $1}' /proc/mounts) && test -b $d && echo yes"),
        "yes"
    );
    assert_eq!(ask("sysctl -qw net.ipv4.ip_forward=1 && cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(ask("findmnt -no PROPAGATION /"), "shared");
    let tools = "for t in conntrack iptables nft ipset ethtool socat modprobe curl sudo sshd tar gzip zstd ip pgrep; do \
        command -v $t >/dev/null || echo $t; done";
    assert_eq!(ask(tools), "");
    assert_eq!(ask("awk '/^MemTotal/{print $2}' /proc/meminfo"), (512 * 1024).to_string());
    if Path::new("/sys/fs/cgroup/cpu").exists() {
        for controller in ["cpu", "cpuacct", "memory", "pids"] {
            let line = format!("d=/sys/fs/cgroup/{controller}; test ! -L $d && mkdir $d/kc && rmdir $d/kc && echo rw");
            assert_eq!(ask(&line), "rw", "{controller}");
        }
        assert_eq!(ask("cat /sys/fs/cgroup/memory/memory.limit_in_bytes"), (512 * MIB).to_string());
    } else {
        assert_eq!(ask("cat /sys/fs/cgroup/memory.max"), (512 * MIB).to_string());
    }
    assert_eq!(ask("nproc"), "1");
    // A GiB of disk: more does not fit.
    let fill = "dd if=/dev/urandom of=/fill bs=1M count=1100 2>&1 | grep -o 'No space left\\|quota exceeded' | head -1; rm -f /fill";
    assert_ne!(ask(fill), "");
    // Half a GiB of memory: a process that takes a whole one is killed.
    assert_eq!(ask("head -c 1G /dev/zero | tail -c 1G | wc -c"), "0");
}

#[test]
fn live_a_published_machine_starts_others_with_keys_of_their_own() {
    let bench = Bench::new("golden");
    let provider = bench.run(bench.provider());
    let lab = "lab".parse().unwrap();
    let made = bench.run(provider.ensure(&spec("seed"), &Quiet)).unwrap();
    inside(&bench.dir, "lab-seed", "echo ready > /root/mark");
    assert!(!bench.run(provider.has_image("v1")).unwrap());
    let clock = Instant::now();
    bench.run(provider.publish(&lab, &id("seed"), "v1")).unwrap();
    eprintln!("publish {:?}", clock.elapsed());
    assert!(bench.run(provider.has_image("v1")).unwrap());
    assert!(bench.run(provider.list(None)).unwrap().is_empty());
    let specs = ["a", "b", "c"].map(|n| MachineSpec { image: ImageRef::Prepared("v1".into()), ..spec(n) });
    let clock = Instant::now();
    let copies = bench.run(join_all(specs.iter().map(|s| provider.ensure(s, &Quiet))));
    eprintln!("three copies {:?}", clock.elapsed());
    let mut keys = made.host_keys.clone();
    for copy in copies {
        let copy = copy.unwrap();
        assert_eq!(inside(&bench.dir, &copy.name, "cat /root/mark"), "ready");
        assert_eq!(inside(&bench.dir, &copy.name, "hostname"), copy.node.as_str());
        keys.extend(copy.host_keys);
        keys.push(inside(&bench.dir, &copy.name, "cat /etc/machine-id"));
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), count), (7, 7), "{keys:?}");
    bench.run(provider.drop_image("v1")).unwrap();
    assert!(!bench.run(provider.has_image("v1")).unwrap());
}

#[test]
fn live_a_killed_daemon_comes_back_to_its_running_machines() {
    let bench = Bench::new("killed");
    let provider = bench.run(bench.provider());
    bench.run(provider.ensure(&spec("cp1"), &Quiet)).unwrap();
    let boot = inside(&bench.dir, "lab-cp1", "cat /proc/1/stat | cut -d' ' -f22");
    let pid = bench.pid();
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    until(10, "the daemon is dead", || !bench.run(bench.engine.status()).running);
    let provider = bench.run(bench.provider());
    assert_ne!(bench.pid(), pid);
    bench.run(provider.ensure(&spec("cp1"), &Quiet)).unwrap();
    assert_eq!(inside(&bench.dir, "lab-cp1", "cat /proc/1/stat | cut -d' ' -f22"), boot, "the machine was restarted");

    // Stopping clears the rest of a daemon that was killed.
    let pid = bench.pid();
    Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    until(10, "the daemon is dead", || !bench.run(bench.engine.status()).running);
    bench.run(bench.engine.stop(&Quiet)).unwrap();
    let status = bench.run(bench.engine.status());
    assert!(!status.running && status.traces.is_empty(), "{status:?}");

    // What was stopped starts again with its machines.
    let provider = bench.run(bench.provider());
    assert_eq!(bench.run(provider.list(None)).unwrap().len(), 1);
    bench.run(provider.ensure(&spec("cp1"), &Quiet)).unwrap();
}

/// A server of this test's own on one of this computer's addresses; whoever asks gets a word. The kernel delivers to
/// its own addresses without any wire.
fn greeter(address: std::net::IpAddr) -> u16 {
    use std::io::Write;
    let listener = std::net::TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            (&stream).write_all(b"hello\n").ok();
        }
    });
    port
}

#[test]
fn live_only_a_way_out_leads_out_and_never_to_this_computers_loopback() {
    let text = Command::new("ip").args(["-4", "-o", "address", "show", "scope", "global"]).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    let own = text.split_whitespace().skip_while(|w| *w != "inet").nth(1).and_then(|w| w.split('/').next());
    let own: std::net::IpAddr = own.expect("this computer has an address").parse().unwrap();
    let (port, private) = (greeter(own), greeter([127, 0, 0, 1].into()));
    let bench = Bench::new("out");
    let provider = bench.run(bench.provider());
    bench.run(provider.ensure(&spec("cp1"), &Quiet)).unwrap();
    let ask = |to: &str, port: u16| {
        inside(&bench.dir, "lab-cp1", &format!("timeout 3 bash -c 'head -n 1 </dev/tcp/{to}/{port}' 2>/dev/null"))
    };
    assert_eq!(ask(&own.to_string(), port), "", "without --outbound there is no way out");
    assert!(!bench.engine.outbound());

    bench.run(bench.engine.open_outbound(&Quiet)).unwrap();
    bench.run(bench.engine.open_outbound(&Quiet)).unwrap();
    assert!(bench.engine.outbound() && bench.run(bench.engine.status()).outbound);
    assert_eq!(ask(&own.to_string(), port), "hello");
    assert_eq!(ask("10.0.2.2", private), "", "the loopback of this computer is nobody else's business");
    assert_eq!(ask("127.0.0.1", private), "");

    // It is closed without the machines, and opened again.
    bench.run(bench.engine.close_outbound()).unwrap();
    assert!(!bench.engine.outbound());
    assert_eq!(ask(&own.to_string(), port), "");
    bench.run(bench.engine.open_outbound(&Quiet)).unwrap();
    assert_eq!(ask(&own.to_string(), port), "hello");

    // It ends with the engine, which starts without it.
    bench.run(bench.engine.stop(&Quiet)).unwrap();
    assert!(!bench.engine.outbound());
    let traces = bench.run(bench.engine.status()).traces;
    assert!(traces.is_empty(), "{traces:?}");
    bench.run(bench.engine.start(&Quiet)).unwrap();
    bench.run(provider.ensure(&spec("cp1"), &Quiet)).unwrap();
    assert_eq!(ask(&own.to_string(), port), "");
}

/// A maker of labs without Kubernetes: what comes back and what is gone shows in the machines.
struct Bare {
    provider: Arc<dyn Provider>,
    labs: Mutex<BTreeMap<LabName, Lab>>,
}

#[async_trait::async_trait]
impl Labs for Bare {
    fn known(&self, lab: &LabName) -> Result<Option<Lab>, Problem> {
        Ok(self.labs.lock().unwrap().get(lab).cloned())
    }
    async fn alone(&self, _: &LabName) -> Result<Option<Lock>, Problem> {
        Ok(None)
    }
    async fn up(&self, lab: &LabName, layout: &str) -> Result<(), Problem> {
        let made = Lab::new(lab.clone(), profile::load(layout).unwrap()).unwrap();
        for node in made.nodes() {
            let name = node.name.as_str();
            self.provider.ensure(&MachineSpec { lab: lab.clone(), ..spec(name) }, &Quiet).await?;
        }
        self.labs.lock().unwrap().insert(lab.clone(), made);
        Ok(())
    }
    async fn down(&self, lab: &LabName) -> Result<(), Problem> {
        let Some(made) = self.labs.lock().unwrap().remove(lab) else { return Ok(()) };
        for node in made.nodes() {
            self.provider.remove(lab, &node.name).await?;
        }
        Ok(())
    }
    async fn is_unwanted(&self, _: &Slot) -> Result<bool, Problem> {
        Ok(false)
    }
    async fn hand(
        &self,
        _: &Slot,
        _: &LabName,
        _: &[Machine],
        trouble: Option<&Problem>,
    ) -> Result<Vec<Problem>, Problem> {
        assert!(trouble.is_none(), "{trouble:?}");
        Ok(vec![])
    }
}

#[test]
fn live_a_holders_lab_comes_back_and_the_next_finds_none_of_it() {
    let bench = Bench::new("hand");
    let dir = bench.dir.clone();
    let provider: Arc<dyn Provider> = Arc::new(bench.run(async {
        let provider = bench.provider().await;
        provider.prepare(&Quiet).await.unwrap();
        provider
    }));
    let labs = Arc::new(Bare { provider: Arc::clone(&provider), labs: Mutex::default() });
    let shared = Arc::clone(&provider);
    let source = move |_: LabName| -> BoxFuture<'static, _> {
        Box::pin(std::future::ready(Ok(Ground { provider: Arc::clone(&shared), place: None })))
    };
    let machines = Machines::of(labs, Box::new(source), bench.dir.join("reach"));
    let slot = |booking: &str, account: &str| Slot {
        layout: Some("1x4c12g".into()),
        key: Some(KEY.into()),
        ..Slot::new(booking, account, 0, 10)
    };
    let (first, next) = (slot("1", "kct-a"), slot("2", "kct-b"));
    let state = |lab: &str| bench.run(provider.list(Some(&lab.parse().unwrap()))).unwrap()[0].state;

    bench.run(machines.arm(&first)).unwrap();
    inside(&dir, "gate-kct-a-cp", "echo mine > /root/mark; sync");
    assert!(bench.run(machines.prove(&first)).is_err(), "it runs");
    for _ in 0..2 {
        // Twice, as after a death of the agent.
        bench.run(machines.save(&first)).unwrap();
        bench.run(machines.reset(&first)).unwrap();
    }
    bench.run(machines.prove(&first)).unwrap();
    assert_eq!(state("gate-kct-a"), State::Stopped);

    let clock = Instant::now();
    bench.run(machines.arm(&next)).unwrap();
    eprintln!("a fresh lab {:?}", clock.elapsed());
    assert_eq!(inside(&dir, "gate-kct-b-cp", "ls /root/mark 2>&1 | grep -c 'No such'"), "1");
    assert_eq!(state("gate-kct-a"), State::Stopped, "who has no slot has no machine that runs");
    bench.run(machines.save(&next)).unwrap();
    bench.run(machines.prove(&next)).unwrap();

    let clock = Instant::now();
    bench.run(machines.arm(&first)).unwrap();
    eprintln!("one's own lab {:?}", clock.elapsed());
    assert_eq!(inside(&dir, "gate-kct-a-cp", "cat /root/mark"), "mine");
}

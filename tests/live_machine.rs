//! Real machines in a private engine. They need root and the engine's packages, and fail where these lack.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kubecamp::{
    core::{Bytes, Code, MIB, NodeId, Quiet},
    machine::{Engine, ImageRef, IncusProvider, MachineSpec, NodeImage, Packages, Provider, Recipe, State},
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
        node: node.parse().unwrap(),
        cores: 1,
        memory: Bytes(512 * MIB),
        disk: Bytes::gib(2),
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
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)).trim().to_owned()
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

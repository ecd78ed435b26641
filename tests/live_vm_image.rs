//! The disk of a virtual machine boots by UEFI, without KVM: qemu emulates a machine as Incus would make it. It needs
//! root and the packages named by `Packages::for_vms`, and fails where these lack.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kubecamp::{
    core::Quiet,
    machine::{Kind, NodeImage, Packages, Recipe},
    transport::{Cmd, HostKeyPolicy, Io, SshTarget, SshTransport, Transport, ssh::KeyPair},
};

/// An emulated machine is slow, a busy computer slower.
const LIMIT: Duration = Duration::from_secs(600);
const NETNS: &str = "kc-live-vm";
const GATEWAY: &str = "10.116.0.1";

/// Notes the modules of a machine as `up` does before anything else.
const RECORD: &str = "mkdir -p /var/lib/kubecamp && { printf 'scan\\t3\\n'; awk '{print \"module\\t\" $1}' /proc/modules; } > /var/lib/kubecamp/before";

/// Unloads what came since, and shows what did not go.
const UNLOAD: &str = concat!(
    "CONTAINER=no CONTROL=no NODES=\n",
    include_str!("../templates/reset/host.sh"),
    include_str!("../templates/reset/restore.sh"),
    "remove_modules; rm -rf /var/lib/kubecamp\n",
    "for m in ip_vs ip_vs_rr nf_conntrack xt_set ip_set ip_set_hash_ip; do [ ! -e /sys/module/$m ] || echo $m; done"
);

/// A network namespace with a tap device, and the machine in it; both are gone when the test ends.
struct Bench {
    dir: tempfile::TempDir,
    key: KeyPair,
    guest: Option<Child>,
}

/// One start of the machine.
struct Start {
    uuid: &'static str,
    node: &'static str,
    address: &'static str,
}

fn run(program: &str, words: &[&str]) {
    let out = Command::new(program).args(words).output().unwrap();
    assert!(out.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&out.stderr));
}

impl Bench {
    fn new() -> Self {
        Command::new("ip").args(["netns", "delete", NETNS]).output().unwrap();
        run("ip", &["netns", "add", NETNS]);
        for line in ["tuntap add kctap mode tap", &format!("addr add {GATEWAY}/24 dev kctap"), "link set kctap up"] {
            let words: Vec<_> = ["-n", NETNS].into_iter().chain(line.split(' ')).collect();
            run("ip", &words);
        }
        Self { dir: tempfile::tempdir().unwrap(), key: KeyPair::new("test").unwrap(), guest: None }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Disk out of the image, made larger as a layout does, and empty firmware variables.
    fn unpack(&self, image: &Path) {
        let (dir, image) = (self.dir.path().display().to_string(), image.display().to_string());
        run("tar", &["--zstd", "-C", &dir, "-xf", &image, "metadata.yaml", "rootfs.img"]);
        run("qemu-img", &["resize", "-q", "-f", "qcow2", &format!("{dir}/rootfs.img"), "6G"]);
        fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", self.at("vars.fd")).unwrap();
    }

    /// Starts the machine with devices like those that Incus gives; returns its console, line by line.
    fn start(&mut self, start: &Start) -> Receiver<String> {
        let Start { uuid, node, address } = start;
        let told = format!("NODE={node}\nADDRESS={address}/24\nGATEWAY={GATEWAY}\nKEY={}\n", self.key.public);
        let told = BASE64_STANDARD.encode(told);
        let file = |name: &str| self.at(name).display().to_string();
        let mut qemu = Command::new("ip");
        qemu.args(["netns", "exec", NETNS, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35"]);
        // One CPU: with two under emulation the guest's kernel has once died of `Oops: int3` on its way up.
        // And of the plainest model: what the others have more is slow to emulate, a sixth of the time until SSH answers.
        qemu.args(["-cpu", "qemu64", "-smp", "1", "-m", "1536", "-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.args(["-serial", "stdio", "-no-reboot", "-uuid", uuid]);
        qemu.args(["-smbios", &format!("type=11,value=io.systemd.credential.binary:kubecamp.machine={told}")]);
        qemu.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
        qemu.args(["-drive", &format!("if=pflash,format=raw,file={}", file("vars.fd"))]);
        qemu.args(["-drive", &format!("if=none,id=d,format=qcow2,cache=unsafe,file={}", file("rootfs.img"))]);
        qemu.args(["-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,drive=d,bus=scsi.0,bootindex=0"]);
        qemu.args(["-netdev", "tap,id=n,ifname=kctap,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n"]);
        qemu.args(["-device", "virtio-rng-pci", "-qmp", &format!("unix:{},server=on,wait=off", file("qmp"))]);
        let mut guest = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let console = BufReader::new(guest.stdout.take().unwrap());
        self.guest = Some(guest);
        let (tell, hear) = channel();
        std::thread::spawn(move || {
            for line in console.split(b'\n').map_while(Result::ok) {
                tell.send(String::from_utf8_lossy(&line).trim().to_owned()).ok();
            }
        });
        hear
    }

    /// Logs in with the host key that the console showed and with no other; the console is the clock between tries.
    async fn login(&self, start: &Start, console: &Receiver<String>) -> (SshTransport, String) {
        let end = Instant::now() + LIMIT;
        let mut seen = vec![];
        let key = loop {
            let line = console.recv_timeout(end.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|e| panic!("no host key on the console: {e}\n{}", seen.join("\n")));
            if let Some((_, key)) = line.split_once("kubecamp-host-key: ") {
                break key.to_owned();
            }
            seen.push(line);
        };
        let mut target = SshTarget::new("root", start.address, 22);
        (target.identities, target.identities_only, target.agent) = (vec![self.key.identity().unwrap()], true, None);
        target.netns = Some(Path::new("/run/netns").join(NETNS));
        target.host_keys = HostKeyPolicy::Pinned(vec![key.clone()]);
        loop {
            match SshTransport::connect(target.clone()).await {
                Ok(link) => return (link, key),
                Err(problem) => assert!(Instant::now() < end, "{problem}"),
            }
            let pause = console.recv_timeout(Duration::from_millis(300));
            assert!(pause != Err(RecvTimeoutError::Disconnected), "the machine ended");
        }
    }

    /// Presses the power button; the machine must end by itself, as `incus stop` waits for.
    fn power_off(&mut self, console: &Receiver<String>) {
        let mut qmp = UnixStream::connect(self.at("qmp")).unwrap();
        for command in ["qmp_capabilities", "system_powerdown"] {
            writeln!(qmp, "{{\"execute\": \"{command}\"}}").unwrap();
        }
        let end = Instant::now() + Duration::from_secs(120);
        let mut seen = vec![];
        loop {
            match console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("the power button did not end the machine\n{}", seen.join("\n"))
                }
            }
        }
        assert!(self.guest.take().unwrap().wait().unwrap().success());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(mut guest) = self.guest.take() {
            guest.kill().ok();
            guest.wait().ok();
        }
        Command::new("ip").args(["netns", "delete", NETNS]).output().unwrap();
    }
}

async fn ask(link: &SshTransport, line: &str) -> String {
    let exit = link.exec(&Cmd::new(line), Io::default()).await.unwrap();
    assert!(exit.ok(), "{line}: {exit:?}");
    exit.text()
}

/// Waits until everything has started, and well, and something listens to the power button: a press before that is lost. The
/// kernel may find the button, and so logind, after all units have started.
async fn up_and_well(link: &SshTransport) {
    let listens = "journalctl -b -u systemd-logind | grep -q 'Watching system buttons on .*(Power Button)'";
    ask(link, &format!("timeout 120 sh -c \"until {listens}; do sleep 0.3; done\"")).await;
    let state = ask(link, "systemctl is-system-running --wait; systemctl --failed --no-legend").await;
    assert_eq!(state, "running");
}

#[tokio::test]
async fn live_machine_vm_boots_by_uefi_and_a_copy_of_it_is_another_machine() {
    let missing = Packages::here().and(Packages::for_vms()).missing().await;
    assert!(missing.is_empty(), "this test needs these packages: {}", missing.join(" "));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    let recipe = Recipe::here(None).unwrap().of_kind(Kind::Vm);
    let clock = Instant::now();
    let image = NodeImage::new(&cache, recipe).ensure(&Quiet).await.unwrap();
    eprintln!("image of a virtual machine {:?}", clock.elapsed());
    let mut bench = Bench::new();
    bench.unpack(&image);

    let first = Start { uuid: "11111111-2222-4333-8444-555555555555", node: "cp1", address: "10.116.0.2" };
    let clock = Instant::now();
    let console = bench.start(&first);
    let (link, key) = bench.login(&first, &console).await;
    eprintln!("SSH answers after {:?}", clock.elapsed());
    up_and_well(&link).await;
    assert_eq!(
        ask(&link, "hostname; getent hosts cp1; cat /etc/machine-id").await.split_whitespace().collect::<Vec<_>>(),
        ["cp1", "10.116.0.2", "cp1", "11111111222243338444555555555555"]
    );
    assert_eq!(ask(&link, "cat /etc/resolv.conf").await, format!("nameserver {GATEWAY}"));
    let route = ask(&link, "ip -4 route show default").await;
    assert_eq!(route.trim(), format!("default via {GATEWAY} dev eth0"));
    let size: u64 = ask(&link, "df --output=size -BM / | tail -n 1 | tr -dc 0-9").await.parse().unwrap();
    assert!(size > 5500, "the root has {size} MiB of a disk of 6144");
    // What kubeadm's nodes load; ip_vs is what a container can only have from its computer's kernel.
    let modules = "for m in ip_vs ip_vs_rr overlay br_netfilter vxlan nf_conntrack dummy xt_set ip_set_hash_ip; do modprobe $m || exit 1; done";
    ask(&link, RECORD).await;
    ask(&link, modules).await;
    assert_eq!(ask(&link, "lsmod | grep -c '^ip_vs '").await, "1");
    assert_eq!(ask(&link, "sysctl -qw net.ipv4.vs.conntrack=1 && cat /proc/sys/net/ipv4/vs/conntrack").await, "1");
    // And what reset unloads again, since they are new and nothing uses them.
    let gone = link.exec(&Cmd::script(UNLOAD), Io::default()).await.unwrap();
    assert!(gone.ok() && gone.text().is_empty(), "still loaded: {gone:?}");
    assert_eq!(ask(&link, "stat -fc %T /sys/fs/cgroup; findmnt -no PROPAGATION /").await, "cgroup2fs\nshared");
    ask(&link, "echo before >/root/mark").await;
    link.close().await;
    let clock = Instant::now();
    bench.power_off(&console);
    eprintln!("power button {:?}", clock.elapsed());

    // Another UUID is what Incus gives to a copy of the disk.
    let copy = Start { uuid: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", node: "n1", address: "10.116.0.3" };
    let console = bench.start(&copy);
    let (link, other) = bench.login(&copy, &console).await;
    assert_ne!(other, key);
    assert_eq!(
        ask(&link, "hostname; cat /etc/machine-id /root/mark").await,
        "n1\naaaaaaaabbbb4ccc8dddeeeeeeeeeeee\nbefore"
    );
    assert_eq!(ask(&link, "getent hosts cp1 || echo unknown").await, "unknown");
    up_and_well(&link).await;
    link.close().await;
    bench.power_off(&console);
}

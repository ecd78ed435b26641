//! `kubecamp kubectl` where only SSH leads to the control plane; an echo stands for the API server.

use std::{
    fs,
    net::{Shutdown, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use kubecamp::{
    profile::Lab,
    transport::{SshTransport, Transport, Tunnel},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::sshd::{Setup, Sshd, must, poll};

/// Sends back what comes, until the other side has no more; returns its port on 127.0.0.1.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut &stream);
                let _ = stream.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

/// Asks the server that it is told of, and says which one that was.
const KUBECTL: &str = r#"#!/bin/bash
case $1 in
config) echo "$KUBECONFIG" ;;
wait) sleep 0.3; touch "$HOME/began"; exec sleep 600 ;;
*)
    first=${KUBECONFIG%%:*}
    stat -c %a "$first"
    at=$(grep -o '127\.0\.0\.[12]:[0-9]*' "$first")
    exec 3<>"/dev/tcp/${at%:*}/${at#*:}" || exit 9
    echo "$* at ${at#*:}" >&3
    head -n 1 <&3
    exit 7 ;;
esac
"#;

/// A lab on one host, and a computer with that kubectl.
struct World {
    home: tempfile::TempDir,
    host: Sshd,
}

impl World {
    fn on(host: Sshd) -> Self {
        let home = tempfile::tempdir().unwrap();
        for folder in ["bin", "tmp", "data/labs/lab"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        let lab = Lab::new("lab".parse().unwrap(), kubecamp::profile::load("1x4c12g").unwrap()).unwrap();
        fs::write(home.path().join("data/labs/lab/lab.yaml"), lab.to_yaml().unwrap()).unwrap();
        let world = Self { home, host };
        world.program("kubectl", KUBECTL);
        world
    }

    /// Puts a script first in `PATH`.
    fn program(&self, name: &str, text: &str) {
        let file = self.home.path().join("bin").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The lab's API server is at `server`, as its kubeconfig says, and its host behind `jump`.
    fn lab(&self, server: &str, jump: Option<&Sshd>) {
        let jump = jump.map(|gate| {
            gate.authorize(&fs::read_to_string(self.host.file("authorized")).unwrap());
            format!("root@127.0.0.1:{}", gate.port)
        });
        let (port, key) = (self.host.port, self.host.file("user_key"));
        let host = serde_json::json!(
            {"address": "127.0.0.1", "user": "root", "port": port, "identity": key, "jump": jump}
        );
        let state = serde_json::json!({"format": 1, "place": {"hosts": [["cp", host]]}, "bundle": null});
        let folder = self.home.path().join("data/labs/lab");
        fs::write(folder.join("state.json"), state.to_string()).unwrap();
        let conf = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: LS0tCg==\n    \
             server: https://{server}\n  name: lab\nusers: []\n"
        );
        fs::write(folder.join("kubeconfig"), conf).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
        let home = self.home.path();
        command.env_clear().env("PATH", format!("{}/bin:/usr/bin:/bin", home.display()));
        command.env("HOME", home).env("KUBECAMP_HOME", home).env("TMPDIR", home.join("tmp"));
        command.current_dir(home).stdin(Stdio::null()).args(["kubectl", "--accept-new-host-keys", "--"]).args(args);
        command
    }

    /// Exit code, data, and what was said beside it.
    fn kubectl(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let out = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        // The lab has no bundle here, which is said each time.
        let said = text(out.stderr)
            .lines()
            .filter(|line| !line.starts_with("note: no bundle with the lab's kubectl"))
            .collect();
        (out.status.code(), text(out.stdout), said)
    }

    /// Nothing is left of what kubectl was given.
    fn is_tidy(&self) -> bool {
        fs::read_dir(self.home.path().join("tmp")).unwrap().count() == 0
    }
}

fn logins(server: &Sshd) -> usize {
    server.log().matches("Accepted publickey").count()
}

#[test]
fn live_ssh_kubectl_goes_the_way_that_ssh_goes() {
    let (gate, world, api) = (Sshd::start(), World::on(Sshd::start()), echo());
    let ways = || (logins(&gate), logins(&world.host));
    // A port that answers does not count behind a jump host: it may be another's.
    world.lab(&format!("127.0.0.1:{api}"), Some(&gate));
    let (code, data, said) = world.kubectl(&["get", "pods", "-w"]);
    assert_eq!(code, Some(7), "{said}");
    let port = data.trim_end().strip_prefix("600\nget pods -w at ").unwrap_or_else(|| panic!("{data}"));
    assert_ne!(port, api.to_string(), "it is the tunnel's own");
    assert!(world.is_tidy());
    // The first time asks for host keys, and connects anew for each.
    let (outer, inner) = ways();
    assert_eq!(world.kubectl(&["get", "pods", "-w"]), (code, data, String::new()), "the same port, and no word of it");
    assert_eq!(ways(), (outer + 1, inner + 1));

    world.lab(&format!("127.0.0.2:{api}"), None);
    let (code, data, said) = world.kubectl(&["get"]);
    assert!(code == Some(7) && data.starts_with("600\nget at "), "nothing answers there: {data}{said}");
    assert_eq!(ways(), (outer + 1, inner + 2));
    let own = world.home.path().join("data/labs/lab/kubeconfig").display().to_string();
    assert_eq!(world.kubectl(&["config", "view"]), (Some(0), format!("{own}\n"), String::new()));

    world.lab(&format!("127.0.0.1:{api}"), None);
    let (code, data, said) = world.kubectl(&["get"]);
    assert!(code == Some(7) && data.ends_with(&format!("get at {api}\n")), "it is reached directly: {data}{said}");
    assert_eq!(ways(), (outer + 1, inner + 2));
    world.program("ssh", "#!/bin/sh\nexit 255\n");
    assert_eq!(world.kubectl(&["get"]), (code, data, String::new()), "also where ssh_config cannot be read");
    world.lab(&format!("127.0.0.2:{api}"), None);
    let (code, _, said) = world.kubectl(&["get"]);
    assert!(code == Some(2) && said.contains("KC-HOST-SPEC"), "{said}");
}

#[test]
fn live_ssh_a_kubectl_that_is_to_end_takes_its_tunnel_along() {
    let world = World::on(Sshd::start());
    world.lab(&format!("127.0.0.2:{}", echo()), None);
    let mut running = world.command(&["wait"]).spawn().unwrap();
    poll("kubectl's start", || world.home.path().join("began").exists().then_some(()));
    assert!(!world.is_tidy());
    must("kill", &["-TERM", &running.id().to_string()]);
    assert_eq!(running.wait().unwrap().code(), Some(143));
    assert!(world.is_tidy());
}

#[test]
fn live_ssh_a_host_that_forwards_nothing_is_told() {
    let world = World::on(Sshd::with(Setup { config: "AllowTcpForwarding no".into(), ..Setup::default() }));
    world.lab(&format!("127.0.0.2:{}", echo()), None);
    let (code, data, said) = world.kubectl(&["get"]);
    assert_eq!((code, data.as_str()), (Some(4), ""), "{said}");
    for word in ["KC-HOST-UNREACHABLE on cp", "hint: ", "AllowTcpForwarding"] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn live_ssh_a_tunnel_carries_many_connections_to_their_ends() {
    let (server, api) = (Sshd::start(), echo());
    let link = SshTransport::connect(server.target()).await.unwrap_or_else(|p| panic!("{p}\n{}", server.log()));
    let tunnel = Tunnel::open(&link, 0, api, |e| panic!("{e}")).await.unwrap();
    let other = Tunnel::open(&link, tunnel.at().port(), api, |e| panic!("{e}")).await.unwrap();
    assert_ne!(tunnel.at(), other.at(), "a port in use is left alone");
    let all = (0..20u8).map(|i| {
        let at = if i % 2 == 0 { tunnel.at() } else { other.at() };
        async move {
            let (mut read, mut write) = TcpStream::connect(at).await.unwrap().into_split();
            let (sent, mut got) = (vec![i; 1 << 20], vec![]);
            let send = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let (ended, ()) = tokio::join!(read.read_to_end(&mut got), send);
            ended.unwrap();
            assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
        }
    });
    futures::future::join_all(all).await;
}

#[tokio::test]
async fn live_ssh_a_host_that_stands_still_under_a_load_is_left_in_time() {
    let (server, api) = (Sshd::start(), echo());
    let link = SshTransport::connect(server.target()).await.unwrap_or_else(|p| panic!("{p}\n{}", server.log()));
    let (load, mut streams) = (vec![0; 2 << 20], vec![]);
    for _ in 0..10 {
        streams.push(link.forward("127.0.0.1", api).await.unwrap());
    }
    assert_eq!(server.freeze(), 1);
    // The host lets each have 2 MiB on the way: together it is more than the kernel keeps.
    let all = futures::future::join_all(streams.iter_mut().map(|stream| stream.write_all(&load)));
    assert!(tokio::time::timeout(Duration::from_secs(1), all).await.is_err(), "it takes no more");
    drop(streams);
    let left = tokio::time::timeout(Duration::from_secs(10), link.close()).await;
    server.cut();
    left.expect("it was waited for");
}

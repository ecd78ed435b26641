//! The whole way as people go it: the hub as a process, a server enrolled over SSH, its agent and sshd, and students
//! who log in, book, come in and are put out. Nothing here is a stand-in but the computer around it.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::sandbox::Sandbox;

/// Each step has this long: the agent asks each five seconds, and this may be a slow machine.
const LIMIT: Duration = Duration::from_secs(40);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A camp of one server, whose folder everybody sees.
struct Camp {
    server: Sandbox,
    dir: tempfile::TempDir,
    hub: Option<Process>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Camp {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut camp = Self { server: Sandbox::start(), dir, hub: None };
        camp.sh("mkdir -p /run/sshd && /usr/sbin/sshd -o PidFile=/run/sshd.pid && install -d -m 700 /root/.ssh");
        for who in ["ann", "amy", "bob", "admin"] {
            let home = camp.file(who);
            fs::create_dir(&home).unwrap();
            let key = home.join("id_ed25519").display().to_string();
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status().unwrap();
            assert!(made.success());
        }
        camp.sh(&format!("cat {}/ann/id_ed25519.pub > /root/.ssh/authorized_keys", camp.dir.path().display()));
        camp.sh("ssh-keyscan -t ed25519 127.0.0.1 > /root/.ssh/known_hosts 2>/dev/null");
        camp.start_hub();
        camp
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn database(&self) -> String {
        format!("sqlite://{}", self.file("hub.db").display())
    }

    fn start_hub(&mut self) {
        let socket = self.file("hub.sock");
        let log = File::options().create(true).append(true).open(self.file("hub.log")).unwrap();
        let mut hub = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
        hub.args(["hub", "serve", "--listen"]).arg(format!("unix:{}", socket.display()));
        hub.args(["--database", &self.database()]).env("KUBECAMP_HOME", self.file("hub"));
        self.hub = Some(Process(hub.stdin(Stdio::null()).stderr(log).spawn().unwrap()));
        self.until("the hub", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    /// A script inside the server, as root.
    fn sh(&self, script: &str) -> String {
        let out = self.server.command("sh").args(["-ec", script]).output().unwrap();
        assert!(out.status.success(), "{script}: {}{}\n{}", text(&out.stdout), text(&out.stderr), self.logs());
        text(&out.stdout)
    }

    /// The program, as somebody who sits at a computer that reaches the server.
    fn run(&self, who: &str, args: &[&str], input: &str) -> Output {
        // Away from any terminal, on which ssh would ask for a password.
        let mut command = self.server.command("setsid");
        let hub = format!("unix:{}", self.file("hub.sock").display());
        command
            .args(["--wait", "env"])
            .args([format!("KUBECAMP_HOME={}", self.file(who).display()), format!("KUBECAMP_HUB={hub}")]);
        command.arg(env!("CARGO_BIN_EXE_kubecamp")).args(args);
        fs::write(self.file("input"), input).unwrap();
        command.stdin(File::open(self.file("input")).unwrap()).output().unwrap()
    }

    /// As [`Camp::run`], and it must work.
    fn does(&self, who: &str, args: &[&str]) -> String {
        let out = self.run(who, args, "");
        assert!(out.status.success(), "{who} {args:?}: {}{}\n{}", text(&out.stdout), text(&out.stderr), self.logs());
        text(&out.stdout)
    }

    /// A login by `book ssh`.
    fn ssh(&self, who: &str, line: &str) -> Output {
        let key = self.file(who).join("id_ed25519").display().to_string();
        self.run(who, &["book", "ssh", "--identity", &key, "--", line], "")
    }

    /// The system's own program by the configuration that `book ssh --write` made, without kubecamp.
    fn plain(&self, program: &str, words: &[&str]) -> Output {
        let mut command = self.server.command(program);
        command.arg("-F").arg(self.file("slot.conf")).args(["-o", "BatchMode=yes"]).args(words);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Books the hour that runs, on the one server; the exit code where that is refused.
    fn books(&self, who: &str) -> Result<String, Option<i32>> {
        let now = jiff::Timestamp::now().as_second();
        let start = jiff::Timestamp::from_second(now - now.rem_euclid(1800)).unwrap().to_string();
        let out = self.run(who, &["book", "new", &start, "--for", "1h", "--server", "one", "-o", "json"], "");
        if !out.status.success() {
            return Err(out.status.code());
        }
        let booking: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        Ok(booking[0]["id"].as_str().unwrap().to_owned())
    }

    fn logs(&self) -> String {
        let hub = fs::read_to_string(self.file("hub.log")).unwrap_or_default();
        let agent = self.server.command("sh").args(["-c", "cat /var/log/kubecamp-agent.log"]).output().unwrap();
        format!("hub:\n{hub}\nagent:\n{}{}", text(&agent.stdout), text(&agent.stderr))
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < LIMIT, "{what} did not happen in time\n{}", self.logs());
            std::thread::yield_now();
        }
    }

    /// Puts the gate on the server, with what the hub gives; what was said.
    fn enrolls(&self) -> String {
        let hub = format!("unix:{}", self.file("hub.sock").display());
        let at = |name: &str| self.file(name).display().to_string();
        let (admin, key) = (at("admin/id_ed25519.pub"), at("ann/id_ed25519"));
        let keys = ["--identity", &key, "--admin-key", &admin];
        let enroll = ["--yes", "hub", "enroll", "root@127.0.0.1", "--server", "one", "--hub", &hub];
        let enrolled = self.run("ann", &[enroll.as_slice(), keys.as_slice()].concat(), "");
        let told = text(&enrolled.stderr);
        assert!(enrolled.status.success(), "{told}\n{}", self.logs());
        told
    }

    /// Books once the place is free, and comes in.
    fn comes_in(&self, who: &str) -> String {
        let mut booked = Err(None);
        self.until("the booking", || {
            booked = self.books(who);
            booked.is_ok()
        });
        self.until("the login", || text(&self.ssh(who, "id -un").stdout) == format!("{who}\n"));
        booked.unwrap()
    }

    /// The hub's two public keys.
    fn keys(&self) -> serde_json::Value {
        serde_json::from_str(&self.does("ann", &["hub", "server", "keys", "-o", "json"])).unwrap()
    }

    /// Waits until nothing of somebody runs on the server.
    fn is_out(&self, who: &str) {
        let running = format!("pgrep -c -r D,R,S,T -U {who} || true");
        self.until("the end", || self.sh(&running).trim() == "0");
    }

    /// People, a course, a server at the hub, and the gate on it.
    fn set_up(&self) {
        let link = Command::new(env!("CARGO_BIN_EXE_kubecamp"))
            .args(["hub", "admin-link", "ann", "--database", &self.database()])
            .env("KUBECAMP_HOME", self.file("hub"))
            .output()
            .unwrap();
        let signed_in = self.run("ann", &["login", "--link"], &text(&link.stdout));
        assert!(signed_in.status.success(), "{}{}", text(&link.stderr), text(&signed_in.stderr));
        self.does("ann", &["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
        let server = ["--address", "127.0.0.1", "--cores", "8", "--memory", "32GiB", "--buffer", "0"];
        self.does("ann", &[["hub", "server", "add", "one"].as_slice(), server.as_slice()].concat());
        let public = |who: &str| fs::read_to_string(self.file(who).join("id_ed25519.pub")).unwrap();
        let roster = ["amy", "bob"].map(|who| format!("{who},{who},red,UTC,{}", public(who))).concat();
        fs::write(self.file("roster.csv"), roster).unwrap();
        self.does("ann", &["hub", "course", "import", "k8s", &self.file("roster.csv").display().to_string()]);
        let health = |health: &str| {
            self.does("ann", &["hub", "server", "health", "one", health, "--reason", "a new disk"]);
        };
        health("away");
        let told = self.enrolls();
        assert!(told.contains("sells no time of one: it is away there, a new disk."), "{told}");
        health("healthy");
        // From here on the hub alone says who the server is; who had to be asked would be refused.
        self.sh("mv /root/.ssh/known_hosts /root/.ssh/known_hosts.mine");
        for who in ["amy", "bob"] {
            let key = self.file(who).join("id_ed25519").display().to_string();
            self.does(who, &["login", "--as", who, "--identity", &key]);
        }
    }
}

#[test]
fn live_hub_the_slot_decides_who_comes_in() {
    let mut camp = Camp::start();
    camp.set_up();
    assert!(!camp.ssh("amy", "true").status.success(), "without a slot");

    let first = camp.books("amy").unwrap();
    assert_eq!(camp.books("bob"), Err(Some(10)), "it is taken");
    camp.until("amy's login", || camp.ssh("amy", "id -un").stdout == b"amy\n");
    assert!(!camp.ssh("bob", "true").status.success());
    let dug = camp
        .ssh("amy", "setsid sleep 1001 >/dev/null 2>&1 & nohup sleep 1002 >/dev/null 2>&1 & echo kept > kept; echo ok");
    assert_eq!(text(&dug.stdout), "ok\n", "{}", text(&dug.stderr));
    let uid: u32 = text(&camp.ssh("amy", "id -u").stdout).trim().parse().unwrap();
    assert!((50_000..100_000).contains(&uid), "{uid} is no id that the agent gives");

    // What was fetched is enough for plain ssh and scp, as long as the slot lasts.
    let (key, config) = (camp.file("amy/id_ed25519"), camp.file("slot.conf"));
    let (key, config) = (key.display().to_string(), config.display().to_string());
    camp.does("amy", &["book", "ssh", &first, "--identity", &key, "--write", &config]);
    let host = format!("kubecamp-{first}");
    let plain = camp.plain("ssh", &[&host, "id -un"]);
    assert_eq!(text(&plain.stdout), "amy\n", "{}", text(&plain.stderr));
    let copied = camp.plain("scp", &["-q", &config, &format!("{host}:copied")]);
    assert!(copied.status.success(), "{}", text(&copied.stderr));
    assert!(text(&camp.ssh("amy", "cat copied").stdout).contains(&host));

    // A hub that is killed takes nothing from who is inside, and finds itself again.
    drop(camp.hub.take());
    assert!(!camp.ssh("amy", "true").status.success(), "no hub, no new certificate");
    assert_eq!(camp.sh("pgrep -c -U amy sleep").trim(), "2");
    camp.start_hub();
    assert_eq!(text(&camp.ssh("amy", "cat kept").stdout), "kept\n");

    camp.does("amy", &["book", "release", &first]);
    camp.is_out("amy");
    assert!(!camp.ssh("amy", "true").status.success());
    assert!(!camp.plain("ssh", &[&host, "true"]).status.success(), "what is kept opens nothing after the slot");
    // The place is sold again once the server's agent knows that it is free.
    let second = camp.comes_in("bob");
    let seen = camp.does("ann", &["book", "ls", "--all", "--past", "-o", "json"]);
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    let state = |id: &str| seen.as_array().unwrap().iter().find(|b| b["id"] == id).unwrap()["state"].clone();
    assert_eq!((state(&first), state(&second)), ("done".into(), "active".into()));
    camp.does("ann", &["hub", "doctor"]);
    let over = camp.run("amy", &["book", "ssh", &first, "--identity", &key, "--", "true"], "");
    assert!(over.status.code() == Some(14) && text(&over.stderr).contains("KC-BOOK-OVER"), "{}", text(&over.stderr));

    // The break-glass key, and the gate taken off again.
    assert_eq!(camp.sh("cat /root/.ssh/known_hosts 2>/dev/null || true"), "", "book ssh asks about no host key");
    camp.sh("mv /root/.ssh/known_hosts.mine /root/.ssh/known_hosts");
    let key = camp.file("admin/id_ed25519").display().to_string();
    camp.sh(&format!("ssh -o BatchMode=yes -o IdentitiesOnly=yes -i {key} root@127.0.0.1 true"));
    keys_are_renewed(&mut camp, &second);
    let key = camp.file("ann/id_ed25519").display().to_string();
    camp.does("ann", &["--yes", "hub", "unenroll", "root@127.0.0.1", "--server", "one", "--identity", &key]);
    let seen = camp.does("ann", &["hub", "server", "list", "-o", "json"]);
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!((&seen[0]["health"], &seen[0]["health_note"]), (&"away".into(), &"unenrolled".into()), "{seen}");
    assert!(!camp.ssh("amy", "true").status.success());
    assert_eq!(camp.sh("pgrep -c -r D,R,S,T -U amy || true").trim(), "0");
    let log = fs::read_to_string(camp.file("hub.log")).unwrap();
    assert!(!log.contains("kct_"), "a token is in the log\n{log}");
}

/// New keys of the hub, as docs/guide/hub.md tells it, in the midst of bob's slot: who is in stays in, and nobody comes in by
/// them before the server has them.
fn keys_are_renewed(camp: &mut Camp, of_bob: &str) {
    let stays = camp.ssh("bob", "setsid sleep 1003 >/dev/null 2>&1 & echo ok");
    assert_eq!(text(&stays.stdout), "ok\n", "{}", text(&stays.stderr));
    let old = camp.keys();
    drop(camp.hub.take());
    fs::rename(camp.file("keys"), camp.file("keys.old")).unwrap();
    camp.start_hub();
    let camp: &Camp = camp;
    let new = camp.keys();
    assert!(["user_ca", "plan_key"].iter().all(|name| old[name] != new[name]), "{new}");
    assert!(!camp.ssh("bob", "true").status.success(), "the server trusts the old authority alone");

    // Of a plan that is signed by the new key the agent takes nothing, and an admin is told so.
    camp.does("bob", &["book", "release", of_bob]);
    let is_told = || camp.does("ann", &["hub", "doctor"]).contains("takes no newer one");
    camp.until("the doctor's note", is_told);
    camp.until("the refusal", || camp.logs().contains("its signature is not the hub's"));
    assert_eq!(camp.sh("pgrep -c -U bob sleep").trim(), "1", "the plan at hand is in force");

    camp.enrolls();
    camp.is_out("bob");
    assert_eq!(camp.sh("cat /etc/kubecamp-gate/user_ca.pub").trim(), new["user_ca"].as_str().unwrap().trim());
    camp.comes_in("amy");
    camp.until("the agent's word", || !is_told());
}

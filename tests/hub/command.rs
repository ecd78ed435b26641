//! The command line against `kubecamp hub serve`, from the first admin to a booked slot.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

pub(super) struct Camp {
    pub(super) home: tempfile::TempDir,
    pub(super) hub: Child,
    pub(super) url: String,
}

pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

pub(super) fn kubecamp(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kubecamp").unwrap();
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("KUBECAMP_HOME", home);
    command.env("TZ", "UTC").args(args).stdin(Stdio::null());
    command
}

impl Camp {
    pub(super) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", home.path().join("hub.sock").display());
        let camp = Self::serve(home, &["--listen", &socket]);
        assert_eq!(camp.url, socket);
        camp
    }

    pub(super) fn serve(home: tempfile::TempDir, more: &[&str]) -> Self {
        let args: Vec<&str> = ["hub", "serve"].iter().chain(more).copied().collect();
        let mut hub = kubecamp(home.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(hub.stderr.take().unwrap()).lines();
        let said = lines.by_ref().map_while(Result::ok).find(|l| l.contains("listens on")).unwrap();
        let url = said.rsplit("listens on ").next().unwrap().to_owned();
        // The log is read on, so that the hub never waits for its reader.
        let log = home.path().join("hub.log");
        std::thread::spawn(move || {
            let mut file = fs::File::create(log).unwrap();
            for line in lines.map_while(Result::ok) {
                writeln!(file, "{line}").unwrap();
            }
        });
        Self { home, hub, url }
    }

    pub(super) fn run_with(&self, args: &[&str], input: &str) -> Ended {
        let mut child = kubecamp(self.home.path(), args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
    }

    pub(super) fn ok(&self, args: &[&str]) -> String {
        let ended = self.run_with(args, "");
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.err);
        ended.out
    }

    pub(super) fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    pub(super) fn login_by_link(&self, link: &str) {
        let ended = self.run_with(&["login", "--hub", &self.url, "--link"], link);
        assert_eq!(ended.code, 0, "{}", ended.err);
    }

    /// A course and a server on which amy, who is signed in, has a slot in two hours; her key's file and the slot.
    pub(super) fn amys_slot(&self) -> (String, String) {
        self.login_by_link(&self.ok(&["hub", "admin-link", "ann"]));
        self.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
        self.ok(&["hub", "server", "add", "one", "--address", "192.0.2.7:2222", "--cores", "8", "--memory", "32GiB"]);
        let key = self.home.path().join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        let roster = self.home.path().join("roster.csv");
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        fs::write(&roster, format!("amy,Amy,red,UTC,{public}")).unwrap();
        self.ok(&["hub", "course", "import", "k8s", roster.to_str().unwrap()]);
        let key = key.to_str().unwrap().to_owned();
        self.ok(&["login", "--as", "amy", "--identity", &key]);
        let slot = &self.json(&["book", "new", &hour(2), "--for", "1h", "--layout", "1x4c12g"])[0];
        (key, slot["id"].as_str().unwrap().to_owned())
    }
}

impl Drop for Camp {
    fn drop(&mut self) {
        let _ = self.hub.kill();
        let _ = self.hub.wait();
    }
}

pub(super) fn hour(ahead: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second((now / 3600 + ahead) * 3600).unwrap().to_string()
}

#[test]
fn from_the_first_admin_to_a_slot() {
    let mut camp = Camp::start();
    let link = camp.ok(&["hub", "admin-link", "ann"]);
    camp.login_by_link(&link);
    let none = camp.run_with(&["book", "new", &hour(2)], "");
    assert!(none.code == 2 && none.err.contains("There is no course yet"), "{}", none.err);
    let plan = camp.run_with(&["book", "plan", "/nowhere.yaml"], "");
    assert!(plan.code == 2 && plan.err.contains("KC-LOCAL-FILE"), "{}", plan.err);
    let kept = camp.home.path().join("config/hub.json");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let again = camp.run_with(&["login", "--hub", &camp.url, "--link"], &link);
    assert_eq!(again.code, 13, "a link is good once: {}", again.err);
    assert!(again.err.contains("it was used") && !again.err.contains("Sign in again"), "{}", again.err);

    let policy = camp.home.path().join("policy.yaml");
    fs::write(&policy, "open_ahead: 2\nperson_hours: 5\n").unwrap();
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes", "--policy", policy.to_str().unwrap()]);
    let server = ["hub", "server", "add", "one", "--address", "192.0.2.7", "--cores", "8", "--memory", "32GiB"];
    camp.ok(&server);
    let key = camp.home.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "x", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let roster = camp.home.path().join("roster.csv");
    fs::write(&roster, format!("login,name,group,zone,key\namy,Amy,red,UTC,{}\nbob,Bob,red\n", public.trim())).unwrap();
    let said = camp.ok(&["hub", "course", "import", "k8s", roster.to_str().unwrap()]);
    assert_eq!(said, "2 added, 0 changed, 0 as they were\n");
    fs::write(&roster, "amy,Amy,red\nBAD,,\n").unwrap();
    let wrong = camp.run_with(&["hub", "course", "import", "k8s", roster.to_str().unwrap()], "");
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("KC-HUB-ROSTER") && wrong.err.contains("line 2"), "{}", wrong.err);
    let bob = camp.run_with(&["hub", "user", "link", "bob"], "");
    assert!(bob.err.contains(&format!("kubecamp login --hub {} --link", camp.url)), "{}", bob.err);
    let bob = bob.out;
    let unknown = camp.run_with(&["hub", "user", "set", "eve", "--enable"], "");
    assert!(unknown.code == 2 && unknown.err.contains("kubecamp hub user list"), "{}", unknown.err);
    assert!(camp.ok(&["hub", "doctor"]).starts_with("0 bookings"));
    assert!(camp.ok(&["hub", "server", "list"]).contains("192.0.2.7"));
    assert!(camp.ok(&["hub", "server", "keys"]).contains("ssh-ed25519 "));

    let identity = key.to_str().unwrap();
    camp.ok(&["login", "--as", "amy", "--identity", identity]);
    let nobody = camp.run_with(&["login", "--hub", &camp.url], "");
    assert!(nobody.code == 2 && nobody.err.contains("--as LOGIN"), "there is no USER: {}", nobody.err);
    let denied = camp.run_with(&["hub", "user", "list"], "");
    assert_eq!(denied.code, 13, "{}", denied.err);
    assert_eq!(camp.json(&["book", "free", "--for", "1h"]).as_array().unwrap().len(), 10);
    let (start, later, next) = (hour(2), hour(6), hour(8));
    let slot = &camp.json(&["book", "new", &start, "--for", "2h"])[0];
    let id = slot["id"].as_str().unwrap();
    assert!(camp.ok(&["book", "ls"]).contains(id));
    assert!(camp.ok(&["book", "ls", "-o", "wide"]).contains("VERSION"));
    assert!(camp.ok(&["book", "ls", "-o", "yaml"]).contains("state: booked"));
    assert_eq!(camp.json(&["book", "extend", id, "--by", "30m"])[0]["version"], 2);
    assert!(camp.json(&["book", "move", id]).as_array().unwrap().is_empty(), "its server takes it");
    let well = camp.run_with(&["book", "move", id], "");
    assert!(well.code == 0 && well.out.is_empty() && well.err.contains("cancel it and book another"), "{}", well.err);
    let well = camp.run_with(&["book", "move", id, &later], "");
    assert!(well.code == 10 && well.err.contains("nothing is known against the server"), "{}", well.err);
    for (args, code, told) in [
        (&["--label", "none"][..], 2, "no server has the label `none`"),
        (&["--for", "17m"], 2, "17 minutes are not full steps of 30"),
        (&["--for", "5h"], 2, "300 minutes are more than the 240 allowed"),
        (&["--layout", "2x4c10g"], 2, "no server makes a lab of 2x4c10g"),
        (&["--most", "0"], 2, "--most"),
        (&["--from", "2027-12-24T10:00", "--zone", "Europe/Berlin"], 0, "from Fri 2027-12-24 10:00"),
        (&["--from", "2027-12-24T10:00:00Z"], 0, "No slot of 120 minutes is free"),
    ] {
        let none = camp.run_with(&[["book", "free"].as_slice(), args].concat(), "");
        assert!(none.code == code && none.err.contains(told), "{args:?}: {}", none.err);
    }
    let nowhere = camp.run_with(&["book", "ls", "--server", "nope"], "");
    assert!(nowhere.code == 2 && nowhere.err.contains("there is no server nope"), "{}", nowhere.err);
    let quota = camp.run_with(&["book", "new", &later, "--for", "3h"], "");
    assert_eq!(quota.code, 11, "{}", quota.err);
    let none = camp.run_with(&["book", "new", &later, "--weeks", "0"], "");
    assert!(none.code == 2 && none.err.contains("1..=52"), "{}", none.err);
    let closed = camp.run_with(&["book", "new", "2027-12-24T10:00:00Z"], "");
    assert_eq!(closed.code, 12, "{}", closed.err);
    let grid = camp.run_with(&["book", "new", "2027-12-24T10:07:00Z"], "");
    assert_eq!(grid.code, 2, "{}", grid.err);
    let feed = camp.run_with(&["book", "ics"], "");
    assert!(feed.out.contains("/calendar/kct_") && feed.out.ends_with("/slots.ics\n"), "{}", feed.out);
    assert!(feed.code == 0 && feed.err.contains("--public-url https://NAME"), "no calendar reads it: {}", feed.err);

    let bobs = camp.home.path().join("bobs");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&bobs).status();
    assert!(made.unwrap().success());
    let bobs = bobs.to_str().unwrap();
    let typo = camp.run_with(&["login", "--hub", &camp.url, "--link", "--add-key", "/nonexistent"], &bob);
    assert!(typo.code != 0 && typo.err.contains("/nonexistent.pub"), "the link is not used up: {}", typo.err);
    let added = camp.run_with(&["login", "--hub", &camp.url, "--link", "--add-key", bobs], &bob);
    assert!(added.code == 0 && added.err.contains("Added the key"), "{}", added.err);
    let again = camp.run_with(&["login", "--as", "bob", "--identity", bobs, "--add-key", &format!("{bobs}.pub")], "");
    assert!(again.code == 0 && again.err.contains("knows the key"), "{}", again.err);
    let other = camp.run_with(&["login", "--as", "amy", "--identity", bobs], "");
    assert_eq!(other.code, 13, "{}", other.err);
    assert!(other.err.contains("(SHA256:") && other.err.contains("--as LOGIN"), "{}", other.err);
    let taken = camp.run_with(&["book", "new", &start, "--for", "1h"], "");
    assert_eq!(taken.code, 10, "{}", taken.err);
    assert_eq!(taken.err.matches("free: ").count(), 3, "{}", taken.err);
    assert_eq!(taken.err.matches(" (UTC)").count(), 4, "moments are told by this computer's clock: {}", taken.err);
    assert!(camp.ok(&["book", "ls"]).contains("STARTS (UTC)"));
    let zone = ["--for", "1h", "--zone", "Asia/Shanghai"];
    assert!(camp.ok(&["book", "ls", "--zone", "Asia/Shanghai"]).contains("STARTS (Asia/Shanghai)"));
    assert!(camp.ok(&[["book", "free"].as_slice(), &zone].concat()).contains("STARTS (Asia/Shanghai)"));
    let taken = camp.run_with(&[["book", "new", start.as_str()].as_slice(), &zone].concat(), "");
    assert!(taken.code == 10 && taken.err.matches(" (Asia/Shanghai)").count() == 4, "{}", taken.err);
    let told = camp.run_with(&["book", "new", &start, "--for", "1h", "-o", "json"], "");
    let told: Value = serde_json::from_str(&told.err).unwrap_or_else(|_| panic!("{}", told.err));
    let told = &told["problems"][0];
    assert_eq!(
        (told["code"].as_str(), told["alternatives"].as_array().map(Vec::len)),
        (Some("KC-BOOK-CONFLICT"), Some(3))
    );
    assert!(camp.ok(&["book", "wait", &start, "--for", "1h"]).contains("waitlisted"));
    let other = camp.json(&["book", "new", &next, "--for", "1h"])[0]["id"].as_str().unwrap().to_owned();
    assert!(camp.ok(&["book", "give", &other, "--to", "amy"]).contains("amy"));
    let theirs = camp.run_with(&["book", "cancel", &other], "");
    assert_eq!(theirs.code, 13, "{}", theirs.err);

    camp.ok(&["login", "--as", "amy", "--identity", identity]);
    assert!(camp.ok(&["book", "cancel", &other]).contains("cancelled"));
    for start in [&[][..], &[later.as_str()]] {
        let args = [["book", "move", other.as_str()].as_slice(), start].concat();
        let over = camp.run_with(&args, "");
        assert!(over.code == 10 && over.err.contains("is cancelled"), "{args:?}: {}", over.err);
    }
    let released = camp.run_with(&["book", "release", id], "");
    assert!(released.code == 0 && released.out.contains("cancelled"), "{}", released.err);
    assert!(released.err.contains(&format!("{id}: it had not begun, so it is cancelled")), "{}", released.err);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(camp.hub.id() as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(camp.hub.wait().unwrap().success(), "it stops well");
    assert!(!camp.home.path().join("hub.sock").exists());
    let away = camp.run_with(&["book", "ls"], "");
    assert_eq!(away.code, 4, "{}", away.err);
    assert!(away.err.contains("KC-HUB-AWAY"), "{}", away.err);
    let log = fs::read_to_string(camp.home.path().join("hub.log")).unwrap();
    assert!(log.contains("/api/v1/bookings") && !log.contains("kct_") && !log.contains(bob.trim()), "{log}");
}

#[test]
fn a_sign_in_ends_at_the_hub_and_here() {
    let mut camp = Camp::start();
    let (key, _) = camp.amys_slot();
    let kept = camp.home.path().join("config/hub.json");
    let token = || {
        let kept: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
        kept["token"].as_str().unwrap().to_owned()
    };
    let by = |token: &str| {
        let mut asked = kubecamp(camp.home.path(), &["book", "ls", "--hub", &camp.url]);
        asked.env("KUBECAMP_HUB_TOKEN", token).output().unwrap().status.code()
    };
    let ids = || -> Vec<String> {
        let all = camp.json(&["hub", "token", "ls"]);
        all.as_array().unwrap().iter().map(|t| t["id"].as_str().unwrap().to_owned()).collect()
    };
    // That of a laptop that is lost, and one of another computer.
    let (lost, id) = (token(), ids());
    assert_eq!(id.len(), 1, "{id:?}");
    camp.ok(&["login", "--as", "amy", "--identity", &key]);
    let own = token();
    let listed = camp.ok(&["hub", "token", "ls"]);
    assert!(ids().len() == 2 && listed.contains(&id[0]) && listed.contains("MADE (UTC)"), "{listed}");
    assert!(!listed.contains("kct_"), "{listed}");
    camp.ok(&["hub", "token", "revoke", &id[0]]);
    assert_eq!((by(&lost), by(&own), ids().len()), (Some(13), Some(0), 1));
    for (args, code, told) in [
        (&["hub", "token", "revoke", id[0].as_str()][..], 2, "no such token"),
        (&["hub", "token", "revoke", own.as_str()], 2, "kubecamp hub token ls"),
        (&["hub", "token", "ls", "--person", "ann"], 13, "KC-HUB-DENIED"),
        (&["logout", "--hub", "https://other.example.org"], 0, "No sign-in at https://other.example.org"),
    ] {
        let ended = camp.run_with(args, "");
        assert!(ended.code == code && ended.err.contains(told), "{args:?}: {}", ended.err);
    }

    let out = camp.run_with(&["logout"], "");
    assert!(out.code == 0 && out.err.contains("Signed out at unix:") && !kept.exists(), "{}", out.err);
    assert_eq!(by(&own), Some(13), "the hub knows");
    let again = camp.run_with(&["logout"], "");
    assert!(again.code == 0 && again.err.contains("No sign-in is kept"), "{}", again.err);
    camp.ok(&["login", "--hub", &camp.url, "--as", "amy", "--identity", &key]);
    camp.hub.kill().unwrap();
    camp.hub.wait().unwrap();
    let away = camp.run_with(&["logout"], "");
    assert!(away.code == 4 && away.err.contains("kubecamp logout --force") && kept.exists(), "{}", away.err);
    let no_way = ["logout", "--hub-ca", "/nowhere/ca.pem"];
    let told = camp.run_with(&no_way, "");
    assert!(told.code == 2 && told.err.contains("kubecamp logout --force") && kept.exists(), "{}", told.err);
    let other = [no_way.as_slice(), &["--force", "--hub", "https://other.example.org"]].concat();
    let other = camp.run_with(&other, "");
    assert!(other.code == 0 && other.err.contains("No sign-in at") && kept.exists(), "{}", other.err);
    let whole = fs::read(&kept).unwrap();
    for (text, args) in [
        (&whole[..], &["logout", "--force"][..]),
        (&whole[..], &["logout", "--force", "--hub-ca", "/nowhere/ca.pem"]),
        (b"{", &["logout", "--force"]),
    ] {
        fs::write(&kept, text).unwrap();
        let forced = camp.run_with(args, "");
        assert!(forced.code == 0 && forced.err.contains("was not told") && !kept.exists(), "{args:?} {}", forced.err);
    }
}

#[test]
fn a_clock_that_is_not_the_users_reads_no_time() {
    let home = tempfile::tempdir().unwrap();
    let at = |zone: &str, more: &[&str]| {
        let hub = ["--hub", "unix:/nowhere/hub.sock"];
        let mut asked = kubecamp(home.path(), &[["book", "new"].as_slice(), more, &hub].concat());
        let ended = asked.env("TZ", zone).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for zone in ["CET-1CEST", "UTC-5", "Nonsense/Zone"] {
        let (code, told) = at(zone, &["14:00"]);
        assert!(code == Some(2) && told.contains(zone) && told.contains("--zone"), "{zone}: {told}");
        for well in [&["2027-11-24T14:00:00Z"][..], &["14:00", "--zone", "Europe/Berlin"]] {
            assert_eq!(at(zone, well).0, Some(4), "that hub is not there: {zone} {well:?}");
        }
    }
    for zone in ["UTC", "Etc/UTC", "UTC0", "GMT0", "Europe/Berlin", ""] {
        assert_eq!(at(zone, &["14:00"]).0, Some(4), "{zone:?}");
    }
}

#[test]
fn a_damaged_sign_in_is_told_and_not_taken_for_none() {
    let home = tempfile::tempdir().unwrap();
    let kept = home.path().join("config/hub.json");
    fs::create_dir(home.path().join("config")).unwrap();
    fs::write(&kept, "{").unwrap();
    let run = |args: &[&str]| {
        let ended = kubecamp(home.path(), args).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, told) = run(&["--yes", "hub", "unenroll", "root@127.0.0.1:1", "--server", "one"]);
    let named = told.contains("KC-LOCAL-FILE") && told.contains("kubecamp logout --force");
    assert!(code == Some(2) && named && !told.contains("nobody is signed in"), "{told}");
}

#[test]
fn a_configuration_that_the_agent_would_not_read_is_refused_before_anybody_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        fs::write(home.path().join(name), text).unwrap();
        home.path().join(name).display().to_string()
    };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgQFc8zDQmswu6VtXXF9tinN/YQnqJ0ftWy5q5ssAmI\n";
    let key = at("admin.pub", key);
    for more in ["evict_limit: 60\n", "group: others\n", "poll: 1\n"] {
        let more = at("more.yaml", more);
        let hub = ["--yes", "hub", "enroll", "root@127.0.0.1:1", "--server", "one", "--hub", "https://127.0.0.1:1"];
        let files = ["--admin-key", &key, "--agent-config", &more];
        let ended = kubecamp(home.path(), &[hub.as_slice(), files.as_slice()].concat()).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(2) && told.contains("KC-GATE-CONFIG"), "{told}");
    }
}

#[test]
fn a_link_is_told_by_the_address_that_people_open() {
    let home = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", home.path().join("hub.sock").display());
    let camp = Camp::serve(home, &["--listen", &socket, "--public-url", "https://hub.example.org/"]);
    let first = "kubecamp login --hub https://hub.example.org --link";
    let began = std::time::Instant::now();
    while !fs::read_to_string(camp.home.path().join("hub.log")).unwrap_or_default().contains(first) {
        assert!(began.elapsed().as_secs() < 30, "the first admin is sent elsewhere");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
    camp.ok(&["hub", "user", "add", "amy", "--full-name", "Amy"]);
    let made = camp.run_with(&["hub", "user", "link", "amy"], "");
    assert!(made.out.starts_with("https://hub.example.org/sign-in#kct_"), "{}", made.out);
    assert!(made.err.contains("kubecamp login --hub https://hub.example.org --link"), "{}", made.err);
    camp.login_by_link(&made.out);
    assert_eq!(camp.run_with(&["hub", "user", "list"], "").code, 13, "it is amy who is signed in");
    let feed = camp.run_with(&["book", "ics"], "");
    assert!(feed.out.starts_with("https://hub.example.org/calendar/kct_"), "{}", feed.out);
    assert!(feed.code == 0 && !feed.err.contains("--public-url"), "{}", feed.err);
}

#[test]
fn what_was_made_can_be_changed_and_removed() {
    let camp = Camp::start();
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
    camp.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
    let rules = camp.home.path().join("rules.yaml");
    let rules = rules.to_str().unwrap();
    fs::write(rules, "longest: 180\nopen_ahead: 5\n").unwrap();
    let ruled = camp.json(&["hub", "course", "set", "k8s", "--policy", rules]);
    assert_eq!((ruled["title"].as_str(), &ruled["policy"]["longest"]), (Some("Kubernetes"), &180.into()));
    let new = camp.run_with(&["hub", "course", "set", "k9s", "--policy", rules], "");
    assert!(new.code == 2 && new.err.contains("no course k9s") && new.err.contains("--title"), "{}", new.err);
    let nothing = camp.run_with(&["hub", "course", "set", "k8s"], "");
    assert!(nothing.code == 2 && nothing.err.contains("--title"), "{}", nothing.err);
    let renamed = camp.json(&["hub", "course", "set", "k8s", "--title", "Kubernetes II"]);
    assert_eq!(
        (&renamed["version"], &renamed["policy"]["longest"], &renamed["policy"]["open_ahead"]),
        (&3.into(), &180.into(), &5.into())
    );
    fs::write(rules, "longest: 3h\n").unwrap();
    let wrong = camp.run_with(&["hub", "course", "set", "k8s", "--title", "Kubernetes", "--policy", rules], "");
    assert!(wrong.code == 2 && wrong.err.contains("longest as a number of minutes"), "{}", wrong.err);
    let one = ["hub", "server", "add", "one", "--address", "192.0.2.7", "--cores", "8", "--memory", "32GiB"];
    let added = camp.run_with(&one, "");
    assert!(added.code == 0 && added.err.contains("kubecamp hub enroll HOST --server one"), "{}", added.err);
    let small = ["hub", "server", "add", "tiny", "--address", "192.0.2.8", "--cores", "4", "--memory", "8GiB"];
    let small = camp.run_with(&small, "");
    assert!(small.code == 2 && small.err.contains("server tiny of 4c 8GiB holds no lab"), "{}", small.err);
    let set =
        camp.json(&["hub", "server", "set", "one", "--buffer", "20", "--label", "gpu", "--zone", "Europe/Berlin"]);
    assert_eq!((&set["buffer"], &set["labels"][0], &set["cores"]), (&1200.into(), &"gpu".into(), &8.into()));
    let (plain, wide) = (camp.ok(&["hub", "server", "list"]), camp.ok(&["hub", "server", "list", "-o", "wide"]));
    assert!(!plain.contains("gpu") && wide.contains("LABELS") && wide.contains("gpu"), "{wide}");
    assert_eq!(camp.json(&["hub", "server", "set", "one", "--disk", "500GiB"])["disk"], "500GiB");
    assert!(camp.ok(&["hub", "server", "list"]).contains("8c 32GiB, 500GiB disk"));
    assert_eq!(camp.json(&["hub", "server", "set", "one", "--no-disk"])["disk"], Value::Null);
    assert_eq!(camp.run_with(&["hub", "server", "set", "one"], "").code, 2, "nothing is named");
    let same = camp.run_with(&["hub", "server", "set", "one", "--opening", "always"], "");
    assert!(same.code == 0 && !same.err.contains("outside"), "{}", same.err);
    // By a clock, which is UTC here.
    let [from, to] = [hour(48), hour(50)].map(|at| at.trim_end_matches('Z').to_owned());
    let closed = ["hub", "server", "maintenance", "one", "--from", &from, "--to", &to, "--reason", "new disk"];
    assert_eq!(camp.ok(&closed), "maintenance 1\n");
    assert!(camp.ok(&["hub", "server", "maintenance", "--list"]).contains("new disk"));
    for (from, to, told) in [
        (&*to, &*from, " is not before "),
        ("2020-11-24T08:00", "2020-11-24T18:00", "2020-11-24 08:00–18:00 (UTC) is over already"),
    ] {
        let wrong = ["hub", "server", "maintenance", "one", "--from", from, "--to", to, "--reason", "new disk"];
        let wrong = camp.run_with(&wrong, "");
        assert!(wrong.code == 2 && wrong.err.contains(told), "{}", wrong.err);
        assert!(wrong.err.contains("KC-BOOK-WINDOW") && !wrong.err.contains("the body"), "{}", wrong.err);
    }
    let other = camp.run_with(&["hub", "server", "maintenance", "two", "--end", "1"], "");
    assert!(other.code == 2 && other.err.contains("is one of one, and not of two"), "{}", other.err);
    camp.ok(&["hub", "server", "maintenance", "one", "--end", "1"]);
    assert_eq!(camp.json(&["hub", "server", "maintenance", "one", "--list"]).as_array().unwrap().len(), 0);

    let roster = camp.home.path().join("roster.csv");
    fs::write(&roster, "amy,Amy,red\n").unwrap();
    camp.ok(&["hub", "course", "import", "k8s", roster.to_str().unwrap()]);
    let class = camp.home.path().join("class.yaml");
    let times = format!("within:\n  starts: {}\n  ends: {}\n", hour(24), hour(30));
    fs::write(&class, format!("course: k8s\nlayout: 1x4c12g\nminutes: 60\nslots: 1\n{times}")).unwrap();
    assert_eq!(camp.json(&["book", "plan", class.to_str().unwrap()])["given"], 1);
    let amy = camp.json(&["hub", "user", "set", "amy", "--full-name", "Amy Pond", "--zone", "Asia/Shanghai"]);
    assert_eq!((amy["name"].as_str(), amy["zone"].as_str()), (Some("Amy Pond"), Some("Asia/Shanghai")));
    assert_eq!(camp.json(&["hub", "user", "disable", "amy"])["active"], false);
    assert_eq!(camp.json(&["hub", "user", "set", "amy", "--enable"])["active"], true);

    let link = camp.json(&["hub", "user", "link", "amy"])["token"].as_str().unwrap().to_owned();
    camp.login_by_link(&link);
    assert_eq!(camp.json(&["book", "free", "--for", "1h", "--label", "gpu"]).as_array().unwrap().len(), 10);
    let label = camp.run_with(&["book", "free", "--for", "1h", "--label", "ssd"], "");
    assert!(label.code == 2 && label.err.contains("There are: gpu."), "{}", label.err);
    let weekly = camp.run_with(&["book", "new", &hour(24), "--for", "1h", "--weeks", "2", "-o", "json"], "");
    let made: Value = serde_json::from_str(&weekly.out).unwrap_or_else(|_| panic!("{}", weekly.err));
    let series = made[0]["series"].as_str().unwrap();
    assert!(weekly.err.contains(&format!("kubecamp book cancel {series}")), "{}", weekly.err);
    assert!(camp.ok(&["book", "ls", "-o", "wide"]).contains(series));
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
    camp.ok(&["hub", "course", "set", "net", "--title", "Networks"]);
    for (args, told) in [
        (&["--course", "net"][..], Some("Ahead on one of other courses, and left as booked: 2 bookings.")),
        (&["--course", "k8s"], None),
        (&["--any-course"], None),
    ] {
        let set = camp.run_with(&[["hub", "server", "set", "one"].as_slice(), args].concat(), "");
        assert!(set.code == 0 && told.is_none_or(|told| set.err.contains(told)), "{args:?}: {}", set.err);
        assert_eq!(set.err.contains("other courses"), told.is_some(), "{args:?}: {}", set.err);
    }
    let away = camp.run_with(&["hub", "server", "health", "one", "away", "--reason", "new disk"], "");
    assert!(away.code == 0 && away.err.contains("Ahead on one: 2 bookings."), "{}", away.err);
    camp.ok(&["hub", "server", "health", "one", "healthy", "--reason", "it is in"]);
    let (from, to) = (hour(24), hour(25));
    let work = ["hub", "server", "maintenance", "one", "--from", &from, "--to", &to, "--reason", "a fan"];
    let work = camp.run_with(&work, "");
    assert!(work.code == 0 && work.err.contains("In that time: 1 booking."), "{}", work.err);
    for args in [["hub", "server", "remove", "one"], ["hub", "group", "remove", "red"]] {
        let held = camp.run_with(&args, "");
        assert!(held.code == 10 && held.err.contains("KC-BOOK-STATE"), "{}", held.err);
    }
    let gone = camp.json(&["book", "cancel", series, "--reason", "the course ends"]);
    assert_eq!(gone.as_array().unwrap().len(), 2);
    camp.ok(&["hub", "server", "remove", "one"]);
    camp.ok(&["hub", "group", "remove", "red"]);
    assert_eq!(camp.json(&["hub", "server", "list"]).as_array().unwrap().len(), 0);
    assert_eq!(camp.json(&["hub", "group", "list"]).as_array().unwrap().len(), 0);
    camp.ok(&["hub", "doctor"]);
}

/// Nobody answers at that port, so the gate stays; what the hub hears of one that goes is in `live_hub`.
#[test]
fn a_server_that_does_not_let_its_gate_be_taken_off_is_sold_on() {
    let camp = Camp::start();
    let leave = || {
        let ended = camp.run_with(&["--yes", "hub", "unenroll", "root@127.0.0.1:1", "--server", "one"], "");
        assert!(ended.code != 0 && !ended.err.contains("has no gate"), "{}", ended.err);
        assert!(ended.err.contains("kubecamp hub server health one away --reason unenrolled"), "{}", ended.err);
        ended.err
    };
    let told = leave();
    assert!(told.contains("nobody is signed in"), "{told}");
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
    camp.ok(&["hub", "server", "add", "one", "--address", "192.0.2.7", "--cores", "8", "--memory", "32GiB"]);
    let told = leave();
    assert!(
        told.contains(&format!("The hub {} was told nothing, since nothing was changed on one", camp.url)),
        "{told}"
    );
    let one = &camp.json(&["hub", "server", "list"])[0];
    assert_eq!((&one["health"], &one["health_note"]), (&"healthy".into(), &Value::Null));
}

#[test]
fn what_plain_ssh_needs_for_a_slot_is_kept_and_given() {
    let camp = Camp::start();
    let (key, id) = camp.amys_slot();
    let ssh = ["book", "ssh", &id, "--identity", &key];
    let with = |more: &[&str]| camp.run_with(&[ssh.as_slice(), more].concat(), "");
    let shown = with(&["--config"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    let folder = camp.home.path().join("data/slots").join(&id);
    for name in ["key-cert.pub", "known_hosts", "ssh_config"] {
        let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::read_to_string(folder.join("ssh_config")).unwrap(), shown.out);
    let certificate = folder.join("key-cert.pub");
    let told = Command::new("ssh-keygen").arg("-L").arg("-f").arg(&certificate).output().unwrap();
    assert!(String::from_utf8_lossy(&told.stdout).contains(&format!("slot-{id}")), "{told:?}");

    // Two hours before it begins there is nobody to log in to.
    let early = with(&["--", "true"]);
    assert_eq!(early.code, 14, "{}", early.err);
    for word in ["KC-BOOK-EARLY", " begins ", " (UTC)", "on one: a lab of 1x4c12g", "--config"] {
        assert!(early.err.contains(word), "{word}: {}", early.err);
    }

    // What ssh itself makes of it.
    let file = camp.home.path().join("slot.conf");
    let written = with(&["--write", file.to_str().unwrap()]);
    assert!(written.code == 0 && written.err.contains(&format!("kubecamp-{id}")), "{}", written.err);
    let read = Command::new("ssh").arg("-G").arg("-F").arg(&file).arg(format!("kubecamp-{id}")).output().unwrap();
    let read = String::from_utf8(read.stdout).unwrap();
    let (theirs, mine) = (format!("certificatefile {}", certificate.display()), format!("identityfile {key}"));
    for line in ["hostname 192.0.2.7", "port 2222", "user amy", "identitiesonly yes", &theirs, &mine] {
        assert!(read.lines().any(|l| l == line), "{line}: {read}");
    }
    fs::write(&file, "Host mine\n").unwrap();
    assert_eq!(with(&["--write", file.to_str().unwrap()]).code, 2, "a file of the user's own is not replaced");
    assert_eq!(fs::read_to_string(&file).unwrap(), "Host mine\n");
    assert_eq!(with(&["--config", "--", "true"]).code, 2, "either a configuration or a command");
}

#[test]
fn the_log_is_json_where_that_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", home.path().join("hub.sock").display());
    let camp = Camp::serve(home, &["--listen", &socket, "--log", "json"]);
    camp.login_by_link(&camp.ok(&["hub", "admin-link", "ann"]));
    camp.ok(&["hub", "server", "list"]);
    let asked = |line: &str| {
        let line = serde_json::from_str::<Value>(line).ok()?;
        (line["fields"]["route"] == "/api/v1/servers").then_some(line)
    };
    let began = std::time::Instant::now();
    let line = loop {
        let log = fs::read_to_string(camp.home.path().join("hub.log")).unwrap_or_default();
        if let Some(line) = log.lines().find_map(asked) {
            break line;
        }
        assert!(began.elapsed().as_secs() < 30, "{log}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let fields = &line["fields"];
    let told = serde_json::json!([line["level"], fields["method"], fields["status"], fields["client"]]);
    assert_eq!(told, serde_json::json!(["INFO", "GET", 200, "unix"]), "{line}");
    assert!(fields["ms"].is_u64() && line["timestamp"].is_string(), "{line}");
}

/// A certificate for 127.0.0.1 by an authority of its own: `ca.pem`, `chain.pem` and `key.pem` in the folder.
fn certify(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let openssl = |args: &[&str]| {
        let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let made = Command::new("openssl").args(kind).args(args).current_dir(folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl(&["-subj", "/CN=camp", "-keyout", "ca.key", "-out", "ca.pem"]);
    let by = ["-subj", "/CN=hub", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key.pem", "-out", "chain.pem"];
    let is = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[by.as_slice(), is.as_slice()].concat());
}

#[test]
fn https_is_served_and_a_renewed_certificate_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let tls = home.path().join("tls");
    let at = |name: &str| tls.join(name).display().to_string();
    let (chain, key, ca, old) = (at("chain.pem"), at("key.pem"), at("ca.pem"), at("old.pem"));
    certify(&tls);
    fs::copy(&ca, &old).unwrap();
    let camp = Camp::serve(home, &["--listen", "127.0.0.1:0", "--tls-cert", &chain, "--tls-key", &key]);
    assert!(camp.url.starts_with("https://127.0.0.1:"), "{}", camp.url);
    let link = camp.ok(&["hub", "admin-link", "ann"]);
    let stranger = camp.run_with(&["login", "--hub", &camp.url, "--link"], &link);
    assert_eq!(stranger.code, 4, "nobody is told the link who cannot prove to be the hub: {}", stranger.err);
    let signed_in = camp.run_with(&["login", "--hub", &camp.url, "--hub-ca", &ca, "--link"], &link);
    assert_eq!(signed_in.code, 0, "{}", signed_in.err);
    let asked = |ca: &str| camp.run_with(&["hub", "doctor", "--hub-ca", ca], "").code;
    assert_eq!(asked(&ca), 0);

    certify(&tls);
    let began = std::time::Instant::now();
    while asked(&ca) != 0 {
        assert!(began.elapsed().as_secs() < 30, "the renewed certificate is not shown");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(asked(&old), 4, "the one before is not shown any more");
    fs::write(&chain, "half a cert").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(asked(&ca), 0, "what cannot be read changes nothing");
}

#[test]
fn the_certificate_of_an_authority_itself_is_refused_with_a_hint() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=hub"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &cert];
    assert!(Command::new("openssl").args(kind).args(names).output().unwrap().status.success());
    let camp = Camp::serve(home, &["--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key]);
    let refused = camp.run_with(&["login", "--hub", &camp.url, "--hub-ca", &cert, "--link"], "kct_none");
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("CA:FALSE"), "{}", refused.err);
}

/// What a hub says until it listens, which ends it, or until it ends by itself with this exit code.
pub(super) fn serve_once(home: &Path, args: &[&str]) -> (String, Option<i32>) {
    let mut hub = kubecamp(home, args).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(hub.stderr.take().unwrap()).lines().map_while(Result::ok) {
        said.extend([line.as_str(), "\n"]);
        if line.contains("listens on") {
            hub.kill().unwrap();
            break;
        }
    }
    (said, hub.wait().unwrap().code())
}

#[test]
fn a_second_hub_on_the_same_file_is_refused_until_the_first_has_ended() {
    let mut camp = Camp::start();
    let socket = format!("unix:{}", camp.home.path().join("second.sock").display());
    let second = ["hub", "serve", "--listen", socket.as_str()];
    let (said, code) = serve_once(camp.home.path(), &second);
    assert_eq!(code, Some(9), "{said}");
    let holder = format!("process {}", camp.hub.id());
    for word in ["KC-HUB-RUNNING", "hub.db", holder.as_str(), "hint: ", "PostgreSQL"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    camp.ok(&["hub", "admin-link", "ann"]);
    // As by kill -9: nothing is left that somebody would have to clear away.
    camp.hub.kill().unwrap();
    camp.hub.wait().unwrap();
    let (said, code) = serve_once(camp.home.path(), &second);
    assert!(code.is_none() && said.contains("listens on"), "{said}");
}

#[test]
fn a_hub_is_not_opened_to_others_by_accident() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["hub", "serve", "--listen", "0.0.0.0:0"][..],
        &["hub", "serve", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"][..],
    ] {
        let ended = kubecamp(home.path(), args).output().unwrap();
        assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("KC-HUB-LISTEN"));
    }
    let wrong = kubecamp(home.path(), &["hub", "serve", "--database", "mysql://x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let proxied =
        kubecamp(home.path(), &["hub", "serve", "--listen", "127.0.0.1:0", "--behind-proxy"]).output().unwrap();
    let said = String::from_utf8_lossy(&proxied.stderr);
    assert!(proxied.status.code() == Some(2) && said.contains("--public-url https://NAME"), "{said}");
    let typo = format!("sqlite://{}", home.path().join("typo.db").display());
    for database in ["sqlite://", typo.as_str()] {
        let absent = kubecamp(home.path(), &["hub", "admin-link", "ann", "--database", database]).output().unwrap();
        let said = String::from_utf8_lossy(&absent.stderr);
        assert_eq!(absent.status.code(), Some(2), "{said}");
        assert!(said.contains("KC-HUB-INVALID") && absent.stdout.is_empty(), "{said}");
    }
    assert!(!home.path().join("typo.db").exists(), "only a hub makes a database");
    let nobody = kubecamp(home.path(), &["book", "ls"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2), "no hub is named");
}

//! The gate with a real sshd, real accounts and the real agent.
//!
//! Clocks: these tests never set the machine's clock, which everything on it shares. Where a clock is set back, the
//! agent runs inside the test with clocks of the test's; sshd keeps the real one.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use kubecamp::{
    core::Code,
    hub::gate::{
        HubKey, Slot, SlotState, Wanted,
        agent::{Agent, Commands, Halted, Journal, Limits, Linux, Places, Reading, World, serve},
    },
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    gate::{Gate, group, soon, text, wall},
    sshd::must,
};

/// One at a time: they measure seconds.
pub static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The states of a slot from arming to done.
pub const WHOLE: [SlotState; 6] =
    [SlotState::Arming, SlotState::Active, SlotState::Ending, SlotState::Saving, SlotState::Resetting, SlotState::Done];

/// Ended and waited for when the test is over, however.
pub struct Client(pub Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What lives on after the login of [`dig_in`], each by its own means: `setsid`, `nohup`, ignored signals, tmux.
const DUG_IN: [&str; 4] = ["sleep 1001", "sleep 1002", "sleep 1003", "sleep 1004"];

/// Those of them that do not run, and tmux where it does not.
fn not_dug_in(gate: &Gate) -> Vec<&'static str> {
    let (commands, names) = (gate.commands("a"), gate.processes("a"));
    let mut missing: Vec<_> = DUG_IN.into_iter().filter(|line| !commands.iter().any(|c| c == line)).collect();
    if !names.iter().any(|name| name.contains("tmux: server")) {
        missing.push("tmux: server");
    }
    missing
}

/// What a student leaves behind to stay: each must be gone after the end.
fn dig_in(gate: &Gate, cert: &str) -> Vec<Client> {
    let home = format!("/home/{}", gate.account("a"));
    let line = "setsid sleep 1001 >/dev/null 2>&1 & nohup sleep 1002 >/dev/null 2>&1 & \
                (trap '' HUP TERM INT; while :; do sleep 1003; done) >/dev/null 2>&1 & \
                setsid bash -c 'while :; do setsid sleep 2 & sleep 0.02; done' >/dev/null 2>&1 & \
                tmux -L kct new-session -d 'sleep 1004' >/dev/null 2>&1; \
                mkdir -p /tmp/kct-dug/in && echo x > /tmp/kct-dug/in/file && echo x > /dev/shm/kct-dug; \
                ipcmk -M 4096 >/dev/null; \
                mkdir -p ~/.ssh && cat ~/key.pub > ~/.ssh/authorized_keys; echo dug";
    fs::copy(gate.file(&format!("{}.pub", gate.account("a"))), format!("{home}/key.pub")).unwrap();
    let out = gate.run("a", Some(cert), line);
    assert!(String::from_utf8_lossy(&out.stdout).contains("dug"), "{out:?}\n{}", gate.logs());
    fs::create_dir_all("/var/spool/cron/crontabs").unwrap();
    fs::write(format!("/var/spool/cron/crontabs/{}", gate.account("a")), "* * * * * sleep 1005\n").unwrap();
    let spawn = |options: &[&str], line: &[&str]| {
        let mut command = gate.ssh("a", Some(cert), options, line);
        Client(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    };
    let (master, forward) = (text(&gate.file("master")), format!("127.0.0.1:47999:127.0.0.1:{}", gate.sshd.port));
    vec![
        spawn(&["-M", "-S", &master, "-N"], &[]),
        spawn(&["-N", "-L", &forward], &[]),
        spawn(&["-tt"], &["exec bash --norc -i"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures are what is looked at with --nocapture")]
async fn live_gate_a_slot_opens_at_its_start_and_leaves_nothing_after_its_end() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("whole");
    let starts = soon(4.0);
    let mut slot = gate.slot("1", "a", starts, starts + 9);
    gate.certify(&gate.slot("1", "a", starts, starts + 60), "cert");
    gate.plan(1, std::slice::from_ref(&slot));
    gate.start_hub();
    gate.start_agent();
    assert!(!gate.gets_in("a", Some("cert")), "before the start");
    let mut shell = String::new();
    gate.by("the login", starts as f64 + 2.0, |g| {
        let out = g.run("a", Some("cert"), "date +%s.%N");
        shell = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        out.status.success()
    });
    let came: f64 = shell.parse().unwrap();
    assert!(came >= starts as f64, "in {} s before the start", starts as f64 - came);
    assert!(came <= starts as f64 + 2.0, "in {} s after the start", came - starts as f64);
    let mut clients = dig_in(&gate, "cert");
    let master = text(&gate.file("master"));
    gate.by("the control master", wall() + 5.0, |g| g.file("master").exists());
    let has_terminal = |g: &Gate| g.processes("a").iter().any(|p| p.contains('+') && p.ends_with("bash"));
    gate.by("the terminal", wall() + 5.0, has_terminal);
    // An extension is told on the terminals.
    (slot.ends, slot.busy_until) = (slot.ends + 1, slot.ends + 1);
    gate.plan(2, std::slice::from_ref(&slot));
    let ends = slot.ends as f64;
    let mut missing = vec![];
    while wall() < ends {
        missing = not_dug_in(&gate);
        if missing.is_empty() {
            break;
        }
    }
    assert!(missing.is_empty(), "{missing:?} did not run before the end\n{:?}", gate.commands("a"));
    assert!(wall() < ends, "the slot was too short for this machine");
    let out = gate.by("the end", ends + 5.0, |g| wall() >= ends && g.processes("a").is_empty());
    println!("in {:.2} s after the start, out {:.2} s after the end", came - starts as f64, out - ends);
    assert!(!gate.gets_in("a", Some("cert")), "after the end, the certificate being valid still");
    assert!(!gate.gets_in("a", None), "with the planted key");
    let again = gate.ssh("a", Some("cert"), &["-S", &master, "-o", "ControlMaster=no"], &["true"]).output().unwrap();
    assert!(!again.status.success(), "through the control master");
    assert!(!std::path::Path::new(&format!("/var/spool/cron/crontabs/{}", gate.account("a"))).exists());
    let mut said = String::new();
    if let Some(mut out) = clients[2].0.stdout.take() {
        let mut bytes = vec![];
        let _ = out.read_to_end(&mut bytes);
        said = String::from_utf8_lossy(&bytes).into_owned();
    }
    assert!(said.contains("your slot ends in 1 minute"), "{said}");
    gate.by("the reports", wall() + 10.0, |g| g.states("1").last() == Some(&SlotState::Done));
    assert_eq!(gate.states("1"), WHOLE);
    assert!(gate.processes("a").is_empty());
    assert!(["/tmp/kct-dug", "/dev/shm/kct-dug"].iter().all(|left| !std::path::Path::new(left).exists()));
    let uid = Command::new("id").args(["-u", &gate.account("a")]).output().unwrap().stdout;
    let (uid, shared) = (String::from_utf8(uid).unwrap(), fs::read_to_string("/proc/sysvipc/shm").unwrap());
    assert!(!shared.split_whitespace().any(|field| field == uid.trim()), "{shared}");
    // The break-glass key is none of the gate's business.
    let mut admin = gate.inside("ssh");
    admin.args(["-F", "none", "-p", &gate.sshd.port.to_string(), "-i", &text(&gate.sshd.file("user_key"))]);
    admin.arg("-o").arg(format!("UserKnownHostsFile={}", text(&gate.file("known"))));
    assert!(admin.args(["-o", "BatchMode=yes", "root@127.0.0.1", "true"]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_a_hub_that_is_down_changes_nothing() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("down");
    let starts = soon(3.0);
    let slot = gate.slot("1", "a", starts, starts + 4);
    gate.certify(&slot, "cert");
    gate.plan_at_hand(1, std::slice::from_ref(&slot));
    gate.start_agent();
    assert!(!gate.gets_in("a", Some("cert")));
    gate.by("the login", starts as f64 + 2.0, |g| g.gets_in("a", Some("cert")));
    let stay = gate.run("a", Some("cert"), "setsid sleep 1000 >/dev/null 2>&1 & echo ok");
    assert!(stay.status.success());
    gate.by("the end", slot.ends as f64 + 5.0, |g| wall() >= slot.ends as f64 && g.processes("a").is_empty());
    assert!(!gate.gets_in("a", Some("cert")));
    // What happened is told once the hub is there again.
    gate.plan(2, &[]);
    gate.start_hub();
    gate.by("the reports", wall() + 10.0, |g| g.states("1") == WHOLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_what_the_server_says_of_all_others_keeps_no_holder_out() {
    let _turn = TURN.lock().await;
    let own = "AllowGroups nobody-else\nAllowUsers nobody-else\nForceCommand /bin/false\n\
               ChrootDirectory /var/empty\nDisableForwarding yes\n";
    let mut gate = Gate::beside("others", own);
    let now = soon(0.0);
    let slot = gate.slot("1", "a", now - 10, now + 600);
    gate.certify(&slot, "cert");
    gate.plan(1, std::slice::from_ref(&slot));
    gate.start_hub();
    gate.start_agent();
    gate.by("the login", wall() + 15.0, |g| g.gets_in("a", Some("cert")));
    assert_eq!(gate.run("a", Some("cert"), "echo in").stdout, b"in\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_only_the_right_certificate_opens() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("right");
    let now = soon(0.0);
    let mut slot = gate.slot("1", "a", now - 10, now + 600);
    gate.certify(&slot, "cert");
    gate.certify(&gate.slot("2", "a", now - 10, now + 600), "of-another-slot");
    gate.certify(&gate.slot("1", "b", now - 10, now + 600), "of-another-person");
    gate.certify(&gate.slot("1", "a", now - 600, now - 10), "expired");
    let real = std::mem::replace(&mut gate.ca, HubKey::generate("other").unwrap());
    gate.certify(&slot, "of-another-hub");
    gate.ca = real;
    gate.plan(1, std::slice::from_ref(&slot));
    gate.start_hub();
    gate.start_agent();
    gate.by("the login", wall() + 10.0, |g| g.gets_in("a", Some("cert")));
    for cert in ["of-another-slot", "of-another-hub", "expired", "of-another-person"] {
        assert!(!gate.gets_in("a", Some(cert)), "{cert}");
    }
    assert!(!gate.gets_in("a", None) && !gate.gets_in("b", Some("of-another-person")));
    // Who had the slot before it was given to `a` has a certificate for it still, and tries it at the account of `a`.
    let theirs = text(&gate.file(&gate.account("b")));
    let as_a = |g: &Gate| {
        g.ssh("a", Some("of-another-person"), &["-i", &theirs], &["true"]).output().unwrap().status.success()
    };
    assert!(!as_a(&gate), "by the certificate of who gave the slot away");
    // Another server has another agent, whose files do not name this slot.
    let other = Gate::new("other");
    let names = |slot: Slot| {
        fs::write(other.file("principals").join(other.account("a")), format!("{}\n", slot.principal)).unwrap();
    };
    names(gate.slot("7", "a", now, now + 1));
    fs::write(other.file("ca.pub"), gate.ca.public_line().unwrap()).unwrap();
    let key = other.file(&other.account("a"));
    fs::copy(gate.file(&gate.account("a")), &key).unwrap();
    fs::copy(gate.file(&format!("{}.pub", gate.account("a"))), key.with_extension("pub")).unwrap();
    fs::copy(gate.file("cert"), other.file("cert")).unwrap();
    assert!(!other.gets_in("a", Some("cert")), "a copied certificate on another server");
    names(slot.clone());
    assert!(other.gets_in("a", Some("cert")), "which is refused for its principal, and nothing else");
    fs::copy(gate.file("of-another-person"), other.file("of-another-person")).unwrap();
    names(gate.slot("1", "b", now, now + 1));
    assert!(as_a(&other), "and so is that of who gave the slot away");
    drop(other);
    slot.wanted = Wanted::Cancelled;
    gate.plan(2, &[slot]);
    gate.by("the cancellation", wall() + 10.0, |g| !g.gets_in("a", Some("cert")));
    gate.by("the reports", wall() + 10.0, |g| g.states("1").last() == Some(&SlotState::Done));
}

/// The agent inside of the test, by clocks of the test's own; sshd's own clock stays right, so only the agent's care ends
/// a slot.
struct Within {
    keeping: tokio::task::JoinHandle<Result<(), Halted>>,
    cancel: CancellationToken,
    said: Arc<Mutex<Vec<String>>>,
}

impl Within {
    fn start(gate: &Gate, clocks: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        let net = gate.sshd.target().netns.unwrap().display().to_string().replace("/ns/net", "");
        let (principals, net) = (gate.file("principals"), format!("{net}/net").into());
        let places = Places { principals, group: group(gate.name), net, expiry_time: false };
        let world: Arc<dyn World> = Arc::new(Linux::with_clocks(places, clocks));
        let journal = Journal::open(&gate.file("state")).unwrap();
        let (key, hand) = (gate.plan_key.public().clone(), Arc::new(Commands::default()));
        let limits = Limits { lead: 2, ..Limits::default() };
        let agent = Agent::new(&gate.file("state"), "s1", key, journal, Arc::clone(&world), hand, limits);
        let (cancel, said) = (CancellationToken::new(), Arc::new(Mutex::new(vec![])));
        let (stop, heard) = (cancel.clone(), Arc::clone(&said));
        let keeping = tokio::spawn(async move {
            let say = move |line: &str| heard.lock().unwrap().push(line.to_owned());
            serve(agent, world, None, &say, &stop).await
        });
        Self { keeping, cancel, said }
    }

    async fn end(self) {
        self.cancel.cancel();
        self.keeping.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_a_clock_set_back_lengthens_nothing() {
    let _turn = TURN.lock().await;
    let gate = Gate::new("clock");
    let starts = soon(1.0);
    let slot = gate.slot("1", "a", starts, starts + 4);
    gate.certify(&gate.slot("1", "a", starts, starts + 600), "cert");
    gate.plan_at_hand(1, std::slice::from_ref(&slot));
    let ahead = Arc::new(AtomicI64::new(0));
    let (set, began) = (Arc::clone(&ahead), std::time::Instant::now());
    let zero = (wall() * 1000.0) as i64;
    let agent = Within::start(&gate, move || {
        let boot = began.elapsed().as_millis() as i64;
        Reading {
            wall: zero + boot + set.load(Ordering::SeqCst),
            boot: boot + 1000,
            boot_id: "test".into(),
            up: boot + 1000,
        }
    });
    gate.by("the login", starts as f64 + 2.0, |g| g.gets_in("a", Some("cert")));
    ahead.store(-3_600_000, Ordering::SeqCst);
    assert!(gate.run("a", Some("cert"), "setsid sleep 1000 >/dev/null 2>&1 & echo ok").status.success());
    gate.by("the end", slot.ends as f64 + 5.0, |g| wall() >= slot.ends as f64 && g.processes("a").is_empty());
    assert!(!gate.gets_in("a", Some("cert")), "{:?}", agent.said.lock().unwrap());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_each_warning_comes_to_the_terminal() {
    let _turn = TURN.lock().await;
    let gate = Gate::new("warn");
    let starts = soon(1.0);
    let slot = gate.slot("1", "a", starts, starts + 1200);
    gate.certify(&slot, "cert");
    gate.plan_at_hand(1, std::slice::from_ref(&slot));
    // For the agent time passes as far as the test says, on both of its clocks.
    let passed = Arc::new(AtomicI64::new(0));
    let (more, began) = (Arc::clone(&passed), std::time::Instant::now());
    let zero = (wall() * 1000.0) as i64;
    let agent = Within::start(&gate, move || {
        let boot = began.elapsed().as_millis() as i64 + more.load(Ordering::SeqCst);
        Reading { wall: zero + boot, boot: boot + 1000, boot_id: "test".into(), up: boot + 1000 }
    });
    gate.by("the login", starts as f64 + 5.0, |g| g.gets_in("a", Some("cert")));
    let mut command = gate.ssh("a", Some("cert"), &["-tt"], &["exec bash --norc -i"]);
    let mut client = Client(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut out) = (Arc::clone(&shown), client.0.stdout.take().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = out.read(&mut bytes) {
            seen.lock().unwrap().extend_from_slice(&bytes[..n]);
        }
    });
    let count = |what: &str| String::from_utf8_lossy(&shown.lock().unwrap()).matches(what).count();
    gate.by("the shell", wall() + 10.0, |_| count("$ ") > 0);
    assert_eq!(count("your slot ends"), 0);
    for (told, left, text) in [(1, 899, "15 minutes."), (2, 299, "5 minutes."), (3, 59, "1 minute.")] {
        let so_far = (wall() * 1000.0) as i64 - zero;
        passed.store((starts + 1200 - left) * 1000 - zero - so_far, Ordering::SeqCst);
        gate.by(text, wall() + 10.0, |_| count(&format!("your slot ends in {text}")) == 1);
        assert_eq!(count("your slot ends"), told, "each once, and none before its time");
    }
    passed.fetch_add(60_000, Ordering::SeqCst);
    gate.by("the end", wall() + 10.0, |g| g.processes("a").is_empty());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures are what is looked at with --nocapture")]
async fn live_gate_an_agent_killed_again_and_again_keeps_to_the_slot() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("killed");
    gate.start_hub();
    let (mut kills, mut entered) = (0, 0);
    // Each round lets the agent live for one line more of its journal before it is killed; in the last one it is never
    // killed.
    for lives in (1..=24).chain([usize::MAX]) {
        let is_last = lives == usize::MAX;
        let _ = fs::remove_dir_all(gate.file("state"));
        gate.desk.lock().unwrap().heard.clear();
        let starts = soon(0.8);
        // A slow computer needs a second for a login, and another one until a new agent has opened the door again.
        let slot = gate.slot("1", "a", starts, starts + if is_last { 6 } else { 3 });
        gate.certify(&slot, "cert");
        gate.plan(1, std::slice::from_ref(&slot));
        gate.start_agent();
        let limit = slot.ends as f64 + 12.0;
        let mut dug = false;
        let (mut next, mut done) = (lives, false);
        while !done {
            assert!(wall() < limit, "round {lives} did not end\n{}", gate.logs());
            if gate.journaled() >= next {
                gate.kill_agent();
                kills += 1;
                next = gate.journaled() + lives.max(4);
                gate.start_agent();
            }
            let door = fs::read_to_string(gate.file("principals").join(gate.account("a"))).unwrap_or_default();
            if !door.is_empty() {
                let now = wall();
                assert!(now >= starts as f64 && now < slot.ends as f64 + 5.0, "round {lives}: open at {now}");
                if !dug {
                    dug = gate.run("a", Some("cert"), "setsid sleep 1000 >/dev/null 2>&1 & echo ok").status.success();
                }
            }
            done = gate.states("1").last() == Some(&SlotState::Done);
            std::thread::yield_now();
        }
        assert!(gate.processes("a").is_empty(), "round {lives}");
        assert!(gate.states("1").windows(2).all(|w| w[0] <= w[1]), "round {lives}: {:?}", gate.states("1"));
        assert!(!gate.gets_in("a", Some("cert")));
        // Who never got in is not put out either.
        entered += usize::from(dug);
        let is_whole = dug && gate.states("1").contains(&SlotState::Active);
        assert!(is_whole || !is_last, "nobody came in\n{}", gate.logs());
        gate.kill_agent();
    }
    println!("{kills} kills, somebody was in in {entered} of 25 rounds");
    assert!(kills >= 24);
    assert!(entered >= 13, "somebody was in in {entered} of 25 rounds only");
}

#[tokio::test]
async fn live_gate_accounts_are_students_and_no_more() {
    let _turn = TURN.lock().await;
    let gate = Gate::new("acc");
    let places = Places {
        principals: gate.file("principals"),
        group: group(gate.name),
        net: "/proc/net".into(),
        expiry_time: true,
    };
    let world = Linux::new(places.clone());
    let (a, b) = (gate.account("a"), gate.account("b"));
    must("userdel", &["-r", &a]);
    world.ensure_account(&a).await.unwrap();
    world.ensure_account(&a).await.unwrap();
    assert!(must("id", &["-Gn", &a]).contains(&group(gate.name)));
    assert!(must("getent", &["shadow", &a]).contains(":*:"), "no password, and not locked for sshd");
    must("usermod", &["--expiredate", "1", &a]);
    world.ensure_account(&a).await.unwrap();
    assert!(must("getent", &["shadow", &a]).trim().ends_with(":::"), "a closed account is open again");
    must("usermod", &["-aG", "adm", &b]);
    let refused = async |name: &str| world.ensure_account(name).await.err().map(|p| p.code);
    assert_eq!(refused(&b).await, Some(Code::GateAccount), "in a group that reaches further");
    for name in ["root", "nobody", "../x", "-r"] {
        assert_eq!(refused(name).await, Some(Code::GateAccount), "{name}");
    }
    must("gpasswd", &["-d", &b, &group(gate.name)]);
    assert_eq!(refused(&b).await, Some(Code::GateAccount), "somebody else's account");
    // What somebody else runs is left alone, whatever name a plan has.
    let mut others = Client(Command::new("runuser").args(["-u", &b, "--", "sleep", "1000"]).spawn().unwrap());
    gate.by("the other's process", wall() + 10.0, |g| g.processes("b").iter().any(|p| p.ends_with("sleep")));
    world.evict(&b).await.unwrap();
    assert!(world.remains(std::slice::from_ref(&b)).unwrap().is_empty(), "it is not looked at either");
    assert!(others.0.try_wait().unwrap().is_none());
    drop(others);
    // Who was a student when the slot began is put out, also by an agent that begins anew.
    must("gpasswd", &["-d", &a, &group(gate.name)]);
    let mut theirs = Client(
        Command::new("setpriv")
            .args(["--reuid", &a, "--regid", &a, "--init-groups", "--", "sleep", "1000"])
            .spawn()
            .unwrap(),
    );
    gate.by("the student's process", wall() + 10.0, |g| g.processes("a").iter().any(|p| p.ends_with("sleep")));
    let anew = Linux::new(places);
    anew.remember(&a);
    anew.evict(&a).await.unwrap();
    assert!(!theirs.0.wait().unwrap().success());
    // Root is never evicted, whatever a plan or file says.
    assert!(world.evict("root").await.is_err());
}

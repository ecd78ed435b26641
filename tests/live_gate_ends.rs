//! Ends of slots with a real sshd and the real agent: what services of the system would start again, what lives in
//! namespaces of its own, hand-overs without a hub, and slots beside each other.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kubecamp::hub::gate::{Slot, SlotState};

use crate::{
    live_gate::{Client, TURN, WHOLE},
    support::{
        gate::{Gate, soon, wall},
        sshd::must,
    },
};

const AT_JOBS: &str = "/var/spool/cron/atjobs";

/// What makes an account's jobs run later; removed in any case when the test ends, since nobody else does it then.
struct Jobs {
    account: String,
    uid: u32,
}

impl Jobs {
    fn of(account: String) -> Self {
        let uid = must("id", &["-u", &account]).trim().parse().unwrap();
        Self { account, uid }
    }

    /// Those that are there.
    fn there(&self) -> Vec<PathBuf> {
        let named = ["/var/lib/systemd/linger", "/var/spool/cron/crontabs"].map(|f| Path::new(f).join(&self.account));
        let owned = fs::read_dir(AT_JOBS).into_iter().flatten().flatten().map(|entry| entry.path());
        let owned = owned.filter(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.uid() == self.uid));
        named.into_iter().filter(|file| file.exists()).chain(owned).collect()
    }

    /// Asks the system's own programs as the student does; where they are not there or refuse, does as they would.
    fn leave(&self, gate: &Gate, cert: &str) {
        let line = "loginctl enable-linger >/dev/null 2>&1; \
                    echo 'sleep 1005' | at now + 1 minute >/dev/null 2>&1; echo asked";
        let out = gate.run("a", Some(cert), line);
        assert!(String::from_utf8_lossy(&out.stdout).contains("asked"), "{out:?}\n{}", gate.logs());
        for folder in ["/var/lib/systemd/linger", "/var/spool/cron/crontabs", AT_JOBS] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(format!("/var/lib/systemd/linger/{}", self.account), "").unwrap();
        fs::write(format!("/var/spool/cron/crontabs/{}", self.account), "* * * * * sleep 1005\n").unwrap();
        let job = format!("{AT_JOBS}/a{}", self.account);
        fs::write(&job, "#!/bin/sh\nsleep 1005\n").unwrap();
        chown(&job, Some(self.uid), None).unwrap();
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.there().iter().for_each(|file| drop(fs::remove_file(file)));
    }
}

/// The first of the ids that the account may use in user namespaces; it gets some where the system gives none.
fn subordinate(account: &str) -> u32 {
    let read = || {
        let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let mut own = text.lines().filter_map(|line| line.strip_prefix(account)?.strip_prefix(':')?.split(':').next());
        own.next().and_then(|first| first.parse().ok())
    };
    read().unwrap_or_else(|| {
        must("usermod", &["--add-subuids", "900000-900009", account]);
        read().unwrap()
    })
}

/// How many processes of the account have process numbers of a namespace of their own.
fn apart(gate: &Gate) -> usize {
    let out = Command::new("ps").args(["-o", "stat=,pid=", "-U", &gate.account("a")]).output().unwrap();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    // What has ended and was not waited for is no process any more, though it is still listed.
    let alive = text.lines().filter_map(|line| line.trim().split_once(' ')).filter(|(stat, _)| !stat.starts_with('Z'));
    let of = |pid: &str| fs::read_link(format!("/proc/{}/ns/pid", pid.trim()));
    alive.filter(|(_, pid)| of(pid).is_ok_and(|theirs| theirs != own)).count()
}

/// A container that an engine of root's runs for the account, and a process of a container of the student's own, which
/// has one of the ids that belong to the account.
fn containers(gate: &Gate) -> Vec<Client> {
    let account = gate.account("a");
    let inner = subordinate(&account).to_string();
    let spawn = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        Client(command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    };
    vec![
        spawn(&[
            "unshare",
            "-pf",
            "setpriv",
            "--reuid",
            &account,
            "--regid",
            &account,
            "--init-groups",
            "sleep",
            "1006",
        ]),
        spawn(&["setpriv", "--reuid", &inner, "--regid", &inner, "--clear-groups", "sleep", "1007"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_what_would_start_again_and_what_lives_apart_is_gone() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("apart");
    let jobs = Jobs::of(gate.account("a"));
    let starts = soon(3.0);
    let slot = gate.slot("1", "a", starts, starts + 9);
    gate.certify(&slot, "cert");
    gate.plan(1, std::slice::from_ref(&slot));
    gate.start_hub();
    gate.start_agent();
    gate.by("the login", starts as f64 + 2.0, |g| g.gets_in("a", Some("cert")));
    jobs.leave(&gate, "cert");
    let mut others = containers(&gate);
    // Where the system lets users make namespaces, the student does it too.
    let line = "setsid unshare -Urpf sleep 1008 >/dev/null 2>&1 & unshare -Ur true 2>/dev/null && echo may; echo dug";
    let out = gate.run("a", Some("cert"), line);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("dug"), "{out:?}\n{}", gate.logs());
    let (ends, wanted) = (slot.ends as f64, 1 + usize::from(said.contains("may")));
    gate.by("processes in namespaces of their own", ends, |g| apart(g) >= wanted);
    assert!(jobs.there().len() >= 3, "{:?}", jobs.there());
    assert!(others.iter_mut().all(|other| other.0.try_wait().unwrap().is_none()));
    assert!(wall() < ends, "the slot was too short for this machine");

    gate.by("the end", ends + 5.0, |g| wall() >= ends && g.processes("a").is_empty());
    gate.by("the reports", wall() + 10.0, |g| g.states("1").last() == Some(&SlotState::Done));
    assert_eq!(gate.states("1"), WHOLE);
    assert_eq!(jobs.there(), Vec::<PathBuf>::new(), "nothing starts again");
    assert_eq!(apart(&gate), 0);
    gate.by("the others' end", wall() + 5.0, |_| others.iter_mut().all(|o| o.0.try_wait().unwrap().is_some()));
}

/// Clients that name an account again and again, and prove nothing.
fn callers(gate: &Gate, who: &str) -> Vec<Client> {
    let options = "-F none -o BatchMode=yes -o PubkeyAuthentication=no -o StrictHostKeyChecking=no \
                   -o UserKnownHostsFile=/dev/null";
    let (port, account) = (gate.sshd.port, gate.account(who));
    let line = format!("while :; do ssh {options} -p {port} {account}@127.0.0.1 true; done");
    let call = |_| {
        let mut caller = gate.inside("sh");
        caller.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Client(caller.spawn().unwrap())
    };
    (0..6).map(call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_who_only_names_an_account_does_not_hold_up_its_end() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("named");
    let starts = soon(3.0);
    let slot = gate.slot("1", "a", starts, starts + 8);
    gate.certify(&slot, "cert");
    gate.plan(1, std::slice::from_ref(&slot));
    gate.start_hub();
    gate.start_agent();
    let ends = slot.ends as f64;
    gate.by("the login", ends - 2.0, |g| g.gets_in("a", Some("cert")));
    let stay = gate.run("a", Some("cert"), "setsid sleep 1000 >/dev/null 2>&1 & echo ok");
    assert!(stay.status.success(), "{stay:?}\n{}", gate.logs());
    let mut others = callers(&gate, "a");
    // Longer than an end may be tried: a quarantine would have come.
    gate.by("the reports", ends + 40.0, |g| g.states("1") == WHOLE);
    assert!(others.iter_mut().all(|other| other.0.try_wait().unwrap().is_none()), "they call on");
    assert!(!gate.commands("a").iter().any(|line| line == "sleep 1000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_three_holders_follow_each_other_without_a_hub() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("three");
    let starts = soon(3.0);
    let holders = ["a", "b", "c"];
    let slots: Vec<_> = (0..3)
        .map(|n| gate.slot(&(n + 1).to_string(), holders[n as usize], starts + n * 6, starts + n * 6 + 4))
        .collect();
    for (slot, who) in slots.iter().zip(holders) {
        gate.certify(slot, who);
    }
    gate.plan_at_hand(1, &slots);
    gate.start_agent();
    for (slot, who) in slots.iter().zip(holders) {
        assert!(!gate.gets_in(who, Some(who)) || wall() >= slot.starts as f64, "{who} is in before the start");
        gate.by("the login", slot.starts as f64 + 2.0, |g| g.gets_in(who, Some(who)));
        let stay = gate.run(who, Some(who), "setsid sleep 1000 >/dev/null 2>&1 & echo ok");
        assert!(stay.status.success(), "{stay:?}");
        let others: BTreeSet<_> = holders.into_iter().filter(|other| *other != who).collect();
        assert!(others.iter().all(|other| gate.processes(other).is_empty()), "one at a time");
        let ends = slot.ends as f64;
        gate.by("the end", ends + 5.0, |g| wall() >= ends && g.processes(who).is_empty());
        assert!(!gate.gets_in(who, Some(who)), "{who} is in after the end");
    }
    // All of it is told once there is a hub again, each slot whole.
    gate.plan(2, &[]);
    gate.start_hub();
    gate.by("the reports", wall() + 10.0, |g| ["1", "2", "3"].iter().all(|id| g.states(id) == WHOLE));
}

/// Whether somebody's shell has its terminal still, and what they left to run in the background runs on.
fn works_on(gate: &Gate, who: &str) -> bool {
    gate.processes(who).iter().any(|p| p.contains('+') && p.ends_with("bash"))
        && gate.commands(who).iter().any(|line| line == "sleep 1000")
}

#[tokio::test(flavor = "multi_thread")]
async fn live_gate_the_end_of_a_slot_leaves_the_one_beside_it() {
    let _turn = TURN.lock().await;
    let mut gate = Gate::new("beside");
    let starts = soon(3.0);
    let first = gate.slot("1", "a", starts, starts + 9);
    let second = Slot { place: 1, ..gate.slot("2", "b", starts, starts + 21) };
    gate.certify(&first, "a");
    gate.certify(&second, "b");
    gate.plan(1, &[first.clone(), second.clone()]);
    gate.start_hub();
    gate.start_agent();
    let ends = first.ends as f64;
    let shells = ["a", "b"].map(|who| {
        gate.by("the login", ends, |g| g.gets_in(who, Some(who)));
        let stay = gate.run(who, Some(who), "setsid sleep 1000 >/dev/null 2>&1 & echo ok");
        assert!(stay.status.success(), "{stay:?}\n{}", gate.logs());
        let mut shell = gate.ssh(who, Some(who), &["-tt"], &["exec bash --norc -i"]);
        Client(shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    });
    let [mut ended, mut goes_on] = shells;
    gate.by("both at work", ends, |g| works_on(g, "a") && works_on(g, "b"));
    assert!(wall() < ends, "the slot was too short for this machine");

    gate.by("the end", ends + 5.0, |g| wall() >= ends && g.processes("a").is_empty());
    assert!(!gate.gets_in("a", Some("a")), "in after the end");
    gate.by("the end of the shell", wall() + 5.0, |_| ended.0.try_wait().unwrap().is_some());
    assert!(works_on(&gate, "b"), "{:?}\n{}", gate.commands("b"), gate.logs());
    assert!(goes_on.0.try_wait().unwrap().is_none(), "the connection is the same");
    assert!(gate.gets_in("b", Some("b")), "{}", gate.logs());
    let ends = second.ends as f64;
    gate.by("the reports", ends - 2.0, |g| g.states("1") == WHOLE);
    let states = gate.states("2");
    assert!(wall() < ends, "the slot was too short for this machine");
    assert_eq!(states, [SlotState::Arming, SlotState::Active]);
    gate.by("the other end", ends + 5.0, |g| wall() >= ends && g.processes("b").is_empty());
    assert!(!gate.gets_in("b", Some("b")), "in after the end");
    gate.by("the other reports", wall() + 10.0, |g| g.states("2") == WHOLE);
}

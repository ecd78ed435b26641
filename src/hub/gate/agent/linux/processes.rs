use std::{fs, path::Path, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::accounts::{Owner, text};

/// A process that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub name: String,
    /// Real, effective, saved and file system user id: a program with the setuid bit is still its caller's.
    pub uids: [u32; 4],
    pub stopped: bool,
    /// Its arguments, which sshd uses to say whom it serves.
    pub title: String,
    /// When it began, in milliseconds of the boot clock; known of sshd's own only, and else 0.
    pub began: i64,
    /// Whether it runs in a container machine: whatever ids it has there, it is its lab's and ends with that.
    pub inside: bool,
}

/// How long the killing may take before what is left is reported and tried again: other doors must not wait for a
/// process that hangs in the kernel.
const PATIENCE: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(15);

/// What an engine calls the control group of a container machine.
const PAYLOAD: &str = "/lxc.payload.";

impl Process {
    fn read(proc: &Path, pid: i32) -> Option<Self> {
        let folder = proc.join(pid.to_string());
        let status = text(&folder.join("status"));
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        let state = field("State:")?.chars().next()?;
        // A process whose first thread has ended looks dead, while its other threads run.
        let threads = || fs::read_dir(folder.join("task")).map_or(0, Iterator::count);
        if matches!(state, 'X' | 'x') || (state == 'Z' && threads() <= 1) {
            return None;
        }
        let mut uids = field("Uid:")?.split_whitespace().filter_map(|u| u.parse().ok());
        let uids = [uids.next()?, uids.next()?, uids.next()?, uids.next()?];
        let title = match uids[0] {
            0 => fs::read(folder.join("cmdline")).unwrap_or_default(),
            _ => vec![],
        };
        let title = String::from_utf8_lossy(&title).split('\0').next().unwrap_or_default().trim().to_owned();
        let is_sshd = title.starts_with("sshd");
        let began = is_sshd.then(|| began(&text(&folder.join("stat")))).flatten().unwrap_or_default();
        let (name, stopped) = (field("Name:")?.to_owned(), matches!(state, 'T' | 't'));
        Some(Self { pid, name, uids, stopped, title, began, inside: is_inside(proc, pid) })
    }

    /// All that live.
    pub fn all(proc: &Path) -> std::io::Result<Vec<Self>> {
        let pids = fs::read_dir(proc)?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(|pid| Self::read(proc, pid)).collect())
    }

    /// Whether it is the account's.
    pub fn is_of(&self, owner: &Owner) -> bool {
        !self.inside && self.has_id_of(owner)
    }

    fn has_id_of(&self, owner: &Owner) -> bool {
        self.uids.iter().any(|uid| owner.owns(*uid))
    }

    /// Whether it is one of sshd's own that serves the account: the half that stays root's, and a connection that is
    /// just being let in, which has no process of the account yet.
    pub fn serves(&self, owner: &Owner) -> bool {
        let rest = self.title.strip_prefix("sshd: ").or_else(|| self.title.strip_prefix("sshd-session: "));
        let rest = rest.or_else(|| self.title.strip_prefix("sshd-auth: "));
        let rest = rest.and_then(|r| r.strip_prefix(owner.name.as_str()));
        // Root in a machine can call a process anything.
        self.uids[0] == 0
            && !self.inside
            && rest.is_some_and(|r| r.is_empty() || r.starts_with(" [") || r.starts_with('@'))
    }

    /// Whether it is a session of the account, or may become one; `shut` is since when the door is, by the boot clock in
    /// milliseconds. sshd names a connection after whom it asks for before anything is proven: one that began when the door
    /// was shut is let in no more, and anybody can begin another as often as one is ended.
    pub fn counts(&self, owner: &Owner, shut: Option<i64>) -> bool {
        match self.serves(owner) {
            true => shut.is_none_or(|since| self.began <= since),
            false => self.is_of(owner),
        }
    }
}

/// When a process began, in milliseconds of the boot clock, by its `stat` (proc_pid_stat(5), the 22nd field): in hundredths of
/// a second on every CPU that kubecamp knows.
pub(super) fn began(stat: &str) -> Option<i64> {
    // The name is in brackets, and may be of brackets and blanks itself.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse::<i64>().ok()?.checked_mul(10)
}

/// Whether a process runs in a container machine, by its control group: the engine's lie right below the first process's own,
/// where only root makes one or moves a process to. What somebody makes further down, in a group that is theirs, is none.
fn is_inside(proc: &Path, pid: i32) -> bool {
    let table = |pid: i32| text(&proc.join(pid.to_string()).join("cgroup"));
    let own = table(pid);
    if !own.contains(PAYLOAD) {
        return false;
    }
    let first = table(1);
    let (Some(own), Some(first)) = (control_group(&own), control_group(&first)) else { return false };
    let base = first.strip_suffix("/init.scope").unwrap_or(first).trim_end_matches('/');
    own.strip_prefix(base).is_some_and(|rest| rest.starts_with(PAYLOAD))
}

/// The control group that a process is in: of version 2, or of version 1 where that counts processes.
fn control_group(table: &str) -> Option<&str> {
    let of = |wanted: &str| {
        let fields = table.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let mut paths = fields.filter(|(names, _)| names.split(',').any(|name| name == wanted)).map(|(_, path)| path);
        paths.next()
    };
    of("pids").or_else(|| of(""))
}

/// Sends a signal to a process, if the number still means the one that was looked at.
fn signal(proc: &Path, seen: &Process, owner: &Owner, signal: Signal) {
    let Some(pid) = Pid::from_raw(seen.pid) else { return };
    let still = || Process::read(proc, seen.pid).is_some_and(|p| p.is_of(owner) || p.serves(owner));
    // The descriptor holds the number: what is looked at through it afterwards is what gets the signal.
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) if still() => drop(pidfd_send_signal(fd, signal)),
        Ok(_) => {}
        Err(rustix::io::Errno::NOSYS) if still() => drop(rustix::process::kill_process(pid, signal)),
        Err(_) => {}
    }
}

/// Ends every process of the account and sshd's processes for it; gives what could not be ended and [counts](Process::counts).
pub(super) async fn evict(proc: &Path, owner: &Owner, shut: Option<i64>) -> std::io::Result<Vec<Process>> {
    kill_slice(owner.uid);
    // Stopped first: what is stopped starts nothing new while the others are being ended.
    for _ in 0..8 {
        let running: Vec<_> = Process::all(proc)?.into_iter().filter(|p| p.is_of(owner) && !p.stopped).collect();
        if running.is_empty() {
            break;
        }
        running.iter().for_each(|p| signal(proc, p, owner, Signal::STOP));
    }
    let began = std::time::Instant::now();
    loop {
        let all = Process::all(proc)?;
        // Where a pod in a machine happens to have the account's id, only what is the account's is ended, one by one.
        let is_shared = all.iter().any(|p| p.inside && p.has_id_of(owner));
        let own: Vec<_> = all.into_iter().filter(|p| p.is_of(owner) || p.serves(owner)).collect();
        let left: Vec<_> = own.iter().filter(|p| p.counts(owner, shut)).cloned().collect();
        if left.is_empty() || began.elapsed() > PATIENCE {
            own.iter().for_each(|p| signal(proc, p, owner, Signal::KILL));
            return Ok(left);
        }
        // One call of the kernel reaches all of a user's processes at once, forks in the midst included.
        if !is_shared {
            kill_all_of(owner).await;
        }
        own.iter().for_each(|p| signal(proc, p, owner, Signal::KILL));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Where systemd keeps a user's processes in a slice of version 2 control groups, the kernel ends all of it.
fn kill_slice(uid: u32) {
    let file = format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/cgroup.kill");
    let _ = fs::OpenOptions::new().write(true).open(file).and_then(|mut f| std::io::Write::write_all(&mut f, b"1"));
}

/// `kill(-1)` as the user itself: it reaches whatever the user may signal, and nothing else.
async fn kill_all_of(owner: &Owner) {
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "kill -KILL -1"]).uid(owner.uid).gid(owner.gid).env_clear().current_dir("/");
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    // It ends itself too where the shell does not spare its own process.
    let _ = tokio::time::timeout(Duration::from_secs(2), command.status()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { name: "kct-a".into(), uid: 1007, gid: 1007, subordinate: vec![(200_000, 10)] }
    }

    fn fake(proc: &Path, pid: i32, state: &str, uids: &str, title: &str, threads: usize) {
        let folder = proc.join(pid.to_string());
        for thread in 0..threads {
            fs::create_dir_all(folder.join(format!("task/{thread}"))).unwrap();
        }
        fs::write(folder.join("status"), format!("Name:\tx\nState:\t{state} (x)\nUid:\t{uids}\n")).unwrap();
        fs::write(folder.join("cmdline"), format!("{title}\0")).unwrap();
    }

    #[test]
    fn whose_process_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        fake(proc, 10, "S", "1007\t1007\t1007\t1007", "bash", 1);
        fake(proc, 11, "S", "1007\t0\t0\t0", "passwd", 1);
        fake(proc, 12, "S", "200009\t200009\t200009\t200009", "in a user namespace", 1);
        fake(proc, 13, "Z", "1007\t1007\t1007\t1007", "", 1);
        fake(proc, 14, "Z", "1007\t1007\t1007\t1007", "", 2);
        fake(proc, 15, "S", "1008\t1008\t1008\t1008", "sshd: kct-a [priv]", 1);
        fake(proc, 16, "S", "0\t0\t0\t0", "sshd: kct-a [priv]", 1);
        fake(proc, 17, "S", "0\t0\t0\t0", "sshd-session: kct-a [priv]", 1);
        fake(proc, 18, "S", "0\t0\t0\t0", "sshd: kct-ab [priv]", 1);
        fake(proc, 19, "S", "0\t0\t0\t0", "sshd: /usr/sbin/sshd -D", 1);
        let all = Process::all(proc).unwrap();
        let pids = |f: &dyn Fn(&Process) -> bool| {
            let mut pids: Vec<_> = all.iter().filter(|p| f(p)).map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(&|p| p.is_of(&owner())), [10, 11, 12, 14]);
        assert_eq!(pids(&|p| p.serves(&owner())), [16, 17]);
    }

    #[test]
    fn who_only_names_the_account_when_its_door_is_shut_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        let root = "0\t0\t0\t0";
        fake(proc, 10, "S", "1007\t1007\t1007\t1007", "bash", 1);
        for (pid, uids, title) in [
            (11, root, "sshd: kct-a [priv]"),
            (12, root, "sshd: kct-a [priv]"),
            // For a moment it has the id of whom it asks for, to read the principals as they would.
            (13, "0\t1007\t0\t1007", "sshd-session: kct-a [priv]"),
            (14, root, "sshd: kct-a [priv]"),
            (15, "1007\t1007\t1007\t1007", "sshd: kct-a [priv]"),
        ] {
            fake(proc, pid, "S", uids, title, 1);
        }
        for (pid, ticks) in [(10, 900), (11, 500), (12, 501), (13, 900), (15, 900)] {
            let stat = format!("{pid} (sshd) S {}{ticks} 0\n", "0 ".repeat(18));
            fs::write(proc.join(format!("{pid}/stat")), stat).unwrap();
        }
        let counting = |shut: Option<i64>| {
            let all = Process::all(proc).unwrap();
            let mut pids: Vec<_> = all.iter().filter(|p| p.counts(&owner(), shut)).map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(counting(None), [10, 11, 12, 13, 14, 15], "the door may be open");
        assert_eq!(counting(Some(5_009)), [10, 11, 14, 15], "of 14 nobody can say when it began");
    }

    #[test]
    fn what_runs_in_a_container_machine_is_nobodys_account() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        let groups = |pid: i32, table: &str| fs::write(proc.join(format!("{pid}/cgroup")), table).unwrap();
        for pid in 1..=9 {
            fake(proc, pid, "S", "1007\t1007\t1007\t1007", "", 1);
        }
        fake(proc, 10, "S", "0\t0\t0\t0", "sshd: kct-a [priv]", 1);
        let own = || {
            let all = Process::all(proc).unwrap();
            let own = all.iter().filter(|p| p.is_of(&owner()) || p.serves(&owner()));
            let mut pids: Vec<_> = own.map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };
        groups(1, "0::/init.scope\n");
        groups(2, "0::/lxc.payload.gate-amy_cp/kubepods.slice/x\n");
        groups(3, "0::/user.slice/user-1007.slice/session-1.scope\n");
        // As the account can call a group of its own.
        groups(4, "0::/user.slice/user-1007.slice/user@1007.service/lxc.payload.gate-amy_cp\n");
        groups(5, "1:name=mine:/lxc.payload.x\n0::/\n");
        groups(6, "0::/system.slice/x.service\n");
        groups(10, "0::/lxc.payload.gate-amy_cp/ssh.service\n");
        assert_eq!(own(), [1, 3, 4, 5, 6, 7, 8, 9]);
        // A server that is a container itself, and sees its own group from outside.
        groups(1, "0::/lxc.payload.s1/init.scope\n");
        groups(2, "0::/lxc.payload.s1/lxc.payload.gate-amy_cp/x\n");
        groups(3, "0::/lxc.payload.s1/user.slice/user-1007.slice\n");
        assert_eq!(own(), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
        // Version 1.
        groups(1, "9:name=systemd:/init.scope\n8:pids:/init.scope\n0::/\n");
        groups(2, "9:name=systemd:/\n8:pids:/lxc.payload.gate-amy_cp\n0::/\n");
        groups(3, "9:name=systemd:/lxc.payload.x\n8:pids:/user.slice\n0::/\n");
        assert_eq!(own(), [1, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_process_cannot_hide_behind_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), 10, "S", "1007\t1007\t1007\t1007", "", 1);
        let status = b"Name:\tx\xffy\nUmask:\t0022\nState:\tS (x)\nUid:\t1007\t1007\t1007\t1007\n";
        fs::write(dir.path().join("10/status"), status).unwrap();
        let all = Process::all(dir.path()).unwrap();
        assert!(all.len() == 1 && all[0].is_of(&owner()), "{all:?}");
    }
}

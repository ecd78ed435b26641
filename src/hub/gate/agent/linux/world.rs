use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use rustix::fs::OFlags;

use super::{
    accounts::{self, Owner},
    later,
    logins::Logins,
    processes::{self, Process, began},
    reach::Rules,
    sockets::{self, Socket},
    strewn,
};
use crate::{
    core::{Code, Problem},
    hub::gate::{
        Epoch, Slot,
        agent::{Cleared, Reach, Reading, Remains, World},
        is_account,
    },
};

/// Where things are on the server.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder of principals files, root's.
    pub principals: PathBuf,
    /// The group of students' accounts.
    pub group: String,
    /// The folder with `tcp` and `tcp6` of the network that sshd serves, as `/proc/net`.
    pub net: PathBuf,
    /// Whether sshd understands `expiry-time="...Z"`, as OpenSSH 9.1 and later do; before, the stamp would be read in
    /// the server's own zone.
    pub expiry_time: bool,
}

/// The server that this process runs on.
pub struct Linux {
    places: Places,
    clocks: Box<dyn Fn() -> Reading + Send + Sync>,
    owners: Mutex<BTreeMap<String, Owner>>,
    flows: Mutex<BTreeMap<String, BTreeSet<Socket>>>,
    /// Since when doors were seen to be shut, by the boot clock in milliseconds.
    shut: Mutex<BTreeMap<String, i64>>,
    logins: Logins,
    /// The rules of before, and when they were last seen to be the server's.
    rules: Mutex<Option<(Rules, Instant)>>,
}

/// How long rules are believed to be there; others may flush them.
const FRESH: Duration = Duration::from_secs(5);

impl Linux {
    /// The server with its own clocks.
    pub fn new(places: Places) -> Self {
        Self::with_clocks(places, read_clocks)
    }

    /// The server with other clocks, for tests: setting the real ones would disturb everything else there.
    pub fn with_clocks(places: Places, clocks: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self {
            places,
            clocks: Box::new(clocks),
            owners: Mutex::default(),
            flows: Mutex::default(),
            shut: Mutex::default(),
            logins: Logins::default(),
            rules: Mutex::default(),
        }
    }

    /// The account, if it is a student's: what is done to it kills everything that it runs.
    async fn owner(&self, account: &str) -> Result<Option<Owner>, Problem> {
        let Some(owner) = accounts::anywhere(Path::new("/"), account).await? else { return Ok(None) };
        // Its groups may stand in a directory and not in files, and the process that opened its door may be gone: who is
        // taken for nobody then would be proven gone too.
        if !self.is_student(&owner) && !accounts::belongs(account, &self.places.group).await? {
            return Ok(None);
        }
        self.keep(&owner);
        Ok(Some(owner))
    }

    /// Without running a program: from the files, or from what was found before.
    fn known(&self, account: &str) -> Option<Owner> {
        let owner = accounts::in_files(Path::new("/"), account).and_then(|o| accounts::person(o).ok());
        owner.filter(|o| self.is_student(o)).or_else(|| self.ensured(account))
    }

    /// In the students' group, or found to be so before: who is taken out of it must still be put out.
    fn is_student(&self, owner: &Owner) -> bool {
        accounts::is_member(Path::new("/"), owner, &self.places.group)
            || self.ensured(&owner.name).is_some_and(|before| before.uid == owner.uid)
    }

    fn keep(&self, owner: &Owner) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.insert(owner.name.clone(), owner.clone());
    }

    fn ensured(&self, account: &str) -> Option<Owner> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(account).cloned()
    }

    fn file(&self, account: &str) -> PathBuf {
        self.places.principals.join(account)
    }

    /// Since when an account's door is known to be shut, by the boot clock in milliseconds; none where it may be open.
    fn shut_since(&self, account: &str) -> Option<i64> {
        let is_shut = match fs::read(self.file(account)) {
            Ok(text) => text.trim_ascii().is_empty(),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        let mut shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_shut {
            shut.remove(account);
            return None;
        }
        // The clock is read after the file: what begins later than that finds no principal.
        Some(*shut.entry(account.to_owned()).or_insert_with(boot_clock))
    }
}

fn read_clocks() -> Reading {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    let boot = boot_clock();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let first = fs::read_to_string("/proc/1/stat").ok().and_then(|stat| began(&stat));
    Reading {
        wall: i64::try_from(wall).unwrap_or(i64::MAX),
        boot,
        boot_id: boot_id.trim().to_owned(),
        up: first.map_or(boot, |began| (boot - began).clamp(0, boot)),
    }
}

/// The server's boot clock in milliseconds, as processes have it.
fn boot_clock() -> i64 {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000
}

/// The line of a principals file that lets a slot in until its end.
pub fn principals_line(slot: &Slot, expiry_time: bool) -> String {
    match expiry_time.then(|| stamp(slot.ends)).flatten() {
        Some(stamp) => format!("expiry-time=\"{stamp}\" {}", slot.principal),
        None => slot.principal.clone(),
    }
}

/// `20261123214433Z`
fn stamp(epoch: Epoch) -> Option<String> {
    Some(jiff::Timestamp::from_second(epoch).ok()?.strftime("%Y%m%d%H%M%SZ").to_string())
}

fn cannot(what: &str, path: &Path) -> Problem {
    Problem::new(Code::GateState, format!("cannot {what} {}", path.display()))
}

#[async_trait]
impl World for Linux {
    fn read_clocks(&self) -> Reading {
        (self.clocks)()
    }

    fn principals(&self) -> Result<BTreeMap<String, String>, Problem> {
        let folder = &self.places.principals;
        let fail = |e| cannot("read the principals in", folder).because(e);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let Ok(name) = entry.map_err(fail)?.file_name().into_string() else { continue };
            if !is_account(&name) {
                continue;
            }
            let text = fs::read(folder.join(&name)).map_err(fail)?;
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            if !text.is_empty() {
                found.insert(name, text);
            }
        }
        Ok(found)
    }

    fn set_principals(&self, account: &str, line: &str) -> Result<(), Problem> {
        let file = self.file(account);
        if !is_account(account) {
            return Err(cannot("name a principals file", &file));
        }
        // Also where it is shut anew: somebody else may have opened it meanwhile.
        self.shut.lock().unwrap_or_else(PoisonError::into_inner).remove(account);
        if line.is_empty() && fs::symlink_metadata(&file).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Ok(());
        }
        let part = self.places.principals.join(format!(".{account}.part"));
        let wrote = || -> std::io::Result<()> {
            let _ = fs::remove_file(&part);
            let mut out = File::options().create_new(true).write(true).mode(0o644).open(&part)?;
            if !line.is_empty() {
                writeln!(out, "{line}")?;
            }
            out.sync_all()?;
            fs::rename(&part, &file)?;
            File::open(&self.places.principals)?.sync_all()
        };
        match wrote() {
            Ok(()) => Ok(()),
            // A full disk has no room for an empty file, but a file can always go.
            Err(_) if line.is_empty() && fs::remove_file(&file).is_ok() => Ok(()),
            Err(e) => Err(cannot("write", &file).because(e)),
        }
    }

    fn principals_line(&self, slot: &Slot) -> String {
        principals_line(slot, self.places.expiry_time)
    }

    async fn ensure_account(&self, account: &str) -> Result<(), Problem> {
        let owner = accounts::ensure(Path::new("/"), account, &self.places.group).await?;
        self.keep(&owner);
        Ok(())
    }

    fn remember(&self, account: &str) {
        let owner = accounts::in_files(Path::new("/"), account).and_then(|o| accounts::person(o).ok());
        if let Some(owner) = owner {
            self.keep(&owner);
        }
    }

    async fn warn(&self, account: &str, text: &str) {
        let Some(owner) = self.known(account) else { return };
        let Ok(terminals) = fs::read_dir("/dev/pts") else { return };
        for entry in terminals.flatten() {
            let number = entry.file_name().to_str().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            if !number || !entry.metadata().is_ok_and(|m| owner.owns(m.uid())) {
                continue;
            }
            // A terminal that is held up must not hold up the agent.
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            let open = File::options().write(true).custom_flags(flags.bits().cast_signed()).open(entry.path());
            let _ = open.and_then(|mut terminal| write!(terminal, "\x07\r\n{text}\r\n"));
        }
    }

    async fn linger(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    async fn evict(&self, account: &str) -> Result<(), Problem> {
        let Some(owner) = self.owner(account).await? else { return Ok(()) };
        let open = sockets::of(&self.places.net, &[&owner]).into_iter().map(|(_, socket)| socket);
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).entry(account.to_owned()).or_default().extend(open);
        let left = processes::evict(Path::new("/proc"), &owner, self.shut_since(account)).await;
        let left = left.map_err(|e| cannot("read", Path::new("/proc")).because(e))?;
        if left.is_empty() {
            return Ok(());
        }
        let lines = left.iter().take(10).map(|p| format!("process {} {}", p.pid, p.name));
        Err(Problem::new(Code::GateNotEmpty, format!("processes of {account} cannot be ended")).detail(lines))
    }

    async fn clear(&self, account: &str) -> Result<Cleared, Problem> {
        match self.owner(account).await? {
            Some(owner) => {
                later::clear(Path::new("/"), &owner).await?;
                strewn::clear(Path::new("/"), &owner).await
            }
            None => Ok(Cleared::Whole),
        }
    }

    async fn left_behind(&self, account: &str) -> Result<Vec<String>, Problem> {
        match self.owner(account).await? {
            Some(owner) => strewn::left(Path::new("/"), &owner).await,
            None => Ok(vec![]),
        }
    }

    async fn cut_flows(&self, account: &str) -> Result<(), Problem> {
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner).remove(account).unwrap_or_default();
        let left = sockets::cut(&self.places.net, &flows, self.known(account).as_ref()).await;
        if left.is_empty() {
            return Ok(());
        }
        let what = format!("{} connections of {account} are not closed yet", left.len());
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).entry(account.to_owned()).or_default().extend(left);
        Err(Problem::new(Code::GateNotEmpty, what))
    }

    async fn set_reach(&self, labs: &BTreeMap<String, Reach>, open: &BTreeSet<String>) -> Result<(), Problem> {
        let before = self.rules.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where there never were machines, nothing is run each second.
        if labs.is_empty() && before.is_none() {
            return Ok(());
        }
        let names: BTreeSet<String> = self.accounts().into_iter().chain(labs.keys().cloned()).collect();
        let students: Vec<_> = names.iter().filter_map(|name| self.known(name)).collect();
        let wanted = Rules::of(labs, open, &students);
        let seen = before.filter(|(rules, at)| *rules == wanted && at.elapsed() < FRESH).map(|(_, at)| at);
        if seen.is_none() {
            wanted.apply().await?;
        }
        let seen = seen.unwrap_or_else(Instant::now);
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some((wanted, seen));
        Ok(())
    }

    fn remains(&self, names: &[String]) -> Result<BTreeMap<String, Remains>, Problem> {
        let owners: Vec<_> = names.iter().filter_map(|name| self.known(name)).collect();
        let mut found: BTreeMap<String, Remains> = BTreeMap::new();
        if owners.is_empty() {
            return Ok(found);
        }
        let all = Process::all(Path::new("/proc")).map_err(|e| cannot("read", Path::new("/proc")).because(e))?;
        for process in all {
            // sshd takes a comer's id for a moment to read the principals: that is no process of theirs.
            if let Some(owner) = owners.iter().find(|o| process.serves(o)) {
                if !process.counts(owner, self.shut_since(&owner.name)) {
                    continue;
                }
                let line = format!("{} {}", process.pid, process.title);
                found.entry(owner.name.clone()).or_default().sessions.push(line);
            } else if let Some(owner) = owners.iter().find(|o| process.is_of(o)) {
                let line = format!("{} {}", process.pid, process.name);
                found.entry(owner.name.clone()).or_default().processes.push(line);
            }
        }
        for (account, socket) in sockets::of(&self.places.net, &owners.iter().collect::<Vec<_>>()) {
            found.entry(account).or_default().sockets.push(format!("{} {}", socket.local, socket.remote));
        }
        Ok(found)
    }

    async fn was_let_in(&self, principal: &str) -> bool {
        self.logins.has(principal)
    }

    fn accounts(&self) -> Vec<String> {
        accounts::members(Path::new("/"), &self.places.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn world(folder: &Path) -> Linux {
        let places = Places {
            principals: folder.to_owned(),
            group: "kubecamp-students".into(),
            net: "/proc/net".into(),
            expiry_time: true,
        };
        Linux::new(places)
    }

    #[test]
    fn principals_are_written_whole_and_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        let slot = Slot::new("42", "kct-a", 0, 1_790_000_000);
        let line = world.principals_line(&slot);
        assert_eq!(line, "expiry-time=\"20260921141320Z\" slot-42-kct-a");
        assert_eq!(principals_line(&slot, false), "slot-42-kct-a");
        world.set_principals("kct-b", "").unwrap();
        assert!(!dir.path().join("kct-b").exists());
        world.set_principals("kct-a", &line).unwrap();
        let mode = fs::metadata(dir.path().join("kct-a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
        fs::write(dir.path().join(".kct-c.part"), "slot-1").unwrap();
        assert_eq!(world.principals().unwrap(), [("kct-a".to_owned(), line)].into());
        world.set_principals("kct-a", "").unwrap();
        assert!(world.principals().unwrap().is_empty());
        assert!(world.set_principals("../kct-a", "slot-1").is_err());
    }

    #[test]
    fn since_when_a_door_is_shut() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        let before = boot_clock();
        let first = world.shut_since("kct-a").unwrap();
        assert!(first >= before && world.shut_since("kct-a") == Some(first));
        world.set_principals("kct-a", "slot-1-kct-a").unwrap();
        assert_eq!(world.shut_since("kct-a"), None);
        std::thread::sleep(Duration::from_millis(2));
        world.set_principals("kct-a", "").unwrap();
        let second = world.shut_since("kct-a").unwrap();
        assert!(second > first && world.shut_since("kct-a") == Some(second));
        // By somebody else's hand, and shut again before anybody looks.
        fs::write(dir.path().join("kct-a"), "slot-1-kct-a\n").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        world.set_principals("kct-a", "").unwrap();
        assert!(world.shut_since("kct-a").unwrap() > second);
        // What cannot be read is not known to be shut.
        fs::create_dir(dir.path().join("kct-b")).unwrap();
        assert_eq!(world.shut_since("kct-b"), None);
    }

    #[test]
    fn the_clocks_go_forward() {
        let (a, b) = (read_clocks(), read_clocks());
        assert!(b.wall >= a.wall && b.boot >= a.boot && a.boot > 0);
        assert_eq!(a.boot_id, b.boot_id);
        assert_eq!(a.boot_id.len(), 36);
        assert!(b.up >= a.up && a.up > 0 && a.up <= a.boot);
        let stat = "1 (a) (b) c) S 0 0 0 0 -1 4194560 66 78 0 23 7 15 42 89 10 -10 12 0 14 34840576 1820 18446744";
        assert_eq!(began(stat), Some(140));
        assert!(["", "1 (x", "1 (x) S 0", "no"].iter().all(|bad| began(bad).is_none()));
    }
}

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::mount::{UnmountFlags, unmount};
use tokio::{io::AsyncReadExt, process::Command};

use super::accounts::{Owner, run};
use crate::{
    core::{Code, Problem, shell::printable},
    hub::gate::agent::Cleared,
};

/// Folders below the root to which everybody may write. Homes are not among them: they stay, for their owners only.
const OPEN: &[&str] =
    &["tmp", "var/tmp", "dev/shm", "dev/mqueue", "run/lock", "var/lock", "var/crash", "var/mail", "var/spool/mail"];

/// Tables of System V IPC in /proc/sysvipc, and the option of `ipcrm` for each.
const TABLES: [(&str, &str); 3] = [("shm", "-m"), ("sem", "-s"), ("msg", "-q")];

/// How long one look may take: other doors must not wait for somebody's million files, which go in several ticks.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long one look goes on that removes something, which may be so in many ticks.
const ENOUGH: Duration = Duration::from_secs(1);

/// How `find` prints what it removed. It writes to a pipe by blocks of 4096 bytes, of which the last is lost where it is cut
/// off: lines this wide fill one with every eighth file, so that also a slow disk's progress is seen.
const REMOVED: &str = "%512p\n";

/// What is kept of what `find` prints: whether it is anything is what counts.
const KEPT: usize = 4096;

/// How many of System V IPC one program removes.
const PIECE: usize = 1000;

/// Removes what the account left outside of its home: files, shared memory, queues, mounts.
pub(super) async fn clear(root: &Path, owner: &Owner) -> Result<Cleared, Problem> {
    if root == Path::new("/") {
        let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
        for mount in mounts(&String::from_utf8_lossy(&table), owner) {
            // Detached: nothing can hold it up. What is still there is found below.
            let _ = unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
    // `find` goes by descriptors: nobody can lead it elsewhere by swapping a folder for a link meanwhile. It fails also
    // for what is not ours to remove; what counts is what is found afterwards.
    let removed = look(root, owner, &["-delete", "-printf", REMOVED]).await?;
    if !removed.is_whole {
        return if removed.out.is_empty() { Err(too_many(owner)) } else { Ok(Cleared::Partly) };
    }
    // Folders of the account with files of others in them.
    let full = ["-type", "d", "-not", "-empty", "-execdir", "chown", "-h", "root:root", "--", "{}", "+"];
    find(root, owner, &full).await?;
    let found = ipc(root, owner);
    // What there was no time for is found below.
    let _ = tokio::time::timeout(PATIENCE, remove_ipc(&found)).await;
    let left = left(root, owner).await?;
    if left.is_empty() {
        return Ok(Cleared::Whole);
    }
    Err(Problem::new(Code::GateNotEmpty, format!("what {} left cannot be removed", owner.name)).detail(left))
}

/// What the account left outside of its home, as lines; empty is proof.
pub(super) async fn left(root: &Path, owner: &Owner) -> Result<Vec<String>, Problem> {
    let files = find(root, owner, &["-print", "-quit"]).await?;
    let mut lines: Vec<String> = files.lines().map(|file| format!("file {}", printable(file))).collect();
    lines.extend(ipc(root, owner).into_iter().map(|(option, id)| format!("ipc {option} {id}")));
    lines.truncate(10);
    Ok(lines)
}

/// What a program printed, of which the first counts, and whether it came to its end.
#[derive(Debug, Default)]
struct Look {
    out: Vec<u8>,
    is_whole: bool,
}

/// Looks through the account's files outside of its home to the end; what `find` prints.
async fn find(root: &Path, owner: &Owner, then: &[&str]) -> Result<String, Problem> {
    let look = look(root, owner, then).await?;
    if look.is_whole { Ok(String::from_utf8_lossy(&look.out).into_owned()) } else { Err(too_many(owner)) }
}

fn too_many(owner: &Owner) -> Problem {
    unseen(owner, "there are too many for one look")
}

fn unseen(owner: &Owner, why: &str) -> Problem {
    Problem::new(Code::GateNotEmpty, format!("files of {} outside of its home cannot be looked for: {why}", owner.name))
}

/// Runs `find` over the account's files outside of its home, for as long as there is time.
async fn look(root: &Path, owner: &Owner, then: &[&str]) -> Result<Look, Problem> {
    let own = root.join(format!("run/user/{}", owner.uid));
    let folders: Vec<PathBuf> = OPEN.iter().map(|folder| root.join(folder)).chain([own]).collect();
    // Links among them lead to others of them. Without any folder it would look through its own.
    let folders: Vec<PathBuf> =
        folders.into_iter().filter(|f| fs::symlink_metadata(f).is_ok_and(|m| m.is_dir())).collect();
    if folders.is_empty() {
        return Ok(Look { is_whole: true, ..Look::default() });
    }
    let mut command = Command::new("find");
    command.args(folders).args(["-mindepth", "1", "-xdev"]).args(ids(owner)).args(then);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.current_dir("/");
    hear(command, PATIENCE, ENOUGH).await.map_err(|e| unseen(owner, "find cannot be run").because(e))
}

/// Runs a program, which is ended when `patience` is over, or `enough` where it has printed something.
async fn hear(mut command: Command, patience: Duration, enough: Duration) -> io::Result<Look> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut look = Look::default();
    let Some(mut pipe) = child.stdout.take() else { return Ok(look) };
    let (began, mut piece) = (Instant::now(), [0; KEPT]);
    loop {
        let limit = if look.out.is_empty() { patience } else { enough };
        let left = limit.saturating_sub(began.elapsed());
        // One that prints without a pause is always there to be read.
        if left.is_zero() {
            return Ok(look);
        }
        match tokio::time::timeout(left, pipe.read(&mut piece)).await {
            Err(_) => return Ok(look),
            Ok(read) => match read? {
                0 => break,
                length => look.out.extend(piece[..length].iter().take(KEPT - look.out.len())),
            },
        }
    }
    look.is_whole = tokio::time::timeout(patience, child.wait()).await.is_ok();
    Ok(look)
}

/// The account's ids as a test of `find`, those in its user namespaces too.
fn ids(owner: &Owner) -> Vec<String> {
    let mut words = vec!["(".to_owned(), "-uid".into(), owner.uid.to_string()];
    for (first, count) in owner.subordinate.iter().filter(|(_, count)| *count > 0) {
        let (before, after) = (first.saturating_sub(1), u64::from(*first) + u64::from(*count));
        words.extend(["-o".into(), "-uid".into(), format!("+{before}"), "-uid".into(), format!("-{after}")]);
    }
    words.push(")".into());
    words
}

async fn remove_ipc(found: &[(&'static str, String)]) {
    for words in ipcrm(found) {
        // It goes on where one of them is gone by now.
        let _ = run("ipcrm", &words).await;
    }
}

/// The words of each `ipcrm` that removes these: one program for many, since somebody may have made tens of thousands.
fn ipcrm<'a>(found: &'a [(&'static str, String)]) -> impl Iterator<Item = Vec<&'a str>> {
    found.chunks(PIECE).map(|some| some.iter().flat_map(|(option, id)| [*option, id.as_str()]).collect())
}

/// The account's System V IPC, as the option of `ipcrm` and the id.
fn ipc(root: &Path, owner: &Owner) -> Vec<(&'static str, String)> {
    let mut found = vec![];
    for (table, option) in TABLES {
        let text = fs::read_to_string(root.join("proc/sysvipc").join(table)).unwrap_or_default();
        found.extend(rows(&text, owner).into_iter().map(|id| (option, id)));
    }
    found
}

/// The ids in such a table whose owner or maker the account is; its columns are found by their names.
fn rows(table: &str, owner: &Owner) -> Vec<String> {
    let mut lines = table.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let columns: Vec<usize> = (0..head.len()).filter(|at| matches!(head[*at], "uid" | "cuid")).collect();
    let own = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let uid = |at: &usize| fields.get(*at).and_then(|f| f.parse::<u32>().ok());
        let own = columns.iter().filter_map(uid).any(|uid| owner.owns(uid));
        fields.get(1).filter(|_| own).map(|id| (*id).to_owned())
    };
    lines.filter_map(own).collect()
}

/// Where the account has mounted something by FUSE. Its server is dead, and neither root can look behind it.
fn mounts(table: &str, owner: &Owner) -> Vec<PathBuf> {
    let own = |line: &str| {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        what.next().filter(|kind| kind.starts_with("fuse"))?;
        let mut options = what.nth(1)?.split(',').filter_map(|option| option.strip_prefix("user_id="));
        let uid: u32 = options.next()?.parse().ok()?;
        owner.owns(uid).then(|| unescaped(place.split(' ').nth(4).unwrap_or_default()))
    };
    table.lines().filter_map(own).collect()
}

/// A path as /proc/self/mountinfo writes it: `\040` is a blank.
fn unescaped(text: &str) -> PathBuf {
    let (bytes, mut path, mut at) = (text.as_bytes(), vec![], 0);
    while at < bytes.len() {
        let code = (bytes[at] == b'\\').then(|| text.get(at + 1..at + 4)).flatten();
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                at += 4;
            }
            None => {
                path.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn owner(uid: u32) -> Owner {
        Owner { name: "kct-a".into(), uid, gid: 1, subordinate: vec![] }
    }

    #[tokio::test]
    async fn files_of_the_account_go_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let uid = fs::metadata(root.path()).unwrap().uid();
        let at = |name: &str| root.path().join(name);
        for folder in ["tmp/dug/in", "var/tmp", "dev/shm", "home/a", &format!("run/user/{uid}/x")] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["tmp/dug/in/file", "tmp/dug/a b\n c", "dev/shm/memory", "home/a/kept"] {
            fs::write(at(file), "x").unwrap();
        }
        symlink(at("home/a"), at("tmp/dug/home")).unwrap();
        symlink(at("home"), at("var/lock")).unwrap();
        assert_eq!(clear(root.path(), &owner(uid + 1)).await.unwrap(), Cleared::Whole);
        assert!(at("tmp/dug/in/file").exists() && left(root.path(), &owner(uid + 1)).await.unwrap().is_empty());
        assert_eq!(left(root.path(), &owner(uid)).await.unwrap().len(), 1);
        clear(root.path(), &owner(uid)).await.unwrap();
        assert!(!at("tmp/dug").exists() && !at("dev/shm/memory").exists() && at("tmp").exists());
        assert!(!at(&format!("run/user/{uid}/x")).exists() && at(&format!("run/user/{uid}")).exists());
        assert!(at("home/a/kept").exists(), "no link is followed");
        assert_eq!(clear(root.path(), &owner(uid)).await.unwrap(), Cleared::Whole);
    }

    #[tokio::test]
    async fn a_look_that_removes_something_is_short_and_says_so() {
        let long = Duration::from_secs(60);
        let run = async |line: &str, patience: Duration, enough: Duration| {
            let mut command = Command::new("sh");
            command.args(["-c", line]);
            hear(command, patience, enough).await.unwrap()
        };
        let short = Duration::from_millis(200);
        let whole = run("echo one; echo two", long, long).await;
        assert!(whole.is_whole && whole.out == b"one\ntwo\n", "{whole:?}");
        let removes = run("while :; do echo gone; done", long, short).await;
        assert!(!removes.is_whole && (1..=KEPT).contains(&removes.out.len()));
        let pauses = run("echo gone; exec sleep 50", long, short).await;
        assert!(!pauses.is_whole && !pauses.out.is_empty());
        let finds_none = run("exec sleep 50", short, long).await;
        assert!(!finds_none.is_whole && finds_none.out.is_empty());
    }

    #[tokio::test]
    async fn few_files_that_a_slow_find_removed_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> = (10..20).map(|n| n.to_string()).collect();
        names.iter().for_each(|name| fs::write(dir.path().join(name), "x").unwrap());
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        // Nobody empties it: `find` waits at the last file for ever, as for a disk.
        let _full = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let mut command = Command::new("find");
        command.current_dir(dir.path()).args(&names).args(["-delete", "-printf", REMOVED]);
        command.args(["-name", "19", "-fprintf", "fifo", "%200000p"]);
        let removes = hear(command, Duration::from_secs(60), Duration::from_secs(1)).await.unwrap();
        assert!(!removes.is_whole && !removes.out.is_empty(), "{removes:?}");
        assert!(!dir.path().join("17").exists());
    }

    #[tokio::test]
    async fn without_any_of_the_folders_nothing_is_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let uid = fs::metadata(root.path()).unwrap().uid();
        fs::write(root.path().join("kept"), "x").unwrap();
        clear(root.path(), &owner(uid)).await.unwrap();
        assert!(root.path().join("kept").exists());
    }

    #[test]
    fn whose_ids_they_are() {
        let owner = Owner { subordinate: vec![(200_000, 10), (300_000, 0)], ..owner(1007) };
        assert_eq!(ids(&owner).join(" "), "( -uid 1007 -o -uid +199999 -uid -200010 )");
        let shm = "       key      shmid perms  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
                   1 5 644 4096 15174 0 0 1007 0 1008 0\n2 6 644 4096 15174 0 0 0 0 0 0\n3 7 600 1 1 1 1 1008 0 200003 0\n";
        assert_eq!(rows(shm, &owner), ["5", "7"]);
        assert_eq!(rows("", &owner), Vec::<String>::new());
    }

    #[test]
    fn many_queues_are_removed_by_few_programs() {
        let found: Vec<_> = (0..32_000).map(|id| ("-q", id.to_string())).chain([("-m", "7".to_owned())]).collect();
        let words: Vec<_> = ipcrm(&found).collect();
        assert_eq!(words.len(), 33);
        assert_eq!(words[1][..4], ["-q", "1000", "-q", "1001"]);
        assert_eq!(words[32], ["-m", "7"]);
        assert_eq!(ipcrm(&[]).count(), 0);
    }

    #[test]
    fn mounts_of_the_account() {
        let table = "36 35 0:40 / /tmp/a\\040b\\134 rw,nosuid - fuse.sshfs x rw,user_id=1007,group_id=1\n\
                     37 35 0:41 / /tmp/b rw - fuse.sshfs x rw,user_id=1008,group_id=1\n\
                     38 35 0:42 / /tmp/c rw master:1 - tmpfs user_id=1007 rw,user_id=1007\nnonsense\n";
        assert_eq!(mounts(table, &owner(1007)), [PathBuf::from("/tmp/a b\\")]);
        assert_eq!(unescaped("/é\\9"), PathBuf::from("/é\\9"));
    }
}

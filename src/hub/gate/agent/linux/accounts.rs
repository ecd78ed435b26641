use std::{fs, io, path::Path, process::Output};

use tokio::process::Command;

use crate::{
    core::{Code, Problem, shell::printable},
    hub::gate::is_account,
};

/// Who processes and files of an account belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// The account.
    pub name: String,
    /// Its user id, never one of the system.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Ids that it may use in user namespaces of its own, as first and count.
    pub subordinate: Vec<(u32, u32)>,
}

/// The lowest user id of people; everything below belongs to the system.
const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65534;

/// Ids for new accounts, first and last, the best first. `useradd` would begin with 1000, as do those who run a program of a
/// pod: on a server whose container machines share its ids, the two could not be told apart. These are below those that
/// `useradd` hands out for user namespaces, from 100000 on, and beyond 16 bits; a server that is a container with no more ids
/// than that has the others, which neither systemd nor usual images use.
const RANGES: [(u32, u32); 2] = [(70_000, 99_999), (50_000, 59_999)];

/// What `getent` ends with where all sources were asked and none knows the name; it ends otherwise, or not at all, where
/// something failed.
const NOT_FOUND: i32 = 2;

/// The day on which closed accounts ended, as `templates/gate/leave.sh` writes it.
const CLOSED: &str = "1";

/// Programs that write the tables of accounts: one that is killed in its midst leaves locks there, or half an account.
const WRITERS: &[&str] = &["groupadd", "useradd", "usermod"];

/// Groups whose members can become root, or reach what root guards.
const MIGHTY: &[&str] = &[
    "root",
    "sudo",
    "wheel",
    "admin",
    "adm",
    "docker",
    "incus",
    "incus-admin",
    "lxd",
    "libvirt",
    "disk",
    "shadow",
    "kvm",
    "kmem",
    "podman",
    "systemd-journal",
];

impl Owner {
    /// Whether this user id is one of the account's.
    pub fn owns(&self, uid: u32) -> bool {
        uid == self.uid || self.subordinate.iter().any(|(first, count)| uid >= *first && uid - first < *count)
    }
}

/// A file of the system's or the kernel's, empty where there is none to read.
///
/// The names in it are any bytes: somebody's full name in another encoding must not make all others unknown, nor a process
/// hide behind what it calls itself.
pub(super) fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// The account as /etc/passwd below `root` knows it.
pub(super) fn in_files(root: &Path, name: &str) -> Option<Owner> {
    let table = text(&root.join("etc/passwd"));
    let mut own = table.lines().filter(|line| line.split(':').next() == Some(name));
    own.find_map(|line| from_passwd(root, line))
}

fn from_passwd(root: &Path, line: &str) -> Option<Owner> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid: u32 = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let subuid = text(&root.join("etc/subuid"));
    let range = |line: &str| {
        let mut fields = line.split(':');
        let whose = fields.next()?;
        let own = whose == name || whose == uid.to_string();
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        (own && first >= FIRST_PERSON).then_some((first, count))
    };
    let subordinate = subuid.lines().filter_map(range).collect();
    Some(Owner { name, uid, gid, subordinate })
}

/// The account as any source of names knows it; `None` when there is none.
///
/// What cannot be asked, as a directory that does not answer, is no such answer: who is not known may be at work.
pub(super) async fn anywhere(root: &Path, name: &str) -> Result<Option<Owner>, Problem> {
    let owner = match in_files(root, name) {
        Some(owner) => Some(owner),
        None => told(root, &output("getent", &["passwd", name]).await?)?.filter(|o| o.name == name),
    };
    owner.map(person).transpose()
}

/// Whom `getent` tells of.
fn told(root: &Path, out: &Output) -> Result<Option<Owner>, Problem> {
    if out.status.code() == Some(NOT_FOUND) {
        return Ok(None);
    }
    let line = succeeded("getent", out)?;
    let unread = || failed("getent", "it names no account").detail([printable(line.trim())]);
    from_passwd(root, line.trim()).map(Some).ok_or_else(unread)
}

/// Refuses ids of the system: what follows kills everything of the id.
pub(super) fn person(owner: Owner) -> Result<Owner, Problem> {
    if owner.uid < FIRST_PERSON || owner.uid == NOBODY || !is_account(&owner.name) {
        return Err(unfit(&owner.name, format!("its user id is {}", owner.uid)));
    }
    Ok(owner)
}

/// Makes the account if there is none, and refuses one that is more than a student's.
///
/// What could not be asked is [`Code::GateProgram`], which says nothing of the account.
pub(super) async fn ensure(root: &Path, name: &str, group: &str) -> Result<Owner, Problem> {
    if !is_account(name) {
        return Err(unfit(name, "its name cannot be one".into()));
    }
    if anywhere(root, name).await?.is_none() {
        if run("getent", &["group", group]).await.is_err() {
            run("groupadd", &["--system", "--force", group]).await?;
        }
        let words = new_account(root, name, group);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let made = run("useradd", &words).await;
        if let Err(problem) = made
            && anywhere(root, name).await?.is_none()
        {
            return Err(problem);
        }
    }
    let owner = anywhere(root, name).await?.ok_or_else(|| unfit(name, "it cannot be made".into()))?;
    let groups = run("id", &["-Gn", name]).await?;
    let groups: Vec<_> = groups.split_whitespace().collect();
    if !groups.contains(&group) {
        return Err(unfit(name, format!("it was there before and is not in the group {group}")).hint(format!(
            "Give the person another account name, or make it a student's: usermod -aG {group} {name}."
        )));
    }
    if let Some(mighty) = groups.iter().find(|g| MIGHTY.contains(g)) {
        return Err(unfit(name, format!("it is in the group {mighty}, so it could get around every slot"))
            .hint(format!("Take it out: gpasswd -d {name} {mighty}.")));
    }
    // Taking the gate off closes the accounts of its time; they are as before when it is back.
    let shadow = run("getent", &["shadow", name]).await.unwrap_or_default();
    if shadow.trim().split(':').nth(7) == Some(CLOSED) {
        run("usermod", &["--expiredate", "", "--shell", "/bin/bash", name]).await?;
    }
    Ok(owner)
}

/// The words by which `useradd` makes an account.
fn new_account(root: &Path, name: &str, group: &str) -> Vec<String> {
    // `*` rather than the default `!`: sshd without PAM takes the latter for a locked account.
    let fixed = ["--create-home", "--shell", "/bin/bash", "--password", "*", "--comment", "kubecamp"];
    let mut keys = vec!["HOME_MODE=0700".to_owned()];
    if let Some((first, last)) = RANGES.into_iter().find(|range| is_free(root, *range)) {
        for kind in ["UID", "GID"] {
            keys.extend([format!("{kind}_MIN={first}"), format!("{kind}_MAX={last}")]);
        }
    }
    let keys = keys.into_iter().flat_map(|key| ["--key".to_owned(), key]);
    let own = ["--groups", group, name].map(str::to_owned);
    fixed.map(str::to_owned).into_iter().chain(keys).chain(own).collect()
}

/// Whether a server has all ids of a range, and handed none of them out for user namespaces.
fn is_free(root: &Path, (first, last): (u32, u32)) -> bool {
    let (first, last) = (u64::from(first), u64::from(last));
    let has_all = |map: &str| {
        let table = text(&root.join("proc/self").join(map));
        table.lines().any(|line| {
            let mut fields = line.split_whitespace();
            let inside = fields.next().and_then(|f| f.parse::<u64>().ok());
            let count = fields.nth(1).and_then(|f| f.parse::<u64>().ok());
            inside.zip(count).is_some_and(|(inside, count)| inside <= first && last < inside.saturating_add(count))
        })
    };
    let hands_out = |file: &str| {
        let table = text(&root.join("etc").join(file));
        table.lines().any(|line| {
            let mut fields = line.split(':').skip(1).map(|f| f.trim().parse::<u64>().ok());
            let range = fields.next().flatten().zip(fields.next().flatten());
            range.is_some_and(|(from, count)| from <= last && first < from.saturating_add(count))
        })
    };
    has_all("uid_map") && has_all("gid_map") && !hands_out("subuid") && !hands_out("subgid")
}

/// Whether an account is in a group of /etc/group below `root`, be it as its own.
pub(super) fn is_member(root: &Path, owner: &Owner, group: &str) -> bool {
    let table = text(&root.join("etc/group"));
    let gid = table.lines().find(|l| l.split(':').next() == Some(group)).and_then(|l| l.split(':').nth(2));
    gid.is_some_and(|gid| gid == owner.gid.to_string()) || members(root, group).contains(&owner.name)
}

/// Whether an account is in a group as any source of names knows it; what cannot be asked is no answer.
pub(super) async fn belongs(name: &str, group: &str) -> Result<bool, Problem> {
    let ids = run("id", &["-G", "--", name]).await?;
    // By number: where a directory has a group without a name, `id` fails as it tells the names.
    match run("getent", &["group", group]).await {
        Ok(entry) => Ok(has_group(&ids, &entry)),
        Err(_) => Ok(run("id", &["-Gn", "--", name]).await?.split_whitespace().any(|known| known == group)),
    }
}

/// Whether a group, as `getent` tells it, is among these numbers.
fn has_group(ids: &str, entry: &str) -> bool {
    entry.trim().split(':').nth(2).is_some_and(|gid| ids.split_whitespace().any(|id| id == gid))
}

/// The members of a group in /etc/group below `root`.
pub(super) fn members(root: &Path, group: &str) -> Vec<String> {
    let table = text(&root.join("etc/group"));
    let line = table.lines().find(|l| l.split(':').next() == Some(group));
    let names = line.and_then(|l| l.split(':').nth(3)).unwrap_or_default();
    names.split(',').filter(|n| is_account(n)).map(str::to_owned).collect()
}

fn unfit(name: &str, why: String) -> Problem {
    Problem::new(Code::GateAccount, format!("the account {} cannot be a student's: {why}", printable(name)))
}

/// Runs a program of the system; its output, or why not.
pub(super) async fn run(program: &str, args: &[&str]) -> Result<String, Problem> {
    succeeded(program, &output(program, args).await?)
}

fn failed(program: &str, why: &str) -> Problem {
    Problem::new(Code::GateProgram, format!("{program} failed: {why}"))
}

/// What a program wrote, where it says that it did what it should.
fn succeeded(program: &str, out: &Output) -> Result<String, Problem> {
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let wrote = printable(String::from_utf8_lossy(&out.stderr).trim());
    Err(failed(program, &out.status.to_string()).detail([wrote]))
}

/// Runs a program of the system to its end, however that comes. One that takes too long, or that nobody waits for any more, is
/// ended; one that writes the tables of accounts ends by itself.
async fn output(program: &str, args: &[&str]) -> Result<Output, Problem> {
    let mut command = Command::new(program);
    command.args(args).stdin(std::process::Stdio::null());
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    match tokio::time::timeout(std::time::Duration::from_secs(15), ended(command, WRITERS.contains(&program))).await {
        Err(_) => Err(failed(program, "it took too long")),
        Ok(Err(e)) => Err(failed(program, "it cannot be run").because(e)),
        Ok(Ok(out)) => Ok(out),
    }
}

/// What a program wrote at its end, to which it comes also where this call is dropped, if it is spared.
async fn ended(mut command: Command, is_spared: bool) -> io::Result<Output> {
    if !is_spared {
        return command.kill_on_drop(true).output().await;
    }
    // Beside this call: with its pipes closed it would be ended by its next word.
    let task = tokio::spawn(async move { command.output().await });
    task.await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_makes_accounts_ends_by_itself_when_nobody_waits_for_it() {
        use std::time::Duration;
        let dir = tempfile::tempdir().unwrap();
        let (begun, made) = (dir.path().join("begun"), dir.path().join("made"));
        let mut command = Command::new("sh");
        command.args(["-c", "echo > begun; sleep 1; echo it is made && echo > made"]).current_dir(dir.path());
        let task = tokio::spawn(ended(command, true));
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        for file in [begun, made] {
            while !file.exists() {
                assert!(tokio::time::Instant::now() < end, "{} does not come", file.display());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            task.abort();
        }
    }

    #[test]
    fn accounts_and_their_subordinate_ids() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd =
            b"root:x:0:0::/root:/bin/sh\nold:x:1001:1001:Ren\xe9:/:/bin/sh\nkct-a:x:1007:1008::/home/a:/bin/bash\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(
            root.path().join("etc/subuid"),
            "kct-b:100000:65536\nkct-a:165536:65536\n1007:300000:10\nkct-a:0:9\n",
        )
        .unwrap();
        fs::write(root.path().join("etc/group"), "x:x:1:q\nkubecamp-students:x:990:kct-a,kct-b,../x\n").unwrap();
        let owner = in_files(root.path(), "kct-a").unwrap();
        assert_eq!((owner.uid, owner.gid), (1007, 1008));
        assert!(owner.owns(1007) && owner.owns(165_536) && owner.owns(231_071) && owner.owns(300_009));
        assert!(!owner.owns(0) && !owner.owns(100_000) && !owner.owns(231_072) && !owner.owns(300_010));
        assert!(person(in_files(root.path(), "root").unwrap()).is_err());
        assert_eq!(members(root.path(), "kubecamp-students"), ["kct-a", "kct-b"]);
        assert!(is_member(root.path(), &owner, "kubecamp-students") && !is_member(root.path(), &owner, "x"));
        let own_group = Owner { name: "q".into(), gid: 990, ..owner };
        assert!(is_member(root.path(), &own_group, "kubecamp-students"));
    }

    #[test]
    fn new_accounts_have_ids_that_no_pod_is_likely_to_use() {
        let root = tempfile::tempdir().unwrap();
        let ids = || {
            let words = new_account(root.path(), "kct-a", "students");
            assert_eq!(words[words.len() - 3..], ["--groups", "students", "kct-a"]);
            let keys = words.windows(2).filter(|w| w[0] == "--key").map(|w| w[1].clone());
            keys.collect::<Vec<_>>().join(" ")
        };
        let set = |name: &str, text: &str| {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(ids(), "HOME_MODE=0700", "what cannot be known is left to the server");
        for map in ["proc/self/uid_map", "proc/self/gid_map"] {
            set(map, "         0          0 4294967295\n");
        }
        let best = "HOME_MODE=0700 UID_MIN=70000 UID_MAX=99999 GID_MIN=70000 GID_MAX=99999";
        assert_eq!(ids(), best);
        set("etc/subuid", "amy:100000:65536\nbob:165536:65536\n");
        assert_eq!(ids(), best);
        let next = "HOME_MODE=0700 UID_MIN=50000 UID_MAX=59999 GID_MIN=50000 GID_MAX=59999";
        set("etc/subgid", "root:99999:1000000000\n");
        assert_eq!(ids(), next);
        set("etc/subgid", "");
        // A container of a server's user without privileges.
        set("proc/self/gid_map", "0 100000 65536\n");
        assert_eq!(ids(), next);
        set("etc/subuid", "amy:1000:60000\n");
        assert_eq!(ids(), "HOME_MODE=0700");
    }

    #[test]
    fn only_a_clean_answer_says_that_there_is_no_account() {
        use std::os::unix::process::ExitStatusExt;
        let root = tempfile::tempdir().unwrap();
        let says = |raw: i32, text: &str| {
            let status = std::process::ExitStatus::from_raw(raw);
            told(root.path(), &Output { status, stdout: text.into(), stderr: vec![] })
        };
        assert_eq!(says(2 << 8, "").unwrap(), None);
        assert_eq!(says(0, "kct-a:*:7001:7001::/home/kct-a:/bin/bash\n").unwrap().unwrap().uid, 7001);
        // An unknown database, a failure, a signal; and what is no line of an account.
        for (raw, text) in [(1 << 8, ""), (3 << 8, ""), (9, ""), (0, ""), (0, "kct-a\n")] {
            assert_eq!(says(raw, text).unwrap_err().code, Code::GateProgram, "{raw} {text}");
        }
    }

    #[tokio::test]
    async fn groups_are_asked_of_all_sources_and_silence_is_no_answer() {
        assert!(belongs("root", "root").await.unwrap());
        assert!(!belongs("root", "kubecamp-students").await.unwrap());
        assert_eq!(belongs("kct-nobody-of-this-name", "root").await.unwrap_err().code, Code::GateProgram);
        // 7041 has no name, which is no matter.
        assert!(has_group("1007 7041 990\n", "kubecamp-students:x:990:\n"));
        assert!(!has_group("1007 7041 9900\n", "kubecamp-students:x:990:\n") && !has_group("1007\n", ""));
    }
}

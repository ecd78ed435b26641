use std::{fs, path::Path};

use futures::future::join_all;

use super::Home;
use crate::{
    bundle::{Bundle, Cache},
    core::{
        Arch, Blob, Code, Problem,
        shell::{join, quote},
    },
    hub::gate::{Slot, public_key},
    machine::Machine,
    profile::Lab,
    transport::{Cmd, HostKeyPolicy, Identity, Io, SshTarget, SshTransport, Transport},
};

/// Where students find kubectl, and what says that it is the gate's: taken off again with it.
const KUBECTL: &str = "/usr/local/bin/kubectl";
const KUBECTL_MARK: &str = "kubectl.sha256";

/// Around the holder's own keys in the authorized_keys of a machine.
const BEGIN: &str = "# kubecamp begin";
const END: &str = "# kubecamp end";

/// The line of the account's ssh configuration that names the lab's own.
const INCLUDE: &str = "Include lab_config";

/// The gate's own folder in a home, for what cannot be put where programs look for it.
const ASIDE: &str = ".kubecamp";

/// The file of the home whose being there asks for a fresh lab.
const ANEW: &str = "fresh-lab";

/// Whether the holder asked for a fresh lab.
pub(super) async fn wants_anew(slot: &Slot) -> Result<bool, Problem> {
    Ok(Home::of(&slot.account).await?.has(ANEW))
}

/// The holder gets a fresh lab: the file that asks for it goes.
///
/// One that stayed would cost them the next lab too.
pub(super) async fn heed(slot: &Slot) -> Result<(), Problem> {
    let home = Home::of(&slot.account).await?;
    if home.has(ANEW) && !home.take(ANEW) {
        let what = format!("cannot remove the file {ANEW} in the home of {}", slot.account);
        return Err(Problem::new(Code::GateAccount, what));
    }
    Ok(())
}

/// Lets root of the machines in with each of the holder's own keys too, beside the lab's in `key`; one that they have taken
/// away at the hub since counts no more.
///
/// Gives which machines keep such a key, and let the holder in with the others.
pub(super) async fn let_in(key: &Path, machines: &[Machine], slot: &Slot) -> Result<Vec<Problem>, Problem> {
    // One that sshd would not take is no reason to keep the others out.
    let lines: Vec<_> = slot.keys().map(str::trim).filter(|line| public_key(line).is_ok()).collect();
    let script = take_keys("/root/.ssh", &slot.account, &lines);
    let each = machines.iter().map(|machine| on_machine(key, machine, &script));
    let kept: Vec<Option<Problem>> = join_all(each).await.into_iter().collect::<Result<_, _>>()?;
    Ok(kept.into_iter().flatten().collect())
}

/// Has the block of the gate in the authorized_keys of `folder` hold these lines; all outside of it stays, but for lines of
/// the same keys under the holder's account, and while there is no block for any under it: an earlier agent put those there
/// without one. Of a block that is not ended nobody knows where it ends: its lines stay too.
///
/// The file is replaced whole: what is cut off, as on a full disk, would keep the lab's own key out. A file that is right is
/// not touched; one that cannot be written and lets the holder in all the same is told on standard output.
fn take_keys(folder: &str, account: &str, lines: &[&str]) -> String {
    let (folder, account) = (quote(folder), quote(account));
    let (wanted, block) = match lines {
        [] => (":".to_owned(), String::new()),
        lines => (format!("printf '%s\\n' {}", join(lines)), format!(" && echo '{BEGIN}' && wanted && echo '{END}'")),
    };
    format!(
        "umask 077; mkdir -p {folder}; f={folder}/authorized_keys\n\
         wanted() {{ {wanted}; }}\n\
         content() {{\n\
         \x20 wanted | awk -v who={account} '\n\
         \x20 from == \"new\" {{ wanted[$2] = 1; next }}\n\
         \x20 from == \"look\" {{ if ($0 == \"{BEGIN}\") begun = 1; next }}\n\
         \x20 !inside && $0 == \"{BEGIN}\" {{ inside = 1; held = \"\"; next }}\n\
         \x20 inside && $0 == \"{END}\" {{ inside = 0; next }}\n\
         \x20 inside {{ held = held $0 \"\\n\"; next }}\n\
         \x20 NF == 3 && $3 == who && $1 ~ /^(ssh|ecdsa|sk)-/ && (!begun || $2 in wanted) {{ next }}\n\
         \x20 {{ print }}\n\
         \x20 END {{ if (inside) printf \"%s\", held }}\n\
         \x20 ' from=new - from=look \"$f\" from=old \"$f\"{block}\n\
         }}\n\
         [ -e \"$f\" ] || touch \"$f\"\n\
         if content | cmp -s - \"$f\"; then :\n\
         elif content > \"$f.kubecamp\" && mv \"$f.kubecamp\" \"$f\"; then :\n\
         else\n\
         \x20 rm -f \"$f.kubecamp\"\n\
         \x20 wanted | {{ while IFS= read -r line; do grep -qxF -e \"$line\" \"$f\" || exit 1; done; }} && echo \"it stays as it is\"\n\
         fi"
    )
}

async fn on_machine(key: &Path, machine: &Machine, script: &str) -> Result<Option<Problem>, Problem> {
    let mut target = SshTarget::new("root", machine.address.map(|a| a.to_string()).unwrap_or_default(), 22);
    target.identities = vec![Identity::File(key.to_owned())];
    target.identities_only = true;
    target.agent = None;
    target.netns.clone_from(&machine.netns);
    target.host_keys = HostKeyPolicy::Pinned(machine.host_keys.clone());
    let link = SshTransport::connect(target).await.map_err(|p| p.on(&machine.node))?;
    let ran = link.exec(&Cmd::script(script), Io::default()).await;
    link.close().await;
    let exit = ran.map_err(|e| e.problem().on(&machine.node))?;
    let problem = |what: &str| Problem::new(Code::GateHandOver, what).on(&machine.node).detail(exit.tail(3));
    match (exit.ok(), exit.text().is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Ok(Some(problem("the keys of its holder there cannot be changed"))),
        (false, _) => Err(problem("the machine does not take its holder's key")),
    }
}

/// What is put into the home of a lab's holder, and what is said of the lab there.
struct Goods<'a> {
    slot: &'a Slot,
    machines: &'a [Machine],
    kubeconfig: String,
    key: String,
    kept: u32,
    trouble: Option<&'a Problem>,
}

/// Puts the way to the lab into the account's home: kubeconfig, the lab's key, the machines' names for ssh, and a page that
/// says so, and for how many days the lab is kept unused.
///
/// It is help and not the door, so what the home does not take is told, and keeps nobody out: its holder may have anything
/// there.
pub(super) async fn furnish(
    slot: &Slot,
    folder: &Path,
    machines: &[Machine],
    kept: u32,
    trouble: Option<&Problem>,
) -> Result<Vec<Problem>, Problem> {
    let read = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file)
            .map_err(|e| Problem::new(Code::GateHandOver, format!("the lab has no {}", file.display())).because(e))
    };
    let goods = Goods { slot, machines, kubeconfig: read("kubeconfig")?, key: read("key")?, kept, trouble };
    Ok(match Home::of(&slot.account).await {
        Ok(home) => put_in(&home, &goods),
        Err(problem) => vec![problem],
    })
}

/// Puts everything into a home; gives what it did not take where it belongs.
fn put_in(home: &Home, goods: &Goods<'_>) -> Vec<Problem> {
    let mut lacking = vec![];
    let kubectl = match home.put(".kube", "config", &goods.kubeconfig) {
        Ok(()) => "kubectl".to_owned(),
        Err(problem) => {
            lacking.push(problem);
            lacking.extend(home.put(ASIDE, "config", &goods.kubeconfig).err());
            format!("kubectl --kubeconfig ~/{ASIDE}/config")
        }
    };
    let put_ssh = |folder: &str| -> Result<(), Problem> {
        home.put(folder, "lab_key", &goods.key)?;
        home.put(folder, "lab_known_hosts", &known_hosts(goods.machines))?;
        home.put(folder, "lab_config", &ssh_config(goods.machines, folder))
    };
    // First of all: after a `Host` line it would count for that host only.
    let ssh = match put_ssh(".ssh").and_then(|()| home.begin_with(".ssh", "config", INCLUDE)) {
        Ok(true) => "ssh".to_owned(),
        Ok(false) => "ssh -F ~/.ssh/lab_config".to_owned(),
        Err(problem) => {
            lacking.push(problem);
            lacking.extend(put_ssh(ASIDE).err());
            format!("ssh -F ~/{ASIDE}/lab_config")
        }
    };
    let text = page(goods, &kubectl, &ssh, &lacking);
    if let Err(problem) = home.put("", "lab.txt", &text) {
        lacking.push(problem);
        lacking.extend(home.put(ASIDE, "lab.txt", &text).err());
    }
    lacking
}

fn addressed(machines: &[Machine]) -> impl Iterator<Item = (&Machine, String)> {
    machines.iter().filter_map(|machine| Some((machine, machine.address?.to_string())))
}

fn known_hosts(machines: &[Machine]) -> String {
    let lines = |(machine, address): (&Machine, String)| {
        machine.host_keys.iter().map(|key| format!("{address} {key}\n")).collect::<String>()
    };
    addressed(machines).map(lines).collect()
}

fn ssh_config(machines: &[Machine], folder: &str) -> String {
    let host = |(machine, address): (&Machine, String)| {
        format!(
            "Host {}\n    HostName {address}\n    User root\n    IdentityFile ~/{folder}/lab_key\n    IdentitiesOnly yes\n    \
             UserKnownHostsFile ~/{folder}/lab_known_hosts\n",
            machine.node
        )
    };
    addressed(machines).map(host).collect()
}

/// The page of a lab, with the words by which kubectl and ssh find it, and what the home does not take.
fn page(goods: &Goods<'_>, kubectl: &str, ssh: &str, lacking: &[Problem]) -> String {
    let layout = goods.slot.layout.as_deref().unwrap_or_default();
    let how_long = match goods.kept {
        0 => String::new(),
        days => format!(" After {days} days without one here it is removed."),
    };
    let mut text = format!(
        "Your lab on this server, {layout}: it runs during your slots, and is kept between them.{how_long}\n\n"
    );
    let names: Vec<_> = addressed(goods.machines).map(|(machine, _)| machine.node.to_string()).collect();
    for (machine, address) in addressed(goods.machines) {
        text.push_str(&format!("  {:<12} {address}\n", machine.node));
    }
    text.push_str(&format!("\nFrom here:\n  {kubectl} get nodes\n"));
    names.iter().take(1).for_each(|name| text.push_str(&format!("  {ssh} {name}\n")));
    text.push_str(&format!("\nTo have a fresh lab in your next slot in place of this one:\n  touch ~/{ANEW}\n"));
    if let Some(problem) = goods.trouble {
        text.push_str(&format!(
            "\nIt did not come up as it should, nor did its snapshot, and is yours as it is:\n{problem}\n"
        ));
    }
    if !lacking.is_empty() {
        let lines: String = lacking.iter().map(|problem| format!("{problem}\n")).collect();
        text.push_str(&format!(
            "\nWhat your home did not take; a link, or a file where a folder should be, is left as it is:\n{lines}"
        ));
    }
    text
}

/// What the home of a holder says where the server makes no labs.
const NO_LAB: &str = "This server makes no labs: your slot is a login, and your home is kept between slots.\n\n\
                      If you expected a cluster here, tell your teacher: an admin enrolls the server again with --machines vm.\n\
                      Until then book a slot on a server that makes labs.\n";

/// Says in the holder's home that the server makes no labs.
///
/// A home that does not take it keeps them from nothing.
pub(super) async fn without_lab(slot: &Slot) {
    if let Ok(home) = Home::of(&slot.account).await {
        let _ = home.put("", "lab.txt", NO_LAB);
    }
}

/// Puts kubectl of the lab's bundle where every account finds it, unless the server has one.
pub(super) fn kubectl(home: &Path, bundle: Option<&Path>, lab: Option<&Lab>) -> Result<(), Problem> {
    let there = ["/usr/local/bin/kubectl", "/usr/bin/kubectl", "/bin/kubectl"].iter().any(|p| Path::new(p).exists());
    let (Some(lab), Some(arch)) = (lab.filter(|_| !there), Arch::from_uname(std::env::consts::ARCH)) else {
        return Ok(());
    };
    let cached = Cache::new(home.join("cache")).bundle(&lab.profile().kubernetes, arch);
    let to = Path::new(KUBECTL);
    if !Bundle::open(bundle.unwrap_or(&cached))?.unpack("kubectl", to)? {
        return Ok(());
    }
    let mark = home.join(KUBECTL_MARK);
    let noted = Blob::from_file(to).and_then(|blob| fs::write(&mark, format!("{}  {KUBECTL}\n", blob.sha256())));
    noted.map_err(|e| Problem::new(Code::GateState, format!("cannot write {}", mark.display())).because(e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::machine::{Kind, State};

    #[test]
    fn the_holders_keys_are_those_of_now_and_what_else_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join(".ssh"), dir.path().join(".ssh/authorized_keys"));
        let run = |lines: &[&str]| {
            let script = take_keys(folder.to_str().unwrap(), "amy", lines);
            assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{script}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no part is left");
            fs::read_to_string(&file).unwrap()
        };
        let (one, two) = ("ssh-ed25519 AAAAone amy", "ssh-ed25519 AAAAtwo amy's $HOME \\n");
        let block = |keys: &str| format!("{BEGIN}\n{keys}{END}\n");
        assert_eq!(run(&[]), "");
        assert_eq!(run(&[one]), block(&format!("{one}\n")));
        // The lab's own key, whose line nobody ended.
        fs::write(&file, "lab").unwrap();
        assert_eq!(run(&[one, two]), format!("lab\n{}", block(&format!("{one}\n{two}\n"))));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}a friend's\n")).unwrap();
        assert_eq!(run(&[two]), format!("lab\na friend's\n{}", block(&format!("{two}\n"))));
        assert_eq!(run(&[two]), format!("lab\na friend's\n{}", block(&format!("{two}\n"))));
        assert_eq!(run(&[]), "lab\na friend's\n");
        // A block that is not ended.
        fs::write(&file, format!("{BEGIN}\n{one}\nlab\n")).unwrap();
        assert_eq!(run(&[two]), format!("{one}\nlab\n{}", block(&format!("{two}\n"))));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // What an earlier agent added without a block: of one that is taken away, and of one that is not.
        let (old, friend) = ("ssh-ed25519 AAAAold amy", "ssh-ed25519 AAAAold amy@home");
        fs::write(&file, format!("lab\n{old}\n{one}\n{friend}")).unwrap();
        assert_eq!(run(&[one]), format!("lab\n{friend}\n{}", block(&format!("{one}\n"))));
        // Later ones are somebody's own, but for those that are in the block.
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}{old}\n{one}\n")).unwrap();
        assert_eq!(run(&[one]), format!("lab\n{friend}\n{old}\n{}", block(&format!("{one}\n"))));
    }

    #[test]
    fn keys_are_written_only_where_they_change_and_those_that_are_there_are_enough() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().to_str().unwrap(), dir.path().join("authorized_keys"));
        let run = |lines: &[&str]| {
            let script = take_keys(folder, "amy", lines);
            let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            (out.status.success(), !out.stdout.is_empty())
        };
        let (one, two) = ("ssh-ed25519 AAAAone amy", "ssh-ed25519 AAAAtwo amy");
        fs::write(&file, "lab\n").unwrap();
        assert_eq!(run(&[one, two]), (true, false));
        // As on a full disk, or where the holder forbids that the file changes.
        let part = dir.path().join("authorized_keys.kubecamp");
        fs::create_dir(&part).unwrap();
        let (text, inode) = (fs::read_to_string(&file).unwrap(), fs::metadata(&file).unwrap().ino());
        assert_eq!(run(&[one, two]), (true, false), "nothing changes");
        assert_eq!(run(&[one]), (true, true), "it is there, with one that should not be");
        assert_eq!(run(&[]), (true, true));
        assert!(!run(&[one, "ssh-ed25519 AAAAnew amy"]).0);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        fs::remove_dir(&part).unwrap();
        assert_eq!(run(&[one, two]), (true, false));
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "it is not replaced");
    }

    fn machine(node: &str, address: Option<&str>) -> Machine {
        Machine {
            name: format!("gate-amy-{node}"),
            lab: "gate-amy".parse().unwrap(),
            node: node.parse().unwrap(),
            kind: Kind::Vm,
            state: State::Running,
            address: address.map(|a| a.parse().unwrap()),
            netns: None,
            host_keys: vec!["ssh-ed25519 AAAA".into()],
        }
    }

    fn goods<'a>(slot: &'a Slot, machines: &'a [Machine]) -> Goods<'a> {
        Goods { slot, machines, kubeconfig: "the way".into(), key: "the key".into(), kept: 60, trouble: None }
    }

    #[test]
    fn what_a_home_does_not_take_is_put_aside_and_told() {
        let (dir, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, meta) = (|name: &str| dir.path().join(name), fs::metadata(dir.path()).unwrap());
        let home = Home::at(dir.path(), meta.uid(), meta.gid());
        let (slot, machines) = (Slot::new("1", "amy", 0, 10), [machine("cp", Some("10.115.0.2"))]);
        // As with dotfiles that are kept elsewhere.
        symlink(theirs.path(), at(".ssh")).unwrap();
        fs::write(at(".kube"), "theirs").unwrap();
        fs::create_dir(at("lab.txt")).unwrap();
        let lacking = put_in(&home, &goods(&slot, &machines));
        assert_eq!(lacking.len(), 3, "{lacking:?}");
        assert_eq!(fs::read_to_string(at(".kubecamp/config")).unwrap(), "the way");
        assert_eq!(fs::read_to_string(at(".kubecamp/lab_key")).unwrap(), "the key");
        let config = fs::read_to_string(at(".kubecamp/lab_config")).unwrap();
        assert!(config.contains("IdentityFile ~/.kubecamp/lab_key\n"), "{config}");
        let text = fs::read_to_string(at(".kubecamp/lab.txt")).unwrap();
        let ways = "  kubectl --kubeconfig ~/.kubecamp/config get nodes\n  ssh -F ~/.kubecamp/lab_config cp\n";
        assert!(text.contains(ways) && text.contains("KC-GATE-ACCOUNT: cannot write "), "{text}");
        assert!(fs::read_dir(theirs.path()).unwrap().next().is_none() && fs::read(at(".kube")).unwrap() == b"theirs");
        // All of it goes where it belongs again, and where nothing is taken all of it is told.
        fs::remove_file(at(".ssh")).unwrap();
        fs::remove_file(at(".kube")).unwrap();
        fs::remove_dir(at("lab.txt")).unwrap();
        assert!(put_in(&home, &goods(&slot, &machines)).is_empty());
        assert!(fs::read_to_string(at("lab.txt")).unwrap().contains("\n  kubectl get nodes\n  ssh cp\n"));
        let stranger = Home::at(dir.path(), meta.uid() + 1, meta.gid());
        assert_eq!(put_in(&stranger, &goods(&slot, &machines)).len(), 6);
    }

    #[test]
    fn the_way_to_each_machine_is_told() {
        let machines = [machine("cp", Some("10.115.0.2")), machine("worker-1", None)];
        assert_eq!(known_hosts(&machines), "10.115.0.2 ssh-ed25519 AAAA\n");
        let config = ssh_config(&machines, ".ssh");
        assert!(config.starts_with("Host cp\n    HostName 10.115.0.2\n    User root\n"), "{config}");
        assert!(config.contains("\n    UserKnownHostsFile ~/.ssh/lab_known_hosts\n") && !config.contains("worker-1"));
        let slot = Slot { layout: Some("2x4c8g".into()), ..Slot::new("1", "amy", 0, 10) };
        let goods = goods(&slot, &machines);
        let text = page(&goods, "kubectl", "ssh", &[]);
        assert!(text.contains("After 60 days without one here it is removed.\n"), "{text}");
        assert!(
            text.contains("  cp           10.115.0.2\n") && text.contains("\n  kubectl get nodes\n  ssh cp\n"),
            "{text}"
        );
        let trouble = Problem::new(Code::GateHandOver, "etcd is gone");
        let broken = page(&Goods { kept: 0, trouble: Some(&trouble), ..goods }, "kubectl", "ssh -F x", &[]);
        assert!(
            broken.contains("as it is:\nKC-GATE-HAND-OVER: etcd is gone") && !broken.contains("removed"),
            "{broken}"
        );
        assert!(broken.contains("  ssh -F x cp\n"), "{broken}");
        assert!(text.contains("touch ~/fresh-lab") && !text.contains("as it is"));
    }
}

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::sudo::{Sudo, SudoPassword, become_root};
use crate::{
    core::{Blob, NodeId, Problem},
    transport::{Cmd, Exit, Io, LinkError, Transport, put_as, send_as},
};

/// One host with a way to it and a way to become root there.
#[derive(Clone)]
pub struct Host {
    node: NodeId,
    link: Arc<dyn Transport>,
    sudo: Sudo,
    peer: String,
    hold: Arc<watch::Sender<Hold>>,
}

/// Whether the run that changes a host has it for itself.
#[derive(Debug, Clone)]
pub enum Hold {
    /// It has, or nobody asked for that.
    Sure,
    /// The lock went with its connection, and is being taken back.
    Doubtful,
    /// It has not, and this is why.
    Lost(Box<Problem>),
}

impl Host {
    /// Finds out how to become root: as root itself, by `sudo -n`, or with `password`, which is asked for only then.
    pub async fn open(
        node: NodeId,
        link: Arc<dyn Transport>,
        password: Option<&SudoPassword>,
    ) -> Result<Self, Problem> {
        let (sudo, peer) = become_root(&*link, password).await.map_err(|p| p.on(&node))?;
        Ok(Self { node, link, sudo, peer, hold: Arc::new(watch::channel(Hold::Sure).0) })
    }

    /// The connection as sshd on the host describes it to the login user (`SSH_CONNECTION`), which sudo does not pass on.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// The node that this host is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The way to the host.
    pub fn link(&self) -> &Arc<dyn Transport> {
        &self.link
    }

    /// Says whether the run has the host for itself.
    pub fn set_hold(&self, hold: Hold) {
        self.hold.send_replace(hold);
    }

    /// Waits while it is in doubt whether the run has the host for itself; the problem is why it may change nothing there.
    pub async fn held(&self) -> Result<(), Problem> {
        let mut watch = self.hold.subscribe();
        let hold = watch.wait_for(|hold| !matches!(hold, Hold::Doubtful)).await.map(|hold| hold.clone());
        match hold {
            Ok(Hold::Lost(problem)) => Err(*problem),
            _ => Ok(()),
        }
    }

    /// Runs `script` with `sh` as root; it may take `limit`.
    ///
    /// The host ends it by itself a little later: when the connection is lost, and where root's processes are out of
    /// the login user's reach, nobody else would.
    pub async fn root(&self, script: &str, limit: Duration, io: Io<'_>) -> Result<Exit, LinkError> {
        self.link.exec(&self.as_root(Cmd::script(script).limit(limit)), io).await
    }

    /// The same command, run as root, and ended by the host when its limit is long over.
    fn as_root(&self, mut cmd: Cmd) -> Cmd {
        cmd.line = bounded(&cmd.line, cmd.limit);
        match &self.sudo {
            Sudo::Root => {}
            Sudo::Free => cmd.line = format!("sudo -n {}", cmd.line),
            Sudo::Password(password) => {
                cmd.line = format!("sudo -k -S -p '' {}", cmd.line);
                cmd.input = cmd.input.after(format!("{}\n", password.expose()).as_bytes());
            }
        }
        cmd
    }

    /// Uploads `blob` to `to`, owned by root, with `mode`.
    ///
    /// Returns whether it was sent.
    ///
    /// Where root cannot log in, sudo hands the bytes on to root as they come: there is no second copy in a place that
    /// the user may write to, which could be changed, forgotten, or too big for the disk.
    pub async fn put(&self, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<bool, LinkError> {
        match self.sudo {
            Sudo::Root => self.link.put(blob, to, mode, io).await,
            Sudo::Free | Sudo::Password(_) => put_as(&*self.link, blob, to, mode, io, &|cmd| self.as_root(cmd)).await,
        }
    }

    /// As [`Host::put`], for a file that is known not to be there: nobody looks first.
    pub async fn send(&self, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<(), LinkError> {
        match self.sudo {
            Sudo::Root => self.link.send(blob, to, mode, io).await,
            Sudo::Free | Sudo::Password(_) => send_as(&*self.link, blob, to, mode, io, &|cmd| self.as_root(cmd)).await,
        }
    }

    /// Ends the connection politely.
    pub async fn close(&self) {
        self.link.close().await;
    }
}

/// How much longer than its limit a command may live on the host: ending it from here comes first, and says more.
const GRACE: Duration = Duration::from_secs(10);

/// A command held open on purpose, as a lock is, ends with its connection and is not bounded.
const HELD: Duration = Duration::from_secs(3600);

/// The line under coreutils' timeout, which ends the whole process group.
fn bounded(line: &str, limit: Duration) -> String {
    if limit > HELD {
        return line.to_owned();
    }
    // 0 would mean no limit to timeout.
    let seconds = (limit + GRACE).as_secs().max(1);
    format!("timeout -k 5 {seconds} {line}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{Code, Secret},
        transport::{Reply, ScriptedTransport},
    };

    #[tokio::test]
    async fn whoever_becomes_root_the_host_ends_the_command_too() {
        for (found, password, before) in [
            ("root", None, ""),
            ("free", None, "sudo -n "),
            ("password", Some(SudoPassword::given(Secret::new("pw"))), "sudo -k -S -p '' "),
        ] {
            let link = Arc::new(
                ScriptedTransport::new()
                    .played_by(move |ran| Some(Reply::ok(if ran.line.contains("id -u") { found } else { "" }))),
            );
            let node = "cp".parse().unwrap();
            let host = Host::open(node, Arc::clone(&link) as Arc<dyn Transport>, password.as_ref()).await.unwrap();
            let day = Duration::from_secs(24 * 3600);
            for (limit, line) in [(Duration::from_secs(90), "timeout -k 5 100 sh -s"), (day, "sh -s")] {
                host.root("true", limit, Io::default()).await.unwrap();
                assert_eq!(link.ran().last().unwrap().line, format!("{before}{line}"));
            }
        }
    }

    #[tokio::test]
    async fn root_takes_an_upload_through_sudo_and_says_why_it_could_not() {
        let blob = Blob::from_bytes(vec![7; 100 << 20]);
        for (found, password, before) in [
            ("free", None, "sudo -n "),
            ("password", Some(SudoPassword::given(Secret::new("pw"))), "sudo -k -S -p '' "),
        ] {
            for (look, store, wanted) in [
                (Reply::fail(1, ""), Reply::ok(""), Ok(true)),
                (Reply::ok(""), Reply::fail(1, "nobody asked"), Ok(false)),
                (
                    Reply::fail(1, ""),
                    Reply::fail(1, "cat: write error: No space left on device"),
                    Err(Code::UploadDisk),
                ),
                (Reply::fail(1, ""), Reply::fail(1, "mv: cannot overwrite directory"), Err(Code::UploadFailed)),
            ] {
                let link = ScriptedTransport::new()
                    .on("id -u", Reply::ok(found))
                    .on("sudo -k -S -p '' true", Reply::ok(""))
                    .on("stat -c %s /opt/big)\" =", look)
                    .on("mv -fT", store);
                let node = "cp".parse().unwrap();
                let host = Host::open(node, Arc::new(link.clone()), password.as_ref()).await.unwrap();
                let put = host.put(&blob, "/opt/big", 0o750, Io::default()).await;
                assert_eq!(put.map_err(|e| e.problem().code), wanted);
                let last = link.ran().pop().unwrap();
                // The limit grows with the size: 60 s, 16 for each MiB at the slowest, and the host's own grace.
                let line = format!("{before}timeout -k 5 1670 sh -c ");
                assert!(last.line.starts_with(&line), "{}", last.line);
                let input = if password.is_some() { "pw\n" } else { "" };
                assert!(last.input.starts_with(input) && !last.line.contains("pw"), "{}", last.input);
                assert!(link.ran().iter().all(|ran| !ran.line.contains("/tmp")), "nothing is staged");
            }
        }
    }

    /// What a lost connection leaves behind: nobody reads, nobody kills, and the script has children.
    #[tokio::test]
    async fn a_bounded_script_ends_with_its_children() {
        let line = bounded("sh -s", Duration::ZERO).replace(" 10 ", " 1 ");
        let mut cmd = Cmd::script("sleep 600 & echo $!; wait").limit(Duration::from_secs(30));
        cmd.line = line;
        let exit = crate::transport::LocalTransport.exec(&cmd, Io::default()).await.unwrap();
        assert_eq!(exit.status, Some(124));
        let child = exit.text();
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while lives() {
            assert!(std::time::Instant::now() < end, "the child {child} lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

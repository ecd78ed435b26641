//! SSH against a real OpenSSH server on loopback.

use std::{
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kubecamp::{
    core::{Blob, Code, NodeId, Problem, Secret, shell::quote},
    host::{Host, SudoPassword},
    transport::{Cmd, Input, Io, LinkError, SshTransport, Transport},
};
use tokio::io::AsyncReadExt;

use crate::support::{
    sandbox::Sandbox,
    sshd::{Setup, Sshd, must, poll},
};

async fn connect(server: &Sshd) -> SshTransport {
    SshTransport::connect(server.target()).await.unwrap_or_else(|p| panic!("{p}\n{}", server.log()))
}

async fn run(link: &SshTransport, line: &str) -> String {
    let exit = link.exec(&Cmd::new(line), Io::default()).await.unwrap();
    assert!(exit.ok(), "{line}: {exit:?}");
    exit.text()
}

#[tokio::test]
async fn commands_run_and_report() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let exit = link.exec(&Cmd::new("echo out; echo err >&2; exit 7"), Io::default()).await.unwrap();
    assert_eq!((exit.status, exit.text().as_str(), exit.tail(1)), (Some(7), "out", vec!["err".to_owned()]));
    let exit = link.exec(&Cmd::new("kill -9 $$"), Io::default()).await.unwrap();
    assert_eq!(exit.status, None);
    let script = Cmd::script("cat; echo from a script; exit 3");
    let exit = link.exec(&script, Io::default()).await.unwrap();
    assert_eq!((exit.status, exit.text().as_str()), (Some(3), "from a script"));
    let seen = Mutex::new(vec![]);
    let note = |line: &str| seen.lock().unwrap().push(line.to_owned());
    link.exec(&Cmd::new("echo one; echo two; printf three"), Io { line: Some(&note), sent: None }).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["one", "two", "three"]);
    link.close().await;
    assert!(matches!(link.exec(&Cmd::new("true"), Io::default()).await, Err(LinkError::Lost(_))));
}

#[tokio::test]
async fn much_output_and_input_pass_at_once() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let exit = link.exec(&Cmd::new("head -c 40000000 /dev/zero; head -c 30000000 /dev/zero >&2"), Io::default()).await;
    let exit = exit.unwrap();
    assert_eq!((exit.status, exit.stdout.len(), exit.stderr.len()), (Some(0), 16 << 20, 16 << 20));
    let bytes: Vec<u8> = (0..12u32 << 20).map(|i| (i % 251) as u8).collect();
    let echo = Cmd::new("cat").input(Input::Bytes(bytes.clone()));
    assert!(link.exec(&echo, Io::default()).await.unwrap().stdout == bytes);
    let unread = Cmd::new("head -c 5; exit 9").input(Input::Blob(Blob::from_bytes(vec![b'x'; 64 << 20])));
    let exit = link.exec(&unread, Io::default()).await.unwrap();
    assert_eq!((exit.status, exit.text().as_str()), (Some(9), "xxxxx"), "a command may leave its input unread");
}

#[tokio::test]
async fn twenty_commands_at_once_take_turns_in_ten_sessions() {
    let server = Sshd::with(Setup { config: "MaxSessions 10".into(), ..Setup::default() });
    let link = connect(&server).await;
    for _ in 0..3 {
        let all = (0..20).map(|i| {
            let link = link.clone();
            async move { run(&link, &format!("sleep 0.0{}; echo {i}", i % 5)).await }
        });
        let wanted: Vec<_> = (0..20).map(|i| i.to_string()).collect();
        assert_eq!(futures::future::join_all(all).await, wanted);
    }
}

#[tokio::test]
async fn a_limit_ends_the_command_on_the_host_too() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let slow = Cmd::new("echo $$ >/tmp/kc-live-slow; exec sleep 600").limit(Duration::from_millis(300));
    assert!(matches!(link.exec(&slow, Io::default()).await, Err(LinkError::Timeout(_))));
    run(&link, "for i in 1 2 3 4 5 6 7 8 9; do kill -0 $(cat /tmp/kc-live-slow) || exit 0; sleep 0.1; done; exit 1")
        .await;
    run(&link, "rm /tmp/kc-live-slow").await;
}

#[tokio::test]
async fn a_dropped_command_is_ended_and_frees_its_slot() {
    let server = Sshd::with(Setup { config: "MaxSessions 6".into(), ..Setup::default() });
    let link = connect(&server).await;
    for _ in 0..10 {
        let long = Cmd::new("sleep 600");
        let running = link.exec(&long, Io::default());
        assert!(tokio::time::timeout(Duration::from_millis(50), running).await.is_err());
    }
    let quick = Cmd::new("echo alive").limit(Duration::from_secs(30));
    assert_eq!(link.exec(&quick, Io::default()).await.unwrap().text(), "alive");
}

#[tokio::test]
async fn a_cut_connection_is_made_anew() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let long = Cmd::new("echo begun; sleep 20");
    let begun = tokio::sync::Notify::new();
    let note = |_: &str| begun.notify_one();
    let cut = async {
        begun.notified().await;
        assert_eq!(server.cut(), 1);
    };
    let (ended, ()) = tokio::join!(link.exec(&long, Io { line: Some(&note), sent: None }), cut);
    assert!(matches!(ended, Err(LinkError::Lost(_))), "{ended:?}");
    assert_eq!(run(&link, "echo again").await, "again");
    assert_eq!(server.cut(), 1);
    let both = tokio::join!(run(&link, "echo a"), run(&link, "echo b"));
    assert_eq!(both, ("a".into(), "b".into()), "also when the cut was not noticed yet");
}

#[tokio::test]
async fn a_host_that_falls_silent_is_given_up_and_found_again() {
    let server = Sshd::with(Setup { netns: true, ..Setup::default() });
    let mut target = server.target();
    target.keepalive = Duration::from_millis(300);
    let netns = format!("--net={}", target.netns.as_ref().unwrap().display());
    let rule = |change: &str| must("nsenter", &[&netns, "iptables", change, "INPUT", "-i", "lo", "-j", "DROP"]);
    let link = SshTransport::connect(target).await.unwrap_or_else(|p| panic!("{p}\n{}", server.log()));
    let long = Cmd::new("echo begun; sleep 30");
    let begun = tokio::sync::Notify::new();
    let note = |_: &str| begun.notify_one();
    // What is sent and what comes back is lost from here on; nobody says so.
    let silence = async {
        begun.notified().await;
        rule("--append");
    };
    let both = async { tokio::join!(link.exec(&long, Io { line: Some(&note), sent: None }), silence) };
    let (ended, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it was waited for");
    assert!(matches!(ended, Err(LinkError::Lost(_))), "{ended:?}");
    rule("--delete");
    assert_eq!(run(&link, "echo again").await, "again");
}

/// A file of 200 MiB that does not compress, made once for each test that wants it.
fn big(dir: &Path) -> Blob {
    let file = dir.join("big");
    must("sh", &["-c", "head -c 209715200 /dev/urandom >\"$0\"", &file.display().to_string()]);
    Blob::from_file(&file).unwrap()
}

#[tokio::test]
async fn uploads_are_verified_skipped_and_mended() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let blob = big(dir.path());
    let to = dir.path().join("it's here/copy");
    let (path, sent) = (to.display().to_string(), AtomicU64::new(0));
    let note = |n: u64| sent.store(n, Ordering::SeqCst);
    let io = Io { line: None, sent: Some(&note) };
    assert!(link.put(&blob, &path, 0o750, io).await.unwrap());
    assert_eq!(sent.swap(0, Ordering::SeqCst), blob.size());
    assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(!link.put(&blob, &path, 0o700, io).await.unwrap(), "the same file is not sent again");
    assert_eq!(sent.load(Ordering::SeqCst), 0);
    assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o700);
    std::fs::OpenOptions::new().write(true).open(&to).unwrap().write_at(b"damage", 100_000_000).unwrap();
    assert!(link.put(&blob, &path, 0o700, io).await.unwrap(), "a damaged one is");
    assert_eq!(Blob::from_file(&to).unwrap().sha256(), blob.sha256());
}

#[tokio::test]
async fn an_upload_that_goes_wrong_leaves_nothing() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("x").display().to_string();
    let liar = Blob::new(3, Blob::from_bytes("abd").sha256(), || Ok(Box::new(&b"abc"[..])));
    let short = Blob::new(4, Blob::from_bytes("abc").sha256(), || Ok(Box::new(&b"abc"[..])));
    let error = link.put(&liar, &to, 0o600, Io::default()).await.unwrap_err();
    assert!(matches!(&error, LinkError::Upload(why) if why.contains("the digest is")), "{error}");
    let gone = Blob::new(3, "00", || Err(std::io::Error::other("no such blob")));
    for blob in [short, gone] {
        let error = link.put(&blob, &to, 0o600, Io::default()).await.unwrap_err();
        assert!(matches!(error, LinkError::Local(_)), "{error}");
    }
    let error = link.put(&Blob::from_bytes("x"), "/proc/none/x", 0o600, Io::default()).await.unwrap_err();
    assert!(matches!(error, LinkError::Upload(_)), "{error}");
    link.close().await;
    let left = || std::fs::read_dir(dir.path()).unwrap().count();
    poll("the partial files' end", || (left() == 0).then_some(()));
}

#[tokio::test]
async fn a_full_disk_is_named_and_cleaned() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let dir = tempfile::tempdir().unwrap();
    let small = Mount::tmpfs(dir.path(), "8m");
    let to = dir.path().join("x").display().to_string();
    let blob = Blob::from_bytes(vec![1; 20 << 20]);
    let error = link.put(&blob, &to, 0o600, Io::default()).await.unwrap_err();
    assert!(matches!(error, LinkError::DiskFull), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(small);
}

/// A user who may use sudo, on a server in a sandbox where accounts and sudoers are the test's own.
struct Camper(Sandbox, Sshd);

impl Camper {
    async fn new() -> Self {
        must("sudo", &["-V"]);
        let sandbox = Sandbox::start();
        let root = sandbox.host(&node()).await;
        let account = "useradd -M -d /tmp -s /bin/sh camper && echo 'camper:pass phrase' | chpasswd";
        assert!(root.root(account, MINUTE, Io::default()).await.unwrap().ok());
        let server = Sshd::with(Setup { beside: Some(sandbox.inside().to_owned()), ..Setup::default() });
        Self(sandbox, server)
    }

    /// Writes the one line of sudoers about the user, and logs in.
    async fn login(&self, sudoers: &str, password: Option<&str>) -> Result<Host, Problem> {
        let root = self.0.host(&node()).await;
        let script = format!("echo {} > /etc/sudoers.d/camper", quote(sudoers));
        assert!(root.root(&script, MINUTE, Io::default()).await.unwrap().ok());
        let mut target = self.1.target();
        target.user = "camper".into();
        let link = SshTransport::connect(target).await.unwrap_or_else(|p| panic!("{p}\n{}", self.1.log()));
        let password = password.map(|word| SudoPassword::given(Secret::new(word)));
        Host::open(node(), Arc::new(link), password.as_ref()).await
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn node() -> NodeId {
    "cp".parse().unwrap()
}

/// What root's shell on the host prints.
async fn told(host: &Host, script: &str) -> String {
    let exit = host.root(script, MINUTE, Io::default()).await.unwrap();
    assert!(exit.ok(), "{script}: {exit:?}");
    exit.text()
}

#[tokio::test]
async fn a_sudo_users_upload_becomes_roots_file_or_leaves_nothing() {
    let camper = Camper::new().await;
    for (sudoers, password) in [("camper ALL=NOPASSWD: ALL", None), ("camper ALL=(ALL) ALL", Some("pass phrase"))] {
        let host = camper.login(sudoers, password).await.unwrap();
        let blob = Blob::from_bytes(vec![3; 5 << 20]);
        let sent = AtomicU64::new(0);
        let note = |n: u64| sent.store(n, Ordering::SeqCst);
        let io = Io { line: None, sent: Some(&note) };
        assert!(host.put(&blob, "/opt/kc dir/file", 0o640, io).await.unwrap());
        assert_eq!(sent.load(Ordering::SeqCst), blob.size());
        assert!(!host.put(&blob, "/opt/kc dir/file", 0o640, io).await.unwrap(), "it is there already");
        assert_eq!(
            told(&host, "cd '/opt/kc dir'; stat -c '%U:%G %a %s' file; ls -A").await,
            "root:root 640 5242880\nfile"
        );

        told(&host, "rm -r '/opt/kc dir'; mkdir -p /opt/small && mount -t tmpfs -o size=8m kc-test /opt/small").await;
        let error = host.put(&Blob::from_bytes(vec![1; 20 << 20]), "/opt/small/x", 0o600, io).await.unwrap_err();
        assert!(matches!(error, LinkError::DiskFull), "{error}");
        assert_eq!(told(&host, "ls -A /opt/small").await, "");
        told(&host, "mkdir /opt/small/folder").await;
        let error = host.put(&blob, "/opt/small/folder", 0o600, io).await.unwrap_err();
        assert!(matches!(error, LinkError::Upload(_)), "{error}");
        assert_eq!(
            told(&host, "ls -A /opt/small /opt/small/folder").await,
            "/opt/small:\nfolder\n\n/opt/small/folder:"
        );
        assert_eq!(told(&host, "umount /opt/small; ls -A /var/tmp | grep kubecamp || true").await, "");
        host.close().await;
    }
}

/// Words of sudo itself, not of a script: a ticket counts for nothing, and a terminal that is wanted is no password.
#[tokio::test]
async fn what_sudo_wants_is_told() {
    let camper = Camper::new().await;
    let refused = async |sudoers: &str, password| {
        let problem = camper.login(sudoers, password).await.err().unwrap();
        (problem.code, problem.what)
    };
    let (code, what) = refused("Defaults:camper requiretty\ncamper ALL=NOPASSWD: ALL", None).await;
    assert!(code == Code::Sudo && what.contains("wants a terminal"), "{what}");
    assert_eq!(refused("camper ALL=(ALL) ALL", Some("wrong")).await.0, Code::SudoPassword);
    assert_eq!(refused("# nothing", Some("pass phrase")).await.1, "the user may not use sudo");
    // Tickets for all, whatever terminal or process they come from.
    let global = "Defaults:camper timestamp_type=global\ncamper ALL=(ALL) ALL";
    let ticket = async |host: &Host| host.link().exec(&Cmd::new("sudo -n true"), Io::default()).await.unwrap().ok();
    let host = camper.login(global, Some("pass phrase")).await.unwrap();
    let fresh = Cmd::new("sudo -S -p '' true").input(Input::Bytes(b"pass phrase\n".to_vec()));
    assert!(host.link().exec(&fresh, Io::default()).await.unwrap().ok() && ticket(&host).await);
    assert_eq!(refused(global, None).await.1, "sudo asks for a password and none was given");
}

/// A small file system; unmounted when dropped.
struct Mount(String);

impl Mount {
    fn tmpfs(at: &Path, size: &str) -> Self {
        let at = at.display().to_string();
        must("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "kc-test", &at]);
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        must("umount", &[&self.0]);
    }
}

#[tokio::test]
async fn a_port_behind_the_host_is_reached() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let mut stream = link.forward("127.0.0.1", server.port).await.unwrap();
    let mut banner = [0; 7];
    stream.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"SSH-2.0");
    assert!(matches!(link.forward("127.0.0.1", 1).await, Err(LinkError::Lost(_))));
}

#[tokio::test]
async fn a_server_in_a_namespace_is_reached() {
    let server = Sshd::with(Setup { netns: true, ..Setup::default() });
    let link = connect(&server).await;
    assert_eq!(run(&link, "echo inside").await, "inside");
    let mut outside = server.target();
    outside.netns = None;
    let problem = SshTransport::connect(outside).await.err().unwrap();
    assert_eq!(problem.code, Code::HostUnreachable, "{problem}");
    let mut nowhere = server.target();
    nowhere.netns = Some("/run/netns/none".into());
    let problem = SshTransport::connect(nowhere).await.err().unwrap();
    assert!(problem.to_string().contains("/run/netns/none"), "{problem}");
}

//! A real OpenSSH server for tests: on a free port of loopback, with keys of its own in a temporary folder.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kubecamp::transport::{HostKeyPolicy, Identity, SshTarget, Unknown, ssh::KeyPair};

/// Waits until `done` gives something, or panics after twenty seconds.
pub fn poll<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{what} did not happen within 20 s");
        std::thread::yield_now();
    }
}

/// Runs a program to its end; panics unless it succeeds.
pub fn must(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out =
        out.unwrap_or_else(|e| panic!("{program} cannot be run: {e}; install openssh-client, openssh-server and sudo"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// How a test wants its server.
#[derive(Default)]
pub struct Setup {
    /// More lines for sshd_config.
    pub config: String,
    /// Run in a network namespace of its own, where only loopback is up.
    pub netns: bool,
    /// Run beside this process, in its namespaces.
    pub beside: Option<String>,
}

/// A running server; it ends when this is dropped.
pub struct Sshd {
    child: Child,
    dir: tempfile::TempDir,
    /// The port on 127.0.0.1.
    pub port: u16,
    netns: Option<PathBuf>,
}

impl Sshd {
    /// Starts one with default settings.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// Starts one; `setup.config` comes first, so that it wins over the defaults.
    pub fn with(setup: Setup) -> Self {
        let sshd = Path::new("/usr/sbin/sshd");
        assert!(sshd.exists(), "/usr/sbin/sshd is missing; install it with: apt-get install openssh-server");
        fs::create_dir_all("/run/sshd").unwrap();
        let dir = tempfile::tempdir().unwrap();
        // sshd reads the list of keys as the user who logs in.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "host", "-f", &at("host_key")]);
        let pair = KeyPair::new("user").unwrap();
        fs::write(at("authorized"), format!("{}\n", pair.public)).unwrap();
        write_private(&dir.path().join("user_key"), pair.private.expose());
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "{}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             UsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nLogLevel VERBOSE\n",
            setup.config,
            at("host_key"),
            at("authorized"),
        );
        fs::write(at("config"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let mut command = if let Some(pid) = &setup.beside {
            let mut command = Command::new("nsenter");
            command.args(["-t", pid, "-m", "-n", "-p", "sh", "-c"]);
            command.args(["mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f \"$0\"", &at("config")]);
            command
        } else if setup.netns {
            let mut command = Command::new("unshare");
            command.args(["-n", "sh", "-c", "ip link set lo up && exec /usr/sbin/sshd -D -e -f \"$0\""]);
            command.arg(at("config"));
            command
        } else {
            let mut command = Command::new(sshd);
            command.args(["-D", "-e", "-f", &at("config")]);
            command
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let of = setup.beside.or_else(|| setup.netns.then(|| child.id().to_string()));
        let server = Self { child, dir, port, netns: of.map(|pid| format!("/proc/{pid}/ns/net").into()) };
        poll("sshd listening", || server.log().contains("Server listening").then_some(()));
        if server.netns.is_none() {
            let mut banner = String::new();
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            BufReader::new(stream).read_line(&mut banner).unwrap();
            assert!(banner.starts_with("SSH-2.0"), "{banner}");
        }
        server
    }

    /// A file in the server's folder, which also holds `authorized`, `host_key`, `user_key` and `known_hosts`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// The server's public key as one line.
    pub fn host_key(&self) -> String {
        fs::read_to_string(self.file("host_key.pub")).unwrap().trim().to_owned()
    }

    /// How to reach it as root: with the one key that it accepts, and its own key pinned.
    pub fn target(&self) -> SshTarget {
        let mut target = SshTarget::new("root", "127.0.0.1", self.port);
        target.identities = vec![Identity::File(self.file("user_key"))];
        target.agent = None;
        target.host_keys = HostKeyPolicy::Pinned(vec![self.host_key()]);
        target.netns.clone_from(&self.netns);
        target
    }

    /// As [`Self::target`], but with the known_hosts file in the server's folder.
    pub fn target_by_file(&self, unknown: Unknown) -> SshTarget {
        let mut target = self.target();
        target.host_keys = HostKeyPolicy::Files { read: vec![], write: Some(self.file("known_hosts")), unknown };
        target
    }

    /// Lets one more public key in.
    pub fn authorize(&self, public: &str) {
        let old = fs::read_to_string(self.file("authorized")).unwrap();
        fs::write(self.file("authorized"), format!("{old}{}\n", public.trim())).unwrap();
    }

    /// Ends every connection as a crash would, but goes on listening; returns how many there were.
    pub fn cut(&self) -> usize {
        self.signal("-KILL")
    }

    /// Lets every connection stand still until it is cut; returns how many there are.
    pub fn freeze(&self) -> usize {
        self.signal("-STOP")
    }

    fn signal(&self, signal: &str) -> usize {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().map(|pid| drop(must("kill", &[signal, pid]))).count()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // The connections' processes end by themselves when the client does.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a private key with the mode that ssh insists on.
pub fn write_private(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

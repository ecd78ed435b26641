//! A hub that `kubecamp hub serve` serves, and the command line that asks it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

/// The hub, its home, and the command line of whoever is signed in there.
pub struct Camp {
    pub home: tempfile::TempDir,
    pub hub: Child,
    pub url: String,
}

/// What one call gave.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn kubecamp(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kubecamp").unwrap();
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("KUBECAMP_HOME", home);
    command.env("TZ", "UTC").args(args).stdin(Stdio::null());
    command
}

impl Camp {
    /// A hub on a socket in its home.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Camp::start`], with more arguments.
    pub fn start_with(more: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", home.path().join("hub.sock").display());
        let camp = Self::serve(home, &[["--listen", &socket].as_slice(), more].concat());
        assert_eq!(camp.url, socket);
        camp
    }

    pub fn serve(home: tempfile::TempDir, more: &[&str]) -> Self {
        let args: Vec<&str> = ["hub", "serve"].iter().chain(more).copied().collect();
        let mut hub = kubecamp(home.path(), &args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(hub.stderr.take().unwrap()).lines();
        let said = lines.by_ref().map_while(Result::ok).find(|l| l.contains("listens on")).unwrap();
        let url = said.rsplit("listens on ").next().unwrap().to_owned();
        // The log is read on, so that the hub never waits for its reader.
        let log = home.path().join("hub.log");
        std::thread::spawn(move || {
            let mut file = fs::File::create(log).unwrap();
            for line in lines.map_while(Result::ok) {
                writeln!(file, "{line}").unwrap();
            }
        });
        Self { home, hub, url }
    }

    pub fn run_with(&self, args: &[&str], input: &str) -> Ended {
        let mut child = kubecamp(self.home.path(), args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.run_with(args, "");
        assert_eq!(ended.code, 0, "{args:?}: {}", ended.err);
        ended.out
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// Makes the admin ann where she is not there yet, and signs her in.
    pub fn sign_in_as_admin(&self) {
        self.login_by_link(&self.ok(&["hub", "admin-link", "ann"]));
    }

    pub fn add_server(&self, name: &str, address: &str) {
        self.ok(&["hub", "server", "add", name, "--address", address, "--cores", "8", "--memory", "32GiB"]);
    }

    /// Makes these the people of the course k8s, a line of a roster each.
    pub fn import(&self, lines: &str) -> String {
        let roster = self.home.path().join("roster.csv");
        fs::write(&roster, lines).unwrap();
        self.ok(&["hub", "course", "import", "k8s", roster.to_str().unwrap()])
    }

    pub fn login_by_link(&self, link: &str) {
        let ended = self.run_with(&["login", "--hub", &self.url, "--link"], link);
        assert_eq!(ended.code, 0, "{}", ended.err);
    }

    /// A course and a server on which amy, who is signed in, has a slot in two hours; her key's file and the slot.
    pub fn amys_slot(&self) -> (String, String) {
        self.sign_in_as_admin();
        self.ok(&["hub", "course", "set", "k8s", "--title", "Kubernetes"]);
        self.add_server("one", "192.0.2.7:2222");
        let (key, public) = key_pair(self.home.path(), "key");
        self.import(&format!("amy,Amy,red,UTC,{public}"));
        self.ok(&["login", "--as", "amy", "--identity", &key]);
        let slot = &self.json(&["book", "new", &hour(2), "--for", "1h", "--layout", "1x4c12g"])[0];
        (key, slot["id"].as_str().unwrap().to_owned())
    }
}

impl Drop for Camp {
    fn drop(&mut self) {
        let _ = self.hub.kill();
        let _ = self.hub.wait();
    }
}

/// The beginning of an hour, so many after this one.
pub fn hour(ahead: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second((now / 3600 + ahead) * 3600).unwrap().to_string()
}

/// A new pair of SSH keys: the path of the private one, and the line of the public one.
pub fn key_pair(folder: &Path, name: &str) -> (String, String) {
    let key = folder.join(name);
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    (key.to_str().unwrap().to_owned(), public.trim_end().to_owned())
}

/// What a hub says until it listens, which ends it, or until it ends by itself with this exit code.
pub fn serve_once(home: &Path, args: &[&str]) -> (String, Option<i32>) {
    let mut hub = kubecamp(home, args).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(hub.stderr.take().unwrap()).lines().map_while(Result::ok) {
        said.extend([line.as_str(), "\n"]);
        if line.contains("listens on") {
            hub.kill().unwrap();
            break;
        }
    }
    (said, hub.wait().unwrap().code())
}

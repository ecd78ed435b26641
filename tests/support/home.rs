//! A home folder for one test, and the built program in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kubecamp::{core::Arch, profile::Lab};
use serde_json::{Value, json};

use super::tiny_bundle::tiny_bundle;

/// The version of Kubernetes in the shipped profiles.
pub const VERSION: &str = "v1.36.3";

/// Three hosts that nobody can reach.
pub const UNREACHABLE: &[&str] =
    &["--host", "root@127.0.0.1:1", "--host", "root@127.0.0.1:2", "--host", "root@127.0.0.1:3"];

/// A home folder of its own, and a cleared environment.
pub struct Home(pub tempfile::TempDir);

/// What one call gave.
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The built program in this home, with a cleared environment and nothing to read.
pub fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("KUBECAMP_HOME", home);
    command.current_dir(home).args(args).stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn kubecamp(home: &Path, args: &[&str]) -> Ended {
    let out = command(home, args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: out.status.code().unwrap(), out: text(out.stdout), err: text(out.stderr) }
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn command(&self, args: &[&str]) -> Command {
        command(self.0.path(), args)
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        kubecamp(self.0.path(), args)
    }

    pub fn file(&self, name: &str, text: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub fn bundle(&self, version: &str, arch: Arch) -> String {
        let path = self.0.path().join(format!("{version}-{arch}.bundle"));
        tiny_bundle(&path, version, arch);
        path.display().to_string()
    }

    pub fn lab(&self, name: &str) -> PathBuf {
        self.0.path().join("data/labs").join(name)
    }

    pub fn labs(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.0.path().join("data/labs")).into_iter().flatten().flatten();
        folders.map(|e| e.path()).filter(|p| p.join("lab.yaml").exists()).collect()
    }

    /// Panics unless the call is refused with this exit code and these words, printing no data and making no lab.
    pub fn refuses(&self, args: &[&str], code: i32, words: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!((ended.code, ended.out.as_str()), (code, ""), "{args:?}\n{}", ended.err);
        for word in words {
            assert!(ended.err.contains(word), "{args:?} does not say `{word}`:\n{}", ended.err);
        }
        assert!(ended.err.contains("hint: ") || ended.err.contains("--help"), "{args:?} has no hint:\n{}", ended.err);
        assert_eq!(self.labs(), [""; 0].map(PathBuf::from), "{args:?}");
        ended
    }

    /// Writes the folder of the lab `lab` on three hosts that nobody can reach.
    pub fn unreachable_lab(&self) -> PathBuf {
        let host = |node: &str, port: u16| json!([node, {"address": "127.0.0.1", "user": "root", "port": port}]);
        let hosts = [host("cp", 1), host("worker-1", 2), host("worker-2", 3)];
        write_lab(self.0.path(), "lab", "3x2c4g", &json!({"format": 1, "place": {"hosts": hosts}, "bundle": null}))
    }
}

/// Writes the folder of a lab of this layout with this state.
pub fn write_lab(home: &Path, name: &str, layout: &str, state: &Value) -> PathBuf {
    let folder = home.join("data/labs").join(name);
    let lab = Lab::new(name.parse().unwrap(), kubecamp::profile::load(layout).unwrap()).unwrap();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lab.yaml"), lab.to_yaml().unwrap()).unwrap();
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
    folder
}

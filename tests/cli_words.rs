//! What the built binary says to somebody who does not know it yet.

use std::{path::Path, process::Command};

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn kubecamp(home: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).env("KUBECAMP_HOME", home);
    let out = command.current_dir(home).args(args).stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: out.status.code().unwrap(), out: text(out.stdout), err: text(out.stderr) }
}

#[test]
fn without_a_command_the_help_is_shown_and_no_mistake() {
    let home = tempfile::tempdir().unwrap();
    let said = kubecamp(home.path(), &[]);
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
    let help = kubecamp(home.path(), &["-h"]);
    assert_eq!((help.code, help.out.trim_end()), (0, said.err.trim_end()));
    assert!(said.err.contains("kubecamp [OPTIONS] <COMMAND>") && !said.err.contains("error"), "{}", said.err);
}

//! Ctrl-C: what it ends at once, what it leaves as it was, and questions at a terminal.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use assert_cmd::cargo::CommandCargoExt;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::sshd::{Sshd, poll};

/// How long ending at once may take on a busy computer.
const AT_ONCE: Duration = Duration::from_secs(8);

/// The command with a home folder of its own, and a lab with one host at this port.
fn kubecamp(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("kubecamp").unwrap();
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/bin").env("HOME", home).env("KUBECAMP_HOME", home);
    command.current_dir(home).args(args);
    command
}

fn lab(home: &Path, port: u16) {
    let mut profile = kubecamp::profile::load("1x4c12g").unwrap();
    profile.kubernetes = "v1.36.3".into();
    let lab = kubecamp::profile::Lab::new("lab".parse().unwrap(), profile).unwrap();
    let folder = home.join("data/labs/lab");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lab.yaml"), lab.to_yaml().unwrap()).unwrap();
    let host = serde_json::json!([["cp", {"address": "127.0.0.1", "user": "root", "port": port}]]);
    let state = serde_json::json!({"format": 1, "place": {"hosts": host}, "bundle": null});
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

/// Its exit code and what it wrote to standard error; it must end soon.
fn ended(mut child: Child) -> (i32, String) {
    let begun = Instant::now();
    let status = poll("its end", || child.try_wait().unwrap());
    assert!(begun.elapsed() < AT_ONCE, "it took {:?}", begun.elapsed());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (status.code().expect("it was not to be killed"), err)
}

/// A host that takes connections and says nothing: everything waits for it.
#[test]
fn what_only_waits_for_a_host_ends_at_once() {
    let home = tempfile::tempdir().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    lab(home.path(), mute.local_addr().unwrap().port());
    fs::write(home.path().join("file"), "x").unwrap();
    mute.set_nonblocking(true).unwrap();
    for args in [&["status"][..], &["cp", "file", "cp:/root/file"], &["reset", "--yes"]] {
        let child =
            kubecamp(home.path(), args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        let waiting = poll("a connection", || mute.accept().ok());
        interrupt(&child);
        let (code, err) = ended(child);
        assert!(code == 130 && err.contains("KC-CANCELLED"), "{args:?}: {code}\n{err}");
        drop(waiting);
    }
}

#[test]
fn live_ssh_an_interrupted_copy_leaves_no_part_of_the_file() {
    let (home, server) = (tempfile::tempdir().unwrap(), Sshd::start());
    lab(home.path(), server.port);
    // Holes take no disk here, and time to be sent all the same.
    let file = fs::File::create(home.path().join("big")).unwrap();
    file.set_len(1 << 30).unwrap();
    let to = home.path().join("there/big");
    let (key, place) = (server.file("user_key").display().to_string(), format!("cp:{}", to.display()));
    let args = ["cp", "big", &place, "--accept-new-host-keys", "--identity", &key];
    let child = kubecamp(home.path(), &args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let there = to.parent().unwrap();
    let files = || fs::read_dir(there).map_or(0, |entries| entries.count());
    let begun = Instant::now();
    while files() == 0 {
        assert!(begun.elapsed() < Duration::from_secs(120), "the upload did not begin\n{}", server.log());
        std::thread::yield_now();
    }
    interrupt(&child);
    let (code, err) = ended(child);
    assert!(code == 130 && err.contains("KC-CANCELLED"), "{code}\n{err}");
    poll("the end of the part", || (files() == 0).then_some(()));
}

/// Runs the command at a terminal of its own until the words in the first line of input are shown; then sends the
/// rest, and prints what was shown, whether typing was hidden then and at the end, and the exit code.
const TERMINAL: &str = r"
import fcntl, os, pty, select, struct, sys, termios, time
words, answer = sys.argv[1].encode(), sys.argv[2].encode().decode('unicode_escape').encode()
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[3], sys.argv[3:])
# os.ptsname comes only with Python 3.13: TIOCGPTN asks for the terminal's number.
number = struct.unpack('I', fcntl.ioctl(fd, 0x80045430, bytes(4)))[0]
hold = os.open('/dev/pts/%d' % number, os.O_RDWR | os.O_NOCTTY)
def hidden():
    return not termios.tcgetattr(hold)[3] & termios.ECHO
shown, end, asked, code = b'', time.time() + 60, None, None
while code is None:
    if time.time() > end:
        sys.exit('no end: %r' % shown)
    if select.select([fd], [], [], 0.05)[0]:
        shown += os.read(fd, 65536)
    if asked is None and words in shown:
        asked = hidden()
        os.write(fd, answer)
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        code = os.waitstatus_to_exitcode(status)
while select.select([fd], [], [], 0.2)[0]:
    shown += os.read(fd, 65536)
print(code, asked, hidden())
print(shown.decode())
";

/// The exit code, whether typing was hidden at the question and afterwards, and everything that was shown.
fn at_a_terminal(home: &Path, args: &[&str], words: &str, answer: &str) -> (String, String) {
    let command = kubecamp(home, args);
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL, words, answer]).arg(command.get_program()).args(args);
    python.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(home);
    let out = python.output().expect("python3 is missing: apt-get install python3");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let (first, shown) = text.split_once('\n').unwrap();
    (first.to_owned(), shown.replace("\r\n", "\n"))
}

#[test]
fn a_question_at_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), 1);
    for (answer, word) in
        [(r"\x03", "KC-CANCELLED"), (r"n\n", "KC-DECLINED"), (r"\n", "KC-DECLINED"), (r"\x04", "KC-DECLINED")]
    {
        let (ended, shown) = at_a_terminal(home.path(), &["reset"], "[y/N]", answer);
        assert_eq!(ended, "130 False False", "{answer}\n{shown}");
        assert!(shown.contains("all of its data there.\nGo on? [y/N] ") && !shown.contains(r"\x0a"), "{shown}");
        assert!(shown.contains(word), "{answer}\n{shown}");
    }
    let (ended, shown) = at_a_terminal(home.path(), &["reset"], "[y/N]", r"yes\n");
    assert!(ended.starts_with("4 ") && shown.contains("KC-HOST-UNREACHABLE"), "it went on\n{shown}");
}

#[test]
fn a_secret_question_at_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    lab(home.path(), 1);
    let args = ["status", "--ask-sudo-password"];
    let (ended, shown) = at_a_terminal(home.path(), &args, "of the hosts: ", r"\x03");
    assert_eq!(ended, "130 True False", "{shown}");
    assert!(shown.contains("KC-CANCELLED"), "{shown}");
    let (ended, shown) = at_a_terminal(home.path(), &args, "of the hosts: ", r"pass\n");
    assert_eq!(ended, "0 True False", "{shown}");
    assert!(shown.contains("unreachable") && !shown.contains("pass\n"), "{shown}");
}

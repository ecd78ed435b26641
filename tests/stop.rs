//! Ctrl-C and SIGTERM: what they end at once, what they leave as it was, and questions at a terminal.

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
    let status = ["status"];
    for (args, signal) in [
        (&status[..], Signal::INT),
        (&status, Signal::TERM),
        (&["cp", "file", "cp:/root/file"], Signal::INT),
        (&["reset", "--yes"], Signal::TERM),
    ] {
        let child =
            kubecamp(home.path(), args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        let waiting = poll("a connection", || mute.accept().ok());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let (code, err) = ended(child);
        let told = if signal == Signal::TERM { 143 } else { 130 };
        assert!(code == told && err.contains("KC-CANCELLED"), "{args:?}: {code}\n{err}");
        drop(waiting);
    }
}

/// The engine's folder is locked by somebody else, so both wait for it.
#[test]
fn live_machine_a_waiting_engine_command_ends_in_time() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("data/engine");
    fs::create_dir_all(&folder).unwrap();
    let path = fs::canonicalize(&folder).unwrap().join("lock");
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    for (what, words) in [("start", &["Stopping in order", "stopped in"][..]), ("stop", &[])] {
        let mut command = kubecamp(home.path(), &["machine", "engine", what]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        poll("its wait for the lock", || {
            let mut files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
            files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == path)).then_some(())
        });
        interrupt(&child);
        let (code, err) = ended(child);
        assert!(code == 130 && err.contains("KC-CANCELLED"), "{what}: {code}\n{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{what}: {err}");
        assert_eq!(err.contains("Stopping in order"), what == "start", "what ends at once says so\n{err}");
    }
}

/// Another build in the same cache is at it.
#[test]
fn a_waiting_bundle_build_ends_at_once() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("cache/build");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut command = kubecamp(home.path(), &["bundle", "build"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let path = fs::canonicalize(folder.join("lock")).unwrap();
    poll("its wait for the lock", || {
        let mut files = fs::read_dir(format!("/proc/{}/fd", child.id())).into_iter().flatten().flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to == path)).then_some(())
    });
    interrupt(&child);
    let (code, err) = ended(child);
    assert!(code == 130 && err.contains("KC-CANCELLED"), "{code}\n{err}");
    lock.unlock().unwrap();
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

/// Runs the command at a terminal of its own until the words are shown; if they are still on its screen a good while
/// later, does what comes `meanwhile` and sends the answer. Prints the exit code, whether typing was hidden then and at
/// the end, and what was shown.
const TERMINAL: &str = r"
import fcntl, os, pty, re, select, struct, subprocess, sys, termios, time
COLUMNS = 200
words, answer = sys.argv[1].encode(), sys.argv[2].encode().decode('unicode_escape').encode()
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 50, COLUMNS, 0, 0))
    os.execv(sys.argv[4], sys.argv[4:])
# os.ptsname comes only with Python 3.13: TIOCGPTN asks for the terminal's number.
number = struct.unpack('I', fcntl.ioctl(fd, 0x80045430, bytes(4)))[0]
hold = os.open('/dev/pts/%d' % number, os.O_RDWR | os.O_NOCTTY)
def hidden():
    return not termios.tcgetattr(hold)[3] & termios.ECHO
# What a person sees: later text over earlier one, by as much of a terminal as is asked for here.
def screen():
    lines, row, col = {}, 0, 0
    for text, n, code in re.findall(r'([^\x1b\r\n]+|[\r\n])|\x1b\[[?]?([\d;]*)([A-Za-z])', shown.decode(errors='replace')):
        if code == 'A':
            row -= int(n or 1)
        elif code == 'B':
            row += int(n or 1)
        elif code == 'K':
            lines[row] = {}
        elif text == '\r':
            col = 0
        elif text == '\n':
            row += 1
        for char in text.strip('\r\n'):
            if col == COLUMNS:
                row, col = row + 1, 0
            lines.setdefault(row, {})[col] = char
            col += 1
    return '\n'.join(''.join(line.get(c, ' ') for c in range(COLUMNS)) for _, line in sorted(lines.items()))
shown, end, seen, asked, code = b'', time.time() + 60, None, None, None
while code is None:
    if time.time() > end:
        sys.exit('no end: %r' % shown)
    if select.select([fd], [], [], 0.05)[0]:
        shown += os.read(fd, 65536)
    if seen is None and words in shown:
        seen = time.time()
    # Long enough for several ticks of what moves.
    if asked is None and seen and time.time() > seen + 0.6:
        if words.decode() not in screen():
            sys.exit('the question is gone: ' + screen())
        asked = hidden()
        subprocess.run(sys.argv[3], shell=True, check=True)
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
    at_a_terminal_while(home, args, words, answer, "true")
}

/// The same; `meanwhile` is done by a shell in the home folder while the question is open.
fn at_a_terminal_while(home: &Path, args: &[&str], words: &str, answer: &str, meanwhile: &str) -> (String, String) {
    let command = kubecamp(home, args);
    let mut python = Command::new("python3");
    python.args(["-c", TERMINAL, words, answer, meanwhile]).arg(command.get_program()).args(args);
    python.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(home);
    // Without it no terminal is taken for one where lines can move.
    python.env("TERM", "xterm");
    let out = python.output().expect("python3 is missing: apt-get install python3");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let (first, shown) = text.split_once('\n').unwrap();
    (first.to_owned(), shown.replace("\r\n", "\n"))
}

#[test]
fn a_question_at_a_terminal_goes_on_with_a_yes_alone() {
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

/// A second terminal takes the lab away, or makes it another one, while the first is still asked.
#[test]
fn what_another_run_did_while_a_question_was_open_is_not_undone() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("data/labs/lab");
    for (args, meanwhile) in [
        (&["reset"][..], "rm data/labs/lab/lab.yaml data/labs/lab/state.json"),
        (&["down"], "sed -i s/127.0.0.1/127.0.0.2/ data/labs/lab/state.json"),
    ] {
        lab(home.path(), 1);
        let (ended, shown) = at_a_terminal_while(home.path(), args, "[y/N]", r"y\n", meanwhile);
        assert_eq!(ended, "9 False False", "{args:?}\n{shown}");
        assert!(shown.contains("KC-LAB-BUSY") && shown.contains("another run changed the lab lab"), "{shown}");
        assert_eq!(folder.join("lab.yaml").exists(), args == ["down"], "{shown}");
    }
}

#[test]
fn a_secret_answer_at_a_terminal_is_not_shown() {
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

/// The first `up` on a new host: the question comes in the middle of the run, beside lines that move.
#[test]
fn live_ssh_a_question_of_a_run_stays_on_the_screen() {
    let (home, server) = (tempfile::tempdir().unwrap(), Sshd::start());
    // No host is as large, so none is changed.
    let profile = kubecamp::profile::shipped_text("1x4c12g").unwrap().replace("cores: 4", "cores: 4000");
    fs::write(home.path().join("big.yaml"), profile).unwrap();
    let (host, key) = (format!("root@127.0.0.1:{}", server.port), server.file("user_key").display().to_string());
    let args = ["up", "--profile", "./big.yaml", "--host", &host, "--identity", &key];
    let known = home.path().join("data/labs/lab/known_hosts");
    for (answer, words) in
        [(r"\x03", ["Stopping in order", "KC-CANCELLED"]), (r"n\n", ["KC-DECLINED", "was not accepted"])]
    {
        let (ended, shown) = at_a_terminal(home.path(), &args, "Is that its key? [y/N]", answer);
        assert_eq!(ended, "130 False False", "{answer}\n{shown}");
        assert!(words.iter().all(|word| shown.contains(word)) && !known.exists(), "{answer}\n{shown}");
    }
    let (ended, shown) = at_a_terminal(home.path(), &args, "Is that its key? [y/N]", r"y\n");
    assert!(ended.ends_with(" False False") && shown.contains("KC-HOST-TOO-SMALL"), "it went on\n{ended}\n{shown}");
    assert!(known.exists(), "{shown}");
}

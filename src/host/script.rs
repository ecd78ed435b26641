//! Puts scripts together: the library, the step lock, values, probes.

use std::time::Duration;

use crate::core::{Secret, shell::quote};

/// Functions that every change may use; see the file.
pub(crate) const LIB: &str = include_str!("../../templates/host/lib.sh");

/// The variables that tell programs of a proxy, with spaces between; a test says that templates name the same.
const PROXIES: &str =
    "http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY";

/// Exit status of a change that could not get the step lock: an earlier one still runs.
pub const LOCKED: i32 = 75; // EX_TEMPFAIL of sysexits(3)

/// Exit status of a change that could not record the host because a tool failed.
pub const UNSEEN: i32 = 65; // EX_DATAERR of sysexits(3)

/// Where the locks of a host live: gone after a reboot, as the runs are.
///
/// Root writes there by name, so it must be a place where nobody else can put anything: not below `/run/lock`, to which
/// every user may write.
pub const LOCKS: &str = "/run/kubecamp.lock";

/// The lock in [`LOCKS`] of one change at a time.
pub const STEP: &str = "step";

/// The lock in [`LOCKS`] of one uploaded file's unpacking at a time.
pub const UPLOAD: &str = "upload";

/// Wraps a change that may take `limit`: one at a time on a host, even when the client that began the last one is gone.
pub fn change(text: &str, values: &[(String, Secret)], limit: Duration) -> String {
    locked(STEP, text, values, limit)
}

/// Wraps what is done with an uploaded file: one at a time too, but beside a change.
///
/// The image of kube-proxy is imported while kubeadm init waits for the API server.
pub fn unpack(text: &str, limit: Duration) -> String {
    locked(UPLOAD, text, &[], limit)
}

/// Wraps a change that writes nothing on the host, and so may go beside the others.
pub fn beside(text: &str, values: &[(String, Secret)]) -> String {
    format!("{LIB}\n{}\n(\n{text}\n)\n", assigned(values))
}

/// Shell text that is true while no change runs on the host.
pub fn at_rest() -> String {
    format!("{{ [ ! -e {LOCKS}/{STEP} ] || flock -n {LOCKS}/{STEP} true; }}")
}

/// Shell text that waits until what an earlier run unpacks is done, for a change that would get in its way; it ends the
/// change when that takes too long.
pub fn unpacked() -> String {
    let lock = format!("{LOCKS}/{UPLOAD}");
    format!(
        "[ ! -e {lock} ] || flock -w $((KC_UNTIL > $(date +%s) ? KC_UNTIL - $(date +%s) : 1)) {lock} true || \
         {{ echo 'an earlier upload is still unpacked' >&2; exit {LOCKED}; }}"
    )
}

/// How long a change waits for an earlier one, in seconds: it gives up before its own limit ends it, since only then it
/// can say why.
fn patience(limit: Duration) -> u64 {
    limit.as_secs().saturating_sub(10).clamp(1, 200)
}

fn assigned(values: &[(String, Secret)]) -> String {
    let line = |(name, value): &(String, Secret)| {
        format!("KC_{}={}\n", name.replace('-', "_").to_uppercase(), quote(value.expose()))
    };
    values.iter().map(line).collect()
}

fn locked(lock: &str, text: &str, values: &[(String, Secret)], limit: Duration) -> String {
    let values = assigned(values);
    let wait = patience(limit);
    // Only what waits for something else too asks for the time.
    let until = if text.contains("KC_UNTIL") { format!("KC_UNTIL=$(($(date +%s) + {wait})); ") } else { String::new() };
    format!(
        "{until}[ -d {LOCKS} ] || mkdir -p -m 700 {LOCKS} || exit 1; exec 8>>{LOCKS}/{lock} || exit 1\n\
         flock -w {wait} 8 || {{ echo 'an earlier step still runs' >&2; exit {LOCKED}; }}\n{LIB}\n{values}\n\
         (\n{text}\n) 8>&-\n"
    )
}

/// Wraps what only reads: it asks the cluster itself, and no proxy of the host's.
///
/// The library, which comes with changes, puts that out of the way by itself.
pub(super) fn reading(text: &str) -> String {
    format!("unset {PROXIES}\n{text}")
}

/// One script that evaluates several checks and prints `KC-DONE n` for each that holds; `None` without checks.
pub fn probe<'a>(checks: impl IntoIterator<Item = (usize, &'a str)>) -> Option<String> {
    let lines: String = checks
        .into_iter()
        .map(|(i, check)| format!("(\n{check}\n) </dev/null >/dev/null 2>&1 && echo 'KC-DONE {i}'\n"))
        .collect();
    let paths = "LC_ALL=C; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL PATH";
    (!lines.is_empty()).then(|| reading(&format!("{paths}\n{lines}true")))
}

/// Shell text that writes `content` to `path` with `mode`, remembering what was there.
pub fn put(path: &str, mode: u32, content: &str) -> String {
    format!("printf %s {} | kc_put {} {mode:o} || exit 1\n", quote(content), quote(path))
}

/// A check that `path` holds exactly `content`.
pub fn has(path: &str, content: &str) -> String {
    let sha = crate::core::Blob::from_bytes(content.as_bytes()).sha256().to_owned();
    format!("echo '{sha}  {path}' | sha256sum -c --status -")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_of(script: &str) -> Option<&str> {
        script.split(&format!("exec 8>>{LOCKS}/")).nth(1)?.split_whitespace().next()
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn unpacking_does_not_wait_for_a_change() {
        let (change, unpack) = (change("kubeadm init", &[], MINUTE), unpack("ctr images import", MINUTE));
        assert_eq!((lock_of(&change), lock_of(&unpack)), (Some("step"), Some("upload")));
        assert!(unpacked().contains("/run/kubecamp.lock/upload"));
    }

    #[test]
    fn a_host_is_at_rest_while_no_change_runs() {
        let dir = tempfile::tempdir().unwrap();
        let text = |script: &str| script.replace(LOCKS, &dir.path().display().to_string());
        let rests = || {
            let sh = std::process::Command::new("sh").arg("-c").arg(text(&at_rest())).status();
            sh.unwrap().success()
        };
        assert!(rests() && !dir.path().join(STEP).exists());
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let wait = format!("echo > {0}; cat {0}", fifo.display());
        let mut busy =
            std::process::Command::new("sh").arg("-c").arg(text(&change(&wait, &[], MINUTE))).spawn().unwrap();
        std::fs::read(&fifo).unwrap();
        assert!(!rests());
        assert_eq!(lock_of(&beside("true", &[])), None);
        std::fs::write(&fifo, "").unwrap();
        assert!(busy.wait().unwrap().success() && rests());
    }

    #[test]
    fn the_locks_are_roots_alone_and_every_scan_knows_them() {
        assert_eq!(std::path::Path::new(LOCKS).parent(), Some(std::path::Path::new("/run")));
        assert!(change("true", &[], MINUTE).contains(&format!("mkdir -p -m 700 {LOCKS} ")));
        let scan = crate::host::scan::SCRIPT;
        assert!(scan.contains(&format!("find {LOCKS} ")) && scan.contains(&format!("'{}/", LOCKS.replace('.', "\\."))));
        assert!(crate::host::Traces::default().is_certain("path", LOCKS));
    }

    #[test]
    fn no_question_to_a_cluster_goes_through_the_hosts_proxy() {
        let dir = tempfile::tempdir().unwrap();
        let told = |script: &str| {
            let mut sh = std::process::Command::new("sh");
            sh.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            for name in PROXIES.split(' ') {
                sh.env(name, "http://proxy.example:3128/'$x");
            }
            let out = sh.arg("-c").arg(script.replace(LOCKS, &dir.path().display().to_string())).output().unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
            String::from_utf8(out.stdout).unwrap()
        };
        assert_eq!(told("env | grep -ic '_proxy='"), "10\n");
        for script in [change("env", &[], MINUTE), beside("env", &[]), reading("env")] {
            let env = told(&script).to_lowercase();
            assert!(env.contains("path=") && !env.contains("_proxy"), "{env}");
        }
        let checks = [(0, "env | grep -i _proxy"), (1, "! env | grep -i _proxy")];
        assert_eq!(told(&probe(checks).unwrap()), "KC-DONE 1\n");
    }

    #[test]
    fn templates_know_the_same_variables_of_a_proxy() {
        let each = format!("\nfor kc_v in {PROXIES}; do\n");
        for (name, line) in [
            ("host/lib.sh", &each),
            ("gate/lib.sh", &each),
            ("node/kubelet.service", &format!("\nUnsetEnvironment={PROXIES}\n")),
        ] {
            assert!(crate::host::template::text(name).unwrap().contains(line), "{name}");
        }
    }

    #[test]
    fn what_is_waited_for_is_asked_at_once_and_not_for_ever() {
        for (seconds, comes_at, asked, ended) in
            [(60, 1, 1, true), (60, 3, 3, true), (0, 3, 1, false), (2, 9, 3, false)]
        {
            // A second goes by with each pause.
            let shams = "now=0 n=0; date() { echo $now; }; sleep() { now=$((now + 1)); }";
            let script = format!(
                "{LIB}\n{shams}\nis_there() {{ n=$((n + 1)); [ $n -ge $1 ]; }}\n\
                 kc_wait {seconds} is_there {comes_at}; echo $? $n"
            );
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            let wanted = format!("{} {asked}\n", u8::from(!ended));
            assert_eq!(String::from_utf8(out.stdout).unwrap(), wanted, "{seconds} {comes_at}");
        }
    }

    #[test]
    fn one_wait_in_another_leaves_that_one_its_end() {
        let shams = "now=0 n=0; date() { echo $now; }; sleep() { now=$((now + 1)); }";
        let script = format!(
            "{LIB}\n{shams}\nis_there() {{ n=$((n + 1)); kc_wait $1 [ $n -ge 3 ]; }}\n\
             kc_wait 60 is_there 1; echo $? $n\nn=0; kc_wait 2 is_there 9; echo $? $n"
        );
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "0 3\n1 1\n");
    }

    /// What is left of a hosts file whose lines these are; `<` and `>` are our marks.
    fn without_block(lines: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        let line = |word: &str| match word {
            "<" => "# kubecamp begin".to_owned(),
            ">" => "# kubecamp end".to_owned(),
            word => word.replace('=', " "),
        };
        let text = lines.split(' ').map(line).collect::<Vec<_>>().join("\n");
        std::fs::write(&file, format!("{text}\n")).unwrap();
        let script = format!("{LIB}\nkc_without_block {} 'cp worker-1'", file.display());
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        String::from_utf8(out.stdout).unwrap().trim_end().replace(' ', "=").replace('\n', " ")
    }

    #[test]
    fn only_our_own_lines_of_the_hosts_file_go() {
        for (before, after) in [
            ("127.0.0.1=localhost", "127.0.0.1=localhost"),
            ("a < >", "a"),
            ("127.0.0.1=localhost < > 192.0.2.7=friend", "127.0.0.1=localhost 192.0.2.7=friend"),
            ("a < 192.0.2.1=cp 192.0.2.2=worker-1=h2 > b", "a b"),
            ("a < x y > b", "a b"),
            // The end is lost: what others wrote below stays.
            ("a < 192.0.2.1=cp 192.0.2.2=worker-1=h2 192.0.2.7=friend 192.0.2.1=cp", "a 192.0.2.7=friend 192.0.2.1=cp"),
            ("a < 192.0.2.1=cp b < 192.0.2.1=cp > c", "a b c"),
            // The begin is lost.
            ("a 192.0.2.7=friend 192.0.2.1=cp > b", "a 192.0.2.7=friend b"),
        ] {
            assert_eq!(without_block(before), after, "{before}");
        }
    }

    #[test]
    fn a_record_that_a_full_disk_cut_off_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("kept")).unwrap();
        let manifest = dir.path().join("manifest");
        let records = "kc_record file absent /x && kc_record file absent /x && kc_record file absent /y";
        let script = format!("{LIB}\nKC={}\n{records}", dir.path().display());
        for cut in ["", "file\tkept:0123", "tree\tabsent\t/etc", "file\tabsent\t/x"] {
            std::fs::write(&manifest, format!("dir\tabsent\t/a\n{cut}")).unwrap();
            assert!(std::process::Command::new("sh").arg("-c").arg(&script).status().unwrap().success());
            let now = std::fs::read_to_string(&manifest).unwrap();
            assert_eq!(now, "dir\tabsent\t/a\nfile\tabsent\t/x\nfile\tabsent\t/y\n", "{cut}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no part is left behind");
    }

    #[test]
    fn what_cannot_be_recorded_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        std::fs::create_dir_all(dir.path().join("manifest")).unwrap();
        std::fs::write(dir.path().join("old"), "old").unwrap();
        // Of a file that is not kept nothing may be recorded either.
        std::fs::write(dir.path().join("kept"), "").unwrap();
        for (change, of) in [
            ("kc_dirs", "new"),
            ("kc_tree", "new"),
            ("kc_keep", "new"),
            ("kc_keep", "old"),
            ("kc_block", "new"),
            ("kc_block", "old"),
        ] {
            // Whether or not the caller asks how it went.
            let script = format!("{LIB}\nKC={root}\n{change} {root}/{of}; echo went on");
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(!out.status.success() && out.stdout.is_empty() && said.contains("cannot "), "{change}: {out:?}");
            assert!(!dir.path().join("new").exists(), "{change}");
        }
    }

    #[test]
    fn a_change_gives_up_waiting_before_its_limit_ends_it() {
        for (limit, wait) in [(0, 1), (30, 20), (120, 110), (210, 200), (300, 200)] {
            assert_eq!(patience(Duration::from_secs(limit)), wait);
        }
    }

    /// Somebody else holds each of the locks in turn.
    #[test]
    fn who_holds_the_lock_is_said_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(11);
        for (lock, text, words) in
            [(STEP, "echo ran".to_owned(), "an earlier step"), (UPLOAD, unpacked(), "an earlier upload")]
        {
            let file = std::fs::File::create(folder.path().join(lock)).unwrap();
            file.lock().unwrap();
            let script = change(&text, &[], limit).replace(LOCKS, folder.path().to_str().unwrap());
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(out.status.code(), Some(LOCKED), "{out:?}");
            assert!(String::from_utf8_lossy(&out.stderr).contains(words) && out.stdout.is_empty(), "{out:?}");
        }
    }
}

use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    task::JoinHandle,
};

/// What the system's log has of root's sshd since a day ago, and what it gets. It notes itself who wrote a line, so that
/// nobody else can say what sshd says. From OpenSSH 9.8 on a program of its own serves a connection.
const FOLLOW: [&str; 8] = [
    "--follow",
    "--no-tail",
    "--quiet",
    "--output=cat",
    "--since=-1d",
    "_UID=0",
    "SYSLOG_IDENTIFIER=sshd",
    "SYSLOG_IDENTIFIER=sshd-session",
];

/// How long a log that cannot be read, or that ended, is left alone.
const PAUSE: Duration = Duration::from_secs(30);

type Seen = Mutex<BTreeSet<String>>;

/// Whom sshd let in, by its log: a login may be over before anybody looks at processes.
///
/// The log is followed beside the ticks from the first question on; on a system without it nobody is known to have been let
/// in.
#[derive(Default)]
pub(super) struct Logins {
    seen: Arc<Seen>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Logins {
    /// Whether somebody came in by this principal.
    ///
    /// Only within a runtime.
    pub fn has(&self, principal: &str) -> bool {
        let mut reader = lock(&self.reader);
        if reader.is_none() {
            *reader = Some(tokio::spawn(follow(Arc::clone(&self.seen))));
        }
        lock(&self.seen).contains(principal)
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        if let Some(reader) = lock(&self.reader).take() {
            reader.abort();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(seen: Arc<Seen>) {
    loop {
        let mut command = Command::new("journalctl");
        command.args(FOLLOW).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Ok(mut child) = command.spawn() {
            if let Some(out) = child.stdout.take() {
                read(out, &seen).await;
            }
            let _ = child.kill().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads to the end, whatever the bytes are.
async fn read(out: impl AsyncRead + Unpin, seen: &Seen) {
    let (mut out, mut line) = (BufReader::new(out), vec![]);
    while out.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
        if let Some(principal) = let_in(String::from_utf8_lossy(&line).trim()) {
            lock(seen).insert(principal.to_owned());
        }
        line.clear();
    }
}

/// The principal by which somebody came in, as a line of sshd's says: the hub's certificates have it first in their key id.
pub fn let_in(line: &str) -> Option<&str> {
    let (_, id) = line.strip_prefix("Accepted publickey for ")?.split_once(" ID ")?;
    id.split(' ').next().filter(|principal| principal.starts_with("slot-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_came_in_by_a_certificate_of_the_hub_is_found() {
        let log = "Connection from 192.0.2.9 port 50022 on 192.0.2.10 port 22\n\
                   Accepted publickey for kct-a from 192.0.2.9 port 50022 ssh2: ED25519-CERT SHA256:abc ID slot-b1-kct-a \
                   kct-a on s1 (serial 7) CA ED25519 SHA256:def\n\
                   Accepted publickey for kct-b from 2001:db8::9 port 50023 ssh2: ED25519-CERT ID slot-b2-kct-b kct-b on s1 \
                   (serial 8) CA ED25519 SHA256:def\n\
                   Accepted publickey for root from 192.0.2.9 port 50024 ssh2: ED25519 SHA256:abc\n\
                   Accepted publickey for root from 192.0.2.9 port 50025 ssh2: RSA-CERT SHA256:abc ID admin (serial 1) CA RSA x\n\
                   Failed publickey for kct-c from 192.0.2.9 port 50026 ssh2: ED25519-CERT SHA256:abc ID slot-b3-kct-c kct-c\n";
        let seen = Seen::default();
        let bytes = [&b"\xff\n"[..], log.as_bytes()].concat();
        read(&bytes[..], &seen).await;
        assert_eq!(*lock(&seen), ["slot-b1-kct-a", "slot-b2-kct-b"].map(str::to_owned).into());
    }
}

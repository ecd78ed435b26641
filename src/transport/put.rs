use std::time::Duration;

use super::{Cmd, Exit, Input, Io, LinkError, Transport};
use crate::core::{
    Blob,
    shell::{join, quote},
};

/// Exit status of the look when the same file is there already.
const SAME: i32 = 0;

/// Slowest link that a limit allows for: 64 KiB/s, plus one minute.
fn limit_for(size: u64) -> Duration {
    Duration::from_secs(60 + size / (64 * 1024))
}

/// The upload that every transport shares, on top of its `exec`: see [`Transport::put`].
pub async fn put<T: Transport + ?Sized>(
    link: &T,
    blob: &Blob,
    to: &str,
    mode: u32,
    io: Io<'_>,
) -> Result<bool, LinkError> {
    put_as(link, blob, to, mode, io, &|cmd| cmd).await
}

/// As [`put`], with each command as `as_whom` makes it: one that is run by another user, say.
pub async fn put_as<T: Transport + ?Sized>(
    link: &T,
    blob: &Blob,
    to: &str,
    mode: u32,
    io: Io<'_>,
    as_whom: &(dyn Fn(Cmd) -> Cmd + Send + Sync),
) -> Result<bool, LinkError> {
    let limit = limit_for(blob.size());
    let found = link.exec(&as_whom(Cmd::new(sh(&look(to, blob, mode))).limit(limit)), Io::default()).await?;
    if found.status == Some(SAME) {
        return Ok(false);
    }
    let send = Cmd::new(sh(&store(to, blob, mode))).input(Input::Blob(blob.clone())).limit(limit);
    let sent = link.exec(&as_whom(send), io).await?;
    if sent.ok() { Ok(true) } else { Err(refused(&sent)) }
}

/// The login shell may be fish or csh: the script gets a POSIX shell, and messages that can be recognised.
fn sh(script: &str) -> String {
    join(["env", "LC_ALL=C", "sh", "-c", script])
}

/// Shell text that defines `h`, which prints the digest of its input: by openssl where it works, which uses the CPU's own instructions
/// for it and is several times as fast as sha256sum.
pub const HASH: &str = "h() { case $(openssl dgst -sha256 -r </dev/null 2>/dev/null) in \
     e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855*) openssl dgst -sha256 -r;; *) sha256sum;; esac; };";

/// Ends with [`SAME`] when the file is there; the size comes first, since it costs nothing.
fn look(to: &str, blob: &Blob, mode: u32) -> String {
    let (path, size, sha256) = (quote(to), blob.size(), blob.sha256());
    format!(
        "{HASH} [ -f {path} ] && [ \"$(stat -c %s {path})\" = {size} ] && \
         set -- $(h <{path}) && [ \"$1\" = {sha256} ] && chmod {mode:o} {path} || exit 1"
    )
}

/// Hashes what was written, read back: `tee` into a hash takes more time on a host with few cores than that second look.
/// A write that failed shows in the size.
fn store(to: &str, blob: &Blob, mode: u32) -> String {
    let (path, size, sha256) = (quote(to), blob.size(), blob.sha256());
    format!(
        "{HASH} t={path}.kc-part.$$; trap 'rm -f \"$t\"' EXIT; trap 'exit 1' HUP INT TERM; umask 077; \
         mkdir -p \"$(dirname {path})\" && : >\"$t\" || exit 1; \
         cat >\"$t\"; n=$(stat -c %s \"$t\"); \
         [ \"$n\" = {size} ] || {{ echo \"$n of {size} bytes were written\" >&2; exit 1; }}; \
         set -- $(h <\"$t\"); [ \"$1\" = {sha256} ] || {{ echo \"the digest is $1, not {sha256}\" >&2; exit 1; }}; \
         chmod {mode:o} \"$t\" && mv -fT \"$t\" {path}"
    )
}

/// Tells a full disk from everything else.
fn refused(sent: &Exit) -> LinkError {
    let said = String::from_utf8_lossy(&sent.stderr);
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        LinkError::DiskFull
    } else {
        LinkError::Upload(sent.tail(3).join("; "))
    }
}

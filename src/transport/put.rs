use std::time::Duration;

use super::{Cmd, Input, Io, LinkError, Transport};
use crate::core::{Blob, shell::quote};

/// Exit status of the upload script when the disk is full.
const FULL: i32 = 28; // ENOSPC

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
    let path = quote(to);
    let there =
        Cmd::new(format!("sha256sum {path} 2>/dev/null && chmod {mode:o} {path}")).limit(limit_for(blob.size()));
    let found = link.exec(&there, Io::default()).await?;
    if found.ok() && found.text().split_whitespace().next() == Some(blob.sha256()) {
        return Ok(false);
    }
    let sent = link
        .exec(&Cmd::new(script(&path, blob, mode)).input(Input::Blob(blob.clone())).limit(limit_for(blob.size())), io)
        .await?;
    match sent.status {
        Some(0) => Ok(true),
        Some(FULL) => Err(LinkError::DiskFull),
        _ => Err(LinkError::Upload(sent.tail(3).join("; "))),
    }
}

/// `tee` would hash while writing, but a shell cannot learn the digest of a pipe it also writes; the file is read
/// back instead, which also proves what the disk holds.
fn script(path: &str, blob: &Blob, mode: u32) -> String {
    let (size, sha256) = (blob.size(), blob.sha256());
    format!(
        "t={path}.kc-part.$$; trap 'rm -f \"$t\"' EXIT HUP INT TERM; umask 077; mkdir -p \"$(dirname {path})\" || exit 1; \
         e=$(cat 2>&1 >\"$t\") || {{ case $e in *'No space left'*) exit {FULL};; esac; echo \"$e\" >&2; exit 1; }}; \
         n=$(stat -c %s \"$t\"); [ \"$n\" = {size} ] || {{ echo \"got $n of {size} bytes\" >&2; exit 1; }}; \
         set -- $(sha256sum \"$t\"); [ \"$1\" = {sha256} ] || {{ echo \"digest is $1, not {sha256}\" >&2; exit 1; }}; \
         chmod {mode:o} \"$t\" && mv -f \"$t\" {path}"
    )
}

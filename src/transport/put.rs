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

/// Makes a command another user's, say.
type AsWhom<'a> = &'a (dyn Fn(Cmd) -> Cmd + Send + Sync);

/// The upload that every transport shares, on top of its `exec`: see [`Transport::put`].
///
/// Each command is run as `as_whom` makes it.
pub async fn put_as<T: Transport + ?Sized>(
    link: &T,
    blob: &Blob,
    to: &str,
    mode: u32,
    io: Io<'_>,
    as_whom: AsWhom<'_>,
) -> Result<bool, LinkError> {
    let limit = limit_for(blob.arrived_size());
    let look = Cmd::new(sh(&look(to, blob, mode))).input(Input::Seal(blob.clone())).limit(limit);
    let found = link.exec(&as_whom(look), Io::default()).await?;
    if found.status == Some(SAME) {
        return Ok(false);
    }
    send_as(link, blob, to, mode, io, as_whom).await.map(|()| true)
}

/// As [`put_as`], for a file that is known not to be there: it is sent without a look.
pub async fn send_as<T: Transport + ?Sized>(
    link: &T,
    blob: &Blob,
    to: &str,
    mode: u32,
    io: Io<'_>,
    as_whom: AsWhom<'_>,
) -> Result<(), LinkError> {
    let limit = limit_for(blob.arrived_size());
    let bytes = if blob.is_packed() { Input::Blob(blob.clone()) } else { Input::Sealed(blob.clone()) };
    let send = Cmd::new(sh(&store(to, blob, mode))).input(bytes).limit(limit);
    let sent = link.exec(&as_whom(send), io).await?;
    if sent.ok() { Ok(()) } else { Err(refused(&sent)) }
}

/// Where every other script of ours looks for programs too: sudo of the RHEL family leaves `/usr/local` out.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The login shell may be fish or csh: the script gets a POSIX shell, and messages that can be recognised.
fn sh(script: &str) -> String {
    join(["sh", "-c", &format!("LC_ALL=C; PATH={PATH}; export LC_ALL PATH; {script}")])
}

/// Shell text that defines `h FILE`, which puts the file's digest into `$sum`: by openssl where it works, which uses the CPU's own
/// instructions for it and is several times as fast as sha256sum.
const HASH: &str = "h() { sum=$(openssl dgst -sha256 -r <\"$1\" 2>/dev/null); sum=${sum%% *}; \
     [ ${#sum} = 64 ] || { sum=$(sha256sum <\"$1\"); sum=${sum%% *}; }; };";

/// Shell text that is true where a file of the blob's size is, its digest in `$sum`; the size comes first, since it costs nothing.
fn hashed(to: &str, blob: &Blob) -> String {
    let (path, size) = (quote(to), blob.arrived_size());
    format!("{HASH} [ -f {path} ] && [ \"$(stat -c %s {path})\" = {size} ] && h {path}")
}

/// Ends with [`SAME`] when the file is there.
fn look(to: &str, blob: &Blob, mode: u32) -> String {
    let (path, hashed) = (quote(to), hashed(to, blob));
    format!("{hashed} && read -r want && [ \"$sum\" = \"$want\" ] && chmod {mode:o} {path} || exit 1")
}

/// A reading script with exit status 0 where the file is there already; its mode counts for nothing.
pub fn there(to: &str, blob: &Blob) -> String {
    format!("{} && [ \"$sum\" = '{}' ]", hashed(to, blob), blob.arrived_sha256())
}

/// Takes as many bytes as the blob has, and then the line with its digest, so that this computer may compute that while the bytes travel.
///
/// Hashes what was written, read back: `tee` into a hash, or hashing in pieces beside the writing, takes more time on a host with few
/// cores than that second look. A write that failed shows in the size. It appends, since many file systems write a file to the disk at
/// once when it is closed after it was cut to nothing.
///
/// What is packed is unpacked on its way to the file, and its digest is that of the file, which is known before: nothing is
/// stored, copied or hashed twice. An older zstd does not say why it could not write, so that `dd` is asked.
fn store(to: &str, blob: &Blob, mode: u32) -> String {
    let (path, sent, size) = (quote(to), blob.size(), blob.arrived_size());
    let folder = quote(to.rsplit_once('/').map_or(".", |(folder, _)| if folder.is_empty() { "/" } else { folder }));
    let (take, want, why) = if blob.is_packed() {
        let why = "dd if=/dev/zero bs=1048576 count=1 status=none >>\"$t\"; ";
        ("zstd -qdc".to_owned(), format!("want={}", blob.arrived_sha256()), why)
    } else {
        (format!("dd bs=131072 count={sent} iflag=fullblock,count_bytes status=none"), "read -r want".to_owned(), "")
    };
    format!(
        "{HASH} t={path}.kc-part.$$; trap 'rm -f \"$t\"' EXIT; trap 'exit 1' HUP INT TERM; umask 077; \
         {{ [ -d {folder} ] || mkdir -p {folder}; }} && : >\"$t\" || exit 1; \
         {take} >>\"$t\"; n=$(stat -c %s \"$t\"); \
         [ \"$n\" = {size} ] || {{ echo \"$n of {size} bytes were written\" >&2; {why}exit 1; }}; \
         h \"$t\"; {want}; \
         [ \"$sum\" = \"$want\" ] || {{ echo \"the digest is $sum, not $want\" >&2; exit 1; }}; \
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::Blob, transport::LocalTransport};

    async fn put(link: &LocalTransport, blob: &Blob, to: &str, mode: u32, io: Io<'_>) -> Result<bool, LinkError> {
        let found = std::process::Command::new("sh").args(["-c", &there(to, blob)]).status().unwrap().success();
        let sent = link.put(blob, to, mode, io).await;
        assert!(sent.is_err() || found != *sent.as_ref().unwrap(), "both ways to look see the same");
        sent
    }
    use std::{fs, os::unix::fs::PermissionsExt};

    #[tokio::test]
    async fn a_file_arrives_whole_while_it_is_still_being_hashed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("not there yet/it's here"));
        let to_text = to.to_str().unwrap();
        // Neither a whole number of blocks nor of pieces, nor smaller than one.
        for size in [0, 1, 131_072, 131_073, 5_000_001] {
            fs::write(&from, vec![b'x'; size]).unwrap();
            let blob = Blob::hashing(&from).unwrap();
            let told = std::sync::atomic::AtomicU64::new(0);
            let note = |n: u64| told.store(n, std::sync::atomic::Ordering::SeqCst);
            let io = Io { line: None, sent: Some(&note) };
            assert!(put(&LocalTransport, &blob, to_text, 0o640, io).await.unwrap(), "{size}");
            assert_eq!(told.into_inner(), size as u64, "the digest's line counts for nothing");
            assert_eq!(fs::read(&to).unwrap(), fs::read(&from).unwrap());
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o640);
            assert!(
                !put(&LocalTransport, &Blob::hashing(&from).unwrap(), to_text, 0o600, Io::default()).await.unwrap()
            );
            assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600, "only the mode is set");
        }
        let names = fs::read_dir(to.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1, "no part is left behind");
    }

    #[tokio::test]
    async fn what_is_packed_arrives_unpacked_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let to_text = to.to_str().unwrap();
        let plain: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n % 1000).to_le_bytes()).collect();
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        let right = Blob::from_bytes(plain.clone());
        let sent = |bytes: &[u8], size: u64, sum: &str| Blob::from_bytes(bytes).unpacked_on_arrival(size, sum);
        for (bytes, size, sum, expected) in [
            (&packed[..packed.len() - 9], right.size(), right.sha256(), "bytes were written"),
            (&packed[..], right.size() + 1, right.sha256(), "bytes were written"),
            (&packed[..], right.size(), Blob::from_bytes("x").sha256(), "the digest is"),
            (&plain[..9999], right.size(), right.sha256(), "0 of 12000000 bytes were written"),
        ] {
            let blob = sent(bytes, size, sum);
            let error = put(&LocalTransport, &blob, to_text, 0o755, Io::default()).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no part is left behind");
        }
        let blob = sent(&packed, right.size(), right.sha256());
        for new in [true, false] {
            assert_eq!(put(&LocalTransport, &blob, to_text, 0o755, Io::default()).await.unwrap(), new);
            assert_eq!(fs::read(&to).unwrap(), plain);
        }
    }

    #[tokio::test]
    async fn programs_are_found_whatever_sudo_leaves_of_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let packed = zstd::encode_all(&b"plain"[..], 3).unwrap();
        let blob = Blob::from_bytes(packed).unpacked_on_arrival(5, Blob::from_bytes("plain").sha256());
        let line = format!("PATH=/nowhere; /bin/{}", sh(&store(to.to_str().unwrap(), &blob, 0o755)));
        let exit = LocalTransport.exec(&Cmd::new(line).input(Input::Blob(blob)), Io::default()).await.unwrap();
        assert!(exit.ok(), "{exit:?}");
        assert_eq!(fs::read_to_string(&to).unwrap(), "plain");
    }

    #[test]
    fn a_full_disk_is_told_though_zstd_does_not_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let blob = Blob::from_bytes("packed").unpacked_on_arrival(9, "0");
        let sham = "zstd() { echo 'zstd: error 70 : Write error : cannot write decoded block' >&2; return 70; }; \
             dd() { echo \"dd: error writing 'standard output': No space left on device\" >&2; return 1; };";
        let script = format!("{sham} {}", store(to.to_str().unwrap(), &blob, 0o755));
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let exit = Exit { status: out.status.code(), stdout: out.stdout, stderr: out.stderr };
        assert!(!exit.ok() && matches!(refused(&exit), LinkError::DiskFull), "{exit:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no part is left behind");
    }

    #[tokio::test]
    async fn bytes_that_are_not_the_promised_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&to, "what was there").unwrap();
        let to_text = to.to_str().unwrap();
        let promised = Blob::from_bytes("1234");
        for (bytes, expected) in [("123", "its size changed"), ("12345", "its size changed"), ("1243", "the digest is")]
        {
            fs::write(&from, bytes).unwrap();
            let path = from.clone();
            let blob = Blob::new(4, promised.sha256(), move || Ok(Box::new(fs::File::open(&path)?)));
            let error = put(&LocalTransport, &blob, to_text, 0o600, Io::default()).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(fs::read_to_string(&to).unwrap(), "what was there");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no part is left behind");
        }
    }
}

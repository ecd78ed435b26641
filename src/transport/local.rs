use std::process::Stdio;

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    sync::Mutex,
};

use super::{
    Cmd, Exit, Input, Io, LinkError, Transport,
    feed::Feed,
    output::{Output, Stream},
};

/// Runs commands on this computer, with `sh`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalTransport;

#[async_trait]
impl Transport for LocalTransport {
    async fn exec(&self, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError> {
        let stdin = if matches!(cmd.input, Input::None) { Stdio::null() } else { Stdio::piped() };
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(&cmd.line)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| LinkError::Lost(format!("sh: {e}")))?;
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        match tokio::time::timeout(cmd.limit, run(&mut child, cmd, io)).await {
            Ok(done) => done,
            Err(_) => {
                if let Some(group) = group {
                    // Gone already is as good as killed.
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                Err(LinkError::Timeout(cmd.limit))
            }
        }
    }

    async fn close(&self) {}
}

async fn run(child: &mut Child, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError> {
    let (output, lines) = Output::new(io);
    let output = Mutex::new(output);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ended = async {
        tokio::join!(drain(stdout, Stream::Out, &output), drain(stderr, Stream::Err, &output));
        let status = child.wait().await.map_err(|e| LinkError::Lost(format!("sh: {e}")))?;
        // Moved out here, so that the line channel closes and `deliver` ends.
        Ok((output.into_inner(), status.code()))
    };
    let ended = async { ended.await.map(|(output, status)| output.finish(status)) };
    let (sent, exit, ()) = tokio::join!(send(stdin, &cmd.input, io), ended, lines.deliver(io));
    sent?;
    exit
}

/// Feeds the input; a command that does not read all of it is no error.
async fn send(stdin: Option<ChildStdin>, input: &Input, io: Io<'_>) -> Result<(), LinkError> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    let (mut feed, mut total) = (Feed::start(input), 0);
    if let Some(before) = feed.before()
        && stdin.write_all(&before).await.is_err()
    {
        return Ok(());
    }
    while let Some(chunk) = feed.next().await {
        let chunk = chunk.map_err(LinkError::Local)?;
        if stdin.write_all(&chunk.bytes).await.is_err() {
            return Ok(());
        }
        total += chunk.counts;
        if let Some(note) = io.sent {
            note(total);
        }
    }
    Ok(())
}

async fn drain(from: Option<impl AsyncRead + Unpin>, stream: Stream, to: &Mutex<Output>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        to.lock().await.push(stream, &buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Blob;
    use std::time::Duration;

    #[tokio::test]
    async fn runs_feeds_and_reports() {
        let exit = LocalTransport.exec(&Cmd::new("echo a; echo b >&2; exit 7"), Io::default()).await.unwrap();
        assert_eq!((exit.status, exit.text().as_str(), exit.tail(1)), (Some(7), "a", vec!["b".to_owned()]));
        let led = Input::Blob(Blob::from_bytes("blob")).after(b"line\n");
        let counted = std::sync::atomic::AtomicU64::new(0);
        let note = |n: u64| counted.store(n, std::sync::atomic::Ordering::SeqCst);
        // dash's `read` takes a byte at a time, as sudo does with its password.
        let led = Cmd::new("read first; echo \"$first\"; cat").input(led);
        let exit = LocalTransport.exec(&led, Io { line: None, sent: Some(&note) }).await.unwrap();
        assert_eq!((exit.text().as_str(), counted.into_inner()), ("line\nblob", 4));
        let fed = Cmd::new("sha256sum").input(Input::Blob(Blob::from_bytes(vec![7; 3 << 20])));
        let exit = LocalTransport.exec(&fed, Io::default()).await.unwrap();
        assert!(exit.text().starts_with(Blob::from_bytes(vec![7; 3 << 20]).sha256()));
        let exit = LocalTransport.exec(&Cmd::script("echo hi; cat; exit 4"), Io::default()).await.unwrap();
        assert_eq!((exit.status, exit.text()), (Some(4), "hi".into()));
    }

    #[tokio::test]
    async fn a_limit_ends_the_whole_process_group() {
        let cmd = Cmd::new("sleep 60 | cat").limit(Duration::from_millis(50));
        let started = std::time::Instant::now();
        assert!(matches!(LocalTransport.exec(&cmd, Io::default()).await, Err(LinkError::Timeout(_))));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn uploads_once_and_notices_damage() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a b/file").display().to_string();
        let blob = Blob::from_bytes(vec![5; 2 << 20]);
        assert!(LocalTransport.put(&blob, &to, 0o640, Io::default()).await.unwrap());
        assert!(!LocalTransport.put(&blob, &to, 0o640, Io::default()).await.unwrap());
        std::fs::write(&to, b"other").unwrap();
        assert!(LocalTransport.put(&blob, &to, 0o640, Io::default()).await.unwrap());
        assert_eq!(std::fs::read(&to).unwrap(), vec![5; 2 << 20]);
        let liar = Blob::new(3, "00", || Ok(Box::new(&b"abc"[..])));
        let error = LocalTransport.put(&liar, &to, 0o640, Io::default()).await.unwrap_err();
        assert!(matches!(&error, LinkError::Upload(_)), "{error}");
        assert_eq!(std::fs::read_dir(dir.path().join("a b")).unwrap().count(), 1, "no partial file stays");
    }
}

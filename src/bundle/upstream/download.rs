use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use reqwest::{StatusCode, header};
use tokio::{fs, io::AsyncWriteExt};
use tokio_util::bytes::Bytes;

use crate::core::{Code, NodeId, Problem, Report, digest};

/// How often a download is tried in a row that comes no further.
const ATTEMPTS: u32 = 6;
/// How many times longer than else is waited for a server that has too many requests and does not say how long.
const CROWDED: u32 = 10;
/// The shortest wait that is told.
const NOTICED: Duration = Duration::from_secs(1);
/// The longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(120);

/// What to do about a site that lets in only whom it knows.
pub const LOGIN_HINT: &str = "Ask for a mirror that lets everybody fetch and set it in config.yaml, or build the parts: kubecamp \
                        bundle build --source modules.";

/// A piece of a download: the bytes that follow what is there already, or all of them again.
pub struct Piece {
    /// Whether it continues at the offset that was asked for.
    pub continues: bool,
    /// The whole length, where the server says it.
    pub total: Option<u64>,
    /// What identifies this version of the file, where the server says it.
    pub etag: Option<String>,
    /// The bytes.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

/// What a site says when it is asked for something small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Here it is.
    Has,
    /// Something else, as "not found" or the page of a hotel's network.
    HasNot,
    /// Nothing.
    Silent,
}

/// Why one attempt failed.
#[derive(Debug)]
pub enum Miss {
    /// It came further than any before it: the next attempt goes on there.
    Further,
    /// Another attempt may succeed.
    Again(Problem),
    /// Another attempt may succeed once this has passed; where it is not known, after a longer while than else.
    Later(Problem, Option<Duration>),
    /// No attempt will.
    Final(Problem),
}

impl Miss {
    /// What a failed HTTP request means for further attempts, and the wait that its answer asked for.
    fn of(url: &str, e: reqwest::Error, wait: Option<Duration>) -> Self {
        let status = e.status();
        // The error's own text would name the address a second time.
        let what = format!("{} could not be read", shown(url));
        let problem = Problem::new(Code::Download, what).because(e.without_url());
        match status {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Self::Final(problem.hint(LOGIN_HINT)),
            Some(StatusCode::TOO_MANY_REQUESTS) => Self::Later(problem, wait),
            Some(StatusCode::SERVICE_UNAVAILABLE) if wait.is_some() => Self::Later(problem, wait),
            Some(status) if status.is_client_error() && !is_passing(status) => Self::Final(problem),
            _ => Self::Again(problem),
        }
    }
}

/// Whether the same request may get another answer soon.
pub fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// The answer, unless it is a refusal.
fn accepted(url: &str, answer: reqwest::Response) -> Result<reqwest::Response, Miss> {
    let wait = answer.headers().get(header::RETRY_AFTER).and_then(|wait| asked_wait(wait.to_str().ok()?));
    answer.error_for_status().map_err(|e| Miss::of(url, e, wait))
}

/// The wait that a `Retry-After` asks for, by a number of seconds or a date.
fn asked_wait(text: &str) -> Option<Duration> {
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(then.duration_since(jiff::Timestamp::now())).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST))
}

/// Fetches files into a folder, so that what arrived survives an interruption.
#[derive(Clone)]
pub struct Downloads {
    client: reqwest::Client,
    folder: PathBuf,
    /// The wait after the first failure; it doubles. With none, nothing else is waited for either.
    pause: Duration,
}

impl Downloads {
    /// Downloads into `folder`.
    ///
    /// # Errors
    /// `KC-DOWNLOAD` when no TLS roots can be loaded.
    pub fn new(folder: PathBuf, pause: Duration) -> Result<Self, Problem> {
        // The first caller in the process decides; every room takes the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(30))
            .user_agent(concat!("kubecamp/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Problem::new(Code::Download, "the HTTP client could not be set up").because(e))?;
        Ok(Self { client, folder, pause })
    }

    /// The text at `url`, which must be small.
    ///
    /// # Errors
    /// `KC-DOWNLOAD`.
    pub async fn text(&self, url: &str, report: &dyn Report) -> Result<String, Problem> {
        let fetch = || async {
            let failed = |e: reqwest::Error| Miss::of(url, e, None);
            let answer = accepted(url, self.client.get(url).send().await.map_err(failed)?)?;
            answer.text().await.map_err(failed)
        };
        self.again(&shown(url), report, fetch).await
    }

    /// The text at `url`, asked for once; else whether there was an answer at all.
    pub async fn ask(&self, url: &str) -> Result<String, Answer> {
        let none = |e: reqwest::Error| if e.is_status() { Answer::HasNot } else { Answer::Silent };
        let answer = self.client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(none)?.text().await.map_err(none)
    }

    /// How `url` answers, asked for once, and what it wants of whoever asks; none where no answer comes.
    pub async fn challenge(&self, url: &str) -> Option<(StatusCode, Option<String>)> {
        let answer = self.client.get(url).send().await.ok()?;
        let challenge = answer.headers().get(header::WWW_AUTHENTICATE);
        Some((answer.status(), challenge.and_then(|text| text.to_str().ok()).map(str::to_owned)))
    }

    /// The file at `url`, whose digest must be `sha256`; `name` is what progress and the cache call it.
    ///
    /// # Errors
    /// `KC-DOWNLOAD` when it does not arrive, `KC-DOWNLOAD-DIGEST` when it is not what it should be.
    pub async fn file(&self, url: &str, name: &str, sha256: &str, report: &dyn Report) -> Result<PathBuf, Problem> {
        self.resume(&shown(url), name, sha256, report, |offset, etag| self.piece(url.to_owned(), offset, etag)).await
    }

    async fn piece(&self, url: String, offset: u64, etag: Option<String>) -> Result<Piece, Miss> {
        let failed = |e: reqwest::Error| Miss::of(&url, e, None);
        let mut request = self.client.get(&url);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            // A weak one compares with nothing: all of the file would come again after each break. Its digest decides.
            if let Some(etag) = etag.filter(|etag| !etag.starts_with("W/")) {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        let answer = request.send().await.map_err(failed)?;
        let answer = match answer.status() {
            // What is there is as long as the file, or longer: begin anew.
            StatusCode::RANGE_NOT_SATISFIABLE => self.client.get(&url).send().await.map_err(failed)?,
            _ => answer,
        };
        let answer = accepted(&url, answer)?;
        let continues = answer.status() == StatusCode::PARTIAL_CONTENT;
        let total = answer.content_length().map(|n| if continues { n + offset } else { n });
        let etag = answer.headers().get(header::ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let bytes = answer.bytes_stream().map(|chunk| chunk.map_err(io::Error::other)).boxed();
        Ok(Piece { continues, total, etag, bytes })
    }

    /// Brings the file called `name` here piece by piece, and checks it.
    pub async fn resume<F, R>(
        &self,
        from: &str,
        name: &str,
        sha256: &str,
        report: &dyn Report,
        open: F,
    ) -> Result<PathBuf, Problem>
    where
        F: Fn(u64, Option<String>) -> R,
        R: Future<Output = Result<Piece, Miss>> + Send,
    {
        fs::create_dir_all(&self.folder).await.map_err(|e| self.unwritable(e))?;
        let done = self.folder.join(format!("{}-{name}", &sha256.get(..16).unwrap_or(sha256)));
        if self.is_good(&done, sha256).await {
            return Ok(done);
        }
        let part = Part { path: with_end(&done, ".part"), etag: with_end(&done, ".etag") };
        // A run that was killed before it could rename the last byte's file: nothing is left to ask for.
        if part.size().await > 0 && self.is_good(&part.path, sha256).await {
            return self.keep(part, done).await;
        }
        let joined = self.fill(from, name, &part, report, &open).await?;
        if !self.is_good(&part.path, sha256).await {
            part.drop().await;
            // The rest may belong to another version of the file than the beginning: once more from the start.
            if joined {
                self.fill(from, name, &part, report, &open).await?;
            }
            if !joined || !self.is_good(&part.path, sha256).await {
                part.drop().await;
                let what = format!("{from} does not have the digest {sha256}");
                return Err(Problem::new(Code::DownloadDigest, what));
            }
        }
        self.keep(part, done).await
    }

    /// Gives a whole download its own name.
    async fn keep(&self, part: Part, done: PathBuf) -> Result<PathBuf, Problem> {
        fs::rename(&part.path, &done).await.map_err(|e| self.unwritable(e))?;
        let _ = fs::remove_file(&part.etag).await;
        Ok(done)
    }

    /// Appends pieces until the server has no more. A link that breaks off over and over brings all of it in the end, as
    /// long as it brings more each time. Says whether a piece was put behind another.
    async fn fill<F, R>(
        &self,
        from: &str,
        name: &str,
        part: &Part,
        report: &dyn Report,
        open: &F,
    ) -> Result<bool, Problem>
    where
        F: Fn(u64, Option<String>) -> R,
        R: Future<Output = Result<Piece, Miss>> + Send,
    {
        let most = AtomicU64::new(part.size().await);
        let joined = AtomicBool::new(false);
        let (most, joined) = (&most, &joined);
        let filled = self.again(from, report, || async {
            let offset = part.size().await;
            let etag = fs::read_to_string(&part.etag).await.ok();
            let piece = open(offset, etag).await?;
            let start = if piece.continues { offset } else { 0 };
            joined.fetch_or(start > 0, Ordering::Relaxed);
            let error = match part.append(piece, start, name, report).await {
                Ok(()) => return Ok(()),
                Err(Broken::Disk(e)) => return Err(Miss::Final(self.unwritable(e))),
                Err(Broken::Link(e)) => e,
            };
            let here = part.size().await;
            if most.fetch_max(here, Ordering::Relaxed) < here {
                return Err(Miss::Further);
            }
            Err(Miss::Again(Problem::new(Code::Download, format!("{from} broke off")).because(error)))
        });
        filled.await.map(|()| joined.load(Ordering::Relaxed))
    }

    /// Tries `work` a few times, waiting longer each time; one that came further begins that anew.
    ///
    /// A wait that a person would notice is told.
    pub async fn again<T, R>(&self, from: &str, report: &dyn Report, work: impl Fn() -> R) -> Result<T, Problem>
    where
        R: Future<Output = Result<T, Miss>>,
    {
        let (mut wait, mut attempt) = (self.pause, 1);
        loop {
            let (problem, longer) = match work().await {
                Ok(done) => return Ok(done),
                Err(Miss::Final(problem)) => return Err(problem),
                Err(Miss::Further) => {
                    (wait, attempt) = (self.pause, 1);
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Err(Miss::Again(problem)) => (problem, wait),
                Err(Miss::Later(problem, asked)) => (problem, self.longer(wait, asked)),
            };
            if attempt == ATTEMPTS {
                let what = format!("{from} could not be downloaded in {ATTEMPTS} attempts");
                return Err(Problem::new(Code::Download, what).because(problem));
            }
            if longer >= NOTICED {
                let text = format!("{}: trying again in {} s", problem.what, longer.as_secs());
                report.note(&NodeId::here(), &text);
            }
            tokio::time::sleep(longer).await;
            wait *= 2;
            attempt += 1;
        }
    }

    /// The wait for a server that has too much to do, instead of `wait`.
    fn longer(&self, wait: Duration, asked: Option<Duration>) -> Duration {
        match asked {
            _ if self.pause.is_zero() => wait,
            Some(asked) => wait.max(asked),
            None => wait * CROWDED,
        }
    }

    async fn is_good(&self, path: &Path, sha256: &str) -> bool {
        let (path, sha256) = (path.to_owned(), sha256.to_owned());
        let work = move || digest(&mut std::fs::File::open(path)?).map(|(_, found)| found == sha256);
        tokio::task::spawn_blocking(work).await.is_ok_and(|good: io::Result<bool>| good.unwrap_or(false))
    }

    fn unwritable(&self, e: io::Error) -> Problem {
        Problem::new(Code::LocalFile, format!("cannot write below {}", self.folder.display())).because(e)
    }
}

/// The address as it may be told: that of a mirror may hold a password.
pub fn shown(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(mut plain) if !plain.username().is_empty() || plain.password().is_some() => {
            // What may hold both may also lose them.
            let _ = plain.set_username("");
            let _ = plain.set_password(None);
            plain.into()
        }
        _ => url.to_owned(),
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A download that is not whole yet.
struct Part {
    path: PathBuf,
    etag: PathBuf,
}

impl Part {
    async fn size(&self) -> u64 {
        fs::metadata(&self.path).await.map_or(0, |m| m.len())
    }

    async fn drop(&self) {
        let _ = fs::remove_file(&self.path).await;
        let _ = fs::remove_file(&self.etag).await;
    }

    async fn append(&self, piece: Piece, start: u64, name: &str, report: &dyn Report) -> Result<(), Broken> {
        match &piece.etag {
            Some(etag) => fs::write(&self.etag, etag).await.map_err(Broken::Disk)?,
            None => _ = fs::remove_file(&self.etag).await,
        }
        let mut out = self.open_at(start).await.map_err(Broken::Disk)?;
        let written = write_all(piece.bytes, &mut out, |n| {
            report.progress(&NodeId::here(), name, start + n, piece.total.unwrap_or(0));
        })
        .await;
        // What arrived before the break counts: the next attempt continues there.
        let flushed = out.flush().await.map_err(Broken::Disk);
        let end = start + written?;
        flushed?;
        match piece.total {
            Some(total) if total != end => Err(Broken::Link(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// The file, ready to take what follows its first `start` bytes; what is there beyond them goes.
    async fn open_at(&self, start: u64) -> io::Result<tokio::io::BufWriter<fs::File>> {
        let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&self.path).await?;
        if file.metadata().await?.len() != start {
            file.set_len(start).await?;
        }
        let mut out = tokio::io::BufWriter::with_capacity(1 << 18, file);
        tokio::io::AsyncSeekExt::seek(&mut out, io::SeekFrom::Start(start)).await?;
        Ok(out)
    }
}

/// Which end of a download gave up: another attempt can help only against one of them.
enum Broken {
    /// The bytes stopped coming.
    Link(io::Error),
    /// They could not be kept.
    Disk(io::Error),
}

async fn write_all(
    mut bytes: impl Stream<Item = io::Result<Bytes>> + Unpin,
    out: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut told: impl FnMut(u64),
) -> Result<u64, Broken> {
    let mut n = 0;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(Broken::Link)?;
        out.write_all(&chunk).await.map_err(Broken::Disk)?;
        n += chunk.len() as u64;
        told(n);
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_ask_for_a_while_but_not_for_a_day() {
        let asked = |text: &str| asked_wait(text).map(|wait| wait.as_secs());
        assert_eq!((asked("0"), asked("7"), asked("86400")), (Some(0), Some(7), Some(120)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(0), "it has passed");
        assert_eq!(asked("Fri, 21 Oct 2101 07:28:00 GMT"), Some(120));
        assert_eq!((asked("soon"), asked("-1"), asked("")), (None, None, None));
    }

    #[test]
    fn a_crowded_server_is_left_alone_for_longer() {
        let second = Duration::from_secs(1);
        let longer = |pause: Duration, asked: Option<Duration>| {
            Downloads::new(PathBuf::new(), pause).unwrap().longer(pause * 2, asked)
        };
        assert_eq!(longer(second, None), second * 20);
        assert_eq!(longer(second, Some(second * 30)), second * 30);
        assert_eq!(longer(second, Some(Duration::ZERO)), second * 2);
        assert_eq!(longer(Duration::ZERO, Some(second * 30)), Duration::ZERO);
    }
}

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    args_book::HubAt,
    clock::own_zone,
    hub_answer::{Answer, is_harmless_twice, is_in_doubt},
    hub_login::{Kept, VARIABLE, file_of, plain, read, remove, token_of_variable},
    output,
    settings::Places,
};
use crate::{
    core::{Code, Problem, Secret},
    hub::{
        domain::Free,
        gate::{HubAddress, NoClient, foreign_line, is_readable_on_the_way},
        http::ProblemBody,
    },
};

/// So often a request is sent that the hub refuses for coming too early; it has done nothing then.
const TRIES: u32 = 6;
/// A wait that is longer than this, in seconds, is the user's to decide about.
const PATIENCE: u64 = 30;
/// So often what does no harm twice is sent anew when its answer was lost or the hub's database failed: either is back in
/// seconds, as a rule.
const ANEW: u32 = 4;
/// The wait before that, in seconds.
const PAUSE: u64 = 1;

/// How long one request may take; after as long none is sent anew.
const LIMIT: Duration = Duration::from_secs(40);

/// The way to the hub's API.
pub struct HubClient {
    client: reqwest::Client,
    base: String,
    hub: String,
    token: Option<Secret>,
    /// Whether that token is the one of [`VARIABLE`].
    of_variable: bool,
    insecure: bool,
    ca: Option<String>,
    file: PathBuf,
}

impl HubClient {
    /// The hub that was named, or that of the last login; `KUBECAMP_HUB_TOKEN` comes before the kept token.
    pub fn new(places: &Places, at: &HubAt) -> Result<Self, Problem> {
        let file = file_of(places);
        let kept = read(&file)?;
        let none = || {
            Problem::new(Code::Usage, "no hub is named")
                .hint("Say which: --hub URL, or sign in: kubecamp login --hub URL.")
        };
        let asked = at.hub.clone().or_else(|| kept.as_ref().map(|k| k.hub.clone())).ok_or_else(none)?;
        let wrong = |why: &str| Problem::new(Code::Usage, format!("--hub {asked} {why}"));
        let hub = plain(&asked);
        let Some(address) = HubAddress::parse(&hub) else {
            let problem = wrong("is neither https://NAME, http://NAME nor unix:/PATH");
            return Err(match meant(&hub) {
                Some(url) => problem.hint(format!("Did you mean {url}?")),
                None => problem,
            });
        };
        let insecure = at.insecure || kept.as_ref().is_some_and(|k| k.insecure && k.is_of(&hub));
        if !insecure && is_readable_on_the_way(&hub) {
            return Err(wrong("is plain HTTP to another computer: whoever is on the way reads your token")
                .hint("Use https://, or --insecure where the network itself is trusted."));
        }
        let named = at.hub_ca.as_ref().map(fs::read).transpose();
        let named = named.map_err(|e| wrong("has no readable --hub-ca").because(e))?;
        let of_login = || kept.as_ref().filter(|k| k.is_of(&hub)).and_then(|k| k.ca.clone());
        let ca = named.map(|pem| certificates(&String::from_utf8_lossy(&pem))).or_else(of_login);
        let client = address.client(LIMIT, ca.as_deref().map(str::as_bytes)).map_err(|why| match why {
            NoClient::Damaged(e) => wrong("has no sound --hub-ca").because(e),
            NoClient::NoCertificate => wrong("has a --hub-ca without any certificate")
                .hint("Name a PEM file; its first line is -----BEGIN CERTIFICATE-----."),
            NoClient::Unbuilt(e) => wrong("cannot be asked").because(e),
        })?;
        let base = address.base().to_owned();
        let named = token_of_variable();
        let of_variable = named.is_some();
        // A token goes to the hub that gave it and to no other.
        let token = named.or_else(|| kept.filter(|k| k.is_of(&hub)).map(|k| k.token)).map(Secret::new);
        Ok(Self { client, base, hub, token, of_variable, insecure, ca, file })
    }

    /// As [`HubClient::new`], without any token: a sign-in proves by itself who one is, and a token that ended is refused.
    pub fn for_login(places: &Places, at: &HubAt) -> Result<Self, Problem> {
        Ok(Self { token: None, of_variable: false, ..Self::new(places, at)? })
    }

    /// As [`HubClient::new`]; none where no hub is named and no login is kept.
    pub fn if_known(places: &Places, at: &HubAt) -> Result<Option<Self>, Problem> {
        if at.hub.is_none() && read(&file_of(places))?.is_none() {
            return Ok(None);
        }
        Self::new(places, at).map(Some)
    }

    /// As [`HubClient::new`], with the token of the login that is kept here, whatever the environment says; none where no
    /// login at this hub is kept.
    pub fn of_login(places: &Places, at: &HubAt) -> Result<Option<Self>, Problem> {
        let Some(kept) = read(&file_of(places))? else { return Ok(None) };
        let client = Self::new(places, at)?;
        Ok(kept.is_of(&client.hub).then(|| Self { token: Some(Secret::new(kept.token)), of_variable: false, ..client }))
    }

    /// Forgets the login that is kept.
    pub fn forget(&self) -> Result<(), Problem> {
        remove(&self.file)
    }

    /// Forgets the login that is kept at the hub that is named, or at any, where there is no way to that hub.
    ///
    /// Which hub it was of, as far as its file can be read; none where no such login was kept.
    pub fn forget_unasked(places: &Places, named: Option<&str>) -> Result<Option<String>, Problem> {
        let file = file_of(places);
        let hub = match read(&file) {
            Ok(None) => return Ok(None),
            Ok(Some(kept)) if named.is_some_and(|hub| !kept.is_of(&plain(hub))) => return Ok(None),
            Ok(Some(kept)) => kept.hub,
            // It signs nobody in any more, wherever it did.
            Err(_) => "its hub".to_owned(),
        };
        remove(&file).map(|()| Some(hub))
    }

    /// Keeps the token of a login.
    pub fn keep(&self, token: &str) -> Result<(), Problem> {
        let fail = |e: std::io::Error| {
            Problem::new(Code::LocalFile, format!("cannot write {}", self.file.display())).because(e)
        };
        let (hub, ca) = (self.hub.clone(), self.ca.clone());
        let kept = Kept { hub, token: token.to_owned(), insecure: self.insecure, ca };
        let text = serde_json::to_string(&kept)
            .map_err(|e| Problem::new(Code::Internal, "the login cannot be written").because(e))?;
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(fail)?;
        // A temporary file has mode 0600 from its first byte.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
        file.write_all(text.as_bytes()).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(&self.file).map_err(|e| fail(e.error))?;
        Ok(())
    }

    /// Whether there is a token for this hub.
    pub fn is_signed_in(&self) -> bool {
        self.token.is_some()
    }

    /// The address of a path at the hub, as people use it.
    pub fn hub(&self) -> &str {
        &self.hub
    }

    /// The certificates of the hub's own authority, in PEM; none where the system's authorities vouch for it.
    pub fn authority(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Asks for a value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.ask(self.request(Method::GET, path)).await
    }

    /// Asks with parameters; those without a value are left out.
    pub async fn find<T: DeserializeOwned>(&self, path: &str, params: &[(&str, Option<String>)]) -> Result<T, Problem> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.base))
            .map_err(|e| Problem::new(Code::Usage, format!("{} is not an address", self.hub)).because(e))?;
        for (name, value) in params {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let request = self.client.get(url);
        self.ask(self.signed(request)).await
    }

    /// Sends a value and reads the answer.
    ///
    /// Each call has a key of its own, so that a repeat by the network is known.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        version: Option<i64>,
    ) -> Result<T, Problem> {
        let mut request = self.request(method, path).json(body).header("Idempotency-Key", once());
        if let Some(version) = version {
            request = request.header(header::IF_MATCH, format!("\"{version}\""));
        }
        self.ask(request).await
    }

    /// Sends a value whose answer holds a secret.
    ///
    /// The hub keeps no such answer, so there is no key to repeat it by.
    pub async fn secret<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Problem> {
        self.ask(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a text.
    pub async fn text<T: DeserializeOwned>(&self, path: &str, text: String) -> Result<T, Problem> {
        let request = self.request(Method::POST, path).header(header::CONTENT_TYPE, "text/csv").body(text);
        self.ask(request.header("Idempotency-Key", once())).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.signed(self.client.request(method, format!("{}{path}", self.base)))
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// The status and body of an answer, after as many tries as the hub's limit of requests asks for, and some more where
    /// what was asked may be done although no answer came.
    async fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), Problem> {
        let mut request = request.build().map_err(|e| self.unreached(e))?;
        let (began, is_harmless) = (Instant::now(), is_harmless_twice(&request));
        let (mut tries, mut anew) = (1, 0);
        loop {
            let again = request.try_clone();
            let outcome = self.try_once(request).await;
            let wait = outcome.as_ref().ok().and_then(|answer| answer.wait);
            let may_anew = is_harmless && anew < ANEW && began.elapsed() < LIMIT;
            let (next, seconds, why) = match (again, wait) {
                (Some(next), Some(seconds)) if tries < TRIES => {
                    tries += 1;
                    (next, seconds, "The hub has many requests from this address")
                }
                (Some(next), None) if may_anew && is_in_doubt(&outcome, anew > 0) => {
                    anew += 1;
                    (next, PAUSE, "The hub's answer was lost or its database failed")
                }
                _ => return outcome.map(|answer| (answer.status, answer.bytes)).map_err(|e| self.unreached(e)),
            };
            output::say(&format!("{why}; the next try is in {seconds} s."));
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            request = next;
        }
    }

    async fn try_once(&self, request: reqwest::Request) -> Result<Answer, reqwest::Error> {
        let answer = self.client.execute(request).await?;
        let (status, wait) = (answer.status(), too_early(&answer));
        Ok(Answer { status, wait, bytes: answer.bytes().await?.to_vec() })
    }

    fn unreached(&self, error: reqwest::Error) -> Problem {
        let problem = Problem::new(Code::HubAway, format!("the hub {} does not answer", self.hub));
        let problem = problem.because(error.without_url());
        let says = |words: &str| problem.detail.iter().any(|line| line.contains(words));
        match self.hub.strip_prefix("https://") {
            // What TLS says of an answer that is none.
            Some(name) if says("InvalidContentType") => {
                problem.hint(format!("It seems to speak plain HTTP: try --hub http://{name}."))
            }
            // What `openssl req -x509` makes unless it is told otherwise.
            Some(_) if says("CaUsedAsEndEntity") => problem
                .hint("Its certificate is an authority's own: make one with `basicConstraints=critical,CA:FALSE`."),
            Some(_) if says("UnknownIssuer") => problem.hint("Name its authority: --hub-ca FILE."),
            _ => problem,
        }
    }

    /// A refusal of the token of the environment, which no sign-in mends, with whose it is.
    fn named(&self, problem: Problem) -> Problem {
        if !self.of_variable || problem.code != Code::HubSignIn {
            return problem;
        }
        let mut problem = problem.detail([format!("the token is that of the variable {VARIABLE}")]);
        problem.hints.clear();
        problem.hint(format!(
            "Set {VARIABLE} to a token that is good, or unset it: then that of the last kubecamp login counts."
        ))
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        let (status, bytes) = self.answer(request).await?;
        if status.is_success() {
            // What is only done has nothing to say.
            let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(text)
                .map_err(|e| Problem::new(Code::HubAway, "the hub's answer cannot be read").because(e));
        }
        Err(match serde_json::from_slice::<ProblemBody>(&bytes) {
            Ok(body) => self.named(problem_of(body)),
            Err(_) => Problem::new(Code::HubAway, format!("the hub answers {status}")).detail([foreign_line(&bytes)]),
        })
    }
}

/// The certificates of a PEM file: whatever else is in it, as a private key, is not kept.
fn certificates(pem: &str) -> String {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let each = pem.split(begin).skip(1).filter_map(|part| part.split(end).next());
    each.map(|body| format!("{begin}{body}{end}\n")).collect()
}

/// The address that was meant by one without a scheme; nothing that others could read on the way.
fn meant(hub: &str) -> Option<String> {
    let plain = format!("http://{hub}");
    let named = !hub.contains('/') && reqwest::Url::parse(&plain).is_ok_and(|url| url.has_host());
    let url = if is_readable_on_the_way(&plain) { format!("https://{hub}") } else { plain };
    named.then_some(url)
}

/// After how many seconds the hub wants to be asked again: it has too many requests from here.
fn too_early(answer: &reqwest::Response) -> Option<u64> {
    let text = answer.headers().get(header::RETRY_AFTER).filter(|_| answer.status() == StatusCode::TOO_MANY_REQUESTS);
    text?.to_str().ok()?.parse::<u64>().ok().filter(|seconds| *seconds <= PATIENCE)
}

/// A key that only one call has.
fn once() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

/// Free slots near the one that was asked for, as a program reads them; people read them in the problem's lines.
#[derive(Debug, thiserror::Error)]
#[error("other slots are free")]
pub struct Near(pub Vec<Free>);

/// The hub's problem with its alternatives and lines as evidence, moments by the clock of this computer.
fn problem_of(body: ProblemBody) -> Problem {
    let zone = own_zone();
    let lines = body.lines.iter().map(|line| zone.told(line));
    let mut problem = Problem::new(body.code, zone.told(&body.detail)).detail(lines);
    for free in &body.alternatives {
        let lab = free.lab.as_ref().map(|begins| format!(", with {begins}")).unwrap_or_default();
        problem.detail.push(zone.told(&format!("free: {} on {}{lab}", free.window, free.server)));
    }
    for other in body.others.iter() {
        let line = other.line.map(|n| format!("line {n}: ")).unwrap_or_default();
        problem.detail.push(format!("{line}{}", zone.told(&other.detail)));
    }
    if let Some(line) = body.line {
        problem.what = format!("line {line}: {}", problem.what);
    }
    if !body.alternatives.is_empty() {
        problem.source = Some(Arc::new(Near(body.alternatives)));
    }
    body.hints.into_iter().fold(problem, |problem, hint| problem.hint(zone.told(&hint)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::http::Refused;

    /// The client for a hub that is named so, with its files in a folder.
    fn client(folder: &Path, hub: &str) -> Result<HubClient, Problem> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let places = Places { config: folder.join("config.yaml"), ..Places::from_env() };
        let hub = Some(hub.to_owned());
        HubClient::new(&places, &HubAt { hub, hub_ca: None, insecure: false })
    }

    #[test]
    fn a_login_is_known_however_its_hub_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let signed_in = |kept: &str, hub: &str| {
            let kept = Kept { hub: kept.to_owned(), token: "kct_x".to_owned(), insecure: false, ca: None };
            fs::write(dir.path().join("hub.json"), serde_json::to_string(&kept).unwrap()).unwrap();
            client(dir.path(), hub).unwrap().is_signed_in()
        };
        let same = [
            "https://hub.example.org",
            "https://hub.example.org/",
            "https://Hub.Example.ORG",
            "https://hub.example.org:443/",
            "HTTPS://hub.example.org",
        ];
        for kept in same {
            for hub in same {
                assert!(signed_in(kept, hub), "{kept} {hub}");
            }
        }
        for other in ["https://hub.example.org:8443", "https://hub.example.com", "http://127.0.0.1", "unix:/hub.sock"] {
            assert!(!signed_in(same[0], other), "{other}");
        }
        assert!(signed_in("unix:/run/hub.sock", "unix:/run/hub.sock"));
        assert!(!signed_in("unix:/run/hub.sock", "unix:/run/Hub.sock"));
    }

    /// The certificate of an authority that signs nothing.
    const CA: &str = include_str!("../../tests/support/authority.pem");

    #[test]
    fn the_authority_of_a_login_is_kept_for_its_hub_alone() {
        let dir = tempfile::tempdir().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let hub = "https://hub.example.org";
        let file = dir.path().join("ca.pem");
        fs::write(&file, format!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n{CA}")).unwrap();
        let places = Places { config: dir.path().join("config.yaml"), ..Places::from_env() };
        let at = HubAt { hub: Some(hub.to_owned()), hub_ca: Some(file), insecure: false };
        HubClient::new(&places, &at).unwrap().keep("kct_x").unwrap();
        assert_eq!(client(dir.path(), hub).unwrap().ca.as_deref(), Some(CA));
        assert_eq!(client(dir.path(), "https://other.example.org").unwrap().ca, None);
        let kept = fs::read_to_string(dir.path().join("hub.json")).unwrap();
        assert!(!kept.contains("PRIVATE KEY"), "{kept}");
        // A login of an earlier version kept none.
        fs::write(dir.path().join("hub.json"), r#"{"hub": "https://hub.example.org", "token": "kct_x"}"#).unwrap();
        assert!(client(dir.path(), hub).unwrap().is_signed_in());
    }

    #[test]
    fn only_where_nothing_is_kept_and_named_no_hub_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { config: dir.path().join("config.yaml"), ..Places::from_env() };
        let at = HubAt { hub: None, hub_ca: None, insecure: false };
        assert!(HubClient::if_known(&places, &at).unwrap().is_none());
        fs::write(dir.path().join("hub.json"), "{").unwrap();
        let damaged = HubClient::if_known(&places, &at).err().unwrap();
        assert!(damaged.code == Code::LocalFile && damaged.all_hints()[0].contains("logout --force"), "{damaged:?}");
    }

    #[test]
    fn plain_http_to_another_computer_is_refused_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for hub in ["http://hub.example.org", "HTTP://hub.example.org", "http:hub.example.org"] {
            let refused = client(dir.path(), hub).err().unwrap();
            assert!(refused.what.contains(hub) && refused.what.contains("plain HTTP"), "{refused}");
        }
    }

    #[test]
    fn an_address_without_a_scheme_is_told_with_one() {
        let of = |hub: &str| meant(hub);
        assert_eq!(of("127.0.0.1:8420").as_deref(), Some("http://127.0.0.1:8420"));
        assert_eq!(of("hub.example.org").as_deref(), Some("https://hub.example.org"));
        assert_eq!(["ftp://x", "/run/hub.sock", ""].map(of), [None, None, None]);
    }

    #[test]
    fn a_refusal_is_told_by_the_clock_of_this_computer() {
        let at = "2026-11-24T14:00:00Z";
        let problem = Problem::new(Code::BookConflict, format!("taken after {at}"));
        let refused = Refused::from(problem.detail([format!("on one: {at}")]).hint(format!("until {at}")));
        let problem = problem_of(refused.body());
        let hint = problem.all_hints().iter().any(|hint| *hint == own_zone().told(&format!("until {at}")));
        assert!(hint && !format!("{problem:?}").contains(at), "{problem:?}");
    }
}

//! A release site and registry on loopback that can break off in mid-file.

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex},
};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    Mirrors,
    releases::{flannel_cni_image, releases},
};
use crate::{
    bundle::{catalogue::catalogue, manifest::Origins, versions::Versions},
    core::{Arch, EventKind, Report},
};

/// A report that keeps the notes.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Report for Notes {
    fn event(&self, kind: EventKind) {
        if let EventKind::Note { text, .. } = kind {
            self.0.lock().unwrap().push(text);
        }
    }
}

/// What the server knows and saw.
#[derive(Default)]
pub struct State {
    pub files: HashMap<String, (String, Vec<u8>)>,
    /// How often each file of more than 1000 bytes still breaks off, by path.
    pub cuts: HashMap<String, usize>,
    /// The byte that a file never gets beyond, by path.
    pub stops: HashMap<String, usize>,
    /// What a file becomes once its connection broke off, by path.
    pub next: HashMap<String, Vec<u8>>,
    /// Whether its `ETag`s are weak, so that no `If-Range` fits.
    pub is_weak: bool,
    /// What a path is answered first, the last one soonest: status with headers, and body.
    pub first: HashMap<String, Vec<(String, Vec<u8>)>>,
    /// How many requests for a token still fail; none where the registry wants no token.
    pub tokens: Option<usize>,
    /// Path and `Range` of every request.
    pub seen: Vec<(String, Option<String>)>,
    address: String,
}

impl State {
    /// What is said instead of the file.
    fn instead(&mut self, request: &Request) -> Option<(String, Vec<u8>)> {
        if let Some(first) = self.first.get_mut(&request.path).and_then(Vec::pop) {
            return Some(first);
        }
        let failing = self.tokens.as_mut()?;
        if request.path.starts_with("/token") {
            let fails = *failing > 0;
            *failing = failing.saturating_sub(1);
            let token = ("200 OK".to_owned(), br#"{"token":"opaque"}"#.to_vec());
            return Some(if fails { ("503 Service Unavailable".to_owned(), vec![]) } else { token });
        }
        let wants = request.path.starts_with("/v2/") && !request.has_token;
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"fake\"", self.address);
        wants.then(|| (format!("401 Unauthorized\r\nwww-authenticate: {realm}"), vec![]))
    }
}

pub struct Fake {
    pub state: Arc<Mutex<State>>,
    address: String,
}

impl Fake {
    /// Serves `files` until the test's runtime ends.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { address: address.clone(), ..State::default() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { state, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn mirrors(&self) -> Mirrors {
        let site = |site: &str, path: &str| (site.to_owned(), self.url(path));
        Mirrors {
            sites: [site("https://dl.k8s.io", "/dl"), site("https://github.com", "/gh")].into(),
            registries: [site("registry.k8s.io", "/k8s"), site("ghcr.io", "/ghcr")].into(),
        }
    }

    pub fn put(&self, path: &str, kind: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), (kind.to_owned(), bytes.into()));
    }

    /// The next request for `path` is answered so.
    pub fn answer_first(&self, path: &str, head: &str, body: impl Into<Vec<u8>>) {
        let answer = (head.to_owned(), body.into());
        self.state.lock().unwrap().first.entry(path.to_owned()).or_default().push(answer);
    }

    pub fn requests(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|(p, _)| p == path).map(|(_, range)| range.clone()).collect()
    }

    /// Every large file breaks off `times` times.
    pub fn cut_everything(&self, times: usize) {
        let mut state = self.state.lock().unwrap();
        state.cuts = state.files.keys().map(|path| (path.clone(), times)).collect();
    }

    /// Puts up everything that a bundle of `versions` needs.
    pub fn publish(&self, versions: &Versions, arch: Arch) {
        let entries = catalogue(versions, Origins::Upstream);
        let images: Vec<String> = entries.iter().filter_map(|e| e.image().map(str::to_owned)).collect();
        for release in releases(versions, arch) {
            let bytes = match release.programs.as_slice() {
                [(inside, name)] if inside.is_empty() && name == "kubeadm" => kubeadm(&images),
                [(inside, name)] if inside.is_empty() => noise(name, 200_000),
                many => tar_gz(many.iter().map(|(inside, name)| (inside.as_str(), noise(name, 60_000)))),
            };
            let sum = format!("{}  {}\n", hex::encode(Sha256::digest(&bytes)), release.file_name());
            let path = |url: &str| url.replace("https://dl.k8s.io", "/dl").replace("https://github.com", "/gh");
            self.put(&path(&release.url), "application/octet-stream", bytes);
            self.put(&path(&release.sums), "text/plain", sum);
        }
        for image in &images {
            self.publish_image(image, arch, &noise(image, 150_000));
        }
        let plugin = tar_gz([("flannel", noise("flannel plugin", 60_000))]);
        self.publish_image(&flannel_cni_image(versions), arch, &plugin);
        self.put("/v2/", "application/json", "{}");
    }

    /// The tag of `image` names the manifest of its one CPU, without a list.
    pub fn unlist(&self, image: &str) {
        let image = image.replace("registry.k8s.io/", "k8s/");
        let (name, tag) = image.rsplit_once(':').unwrap();
        let (at, kind) = (format!("/v2/{name}/manifests"), "application/vnd.oci.image.manifest.v1+json");
        let manifest = {
            let state = self.state.lock().unwrap();
            let list: serde_json::Value = serde_json::from_slice(&state.files[&format!("{at}/{tag}")].1).unwrap();
            let digest = list["manifests"][0]["digest"].as_str().unwrap();
            state.files[&format!("{at}/{digest}")].1.clone()
        };
        self.put(&format!("{at}/{tag}"), kind, manifest);
    }

    pub fn publish_image(&self, image: &str, arch: Arch, layer: &[u8]) {
        let image = image.replace("registry.k8s.io/", "k8s/").replace("ghcr.io/", "ghcr/");
        let (name, tag) = image.rsplit_once(':').unwrap();
        let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let config = json!({ "architecture": arch, "os": "linux", "of": name }).to_string();
        let part =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": part("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [part("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
        })
        .to_string();
        let mut listed = part("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        listed["platform"] = json!({ "architecture": arch, "os": "linux" });
        let index_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": [listed] }).to_string();
        let manifests = format!("/v2/{name}/manifests");
        let of_manifest = format!("{manifests}/{}", digest(manifest.as_bytes()));
        self.put(&format!("{manifests}/{tag}"), index_type, index);
        self.put(&of_manifest, "application/vnd.oci.image.manifest.v1+json", manifest);
        for bytes in [config.as_bytes(), layer] {
            self.put(&format!("/v2/{name}/blobs/{}", digest(bytes)), "application/octet-stream", bytes);
        }
    }
}

/// A program that answers what the real one is asked.
fn kubeadm(images: &[String]) -> Vec<u8> {
    let listed: Vec<&str> = images.iter().map(String::as_str).filter(|i| i.starts_with("registry.k8s.io")).collect();
    format!("#!/bin/sh\ncat <<EOF\n{}\nEOF\nexit 0\n{}\n", listed.join("\n"), "#".repeat(100_000)).into_bytes()
}

/// Bytes that do not compress, the same for the same name.
pub fn noise(name: &str, size: usize) -> Vec<u8> {
    let mut block = Sha256::digest(name);
    let mut out = vec![];
    while out.len() < size {
        out.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    out
}

fn tar_gz<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(vec![], flate2::Compression::fast()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, format!("./{path}"), bytes.as_slice()).unwrap();
    }
    let mut gz = tar.into_inner().unwrap();
    gz.flush().unwrap();
    gz.finish().unwrap()
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        let (head, body) = answer(&state, &request);
        let send = through(&state, &request.path, &body);
        let cut = send.len() < body.len();
        if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(send).await.is_err() || cut {
            return;
        }
    }
}

/// As much of the body as arrives before the connection breaks off.
fn through<'b>(state: &Mutex<State>, path: &str, body: &'b [u8]) -> &'b [u8] {
    let mut state = state.lock().unwrap();
    if let Some(stop) = state.stops.get(path) {
        let start = state.files.get(path).map_or(0, |(_, bytes)| bytes.len() - body.len());
        return &body[..body.len().min(stop.saturating_sub(start))];
    }
    match state.cuts.get_mut(path).filter(|left| body.len() > 1000 && **left > 0) {
        Some(left) => {
            *left -= 1;
            if let Some(next) = state.next.remove(path)
                && let Some(file) = state.files.get_mut(path)
            {
                file.1 = next;
            }
            &body[..body.len() / 2]
        }
        None => body,
    }
}

/// A request, as far as the server reads it.
struct Request {
    path: String,
    range: Option<String>,
    if_range: Option<String>,
    has_token: bool,
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let (mut first, mut range, mut if_range, mut has_token) = (String::new(), None, None, false);
    stream.read_line(&mut first).await.ok().filter(|n| *n > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        match line.trim().split_once(": ") {
            Some((key, value)) if key.eq_ignore_ascii_case("range") => range = Some(value.to_owned()),
            Some((key, value)) if key.eq_ignore_ascii_case("if-range") => if_range = Some(value.to_owned()),
            Some((key, _)) if key.eq_ignore_ascii_case("authorization") => has_token = true,
            Some((key, value)) if key.eq_ignore_ascii_case("content-length") => {
                let mut body = vec![0; value.parse().ok()?];
                stream.read_exact(&mut body).await.ok()?;
            }
            Some(_) => {}
            None => break,
        }
    }
    Some(Request { path: first.split_whitespace().nth(1)?.to_owned(), range, if_range, has_token })
}

fn answer(state: &Mutex<State>, request: &Request) -> (String, Vec<u8>) {
    let mut state = state.lock().unwrap();
    state.seen.push((request.path.clone(), request.range.clone()));
    if let Some((head, body)) = state.instead(request) {
        return (format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()), body);
    }
    let Some((kind, bytes)) = state.files.get(&request.path) else {
        return ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(), vec![]);
    };
    let weak = if state.is_weak { "W/" } else { "" };
    let etag = format!("{weak}\"{}\"", hex::encode(&Sha256::digest(bytes)[..8]));
    let range = request.range.as_deref();
    let start = range.and_then(|r| r.strip_prefix("bytes=")?.trim_end_matches('-').parse::<usize>().ok());
    let start = start.filter(|_| request.if_range.as_ref().is_none_or(|tag| *tag == etag && weak.is_empty()));
    if start.is_some_and(|start| start >= bytes.len()) {
        return ("HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n".to_owned(), vec![]);
    }
    let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
    let body = bytes[start.unwrap_or(0)..].to_vec();
    let length = body.len();
    (format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\netag: {etag}\r\ncontent-length: {length}\r\n\r\n"), body)
}

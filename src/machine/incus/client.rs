use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::objects::{Operation, Server};
use crate::core::{Code, Problem};

/// How long a plain request may take; operations are waited for apart from that.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How long an operation may take unless the caller knows better.
const OPERATION_LIMIT: Duration = Duration::from_secs(300);
/// How long one request waits for an operation before it asks again.
const WAIT_SLICE: Duration = Duration::from_secs(30);

/// A client of one Incus.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Incus {
    http: Client,
    socket: PathBuf,
}

/// What Incus answers with: a value, a background operation, or an error.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    metadata: Value,
}

/// Why a request failed, before it is a problem: callers look at the status.
struct Refusal {
    status: StatusCode,
    words: String,
}

impl Incus {
    /// A client for the Incus that listens on `socket`; nothing is sent yet.
    pub fn new(socket: &Path) -> Result<Self, Problem> {
        // reqwest asks for a TLS provider even on a Unix socket; a second installation changes nothing.
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = Client::builder()
            .unix_socket(socket)
            .no_proxy()
            // There is no TLS on a Unix socket; reading all the system's certificates would be half of a short command's time.
            .tls_certs_only([])
            // One connection for each request. Incus 6.0 takes no further connection until the newest one has sent
            // its first byte, and a pool opens spare ones that say nothing: everything hung for up to 90 s.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|e| Problem::new(Code::Internal, "the client for Incus cannot be made").because(e))?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    /// The socket that this client talks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Who answers, and whether it trusts this user.
    pub async fn server(&self) -> Result<Server, Problem> {
        self.get("").await
    }

    /// Reads the object at `path` (below `/1.0`).
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        match self.find(path).await? {
            Some(value) => Ok(value),
            None => Err(self.refused(&Method::GET, path, "not found")),
        }
    }

    /// Reads the list at `path`.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Problem> {
        self.get::<Option<Vec<T>>>(path).await.map(Option::unwrap_or_default)
    }

    /// Reads the object at `path`; `None` when there is none.
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Problem> {
        let request = self.request(Method::GET, path).timeout(REQUEST_LIMIT);
        match self.answer(&Method::GET, path, request).await? {
            Ok(envelope) => self.read(path, envelope.metadata).map(Some),
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
            Err(refusal) => Err(self.refused(&Method::GET, path, &refusal.words)),
        }
    }

    /// Sends `body` and waits for the operation that it starts, if any; returns what the operation tells.
    pub async fn send(&self, method: Method, path: &str, body: &(impl Serialize + ?Sized)) -> Result<Value, Problem> {
        let request = self.request(method.clone(), path).json(body).timeout(REQUEST_LIMIT);
        self.finish(&method, path, request).await
    }

    /// Deletes the object at `path`; returns whether there was one.
    pub async fn delete(&self, path: &str) -> Result<bool, Problem> {
        let request = self.request(Method::DELETE, path).timeout(REQUEST_LIMIT);
        match self.answer(&Method::DELETE, path, request).await? {
            Ok(envelope) => self.wait(&Method::DELETE, path, envelope).await.map(|_| true),
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(false),
            Err(refusal) => Err(self.refused(&Method::DELETE, path, &refusal.words)),
        }
    }

    /// A request that the caller completes, as for files and images.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://incus/1.0{path}"))
    }

    /// Sends a completed request and waits for its operation.
    pub(super) async fn finish(&self, method: &Method, path: &str, request: RequestBuilder) -> Result<Value, Problem> {
        match self.answer(method, path, request).await? {
            Ok(envelope) => self.wait(method, path, envelope).await,
            Err(refusal) => Err(self.refused(method, path, &refusal.words)),
        }
    }

    /// Reads a file that Incus serves as it is; `None` when there is none.
    pub(super) async fn text(&self, path: &str) -> Result<Option<String>, Problem> {
        let request = self.request(Method::GET, path).timeout(REQUEST_LIMIT);
        let response = request.send().await.map_err(|e| self.unreachable(path, e))?;
        let status = response.status();
        let text = response.text().await.map_err(|e| self.unreachable(path, e))?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(text)),
            _ => Err(self.refused(&Method::GET, path, &error_words(&text))),
        }
    }

    async fn answer(
        &self,
        method: &Method,
        path: &str,
        request: RequestBuilder,
    ) -> Result<Result<Envelope, Refusal>, Problem> {
        let response = request.send().await.map_err(|e| self.unreachable(path, e))?;
        let status = response.status();
        let text = response.text().await.map_err(|e| self.unreachable(path, e))?;
        if !status.is_success() {
            return Ok(Err(Refusal { status, words: error_words(&text) }));
        }
        serde_json::from_str(&text)
            .map(Ok)
            .map_err(|e| self.refused(method, path, "the answer is not Incus's").because(e))
    }

    async fn wait(&self, method: &Method, path: &str, envelope: Envelope) -> Result<Value, Problem> {
        if envelope.kind != "async" {
            return Ok(envelope.metadata);
        }
        let id = envelope.operation.rsplit('/').next().unwrap_or_default().to_owned();
        let wait = format!("/operations/{id}/wait?timeout={}", WAIT_SLICE.as_secs());
        let end = Instant::now() + OPERATION_LIMIT;
        while Instant::now() < end {
            let request = self.request(Method::GET, &wait).timeout(REQUEST_LIMIT);
            let done = match self.answer(&Method::GET, &wait, request).await? {
                // Time was up: the answer is empty, ask again.
                Ok(envelope) if envelope.metadata.is_null() => continue,
                Ok(envelope) => self.read::<Operation>(&wait, envelope.metadata)?,
                Err(refusal) => return Err(self.refused(method, path, &refusal.words)),
            };
            match done.status_code {
                200 => return Ok(done.metadata),
                code if code >= 400 => return Err(self.refused(method, path, &done.err)),
                _ => {}
            }
        }
        let words = format!("the operation did not end within {} s", OPERATION_LIMIT.as_secs());
        Err(self.refused(method, path, &words))
    }

    fn read<T: DeserializeOwned>(&self, path: &str, value: Value) -> Result<T, Problem> {
        serde_json::from_value(without_nulls(value))
            .map_err(|e| self.refused(&Method::GET, path, "the answer has another shape than expected").because(e))
    }

    fn refused(&self, method: &Method, path: &str, words: &str) -> Problem {
        let path = path.split('?').next().unwrap_or_default();
        Problem::new(Code::EngineCall, format!("Incus refused {method} /1.0{path}")).detail([words.trim()])
    }

    fn unreachable(&self, path: &str, error: reqwest::Error) -> Problem {
        let what = format!("Incus at {} did not answer for /1.0{path}", self.socket.display());
        Problem::new(Code::EngineCall, what).because(error.without_url())
    }
}

/// Incus's own words out of an error answer; the raw text when it is not an envelope.
fn error_words(text: &str) -> String {
    match serde_json::from_str::<Envelope>(text) {
        Ok(envelope) if !envelope.error.is_empty() => envelope.error,
        _ => text.trim().to_owned(),
    }
}

/// Incus writes `null` for empty lists and maps; a missing member says the same and has a default.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(kept.map(|(k, v)| (k, without_nulls(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answer_yields_incus_own_words() {
        let text = r#"{"type":"error","status":"","status_code":0,"operation":"","error_code":404,"error":"Instance not found","metadata":null}"#;
        assert_eq!(error_words(text), "Instance not found");
        assert_eq!(error_words("<html>"), "<html>");
    }

    #[test]
    fn empty_lists_and_maps_come_as_null() {
        let json: Value = serde_json::from_str(r#"[{"config":null,"name":"a"},[null]]"#).unwrap();
        assert_eq!(without_nulls(json).to_string(), r#"[{"name":"a"},[null]]"#);
    }

    #[test]
    fn an_operation_is_read_with_its_error() {
        let text = r#"{"id":"a-b","class":"task","status":"Failure","status_code":400,"may_cancel":false,
            "err":"Failed to start device","location":"none","metadata":null}"#;
        let operation: Operation = serde_json::from_str(text).unwrap();
        assert_eq!((operation.status_code, operation.err.as_str()), (400, "Failed to start device"));
    }
}

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Config;
use crate::{
    core::{Code, Problem, Secret},
    hub::gate::{
        Accepted, Events, Heartbeat, HeartbeatAnswer, HubAddress, NoClient, SignedPlan, foreign_line,
        is_readable_on_the_way, loopback_port,
    },
};

/// The way to the hub.
///
/// The agent does its work without it.
#[async_trait]
pub trait HubLink: Send + Sync {
    /// The newest plan.
    async fn plan(&self) -> Result<SignedPlan, Problem>;

    /// Tells what happened; the hub takes each number once, so telling twice does no harm.
    async fn events(&self, events: &Events) -> Result<Accepted, Problem>;

    /// Tells that the agent lives, and asks what time it is.
    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Problem>;
}

/// The hub's API over HTTP(S) or a Unix socket.
pub struct HttpLink {
    client: Client,
    base: String,
    token: Secret,
}

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 8 << 20;

/// Where the hub has the agent's plan.
const PLAN: &str = "/api/v1/agent/plan";

/// Asks the hub of a configuration whether it answers, by all that the agent goes by but its token: whoever uses a new one
/// ends that of the agent that runs.
///
/// Fails as the agent itself would, and where what answers is no hub; a configuration that names none has nothing to reach.
pub async fn reach_hub(config: &Config) -> Result<(), Problem> {
    let Some((client, base)) = way(config)? else { return Ok(()) };
    let hub = config.hub.as_deref().unwrap_or_default();
    let asked = format!("GET {PLAN}");
    let answered = answer(client.get(format!("{base}{PLAN}")), &asked).await;
    let (status, bytes) = answered.map_err(|problem| may_be_meant(hub, problem))?;
    // Without a token the hub refuses, in its own way.
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if said["code"].as_str().is_some_and(|code| code.starts_with("KC-")) {
        return Ok(());
    }
    let what = format!("what answers {asked} with {status} is no hub");
    Err(may_be_meant(hub, Problem::new(Code::GateLink, what).detail([foreign_line(&bytes)])))
}

/// What may be wrong with the address of a hub that does not answer.
fn may_be_meant(hub: &str, problem: Problem) -> Problem {
    if problem.detail.iter().any(|line| line.contains("UnknownIssuer")) {
        return problem.hint("Name the authority of the hub's certificate: hub enroll --hub-ca FILE.");
    }
    match loopback_port(hub) {
        Some(_) => problem.hint(format!(
            "On a server {hub} is the server itself: give hub enroll --hub an address that the server reaches."
        )),
        None => problem.hint(format!("See that the server reaches {hub}: its name, and what filters are on the way.")),
    }
}

/// A client for the hub of a configuration, and what stands before the path of all that it is asked; none where there is no
/// hub.
fn way(config: &Config) -> Result<Option<(Client, String)>, Problem> {
    let Some(hub) = &config.hub else { return Ok(None) };
    let wrong = |why: &str| Problem::new(Code::GateConfig, format!("hub: {hub} {why}"));
    if !config.insecure && is_readable_on_the_way(hub) {
        return Err(wrong("is plain HTTP to another computer: whoever is on the way reads the token")
            .hint("Use https://, or add `insecure: true` where the network itself is trusted."));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = HubAddress::parse(hub).ok_or_else(|| wrong("is neither https://..., http://... nor unix:/path"))?;
    let authority = config.hub_ca.as_ref().map(std::fs::read).transpose();
    let authority = authority.map_err(|e| wrong("has no readable hub-ca").because(e))?;
    let client = address.client(LIMIT, authority.as_deref()).map_err(|why| match why {
        NoClient::Damaged(e) => wrong("has no sound hub-ca").because(e),
        NoClient::NoCertificate => wrong("has a hub-ca without any certificate"),
        NoClient::Unbuilt(e) => wrong("cannot be asked").because(e),
    })?;
    Ok(Some((client, address.base().to_owned())))
}

fn lost(asked: &str) -> Problem {
    Problem::new(Code::GateLink, format!("the hub does not answer {asked}"))
}

/// The status and body of an answer to what was asked.
async fn answer(request: RequestBuilder, asked: &str) -> Result<(StatusCode, Vec<u8>), Problem> {
    let mut answer = request.send().await.map_err(|e| lost(asked).because(e.without_url()))?;
    let (status, mut bytes) = (answer.status(), vec![]);
    while let Some(chunk) = answer.chunk().await.map_err(|e| lost(asked).because(e.without_url()))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST {
            return Err(lost(asked).detail(["its answer is too long"]));
        }
    }
    Ok((status, bytes))
}

impl HttpLink {
    /// The link of a configuration; `None` when it names no hub.
    pub fn of(config: &Config) -> Result<Option<Self>, Problem> {
        let Some((client, base)) = way(config)? else { return Ok(None) };
        Ok(Some(Self { client, base, token: config.token()? }))
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Problem> {
        let asked = format!("{method} {path}");
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        request = request.bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let (status, bytes) = answer(request, &asked).await?;
        if status != StatusCode::OK {
            let what = format!("the hub answers {asked} with {status}");
            return Err(Problem::new(Code::GateLink, what).detail([foreign_line(&bytes)]));
        }
        serde_json::from_slice(&bytes).map_err(|e| lost(&asked).detail(["its answer cannot be read"]).because(e))
    }
}

#[async_trait]
impl HubLink for HttpLink {
    async fn plan(&self) -> Result<SignedPlan, Problem> {
        self.ask::<(), _>(Method::GET, PLAN, None).await
    }

    async fn events(&self, events: &Events) -> Result<Accepted, Problem> {
        self.ask(Method::POST, "/api/v1/agent/events", Some(events)).await
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Problem> {
        self.ask(Method::POST, "/api/v1/agent/heartbeat", Some(heartbeat)).await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::hub::gate::HubKey;

    #[test]
    fn a_token_is_not_sent_in_clear_to_another_computer() {
        let dir = tempfile::tempdir().unwrap();
        let (file, token) = (dir.path().join("agent.yaml"), dir.path().join("token"));
        let key = HubKey::generate("plan").unwrap().public_line().unwrap();
        std::fs::write(&token, "kct_abc\n").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let linked = |more: &str| {
            let text = format!("server: s1\nplan-key: {key}\ntoken-file: {}\n{more}\n", token.display());
            std::fs::write(&file, text).unwrap();
            HttpLink::of(&Config::load(&file).unwrap()).map(|link| link.is_some()).map_err(|p| p.code)
        };
        assert_eq!(linked("hub: http://192.0.2.7"), Err(Code::GateConfig));
        assert_eq!(linked("hub: http://192.0.2.7\ninsecure: true"), Ok(true));
        assert_eq!(linked("hub: http://127.0.0.1:8420"), Ok(true));
        assert_eq!(linked("hub: https://hub.example.org"), Ok(true));
        assert_eq!(linked(""), Ok(false));
        let none = dir.path().join("none.pem");
        std::fs::write(&none, "no certificate\n").unwrap();
        assert_eq!(linked(&format!("hub: https://x\nhub-ca: {}", none.display())), Err(Code::GateConfig));
    }

    #[tokio::test]
    async fn what_answers_is_a_hub_or_not_and_hears_no_token() {
        use std::{
            io::{Read, Write},
            net::TcpListener,
        };
        let key = HubKey::generate("plan").unwrap().public_line().unwrap();
        let at = |hub: &str| {
            let text = format!("server: s1\nplan-key: {key}\ntoken-file: /nonexistent\nhub: {hub}\n");
            Config::parse(&text, "a test").unwrap()
        };
        let asked = async |says: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let hub = at(&format!("http://{}", listener.local_addr().unwrap()));
            let served = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut heard = [0; 4096];
                let heard_bytes = stream.read(&mut heard).unwrap();
                let length = says.len();
                let head = format!("HTTP/1.1 401 No\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                stream.write_all(format!("{head}{says}").as_bytes()).unwrap();
                String::from_utf8_lossy(&heard[..heard_bytes]).into_owned()
            });
            let reached = reach_hub(&hub).await;
            (reached, served.join().unwrap())
        };
        let (reached, heard) = asked(r#"{"code": "KC-HUB-SIGN-IN"}"#).await;
        assert!(reached.is_ok() && heard.starts_with("GET /api/v1/agent/plan "), "{reached:?} {heard}");
        assert!(!heard.to_ascii_lowercase().contains("authorization"), "{heard}");
        for other in ["<html>", "{}", r#"{"code": 7}"#] {
            let problem = asked(other).await.0.unwrap_err();
            assert!(problem.code == Code::GateLink && problem.what.ends_with("is no hub"), "{other} {problem}");
        }
        // Nobody listens where a listener was a moment ago.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let problem = reach_hub(&at(&format!("http://{gone}"))).await.unwrap_err();
        assert!(problem.code == Code::GateLink && problem.all_hints()[0].contains("the server itself"), "{problem:?}");
        let none = Config::parse(&format!("server: s1\nplan-key: {key}\n"), "a test").unwrap();
        assert!(reach_hub(&none).await.is_ok());
    }
}

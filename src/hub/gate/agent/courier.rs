use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use super::Config;
use crate::{
    core::{Code, Problem, Secret},
    hub::gate::{
        Accepted, Events, Heartbeat, HeartbeatAnswer, HubAddress, NoClient, SignedPlan, foreign_line,
        is_readable_on_the_way,
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

impl HttpLink {
    /// The link of a configuration; `None` when it names no hub.
    pub fn of(config: &Config) -> Result<Option<Self>, Problem> {
        let Some(hub) = &config.hub else { return Ok(None) };
        let wrong = |why: &str| Problem::new(Code::GateConfig, format!("hub: {hub} {why}"));
        if !config.insecure && is_readable_on_the_way(hub) {
            return Err(wrong("is plain HTTP to another computer: whoever is on the way reads the token")
                .hint("Use https://, or add `insecure: true` where the network itself is trusted."));
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address =
            HubAddress::parse(hub).ok_or_else(|| wrong("is neither https://..., http://... nor unix:/path"))?;
        let authority = config.hub_ca.as_ref().map(std::fs::read).transpose();
        let authority = authority.map_err(|e| wrong("has no readable hub-ca").because(e))?;
        let client = address.client(LIMIT, authority.as_deref()).map_err(|why| match why {
            NoClient::Damaged(e) => wrong("has no sound hub-ca").because(e),
            NoClient::NoCertificate => wrong("has a hub-ca without any certificate"),
            NoClient::Unbuilt(e) => wrong("cannot be asked").because(e),
        })?;
        Ok(Some(Self { client, base: address.base().to_owned(), token: config.token()? }))
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Problem> {
        let lost = || Problem::new(Code::GateLink, format!("the hub does not answer {method} {path}"));
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base));
        request = request.bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(|e| lost().because(e.without_url()))?;
        let status = answer.status();
        let mut bytes = vec![];
        while let Some(chunk) = answer.chunk().await.map_err(|e| lost().because(e.without_url()))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST {
                return Err(lost().detail(["its answer is too long"]));
            }
        }
        if status != StatusCode::OK {
            let what = format!("the hub answers {method} {path} with {status}");
            return Err(Problem::new(Code::GateLink, what).detail([foreign_line(&bytes)]));
        }
        serde_json::from_slice(&bytes).map_err(|e| lost().detail(["its answer cannot be read"]).because(e))
    }
}

#[async_trait]
impl HubLink for HttpLink {
    async fn plan(&self) -> Result<SignedPlan, Problem> {
        self.ask::<(), _>(Method::GET, "/api/v1/agent/plan", None).await
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
}

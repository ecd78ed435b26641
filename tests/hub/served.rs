//! A hub that is really served on loopback, with a clock that tests set.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk},
        domain::{Epoch, Policy},
        http::{AppState, Clock, GateKeys, Listen, Serving, Site, serve},
        store::{Store, TokenKind},
    },
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::world::{NOW, camp, generous, who};

pub struct Hub {
    pub base: String,
    pub desk: Desk,
    pub client: Client,
    pub stop: CancellationToken,
    pub site: Arc<Site>,
    now: Arc<AtomicI64>,
    _folder: tempfile::TempDir,
}

impl Hub {
    pub async fn start() -> Self {
        Self::with(&generous(), 0).await
    }

    /// As [`Hub::start`], on a database of the caller's, which is empty.
    pub async fn on(url: &str) -> Self {
        Self::serve(url, tempfile::tempdir().unwrap(), &generous(), 0).await
    }

    /// A hub with `amy`, `bob`, `cem` (red), `dan` (blue) and the teacher `tea`, and the server `one`.
    pub async fn with(policy: &Policy, rate: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("hub.db").display());
        Self::serve(&url, folder, policy, rate).await
    }

    async fn serve(url: &str, folder: tempfile::TempDir, policy: &Policy, rate: u32) -> Self {
        let desk = Desk::new(Store::open(url).await.unwrap());
        camp(&desk, policy).await;
        let now = Arc::new(AtomicI64::new(NOW.0));
        let clock = Arc::clone(&now);
        let mut site = Site::new(None, false, false, rate);
        site.keys = Some(GateKeys::in_folder(&folder.path().join("keys")).unwrap());
        let clock = Clock::new(move || Epoch(clock.load(Ordering::SeqCst)));
        let site = Arc::new(site);
        let state = AppState { desk: desk.clone(), clock, site: Arc::clone(&site) };
        let listen: Listen = "127.0.0.1:0".parse().unwrap();
        let serving = Serving::bind(&listen, None).await.unwrap();
        let base = format!("http://{}", serving.listen);
        let stop = CancellationToken::new();
        tokio::spawn(serve(serving, state, stop.clone()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { base, desk, client, stop, site, now, _folder: folder }
    }

    pub fn set_now(&self, now: Epoch) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    pub async fn token(&self, login: &str) -> String {
        let made = self.desk.make_token(&who(login), NOW, TokenKind::Api, "test").await.unwrap();
        made.text.expose().to_owned()
    }

    /// A token of the agent on this server.
    pub async fn agent(&self, server: &str) -> String {
        let made = self.desk.make_agent_token(&Caller::Console, NOW, &server.parse().unwrap()).await.unwrap();
        made.text.expose().to_owned()
    }

    pub async fn admin(&self) -> String {
        use kubecamp::hub::{desk::NewPerson, domain::Role};
        let id = "root-ann".parse().unwrap();
        let new = NewPerson { id, name: "Ann".into(), role: Role::Admin, active: None, zone: None, keys: vec![] };
        match self.desk.put_person(&Caller::Console, NOW, &new, None).await {
            Ok(_) => {}
            Err(problem) => assert_eq!(problem.code, Code::HubExists),
        }
        let caller = Caller::Person { id: new.id, role: Role::Admin };
        let made = self.desk.make_token(&caller, NOW, TokenKind::Api, "test").await.unwrap();
        made.text.expose().to_owned()
    }

    pub fn ask(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        if token.is_empty() { request } else { request.bearer_auth(token) }
    }

    pub async fn get(&self, path: &str, token: &str) -> Value {
        let answer = self.ask(Method::GET, path, token).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> Response {
        self.ask(Method::POST, path, token).json(body).send().await.unwrap()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The status and the code of a refusal; it must be a whole problem document.
pub async fn refused(answer: Response) -> (u16, String, Value) {
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(kind, "application/problem+json", "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert!(!body["hints"].as_array().unwrap().is_empty() && body["title"].is_string(), "{body}");
    (status, body["code"].as_str().unwrap().to_owned(), body)
}

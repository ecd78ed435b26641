//! Somebody at a browser without scripts, who is signed in at a served hub.

use kubecamp::hub::desk::Caller;
use reqwest::{Method, Response, StatusCode, header};

use crate::hub::{served::Hub, world::NOW};

/// Somebody who is signed in with a cookie.
pub struct Browser<'a> {
    pub hub: &'a Hub,
    pub cookie: String,
    /// What the pages put into each form.
    pub csrf: String,
}

/// The value of a field of a form.
pub fn field(page: &str, name: &str) -> String {
    let value = page.split(&format!("name=\"{name}\" value=\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("there is no field {name}: {page}")).to_owned()
}

impl<'a> Browser<'a> {
    pub async fn sign_in(hub: &'a Hub, login: &str) -> Self {
        let link = hub.desk.make_link(&Caller::Console, NOW, &login.parse().unwrap()).await.unwrap();
        let session = hub.desk.use_link(NOW, &link.text, "browser").await.unwrap();
        let cookie = format!("kubecamp={}", session.text.expose());
        let mut browser = Self { hub, cookie, csrf: String::new() };
        browser.csrf = field(&browser.page("/").await, "csrf");
        browser
    }

    pub fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.hub.ask(method, path, "").header(header::ACCEPT, "text/html");
        request.header(header::COOKIE, &self.cookie)
    }

    pub async fn page(&self, path: &str) -> String {
        let answer = self.ask(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([("csrf", self.csrf.as_str())]).collect();
        self.send(path, &fields).await
    }

    /// As [`Browser::post`], without what the pages put into each form.
    pub async fn send(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let mut body = reqwest::Url::parse("http://form/").unwrap();
        body.query_pairs_mut().extend_pairs(fields);
        let kind = "application/x-www-form-urlencoded";
        let request = self.ask(Method::POST, path).header(header::CONTENT_TYPE, kind);
        request.body(body.query().unwrap_or_default().to_owned()).send().await.unwrap()
    }
}

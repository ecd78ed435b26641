use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, AppState, Client, Form, OpenForm, Refused, Session, cookie_of, no_cookie},
    Civil, Words, draw,
    failure::Trouble,
    visit::{Frame, Visit, go, html, lang_of},
};
use crate::{
    core::{Problem, Secret},
    hub::{domain::Zone, store::TokenKind},
};

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct SignIn {
    trouble: Option<Trouble>,
}

/// `GET /sign-in`: takes a one-time code.
///
/// The link carries it after `#`, which browsers send to nobody: so it stands in no log, and a program that opens links in
/// mails does not use it up. The script puts it into the field.
pub(super) async fn show(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
) -> Answer<Response> {
    if session.is_some() {
        return Ok(go("/"));
    }
    open(&state, &headers, &SignIn::default())
}

fn open(state: &AppState, headers: &HeaderMap, values: &SignIn) -> Answer<Response> {
    let lang = lang_of(headers);
    let mut response =
        html(draw::draw("sign_in.html", Words::of(lang), &Frame::open(lang, "/sign-in", state.now()), values)?);
    if let Some(trouble) = &values.trouble {
        *response.status_mut() = axum::http::StatusCode::from_u16(trouble.status).unwrap_or_default();
    }
    Ok(response)
}

#[derive(Deserialize)]
pub(super) struct CodeForm {
    code: String,
}

/// `POST /sign-in`: uses the code up and signs the browser in.
pub(super) async fn sign_in(
    State(state): State<AppState>,
    client: Client,
    headers: HeaderMap,
    OpenForm(form): OpenForm<CodeForm>,
) -> Answer<Response> {
    if let Err(seconds) = state.site.sign_ins.take(&client.0) {
        let problem = Problem::new(crate::core::Code::HubTooMany, format!("try again in {seconds} s"));
        return Err(Refused { retry: Some(seconds), ..problem.into() });
    }
    // Whoever pastes the whole link means the code in it.
    let code = form.code.trim();
    let code = Secret::new(code.rsplit('#').next().unwrap_or(code));
    let now = state.now();
    match state.desk.use_link(now, &code, "browser").await {
        Ok(made) => {
            let mut response = go("/");
            response.headers_mut().append(header::SET_COOKIE, cookie_of(&state.site, &made, now));
            Ok(response)
        }
        Err(problem) => {
            let status = Refused::from(problem.clone()).status();
            let civil = Civil { zone: Zone::utc(), lang: lang_of(&headers) };
            let trouble = Some(Trouble::new(&problem, status.as_u16(), &civil));
            open(&state, &headers, &SignIn { trouble })
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

/// `POST /sign-out`.
pub(super) async fn sign_out(State(state): State<AppState>, Form(session, _): Form<Nothing>) -> Answer<Response> {
    state.desk.sign_out(&session.caller, state.now(), &session.token).await?;
    let mut response = go("/sign-in");
    response.headers_mut().append(header::SET_COOKIE, no_cookie(&state.site));
    Ok(response)
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Calendar {
    /// The feed's address, right after it was made; it cannot be shown again.
    link: Option<String>,
}

/// `GET /calendar`: what a feed is, and a button that makes one.
pub(super) async fn calendar(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    Visit::of(&state, &session, &headers, "/calendar").await?.page("calendar.html", &Calendar::default())
}

/// `POST /calendar`: makes a feed; the one before ends.
pub(super) async fn make_calendar(
    State(state): State<AppState>,
    headers: HeaderMap,
    Form(session, _): Form<Nothing>,
) -> Answer<Response> {
    let visit = Visit::of(&state, &session, &headers, "/calendar").await?;
    let made =
        state.desk.make_token_with(&visit.caller, visit.now, TokenKind::Feed, "calendar", &session.token).await?;
    let link = format!("{}/calendar/{}/slots.ics", site_of(&state, &headers), made.text.expose());
    visit.page("calendar.html", &Calendar { link: Some(link) })
}

/// The address that people type: the configured one, else what this browser used.
pub(super) fn site_of(state: &AppState, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("localhost");
    let scheme = if state.site.secure { "https" } else { "http" };
    state.site.public_url.clone().unwrap_or_else(|| format!("{scheme}://{host}"))
}

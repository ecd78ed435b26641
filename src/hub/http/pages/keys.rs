use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, AppState, Form, Refused, Session},
    failure::Trouble,
    visit::{Visit, go},
};
use crate::core::Class;

/// One's own SSH keys, a line each.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Keys {
    keys: String,
    version: String,
    trouble: Option<Trouble>,
}

/// `GET /keys`: the keys that sign in at the terminal and open the labs' machines.
pub(super) async fn show(
    State(state): State<AppState>,
    session: Option<Session>,
    headers: HeaderMap,
) -> Answer<Response> {
    let Some(session) = session else { return Ok(go("/sign-in")) };
    let visit = Visit::of(&state, &session, &headers, "/keys").await?;
    let person = state.desk.person(&visit.caller, visit.now, session.person()?).await?;
    let keys = Keys { keys: person.keys.join("\n"), version: person.version.to_string(), trouble: None };
    visit.page("keys.html", &keys)
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeysForm {
    keys: String,
    version: String,
}

/// `POST /keys`: replaces them, or says why not and shows what was typed.
pub(super) async fn save(
    State(state): State<AppState>,
    headers: HeaderMap,
    Form(session, form): Form<KeysForm>,
) -> Answer<Response> {
    let visit = Visit::of(&state, &session, &headers, "/keys").await?;
    let lines = form.keys.lines().map(str::trim).filter(|l| !l.is_empty());
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    let (version, token) = (form.version.parse().ok(), Some(&session.token));
    match state.desk.set_own_keys(&visit.caller, visit.now, &keys, version, token).await {
        Ok(_) => Ok(go("/keys")),
        Err(problem) if matches!(problem.code.class(), Class::Connect | Class::Internal) => Err(problem.into()),
        Err(problem) => {
            let status = Refused::from(problem.clone()).status();
            let trouble = Some(Trouble::new(&problem, status.as_u16(), &visit.civil));
            visit.page_with(status, "keys.html", &Keys { keys: form.keys, version: form.version, trouble })
        }
    }
}

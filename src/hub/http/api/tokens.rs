use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    core::{Code, Problem, Secret},
    hub::{
        desk::{Challenge, MadeToken},
        domain::PersonId,
        http::{Answer, ApiJson, ApiPath, AppState, Client, NoOnceKey, Refused, Session},
        store::{TokenKind, TokenRow},
    },
};

/// A token as it is handed over, once.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Made {
    /// The text; only its hash is kept.
    token: String,
    /// What is known of it.
    row: TokenRow,
    /// Where to use it, for feeds and sign-in links, when the hub knows its own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Made {
    pub(super) fn of(made: &MadeToken) -> Self {
        Self { token: made.text.expose().to_owned(), row: made.row.clone(), url: None }
    }

    /// With its address: a feed's is a path; a link's token stands behind `#`, so that no server ever logs it.
    pub(super) fn with_url(made: &MadeToken, state: &AppState) -> Self {
        let path = match made.row.kind {
            TokenKind::Feed => Some(format!("/calendar/{}/slots.ics", made.text.expose())),
            TokenKind::Link => Some(format!("/sign-in#{}", made.text.expose())),
            _ => None,
        };
        let url = path.map(|path| format!("{}{path}", state.site.public_url.as_deref().unwrap_or_default()));
        Self { url, ..Self::of(made) }
    }
}

/// A token to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// `api` for scripts, 90 days; `feed` for a calendar, until revoked.
    kind: TokenKind,
    /// What its owner calls it.
    #[serde(default)]
    label: String,
}

/// One's own tokens; never their text.
#[utoipa::path(get, operation_id = "tokens_list", path = "/api/v1/tokens", tag = "tokens", responses(
    (status = 200, body = Vec<TokenRow>),
    Refused,
))]
pub(super) async fn list(State(state): State<AppState>, session: Session) -> Answer<Json<Vec<TokenRow>>> {
    Ok(Json(state.desk.tokens(&session.caller, state.now(), session.person()?).await?))
}

/// Makes a token for scripts or for a calendar feed.
///
/// It takes no Idempotency-Key, since only the token's hash is kept.
#[utoipa::path(post, operation_id = "tokens_add", path = "/api/v1/tokens", tag = "tokens", request_body = NewToken, responses(
    (status = 201, body = Made),
    Refused,
))]
pub(super) async fn add(
    State(state): State<AppState>,
    session: Session,
    _no_key: NoOnceKey,
    ApiJson(new): ApiJson<NewToken>,
) -> Answer<(StatusCode, Json<Made>)> {
    let made = state.desk.make_token_with(&session.caller, state.now(), new.kind, &new.label, &session.token).await?;
    Ok((StatusCode::CREATED, Json(Made::with_url(&made, &state))))
}

/// Revokes a token: one's own, or anybody's for an admin.
#[utoipa::path(delete, operation_id = "tokens_revoke", path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)), responses(
    (status = 204),
    Refused,
))]
pub(super) async fn revoke(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<String>,
) -> Answer<StatusCode> {
    if id.len() > 40 || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let none = Problem::new(Code::HubUnknown, "there is no such token");
        return Err(none.hint("kubecamp hub token ls names yours.").into());
    }
    state.desk.revoke(&session.caller, state.now(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a one-time sign-in link for somebody, good for 15 minutes. For teachers.
///
/// It takes no Idempotency-Key, since only the link's hash is kept.
#[utoipa::path(post, operation_id = "tokens_link", path = "/api/v1/people/{id}/link", tag = "sign-in", params(("id" = PersonId, Path)), responses(
    (status = 201, body = Made),
    Refused,
))]
pub(super) async fn link(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<PersonId>,
    _no_key: NoOnceKey,
) -> Answer<(StatusCode, Json<Made>)> {
    let made = state.desk.make_link_with(&session.caller, state.now(), &id, &session.token).await?;
    Ok((StatusCode::CREATED, Json(Made::with_url(&made, &state))))
}

/// Somebody's tokens. For teachers and for oneself.
#[utoipa::path(get, operation_id = "tokens_of_person", path = "/api/v1/people/{id}/tokens", tag = "tokens", params(("id" = PersonId, Path)), responses(
    (status = 200, body = Vec<TokenRow>),
    Refused,
))]
pub(super) async fn of_person(
    State(state): State<AppState>,
    session: Session,
    ApiPath(id): ApiPath<PersonId>,
) -> Answer<Json<Vec<TokenRow>>> {
    Ok(Json(state.desk.tokens(&session.caller, state.now(), &id).await?))
}

/// Who wants to sign in.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asking {
    /// The login.
    person: PersonId,
}

/// A signed challenge.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Signed {
    /// The challenge's text, as it was given.
    challenge: String,
    /// An SSH signature of it in PEM, namespace `kubecamp-login`.
    signature: String,
    /// What the token is called, as a computer's name.
    #[serde(default)]
    label: String,
}

/// A one-time link.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    /// Its token: what stands behind `#`.
    link: String,
}

/// Counts a try to sign in against the client; too many are refused whoever they are for.
fn counted(state: &AppState, client: &str) -> Result<(), Refused> {
    state.site.sign_ins.take(client).map_err(|seconds| {
        let problem = Problem::new(Code::HubTooMany, format!("too many tries to sign in; try again in {seconds} s"));
        Refused { retry: Some(seconds), ..problem.into() }
    })
}

/// Something to sign with one's SSH key. It does not tell whether there is such a person.
#[utoipa::path(post, operation_id = "tokens_challenge", path = "/api/v1/sign-in/challenge", tag = "sign-in", security(()), request_body = Asking, responses(
    (status = 200, body = Challenge),
    Refused,
))]
pub(super) async fn challenge(
    State(state): State<AppState>,
    client: Client,
    ApiJson(asking): ApiJson<Asking>,
) -> Answer<Json<Challenge>> {
    counted(&state, &client.0)?;
    let hub = state.site.public_url.as_deref();
    Ok(Json(state.desk.challenge(state.now(), &asking.person, hub).await?))
}

/// Trades a signed challenge for an API token. After five failures whatever is wrong is refused from there for 15
/// minutes; the right key gets in all the same.
///
/// It takes no Idempotency-Key, since only the token's hash is kept.
#[utoipa::path(post, operation_id = "tokens_answer", path = "/api/v1/sign-in/answer", tag = "sign-in", security(()), request_body = Signed, responses(
    (status = 200, body = Made),
    Refused,
))]
pub(super) async fn answer(
    State(state): State<AppState>,
    client: Client,
    _no_key: NoOnceKey,
    ApiJson(signed): ApiJson<Signed>,
) -> Answer<Json<Made>> {
    counted(&state, &client.0)?;
    let made = state.desk.answer(state.now(), &signed.challenge, &signed.signature, &signed.label, &client.0).await?;
    Ok(Json(Made::of(&made)))
}

/// Trades a one-time link for a session of 12 hours.
///
/// It takes no Idempotency-Key, since only the session's hash is kept.
#[utoipa::path(post, operation_id = "tokens_use_link", path = "/api/v1/sign-in/link", tag = "sign-in", security(()), request_body = Link, responses(
    (status = 200, body = Made),
    Refused,
))]
pub(super) async fn use_link(
    State(state): State<AppState>,
    client: Client,
    _no_key: NoOnceKey,
    ApiJson(link): ApiJson<Link>,
) -> Answer<Json<Made>> {
    counted(&state, &client.0)?;
    Ok(Json(Made::of(&state.desk.use_link(state.now(), &Secret::new(link.link), "terminal").await?)))
}

/// Ends the token or session that is used right now.
#[utoipa::path(post, operation_id = "tokens_sign_out", path = "/api/v1/sign-out", tag = "sign-in", responses(
    (status = 204),
    Refused,
))]
pub(super) async fn sign_out(State(state): State<AppState>, session: Session) -> Answer<StatusCode> {
    state.desk.sign_out(&session.caller, state.now(), &session.token).await?;
    Ok(StatusCode::NO_CONTENT)
}

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use russh::keys::HashAlg;
use serde::{Deserialize, Serialize};

use super::{
    super::{Answer, ApiPath, AppState, Form, certificate::certify},
    visit::Visit,
};
use crate::{
    core::{Code, Problem},
    hub::{
        domain::{Booking, BookingId, Server, host_and_port, name_of_key},
        gate,
    },
};

/// The way into a slot for who has ssh and no kubecamp: a certificate by a form, and what ssh is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Entry {
    /// One's keys at the hub: the line, and what it is called.
    pub keys: Vec<(String, String)>,
    /// The command.
    pub command: String,
    /// The same as lines of ssh_config.
    pub config: String,
    /// What ssh shows of the server when it asks; none where the hub was not told.
    pub prints: Vec<String>,
}

impl Entry {
    /// That of a booking for its holder, while a certificate can be had.
    pub async fn of(
        state: &AppState,
        visit: &Visit,
        booking: &Booking,
        server: Option<&Server>,
    ) -> Result<Option<Self>, Problem> {
        let lasts = booking.window.ends > visit.now && booking.ended_by.is_none();
        let holder = visit.person.as_ref().filter(|person| person.id == booking.person);
        let (true, true, Some(holder), Some(server), Some(_)) =
            (booking.state.is_usable(), lasts, holder, server, state.site.keys.as_ref())
        else {
            return Ok(None);
        };
        let host_keys = state.desk.host_keys(&visit.caller, visit.now, &server.id).await?;
        Ok(Some(Self {
            keys: holder.keys.iter().filter_map(|line| known(line)).collect(),
            command: command(booking, server),
            config: config(booking, server),
            prints: host_keys.iter().filter_map(|line| fingerprint(line)).collect(),
        }))
    }
}

/// A key of the hub, and what it is called: its comment, its kind and its fingerprint. None where ssh takes it no more.
fn known(line: &str) -> Option<(String, String)> {
    let (name, kind, print) = (name_of_key(line), line.split_whitespace().next()?, fingerprint(line)?);
    let called = if name.is_empty() { format!("{kind} {print}") } else { format!("{name} ({kind} {print})") };
    Some((line.to_owned(), called))
}

fn fingerprint(line: &str) -> Option<String> {
    Some(gate::public_key(line).ok()?.fingerprint(HashAlg::Sha256).to_string())
}

/// The file that a browser keeps.
fn file(id: &BookingId) -> String {
    format!("kubecamp-{id}-cert.pub")
}

/// Where most people have their key; whoever has another one puts it in.
const KEY: &str = "~/.ssh/id_ed25519";

/// What ssh is told on the command line.
pub(super) fn command(booking: &Booking, server: &Server) -> String {
    let (host, port) = host_and_port(&server.address);
    let port = if port == "22" { String::new() } else { format!(" -p {port}") };
    let file = file(&booking.id);
    format!("ssh -i {KEY} -o CertificateFile=~/Downloads/{file}{port} {}@{host}", booking.person)
}

/// The same as lines of ssh_config.
pub(super) fn config(booking: &Booking, server: &Server) -> String {
    let (host, port) = host_and_port(&server.address);
    let (id, person, file) = (&booking.id, &booking.person, file(&booking.id));
    format!(
        "Host kubecamp-{id}\n    HostName {host}\n    Port {port}\n    User {person}\n    IdentityFile {KEY}\n    \
         IdentitiesOnly yes\n    CertificateFile ~/Downloads/{file}"
    )
}

/// A key to be certified: pasted, or one of the hub's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyForm {
    key: String,
    known: String,
}

/// `POST /booking/{id}/certificate`: the certificate of one's own slot as a file.
pub(super) async fn certificate(
    State(state): State<AppState>,
    ApiPath(id): ApiPath<String>,
    Form(session, form): Form<KeyForm>,
) -> Answer<Response> {
    let id: BookingId = id.parse().map_err(|why: String| Problem::new(Code::HubUnknown, why))?;
    let key = [form.key.trim(), form.known.trim()].into_iter().find(|key| !key.is_empty()).unwrap_or_default();
    let made = certify(&state, &session.caller, &id, key).await?;
    let name = HeaderValue::from_str(&format!("attachment; filename=\"{}\"", file(&id)))
        .map_err(|e| Problem::new(Code::Internal, "the name of a certificate's file").because(e))?;
    let kind = HeaderValue::from_static("application/octet-stream");
    let line = format!("{}\n", made.certificate.lines().next().unwrap_or_default());
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], line).into_response())
}

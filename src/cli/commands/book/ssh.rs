use std::{fs, path::PathBuf, process::Command};

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tempfile::NamedTempFile;

use super::super::{Context, kubectl::run_in, login::public_half};
use crate::{
    cli::hub_client::HubClient,
    core::{Code, Problem, Problems},
    hub::domain::{Booking, BookingId, Person, State},
};

#[derive(Deserialize)]
struct Certificate {
    certificate: String,
    address: String,
    account: String,
    /// The keys by which the server proves itself, where the hub knows them.
    #[serde(default)]
    host_keys: Vec<String>,
}

/// The name under which ssh looks the host keys up: the hub's word counts, whatever the server's address is.
const ALIAS: &str = "kubecamp-booked-server";

/// Fetches a certificate for the slot and hands over to the system's ssh.
pub(super) async fn ssh(
    cx: &Context,
    client: &HubClient,
    id: Option<BookingId>,
    key: PathBuf,
    command: Vec<String>,
) -> Result<u8, Problems> {
    let id = match id {
        Some(id) => id,
        None => running(client).await?,
    };
    let public = public_half(&key);
    let line = fs::read_to_string(&public)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", public.display())).because(e))?;
    let path = format!("/api/v1/bookings/{id}/certificate");
    let got: Certificate = client.send(Method::POST, &path, &json!({ "key": line.trim() }), None).await?;
    // It opens nothing without the private key, and nothing after the slot; still nobody else needs to read it.
    let certificate = written("-cert.pub", &format!("{}\n", got.certificate))?;
    let known = written("-known", &known_hosts(&got.host_keys))?;
    let (host, port) = split(&got.address);
    let mut ssh = Command::new("ssh");
    ssh.arg("-o").arg(format!("CertificateFile={}", certificate.path().display()));
    if !got.host_keys.is_empty() {
        ssh.arg("-o").arg(format!("UserKnownHostsFile=\"{}\"", known.path().display()));
        ssh.arg("-o").arg(format!("HostKeyAlias={ALIAS}"));
        for option in ["GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes", "UpdateHostKeys=no"] {
            ssh.args(["-o", option]);
        }
    }
    ssh.arg("-i").arg(&key).arg("-l").arg(&got.account).arg("-p").arg(port).arg("--").arg(host).args(command);
    cx.stop.hand_over();
    Ok(run_in(None, ssh)?)
}

fn written(suffix: &str, text: &str) -> Result<NamedTempFile, Problem> {
    let fail = |e| Problem::new(Code::LocalFile, "cannot write a file for ssh").because(e);
    let file = tempfile::Builder::new().prefix("kubecamp-").suffix(suffix).tempfile().map_err(fail)?;
    fs::write(file.path(), text).map_err(fail)?;
    Ok(file)
}

/// The hub's word on who the server is, as ssh reads it.
fn known_hosts(keys: &[String]) -> String {
    keys.iter().flat_map(|key| key.lines().take(1)).map(|key| format!("{ALIAS} {key}\n")).collect()
}

/// `host`, `host:port` or `[address]:port`.
fn split(address: &str) -> (String, String) {
    if let Some((host, port)) = address.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return (host.to_owned(), port.strip_prefix(':').unwrap_or("22").to_owned());
    }
    match address.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host.to_owned(), port.to_owned()),
        _ => (address.to_owned(), "22".to_owned()),
    }
}

async fn running(client: &HubClient) -> Result<BookingId, Problem> {
    let me: Person = client.get("/api/v1/me").await?;
    let params = [("person", Some(me.id.to_string())), ("open", Some("true".to_owned()))];
    let mut all: Vec<Booking> = client.find("/api/v1/bookings", &params).await?;
    all.sort_by_key(|b| b.state != State::Active);
    let found = all.into_iter().find(|b| matches!(b.state, State::Active | State::Arming | State::Booked));
    let none = || Problem::new(Code::BookState, "you have no slot").hint("kubecamp book free shows what can be had.");
    found.map(|b| b.id).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_is_one_line_under_the_alias() {
        let keys = ["ssh-ed25519 AAAA".to_owned(), "ssh-rsa BBBB\n* ssh-rsa CCCC".to_owned()];
        let text = super::known_hosts(&keys);
        assert_eq!(text, "kubecamp-booked-server ssh-ed25519 AAAA\nkubecamp-booked-server ssh-rsa BBBB\n");
    }

    #[test]
    fn addresses_have_ports_or_not() {
        let split = |text| super::split(text);
        assert_eq!(split("h"), ("h".into(), "22".into()));
        assert_eq!(split("h:2222"), ("h".into(), "2222".into()));
        assert_eq!(split("[2001:db8::1]:22"), ("2001:db8::1".into(), "22".into()));
        assert_eq!(split("2001:db8::1"), ("2001:db8::1".into(), "22".into()));
    }
}

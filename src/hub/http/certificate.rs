use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, AppState, GateKeys};
use crate::{
    core::{Code, Problem},
    hub::{
        desk::Caller,
        domain::{BookingId, Epoch},
        gate::{self, Extras},
    },
};

/// A certificate, and where it opens the door.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Certificate {
    /// One line as in a `-cert.pub` file; good for the slot's window and its principal only.
    pub certificate: String,
    /// The server's address, with `:port` where it is not 22.
    pub address: String,
    /// The account there.
    pub account: String,
    /// When the door opens.
    pub starts: Epoch,
    /// When it closes.
    pub ends: Epoch,
    /// The keys by which the server proves itself, one OpenSSH line each; empty where the hub was not told.
    pub host_keys: Vec<String>,
}

/// The keys of the gate, where this hub has some.
pub(super) fn keys_of(state: &AppState) -> Answer<&GateKeys> {
    let none = || Problem::new(Code::HubUnknown, "this hub has no keys of a gate").hint("Start it with --keys.");
    state.site.keys.as_ref().ok_or_else(|| none().into())
}

/// Certifies a public key for one's own slot; the API and the slot's page give it by the same rules.
pub(super) async fn certify(state: &AppState, caller: &Caller, id: &BookingId, key: &str) -> Answer<Certificate> {
    let now = state.now();
    let booking = state.desk.booking(caller, now, id).await?;
    if caller.person() != Some(&booking.person) {
        return Err(Problem::new(Code::HubDenied, format!("booking {id} is not yours")).into());
    }
    let (true, Some(server)) = (booking.state.is_usable(), &booking.server) else {
        return Err(Problem::new(Code::BookState, format!("booking {id} is {}", booking.state)).into());
    };
    is_public(key)?;
    let server = state.desk.server(caller, now, server).await?;
    let (starts, ends) = (booking.window.starts, booking.window.ends);
    let slot = gate::Slot::new(id.as_str(), booking.person.as_str(), starts.0, ends.0);
    // Whether the server is a jump host to labs is its own sshd's affair.
    let extras = Extras { forwarding: true, sources: vec![] };
    let serial = u64::from(rand::random::<u32>());
    let certificate = gate::issue(&keys_of(state)?.ca, server.id.as_str(), &slot, key, serial, &extras)?;
    let host_keys = state.desk.host_keys(caller, now, &server.id).await?;
    Ok(Certificate { certificate, address: server.address, account: slot.account, starts, ends, host_keys })
}

/// Refuses the wrong one of the two files of a key by name; its owner is to know that it was sent.
fn is_public(key: &str) -> Result<(), Problem> {
    if !key.contains("PRIVATE KEY") {
        return Ok(());
    }
    Err(Problem::new(Code::GateKey, "this is a private key; only the public one is for others")
        .hint("Send the line of the .pub file. Make a new key: the private one has left your computer."))
}

use russh::keys::ssh_key::certificate::{Builder, CertType};

use super::{Epoch, HubKey, Slot, plan::public_key};
use crate::core::{Code, Problem};

/// How long before its slot a certificate is valid, in seconds: clocks differ a little, and what opens the door at the
/// start is the principals file, not the certificate.
pub const BACKDATE: Epoch = 60;

/// What a certificate allows besides logging in with a terminal.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// TCP forwarding, for servers that are the jump host to the labs' machines.
    pub forwarding: bool,
    /// Addresses and networks that it may be used from; empty is any.
    pub sources: Vec<String>,
}

/// Issues the user certificate of a slot: valid in the slot's window, for its principal only, with nothing allowed but a
/// terminal and what `extras` adds.
///
/// Returns one line as in an OpenSSH `-cert.pub` file.
pub fn issue(
    ca: &HubKey,
    server: &str,
    slot: &Slot,
    key_line: &str,
    serial: u64,
    extras: &Extras,
) -> Result<String, Problem> {
    let key = public_key(key_line)?;
    let fail =
        |e: russh::keys::ssh_key::Error| Problem::new(Code::GateKey, "the certificate cannot be issued").because(e);
    let second = |epoch: Epoch| u64::try_from(epoch.max(0)).unwrap_or(0);
    let (from, to) = (second(slot.starts - BACKDATE), second(slot.ends));
    if to <= from {
        return Err(Problem::new(Code::GateKey, "a slot without time has no certificate"));
    }
    let mut builder =
        Builder::new_with_random_nonce(&mut russh::keys::key::safe_rng(), &key, from, to).map_err(fail)?;
    builder.serial(serial).map_err(fail)?;
    builder.cert_type(CertType::User).map_err(fail)?;
    builder.key_id(format!("{} {} on {server}", slot.principal, slot.account)).map_err(fail)?;
    builder.valid_principal(&slot.principal).map_err(fail)?;
    builder.extension("permit-pty", "").map_err(fail)?;
    if extras.forwarding {
        builder.extension("permit-port-forwarding", "").map_err(fail)?;
    }
    if !extras.sources.is_empty() {
        builder.critical_option("source-address", extras.sources.join(",")).map_err(fail)?;
    }
    builder.comment(format!("kubecamp-{}", slot.principal)).map_err(fail)?;
    builder.sign(ca.private()).and_then(|c| c.to_openssh()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::Certificate;

    fn issued(slot: &Slot, extras: &Extras) -> Certificate {
        let (ca, user) = (HubKey::generate("ca").unwrap(), HubKey::generate("user").unwrap());
        let line = issue(&ca, "s1", slot, &user.public_line().unwrap(), 7, extras).unwrap();
        let certificate = Certificate::from_openssh(&line).unwrap();
        assert_eq!(certificate.signature_key(), ca.public().key_data());
        assert_eq!(certificate.public_key(), user.public().key_data());
        certificate
    }

    #[test]
    fn a_certificate_allows_its_slot_and_nothing_else() {
        let slot = Slot::new("42", "kct-a", 1_000_000, 1_003_600);
        let bare = issued(&slot, &Extras::default());
        assert_eq!((bare.valid_after(), bare.valid_before()), (1_000_000 - 60, 1_003_600));
        assert_eq!(bare.valid_principals(), ["slot-42-kct-a"]);
        assert_eq!(bare.extensions().keys().collect::<Vec<_>>(), ["permit-pty"]);
        assert!(bare.critical_options().is_empty() && bare.cert_type() == CertType::User);
        let extras = Extras { forwarding: true, sources: vec!["192.0.2.0/24".into(), "::1".into()] };
        let more = issued(&slot, &extras);
        assert_eq!(more.extensions().len(), 2);
        assert_eq!(more.critical_options().get("source-address").unwrap(), "192.0.2.0/24,::1");
    }

    #[test]
    fn only_a_public_key_gets_one() {
        let ca = HubKey::generate("ca").unwrap();
        let slot = Slot::new("42", "kct-a", 1_000_000, 1_003_600);
        let good = ca.public_line().unwrap();
        for line in ["", "ssh-ed25519 AAAA", "hello", &format!("{good}\n{good}")] {
            assert_eq!(issue(&ca, "s1", &slot, line, 1, &Extras::default()).unwrap_err().code, Code::GateKey, "{line}");
        }
    }
}

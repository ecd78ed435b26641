//! What one node gives and others use: named, and known by its form, in this one place.

use std::net::Ipv4Addr;

use crate::{core::NodeId, engine::Value};

/// By what each worker proves to the API server who it is: `worker-1=PEM worker-2=PEM`, certificate and private key in base64.
pub(super) static IDENTITIES: Value = Value { name: "identities", is_one: are_identities, by_node: true };

/// The cluster's CA certificate as one line of base64.
pub(super) static CA: Value = Value { name: "ca", is_one: is_base64, by_node: false };

/// The addresses of the probes' Services, with spaces between.
pub(super) static PROBES: Value = Value { name: "probes", is_one: are_addresses, by_node: false };

fn are_identities(text: &str) -> bool {
    let is_identity =
        |word: &str| word.split_once('=').is_some_and(|(node, pem)| node.parse::<NodeId>().is_ok() && is_base64(pem));
    !text.is_empty() && text.split(' ').all(is_identity)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty()
        && text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

fn are_addresses(text: &str) -> bool {
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    words.peek().is_some() && words.all(|word| word.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_the_form_of_a_value_is_one() {
        let judged = |value: &Value, good: &[&str], bad: &[&str]| {
            assert!(good.iter().all(|text| (value.is_one)(text)), "{good:?}");
            for text in bad.iter().chain(&["", " ", "x|;1e touch /tmp/p #", "$(reboot)", "a'b", "x\ny"]) {
                assert!(!(value.is_one)(text), "{} `{text}`", value.name);
            }
        };
        judged(
            &IDENTITIES,
            &["worker-1=LS0tLQ==", "worker-1=LS0tLS1C worker-2=LS0tLS0="],
            &["worker-1", "worker-1=", "=LS0t", "worker-1=LS0t  worker-2=LS0t", "$(reboot)=LS0t", "worker-1=LS0;"],
        );
        judged(&CA, &["LS0tLS1C", "LS0tLS0=", "LS0tLQ=="], &["LS0tL", "LS0|LS0=", "====", "LS0tL==="]);
        judged(&PROBES, &["10.96.0.21", "10.96.0.21 10.96.0.22 "], &["1.2.3.4/80;touch${IFS}/tmp/p;#", "1.2.3", "*"]);
    }
}

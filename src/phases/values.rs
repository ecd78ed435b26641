//! What one node gives and others use: named, and known by its form, in this one place.

use std::net::Ipv4Addr;

use crate::engine::Value;

/// A bootstrap token, as kubeadm makes it.
pub(super) static TOKEN: Value = Value { name: "token", is_one: is_token };

/// The cluster's CA certificate as one line of base64.
pub(super) static CA: Value = Value { name: "ca", is_one: is_base64 };

/// The addresses of the probes' Services, with spaces between.
pub(super) static PROBES: Value = Value { name: "probes", is_one: are_addresses };

/// `[a-z0-9]{6}.[a-z0-9]{16}`: the form that Kubernetes prescribes for bootstrap tokens.
fn is_token(text: &str) -> bool {
    let plain =
        |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    text.split_once('.').is_some_and(|(id, secret)| plain(id, 6) && plain(secret, 16))
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
        judged(&TOKEN, &["kc5im0.t0kent0kent0kent"], &["kc5im0t0kent0kent0kentx", "kc5im0.T0kent0kent0kent", "a.b"]);
        judged(&CA, &["LS0tLS1C", "LS0tLS0=", "LS0tLQ=="], &["LS0tL", "LS0|LS0=", "====", "LS0tL==="]);
        judged(&PROBES, &["10.96.0.21", "10.96.0.21 10.96.0.22 "], &["1.2.3.4/80;touch${IFS}/tmp/p;#", "1.2.3", "*"]);
    }
}

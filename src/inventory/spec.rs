use std::{fmt, net::Ipv6Addr, str::FromStr};

use super::HostEntry;
use crate::core::{BadPort, Code, HostForm, HostSpec, Problem, Problems};

/// A host written as `[user@]address[:port]`.
///
/// An IPv6 address with a port stands in brackets, `[2001:db8::1]:22`; without a port it needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The user, if one is named.
    pub user: Option<String>,
    /// Address, name or alias, without brackets.
    pub address: String,
    /// The port, if one is named.
    pub port: Option<u16>,
}

impl FromStr for Spec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}` is not a host: {why}");
        let spec = HostSpec::split(text);
        if spec.user.is_some_and(|user| !is_user(user)) {
            return Err(bad("the part before @ is not a user name"));
        }
        match spec.form {
            HostForm::Unclosed => return Err(bad("its [ has no ]")),
            HostForm::Bracketed if spec.host.parse::<Ipv6Addr>().is_err() => {
                return Err(bad("only IPv6 addresses stand in brackets"));
            }
            _ => {}
        }
        let port = spec.port().map_err(|why| match why {
            BadPort::NoColon => bad("after ] only :port may follow"),
            BadPort::NoNumber => bad("its port is not a number from 1 to 65535"),
        })?;
        if !is_address(spec.host) {
            return Err(bad("write it as root@192.0.2.10 or ubuntu@example.org:2222"));
        }
        Ok(Self { user: spec.user.map(str::to_owned), address: spec.host.to_owned(), port })
    }
}

/// Whether a text can be a user name; a leading hyphen is refused since ssh would read an option.
pub(super) fn is_user(text: &str) -> bool {
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !"'\"`$;&|<>(){}\\/:,".contains(c);
    // Some have an @ within, as me@corp.
    let names = text.split('@').all(|part| !part.is_empty());
    text.len() <= 64 && names && !text.starts_with('-') && text.chars().all(good)
}

/// Whether a text can be an address, name or alias.
pub(super) fn is_address(text: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    text.parse::<Ipv6Addr>().is_ok()
        || (!text.is_empty() && text.len() <= 253 && !text.starts_with(['-', '.']) && text.chars().all(name))
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostEntry::from(self.clone()).fmt(f)
    }
}

impl From<Spec> for HostEntry {
    fn from(spec: Spec) -> Self {
        Self { user: spec.user, port: spec.port, ..Self::at(spec.address) }
    }
}

/// Reads the texts of repeated `--host`; the error has every bad one.
///
/// `worker-1=root@192.0.2.11` also says which node the host becomes.
pub fn entries<S: AsRef<str>>(texts: &[S]) -> Result<Vec<HostEntry>, Problems> {
    let (mut hosts, mut bad) = (vec![], vec![]);
    for text in texts {
        match entry(text.as_ref()) {
            Ok(host) => hosts.push(host),
            Err(why) => bad.push(Problem::new(Code::HostSpec, why)),
        }
    }
    Problems::check(bad)?;
    Ok(hosts)
}

fn entry(text: &str) -> Result<HostEntry, String> {
    let Some((node, spec)) = text.split_once('=') else {
        return Ok(text.parse::<Spec>()?.into());
    };
    let node = node.parse().map_err(|error| format!("`{text}`: {error}"))?;
    Ok(HostEntry { node: Some(node), ..spec.parse::<Spec>()?.into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_written_as_for_ssh() {
        for (text, user, address, port) in [
            ("192.0.2.10", None, "192.0.2.10", None),
            ("root@192.0.2.10", Some("root"), "192.0.2.10", None),
            ("ubuntu@example.org:2222", Some("ubuntu"), "example.org", Some(2222)),
            ("node_1", None, "node_1", None),
            ("me@corp@example.org", Some("me@corp"), "example.org", None),
            ("2001:db8::1", None, "2001:db8::1", None),
            ("root@[2001:db8::1]:2222", Some("root"), "2001:db8::1", Some(2222)),
            ("[2001:db8::1]", None, "2001:db8::1", None),
        ] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!((spec.user.as_deref(), spec.address.as_str(), spec.port), (user, address, port), "{text}");
            assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec);
        }
    }

    #[test]
    fn what_is_no_host_is_refused_all_at_once() {
        let bad = [
            "",
            "@a",
            "a@",
            "root@@x",
            "@@x",
            "a:",
            "a:0",
            "a:65536",
            "a:+22",
            "a b",
            "-oProxyCommand=x@a",
            "a@-x",
            "[::1",
            "[a]:22",
            "[::1]22",
            "root@a;reboot",
            "a/b",
            "$(x)",
            "CP=a",
            "cp=",
            "a:22:22",
        ];
        let problems = entries(&bad).unwrap_err().into_vec();
        assert_eq!(problems.len(), bad.len(), "{problems:#?}");
        assert!(problems.iter().all(|p| p.code == Code::HostSpec));
    }

    #[test]
    fn a_node_may_be_named() {
        let hosts = entries(&["worker-1=root@192.0.2.11:22"]).unwrap();
        assert_eq!(hosts[0].node.as_ref().map(|n| n.as_str()), Some("worker-1"));
        assert_eq!(hosts[0].to_string(), "root@192.0.2.11:22");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
            }
        }
    }
}

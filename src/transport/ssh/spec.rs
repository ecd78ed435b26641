use std::{fmt, net::Ipv6Addr};

use crate::core::{BadPort, Code, HostForm, HostSpec, Problem, bracketed, shell::printable};

/// A host as the user writes it: `[user@]host[:port]`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The user, if one is given.
    pub user: Option<String>,
    /// A name, an ssh_config alias, or an address without brackets.
    pub host: String,
    /// The port, if one is given.
    pub port: Option<u16>,
}

impl Spec {
    /// Reads what the user wrote.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |why: &str| {
            let what = format!("`{}` is not a host: {why}", printable(text));
            Problem::new(Code::HostSpec, what)
        };
        let spec = HostSpec::split(text);
        if spec.user.is_some_and(|user| !is_user(user)) {
            return Err(bad("the user name before @ is not one"));
        }
        match spec.form {
            HostForm::Unclosed => return Err(bad("a ] is missing")),
            HostForm::Bracketed if !is_v6(spec.host) => return Err(bad("there is no IPv6 address in the brackets")),
            HostForm::Bare | HostForm::Plain if spec.host.contains(':') => {
                let rest = format!("{}{}", spec.host, spec.behind);
                return Err(bad("an IPv6 address needs brackets").hint(format!("Write it as [{rest}].")));
            }
            HostForm::Plain if !is_host(spec.host) => return Err(bad("the host name is not one")),
            _ => {}
        }
        let port = spec.port().map_err(|why| match why {
            BadPort::NoColon => bad("only :port may follow the brackets"),
            BadPort::NoNumber => bad("the port is not 1 to 65535"),
        })?;
        Ok(Self { user: spec.user.map(str::to_owned), host: spec.host.to_owned(), port })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&bracketed(&self.host))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A leading hyphen would be read as an option by tools.
fn is_user(user: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "'`\";&<>|(){}:,".contains(c);
    !user.is_empty() && !user.starts_with('-') && !user.contains(bad)
}

fn is_host(host: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() || "-_.+".contains(c);
    !host.is_empty() && host.len() <= 253 && !host.starts_with(['-', '.']) && host.chars().all(good)
}

/// An address, perhaps with a zone such as `%eth0`.
fn is_v6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').map_or((host, None), |(a, z)| (a, Some(z)));
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(user: Option<&str>, host: &str, port: Option<u16>) -> Spec {
        Spec { user: user.map(Into::into), host: host.into(), port }
    }

    #[test]
    fn reads_what_people_write() {
        let good = [
            ("alpha", spec(None, "alpha", None)),
            ("root@192.0.2.1", spec(Some("root"), "192.0.2.1", None)),
            ("ubuntu@b.example.org:2222", spec(Some("ubuntu"), "b.example.org", Some(2222))),
            ("[fe80::1%eth0]:22", spec(None, "fe80::1%eth0", Some(22))),
            ("me@corp@[::1]", spec(Some("me@corp"), "::1", None)),
            ("büro", spec(None, "büro", None)),
        ];
        for (text, wanted) in good {
            assert_eq!(Spec::parse(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        let bad = [
            "",
            "@",
            "root@",
            "@host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "host:22:22",
            "::1",
            "[::1",
            "[x]:1",
            "[::1]22",
            "-oProxyCommand=x",
            "-l@host",
            "a b",
            "host\n",
            "ho st:22",
            "a/b",
            "root@-x",
            "$(id)",
            "..",
        ];
        for text in bad {
            let problem = Spec::parse(text).unwrap_err();
            assert_eq!(problem.code, Code::HostSpec, "{text}");
            assert!(!problem.what.contains('\n'), "{text}");
        }
        assert_eq!(Spec::parse("fe80::1").unwrap_err().all_hints(), ["Write it as [fe80::1]."]);
    }

    proptest! {
        #[test]
        fn any_text_gives_a_spec_or_a_problem(text in "\\PC{0,40}") {
            if let Ok(spec) = Spec::parse(&text) {
                prop_assert!(!spec.host.is_empty() && !spec.host.starts_with('-'));
                prop_assert_eq!(Spec::parse(&spec.to_string()).unwrap(), spec);
            }
        }

        #[test]
        fn what_is_shown_reads_back(user in proptest::option::of("[a-z][a-z0-9_.]{0,8}"),
                                    host in "[a-z0-9][a-z0-9.-]{0,20}", port in proptest::option::of(1u16..)) {
            let spec = Spec { user, host, port };
            prop_assert_eq!(Spec::parse(&spec.to_string()).unwrap(), spec);
        }
    }
}

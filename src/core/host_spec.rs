use std::{borrow::Cow, net::Ipv6Addr};

/// A host as people write it, `[user@]host[:port]`, taken apart.
///
/// Any text can be: what a user and a host may be, and in which words another one is refused, each reader says itself. The
/// form is that of OpenSSH's `ssh`, with the brackets of RFC 3986 around an IPv6 address that has a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSpec<'a> {
    /// What stands before the last `@`, as SSH reads it: a user of a Windows domain may have one in its name.
    pub user: Option<&'a str>,
    /// The host, without the brackets around it.
    pub host: &'a str,
    /// How the host is written.
    pub form: HostForm,
    /// What stands behind the host, as `:22`; [`HostSpec::port`] reads it.
    pub behind: &'a str,
}

/// How a host is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostForm {
    /// As a name or an IPv4 address is, up to the last colon; what has colons of its own is neither.
    Plain,
    /// As an IPv6 address without brackets, behind which no port can stand.
    Bare,
    /// In brackets, as an IPv6 address.
    Bracketed,
    /// With a bracket before it that nothing closes, and that stays in the text.
    Unclosed,
}

/// Why what stands behind a host is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPort {
    /// It does not begin with a colon, as only behind brackets can be.
    NoColon,
    /// It is not a number from 1 to 65535.
    NoNumber,
}

impl<'a> HostSpec<'a> {
    /// Takes a text apart.
    pub fn split(text: &'a str) -> Self {
        let (user, rest) = text.rsplit_once('@').map_or((None, text), |(user, rest)| (Some(user), rest));
        let (form, host, behind) = if rest.parse::<Ipv6Addr>().is_ok() {
            (HostForm::Bare, rest, "")
        } else if let Some(inside) = rest.strip_prefix('[') {
            match inside.split_once(']') {
                Some((host, behind)) => (HostForm::Bracketed, host, behind),
                None => (HostForm::Unclosed, rest, ""),
            }
        } else {
            let (host, behind) = rest.split_at(rest.rfind(':').unwrap_or(rest.len()));
            (HostForm::Plain, host, behind)
        };
        Self { user, host, form, behind }
    }

    /// The port, if one is named.
    pub fn port(&self) -> Result<Option<u16>, BadPort> {
        if self.behind.is_empty() {
            return Ok(None);
        }
        let digits = self.behind.strip_prefix(':').ok_or(BadPort::NoColon)?;
        // A number may have a plus sign, a port has none.
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse().ok().filter(|port: &u16| plain && *port > 0).map(Some).ok_or(BadPort::NoNumber)
    }
}

/// A host as a port may follow it: an IPv6 address in brackets.
pub fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_taken_apart_as_ssh_does() {
        use HostForm::{Bare, Bracketed, Plain, Unclosed};
        for (text, user, host, form, behind) in [
            ("alpha", None, "alpha", Plain, ""),
            ("root@192.0.2.1", Some("root"), "192.0.2.1", Plain, ""),
            ("ubuntu@b.example.org:2222", Some("ubuntu"), "b.example.org", Plain, ":2222"),
            ("me@corp@example.org", Some("me@corp"), "example.org", Plain, ""),
            ("host:22:23", None, "host:22", Plain, ":23"),
            ("fe80::1%eth0", None, "fe80:", Plain, ":1%eth0"),
            ("2001:db8::1", None, "2001:db8::1", Bare, ""),
            ("root@::1", Some("root"), "::1", Bare, ""),
            ("[::1]", None, "::1", Bracketed, ""),
            ("root@[2001:db8::1]:2222", Some("root"), "2001:db8::1", Bracketed, ":2222"),
            ("[x]22", None, "x", Bracketed, "22"),
            ("root@[::1", Some("root"), "[::1", Unclosed, ""),
            ("@", Some(""), "", Plain, ""),
            ("", None, "", Plain, ""),
        ] {
            assert_eq!(HostSpec::split(text), HostSpec { user, host, form, behind }, "{text}");
        }
    }

    #[test]
    fn a_port_is_a_number_behind_a_colon() {
        let port = |text: &str| HostSpec::split(text).port();
        assert_eq!(["h", "h:1", "h:65535", "[::1]:22"].map(port), [None, Some(1), Some(65535), Some(22)].map(Ok));
        for bad in ["h:", "h:0", "h:65536", "h:+22", "h:-1", "h:x", "h: 22", "[::1]:"] {
            assert_eq!(port(bad), Err(BadPort::NoNumber), "{bad}");
        }
        assert_eq!(port("[::1]22"), Err(BadPort::NoColon));
    }

    /// The text that was taken apart.
    fn together(spec: HostSpec<'_>) -> String {
        let user = spec.user.map(|user| format!("{user}@")).unwrap_or_default();
        let host = if spec.form == HostForm::Bracketed { format!("[{}]", spec.host) } else { spec.host.to_owned() };
        format!("{user}{host}{}", spec.behind)
    }

    proptest! {
        #[test]
        fn of_no_text_anything_is_lost(text in "\\PC*|[a1:@\\[\\].%]{0,12}") {
            prop_assert_eq!(together(HostSpec::split(&text)), text);
        }

        #[test]
        fn what_is_written_is_read(user in "[a-z@]{1,8}", host in "[a-z0-9.-]{1,20}|::1|2001:db8::[1-9]", port in 1u16..) {
            let text = format!("{user}@{}:{port}", bracketed(&host));
            let spec = HostSpec::split(&text);
            prop_assert_eq!((spec.user, spec.host, spec.port()), (Some(user.as_str()), host.as_str(), Ok(Some(port))));
        }
    }
}

use std::{net::IpAddr, time::Duration};

use reqwest::{Certificate, Client, redirect::Policy};

use crate::core::shell::printable;

/// Where a hub is asked over HTTP: on the network, or at a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubAddress<'a> {
    socket: Option<&'a str>,
    base: &'a str,
}

/// Why a hub's address has no client.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// The PEM file of its authority is damaged.
    #[error("the authority's file is damaged")]
    Damaged(#[source] reqwest::Error),
    /// The PEM file of its authority has no certificate.
    #[error("the authority's file has no certificate")]
    NoCertificate,
    /// The HTTP library makes none.
    #[error("the client cannot be made")]
    Unbuilt(#[source] reqwest::Error),
}

impl<'a> HubAddress<'a> {
    /// Reads `https://NAME`, `http://NAME` or `unix:/PATH`; none where it is written in another way.
    pub fn parse(hub: &'a str) -> Option<Self> {
        match hub.strip_prefix("unix:") {
            Some(path) => Some(Self { socket: Some(path), base: "http://hub" }),
            None if hub.starts_with("http://") || hub.starts_with("https://") => {
                Some(Self { socket: None, base: hub.trim_end_matches('/') })
            }
            None => None,
        }
    }

    /// What stands before the path of all that is asked.
    pub fn base(&self) -> &'a str {
        self.base
    }

    /// A client that goes nowhere else, and whose requests may each take `limit`; `authority`, in PEM, vouches for the hub
    /// besides those that the system knows.
    pub fn client(&self, limit: Duration, authority: Option<&[u8]>) -> Result<Client, NoClient> {
        let mut builder = Client::builder().timeout(limit).redirect(Policy::none());
        if let Some(path) = self.socket {
            builder = builder.unix_socket(path).no_proxy();
        }
        if let Some(pem) = authority {
            let all = Certificate::from_pem_bundle(pem).map_err(NoClient::Damaged)?;
            if all.is_empty() {
                return Err(NoClient::NoCertificate);
            }
            builder = builder.tls_certs_merge(all);
        }
        builder.build().map_err(NoClient::Unbuilt)
    }
}

/// The first line of an answer that is no hub's, short and fit for a terminal.
pub fn foreign_line(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    printable(text.lines().next().unwrap_or_default()).chars().take(200).collect()
}

/// Whether what is sent to a hub at this address can be read on the way: plain HTTP to another computer.
pub fn is_readable_on_the_way(hub: &str) -> bool {
    hub.starts_with("http://") && loopback_port(hub).is_none()
}

/// The port of a hub's address that leads to the very computer that asks, by its loopback; none of any other address.
pub fn loopback_port(hub: &str) -> Option<u16> {
    let url = reqwest::Url::parse(hub).ok()?;
    let host = url.host_str()?;
    let here = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    url.port_or_known_default().filter(|_| here)
}

#[cfg(test)]
mod tests {
    use super::{HubAddress, foreign_line, is_readable_on_the_way, loopback_port};

    #[test]
    fn a_hub_is_asked_on_the_network_or_at_a_socket() {
        let base = |hub| HubAddress::parse(hub).map(|address| (address.socket, address.base()));
        assert_eq!(base("https://hub.example.org/"), Some((None, "https://hub.example.org")));
        assert_eq!(base("http://127.0.0.1:8420"), Some((None, "http://127.0.0.1:8420")));
        assert_eq!(base("unix:/run/hub.sock"), Some((Some("/run/hub.sock"), "http://hub")));
        assert_eq!(["", "hub.example.org", "ftp://x", "/run/hub.sock"].map(base), [None; 4]);
    }

    #[test]
    fn of_a_foreign_answer_one_line_is_told() {
        assert_eq!(foreign_line(b"<html>\x1b[2J\nmore"), "<html>\\x1b[2J");
        assert_eq!((foreign_line(b"").as_str(), foreign_line(&[b'a'; 300]).len()), ("", 200));
    }

    #[test]
    fn an_address_on_the_loopback_leads_to_whoever_asks() {
        for (hub, port) in [
            ("http://127.0.0.1:8443", 8443),
            ("https://localhost", 443),
            ("http://[::1]/", 80),
            ("https://hub.localhost:1", 1),
        ] {
            assert_eq!(loopback_port(hub), Some(port), "{hub}");
        }
        for other in ["https://hub.example.org", "http://127.0.0.1@192.0.2.7", "unix:/run/hub.sock", "http://", ""] {
            assert_eq!(loopback_port(other), None, "{other}");
        }
    }

    #[test]
    fn only_plain_http_to_another_computer_is() {
        for bad in [
            "http://hub.example.org",
            "http://192.0.2.7:8420",
            "http://[2001:db8::1]/",
            "http://localhost.evil",
            "http://",
        ] {
            assert!(is_readable_on_the_way(bad), "{bad}");
        }
        for good in [
            "https://hub.example.org",
            "unix:/run/hub.sock",
            "http://127.0.0.1:8420",
            "http://[::1]:8420/",
            "http://localhost:1",
        ] {
            assert!(!is_readable_on_the_way(good), "{good}");
        }
        // What looks like this computer before an @ is a name, not the host.
        assert!(is_readable_on_the_way("http://127.0.0.1@hub.example.org/"));
    }
}

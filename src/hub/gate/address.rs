use std::net::IpAddr;

/// Whether what is sent to a hub at this address can be read on the way: plain HTTP to another computer.
pub fn is_readable_on_the_way(hub: &str) -> bool {
    if !hub.starts_with("http://") {
        return false;
    }
    let url = reqwest::Url::parse(hub).ok();
    let Some(host) = url.as_ref().and_then(|url| url.host_str()) else { return true };
    let here = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    !here
}

#[cfg(test)]
mod tests {
    use super::is_readable_on_the_way;

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

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where downloads come from instead of the projects' own sites; each is still checked by its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mirrors {
    /// Base URLs of release sites: `https://dl.k8s.io` to `https://mirror.example/k8s`.
    pub sites: BTreeMap<String, String>,
    /// Registries: `registry.k8s.io` to `mirror.example/k8s`, with `http://` in front of one without TLS.
    pub registries: BTreeMap<String, String>,
}

impl Mirrors {
    /// Where `url` is fetched from.
    pub fn url(&self, url: &str) -> String {
        let found = self.sites.iter().find_map(|(site, mirror)| {
            let rest = url.strip_prefix(site.trim_end_matches('/'))?;
            rest.starts_with('/').then(|| format!("{}{rest}", mirror.trim_end_matches('/')))
        });
        found.unwrap_or_else(|| url.to_owned())
    }

    /// The reference that `image` is fetched under.
    pub fn image(&self, image: &str) -> String {
        let Some((registry, rest)) = image.split_once('/') else { return image.to_owned() };
        match self.registries.get(registry) {
            Some(mirror) => format!("{}/{rest}", bare(mirror)),
            None => image.to_owned(),
        }
    }

    /// The hosts that are spoken to without TLS.
    pub fn plain_hosts(&self) -> Vec<String> {
        let plain = self.registries.values().filter_map(|mirror| mirror.strip_prefix("http://"));
        plain.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect()
    }
}

/// A registry's address as it stands in an image reference.
fn bare(mirror: &str) -> &str {
    let bare = mirror.trim_start_matches("https://").trim_start_matches("http://");
    bare.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_and_registries_are_replaced_whole() {
        let mirrors = Mirrors {
            sites: [("https://dl.k8s.io".to_owned(), "http://m.example/k8s/".to_owned())].into(),
            registries: [("registry.k8s.io".to_owned(), "http://m.example:5000/k8s".to_owned())].into(),
        };
        assert_eq!(mirrors.url("https://dl.k8s.io/release/x"), "http://m.example/k8s/release/x");
        assert_eq!(mirrors.url("https://dl.k8s.io.evil.example/x"), "https://dl.k8s.io.evil.example/x");
        assert_eq!(mirrors.image("registry.k8s.io/coredns/coredns:v1"), "m.example:5000/k8s/coredns/coredns:v1");
        assert_eq!(mirrors.image("ghcr.io/a/b:c"), "ghcr.io/a/b:c");
        assert_eq!(mirrors.plain_hosts(), ["m.example:5000"]);
    }
}

use std::collections::BTreeMap;

use oci_client::Reference;
use serde::{Deserialize, Serialize};

/// The release sites that parts of a bundle are fetched from.
const SITES: [&str; 2] = ["https://dl.k8s.io", "https://github.com"];
/// The registries that its images are pulled from, and the folders in them.
const REGISTRIES: [&str; 4] = ["registry.k8s.io", "registry.k8s.io/coredns", "ghcr.io", "ghcr.io/flannel-io"];

/// Where downloads come from instead of the projects' own sites; each is still checked by its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mirrors {
    /// Base URLs of release sites: `https://dl.k8s.io` to `https://mirror.example/k8s`.
    pub sites: BTreeMap<String, String>,
    /// Registries: `registry.k8s.io` to `mirror.example/k8s`, with `http://` in front of one without TLS; or folders in
    /// them: `registry.k8s.io/coredns` to `mirror.example/k8s` for a mirror that has no folders.
    pub registries: BTreeMap<String, String>,
}

impl Mirrors {
    /// What would be passed over without a word, and the site itself asked, or another one.
    ///
    /// No mirror's own address is shown, as it may hold a password.
    pub fn mistakes(&self) -> Vec<String> {
        let mut found = vec![];
        for (site, mirror) in &self.sites {
            let begins = |of: &str| site.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if !SITES.into_iter().any(begins) {
                found.push(format!("sites: nothing is fetched from `{site}`, only from {}", SITES.join(" and ")));
            }
            if !(mirror.starts_with("https://") || mirror.starts_with("http://")) {
                found.push(format!("sites: the mirror of `{site}` does not begin with https:// or http://"));
            }
        }
        for (registry, mirror) in &self.registries {
            if !REGISTRIES.contains(&registry.as_str()) {
                let all = REGISTRIES.join(", ");
                found.push(format!("registries: nothing is pulled from `{registry}` for a bundle, only from {all}"));
            }
            // A first word without dot and port would be a name at Docker Hub.
            let host = bare(mirror).split('/').next().unwrap_or_default();
            let image = format!("{}/image:tag", bare(mirror)).parse::<Reference>();
            if !image.is_ok_and(|image| image.registry() == host) {
                let form = "mirror.example:5000/path";
                found.push(format!("registries: the mirror of `{registry}` is not written as {form}"));
            }
        }
        found
    }

    /// Where `url` is fetched from.
    pub fn url(&self, url: &str) -> String {
        match longest(&self.sites, url) {
            Some((_, mirror, rest)) => format!("{}{rest}", mirror.trim_end_matches('/')),
            None => url.to_owned(),
        }
    }

    /// The reference that `image` is fetched under.
    pub fn image(&self, image: &str) -> String {
        match longest(&self.registries, image) {
            Some((_, mirror, rest)) => format!("{}{rest}", bare(mirror)),
            None => image.to_owned(),
        }
    }

    /// The beginning of `address`, a URL or an image, that has a mirror of its own.
    pub fn mirrored(&self, address: &str) -> Option<&str> {
        let found = longest(&self.sites, address).or_else(|| longest(&self.registries, address));
        found.map(|(beginning, ..)| beginning)
    }

    /// The hosts that are spoken to without TLS.
    pub fn plain_hosts(&self) -> Vec<String> {
        let plain = self.registries.values().filter_map(|mirror| mirror.strip_prefix("http://"));
        plain.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned()).collect()
    }
}

/// The beginning of `address` that has a mirror, that mirror, and the rest with its slash. Of two beginnings the longer
/// one comes later in the order, and says more.
fn longest<'a, 'b>(of: &'a BTreeMap<String, String>, address: &'b str) -> Option<(&'a str, &'a str, &'b str)> {
    of.iter().rev().find_map(|(beginning, mirror)| {
        let beginning = beginning.trim_end_matches('/');
        let rest = address.strip_prefix(beginning)?;
        rest.starts_with('/').then_some((beginning, mirror.as_str(), rest))
    })
}

/// A registry's address as it stands in an image reference.
fn bare(mirror: &str) -> &str {
    let bare = mirror.trim_start_matches("https://").trim_start_matches("http://");
    bare.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        bundle::{
            DEFAULT_KUBERNETES,
            catalogue::{Entry, catalogue},
            manifest::Origins,
            upstream::releases::{flannel_cni_image, releases},
            versions::Versions,
        },
        core::Arch,
    };

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
        assert_eq!(mirrors.mistakes(), [""; 0]);
    }

    fn of(sites: &[(&str, &str)], registries: &[(&str, &str)]) -> Mirrors {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Mirrors { sites: map(sites), registries: map(registries) }
    }

    #[test]
    fn the_longer_of_two_beginnings_counts() {
        let mirrors = of(&[("https://github.com", "https://a"), ("https://github.com/containerd/", "https://b")], &[]);
        assert_eq!(mirrors.url("https://github.com/containerd/x"), "https://b/x");
        assert_eq!(mirrors.url("https://github.com/containerd-x/y"), "https://a/containerd-x/y");
        assert_eq!(mirrors.mistakes(), [""; 0]);
    }

    #[test]
    fn a_folder_of_a_registry_may_have_a_mirror_without_folders() {
        let flat = "registry.aliyuncs.com/google_containers";
        let mirrors = of(&[], &[("registry.k8s.io", flat), ("registry.k8s.io/coredns", flat)]);
        assert_eq!(mirrors.mistakes(), [""; 0]);
        assert_eq!(mirrors.image("registry.k8s.io/coredns/coredns:v1"), format!("{flat}/coredns:v1"));
        assert_eq!(mirrors.image("registry.k8s.io/pause:3.10"), format!("{flat}/pause:3.10"));
        assert_eq!(mirrors.image("registry.k8s.io.evil.example/pause:3.10"), "registry.k8s.io.evil.example/pause:3.10");
        assert_eq!(mirrors.mirrored("registry.k8s.io/coredns/coredns:v1"), Some("registry.k8s.io/coredns"));
        assert_eq!(mirrors.mirrored("registry.k8s.io/pause:3.10"), Some("registry.k8s.io"));
        assert_eq!(mirrors.mirrored("ghcr.io/a/b:c"), None);
    }

    #[test]
    fn what_would_never_be_used_is_told() {
        for (site, mirror) in [
            ("dl.k8s.io", "https://m.example"),
            ("http://github.com", "https://m.example"),
            ("https://github.company", "https://m.example"),
            ("https://dl.k8s.io", "m.example/pa55word"),
        ] {
            let told = of(&[(site, mirror)], &[]).mistakes();
            assert!(told.len() == 1 && told[0].contains(site) && !told[0].contains("pa55word"), "{told:?}");
        }
        for (registry, mirror) in [
            ("docker.io", "m.example"),
            ("https://ghcr.io", "m.example"),
            ("ghcr.io/flannel", "m.example"),
            ("registry.k8s.io/coredns/coredns", "m.example"),
            ("ghcr.io", "harbor/k8s"),
            ("ghcr.io", "https://me:pa55word@m.example"),
            ("ghcr.io", ""),
        ] {
            let told = of(&[], &[(registry, mirror)]).mistakes();
            assert!(told.len() == 1 && told[0].contains(registry) && !told[0].contains("pa55word"), "{told:?}");
        }
        for good in ["m.example", "m.example:5000/k8s/", "http://localhost/x", "harbor:80", "http://10.0.0.5:5000"] {
            assert_eq!(of(&[], &[("ghcr.io", good)]).mistakes(), [""; 0], "{good}");
        }
    }

    #[test]
    fn every_site_and_registry_of_a_bundle_may_have_a_mirror() {
        let versions = Versions::of(DEFAULT_KUBERNETES).unwrap();
        let urls = releases(&versions, Arch::Amd64).into_iter().flat_map(|release| [release.url, release.sums]);
        assert!(urls.into_iter().all(|url| SITES.iter().any(|site| url.starts_with(&format!("{site}/")))));
        let entries = catalogue(&versions, Origins::Upstream);
        let images = entries.iter().filter_map(Entry::image).map(str::to_owned).chain([flannel_cni_image(&versions)]);
        let mut used = BTreeSet::new();
        for image in images {
            used.extend(image.match_indices('/').map(|(end, _)| image[..end].to_owned()));
        }
        assert_eq!(used, BTreeSet::from(REGISTRIES.map(str::to_owned)));
    }
}

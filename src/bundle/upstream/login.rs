use std::sync::atomic::{AtomicUsize, Ordering};

use oci_client::Reference;
use reqwest::{StatusCode, Url};

use super::download::{Downloads, is_passing};

/// After so many refusals in a row, each of them with a token to be had, others would be the same. One may be of a token that
/// could not be had just then, and one of a token that is too old by the registry's clock and not yet by this computer's.
const IN_A_ROW: usize = 3;

/// What became of a registry's wish for a token, over the attempts at one file.
///
/// The client tells of no token that it could not get, and asks without one: only another question shows whether the
/// same request may succeed.
#[derive(Default)]
pub struct Login {
    /// How often since it last let somebody in it did not, although everybody had a token or needed none.
    refusals: AtomicUsize,
}

impl Login {
    /// Notes that the registry let in who asked: what it refused before says nothing any more.
    pub fn let_in(&self) {
        self.refusals.store(0, Ordering::Relaxed);
    }

    /// Whether the registry of `image` at `base`, as `https://ghcr.io`, which answered 401, will say so to everybody
    /// without a login.
    pub async fn is_wanted(&self, base: &str, image: &Reference, downloads: &Downloads) -> bool {
        let Some((status, challenge)) = downloads.challenge(&format!("{base}/v2/")).await else { return false };
        if is_passing(status) {
            return false;
        }
        let address = challenge.as_deref().and_then(|text| token_address(text, image.repository()));
        let status = match address {
            Some(address) => downloads.challenge(&address).await.map(|(status, _)| status),
            None => Some(status),
        };
        match status {
            // It has a token for everybody that opens nothing, if it says the same again and again.
            Some(StatusCode::OK) => self.refusals.fetch_add(1, Ordering::Relaxed) + 1 >= IN_A_ROW,
            Some(status) => !is_passing(status),
            None => false,
        }
    }
}

/// Where a token to pull from `repository` is to be had, by the challenge of a registry; none where it wants a password.
fn token_address(challenge: &str, repository: &str) -> Option<String> {
    let (scheme, rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let said = |key: &str| {
        rest.split(',').find_map(|pair| pair.trim().strip_prefix(key)?.strip_prefix("=\"")?.strip_suffix('"'))
    };
    let mut address = Url::parse(said("realm")?).ok()?;
    address.query_pairs_mut().append_pair("scope", &format!("repository:{repository}:pull"));
    if let Some(service) = said("service") {
        address.query_pairs_mut().append_pair("service", service);
    }
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        bundle::upstream::{
            download::LOGIN_HINT,
            fake::{Fake, noise},
            registry::Registry,
        },
        core::{Arch, Code, Problem, Quiet},
    };

    const IMAGE: &str = "registry.k8s.io/pause:3.10";
    const MANIFEST: &str = "/v2/k8s/pause/manifests/3.10";

    /// The problem of pulling an image, and how often its manifest was asked for.
    async fn pulled(fake: &Fake) -> (Problem, usize) {
        let (folder, mirrors) = (tempfile::tempdir().unwrap(), fake.mirrors());
        let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
        let registry = Registry::new(&mirrors, &downloads);
        let problem = registry.pull(IMAGE, Arch::Amd64, &Quiet).await.err().unwrap();
        (problem, fake.requests(MANIFEST).len())
    }

    /// Asked for `path`, it says so each time.
    fn always(fake: &Fake, path: &str, head: &str) {
        (0..20).for_each(|_| fake.answer_first(path, head, ""));
    }

    #[test]
    fn the_address_of_tokens_is_read_from_a_challenge() {
        let address = |challenge: &str| token_address(challenge, "a/b");
        assert_eq!(
            address("Bearer realm=\"https://ghcr.io/token\",service=\"ghcr.io\",scope=\"repository:x:pull,push\"")
                .unwrap(),
            "https://ghcr.io/token?scope=repository%3Aa%2Fb%3Apull&service=ghcr.io"
        );
        assert_eq!(
            address("bearer service=\"s\", realm=\"http://m/t?x=1\"").unwrap(),
            "http://m/t?x=1&scope=repository%3Aa%2Fb%3Apull&service=s"
        );
        for none in ["Basic realm=\"https://m\"", "Bearer", "Bearer service=\"s\"", "Bearer realm=\"m\"", ""] {
            assert_eq!(address(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_wants_a_login_is_asked_once_and_told_as_such() {
        let (basic, bearer) = ("Basic realm=\"own\"", "Bearer realm=\"{}/token\",service=\"own\"");
        for (challenge, token) in [(basic, ""), (bearer, "401 Unauthorized"), (bearer, "403 Forbidden")] {
            let fake = Fake::start().await;
            let head = format!("401 Unauthorized\r\nwww-authenticate: {}", challenge.replace("{}", &fake.url("")));
            for path in [MANIFEST, "/v2/"] {
                always(&fake, path, &head);
            }
            always(&fake, "/token?scope=repository%3Ak8s%2Fpause%3Apull&service=own", token);
            let (problem, asked) = pulled(&fake).await;
            assert_eq!((problem.code, asked), (Code::Download, 1), "{challenge} {token}");
            assert!(problem.detail[0].contains("401") && problem.all_hints() == [LOGIN_HINT], "{problem}");
        }
    }

    #[tokio::test]
    async fn a_registry_that_forbids_an_image_is_asked_once() {
        for body in ["<html>", r#"{"errors":[{"code":"DENIED","message":"no"}]}"#] {
            let fake = Fake::start().await;
            fake.answer_first(MANIFEST, "403 Forbidden", body);
            let (problem, asked) = pulled(&fake).await;
            assert_eq!((problem.code, asked), (Code::Download, 1), "{body}");
            assert_eq!(problem.all_hints(), [LOGIN_HINT]);
        }
    }

    #[tokio::test]
    async fn a_token_that_opens_nothing_is_tried_no_more_than_three_times() {
        let fake = Fake::start().await;
        fake.state.lock().unwrap().tokens = Some(0);
        always(&fake, MANIFEST, "401 Unauthorized");
        let (problem, asked) = pulled(&fake).await;
        assert_eq!((problem.code, asked), (Code::Download, IN_A_ROW));
        assert_eq!(problem.all_hints(), [LOGIN_HINT]);
    }

    /// A token that is good for an hour is refused now and then while some gigabytes come.
    #[tokio::test]
    async fn refusals_with_data_between_them_are_not_in_a_row() {
        let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
        let layer = noise("layer", 90_000);
        fake.publish_image(IMAGE, Arch::Amd64, &layer);
        fake.state.lock().unwrap().tokens = Some(0);
        let path = format!("/v2/k8s/pause/blobs/sha256:{}", hex::encode(Sha256::digest(&layer)));
        let refused = ("401 Unauthorized", &layer[..0]);
        for (head, body) in [refused, refused, ("206 Partial Content", &layer[..45_000]), refused, refused] {
            fake.answer_first(&path, head, body);
        }
        let (mirrors, downloads) = (fake.mirrors(), Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap());
        let pulled = Registry::new(&mirrors, &downloads).pull(IMAGE, Arch::Amd64, &Quiet).await.unwrap();
        assert!(std::fs::read(&pulled.layers[0]).unwrap() == layer);
        let from = |byte: usize| Some(format!("bytes={byte}-"));
        assert_eq!(fake.requests(&path), [0, 0, 0, 45_000, 45_000, 45_000].map(from));
    }

    #[tokio::test]
    async fn a_registry_that_is_only_in_trouble_is_asked_on() {
        for trouble in ["503 Service Unavailable", "429 Too Many Requests"] {
            let fake = Fake::start().await;
            always(&fake, MANIFEST, "401 Unauthorized");
            always(&fake, "/v2/", trouble);
            let (problem, asked) = pulled(&fake).await;
            assert_eq!(asked, 6, "{trouble}");
            assert!(problem.what.contains("6 attempts"), "{problem}");
        }
        // It has no token just now.
        let fake = Fake::start().await;
        fake.state.lock().unwrap().tokens = Some(usize::MAX);
        assert_eq!(pulled(&fake).await.1, 6);
    }

    #[tokio::test]
    async fn a_site_that_wants_a_login_is_asked_once_and_told_as_such() {
        let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
        let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
        fake.put("/file", "text/plain", noise("file", 90_000));
        for status in ["401 Unauthorized", "403 Forbidden"] {
            always(&fake, "/file", status);
            let before = fake.requests("/file").len();
            let problem = downloads.text(&fake.url("/file"), &Quiet).await.unwrap_err();
            assert_eq!(fake.requests("/file").len(), before + 1, "{status}");
            assert_eq!((problem.code, problem.all_hints()), (Code::Download, vec![LOGIN_HINT.to_owned()]));
            fake.state.lock().unwrap().first.clear();
        }
    }
}

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use oci_client::{
    Client, Reference,
    client::{BlobResponse, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    download::{Answer, Downloads, LOGIN_HINT, Miss, Piece},
    login::Login,
    mirrors::Mirrors,
};
use crate::{
    bundle::{
        image::{LayerFile, blob_path, index, write_layout},
        manifest::is_sha256,
    },
    core::{Arch, Code, Problem, Report},
};

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// As much as is told of what a registry says to a refusal: some send a whole page.
const SAID: usize = 200;

/// Pulls images from registries, every blob checked and resumable.
pub struct Registry<'a> {
    client: Client,
    mirrors: &'a Mirrors,
    downloads: &'a Downloads,
}

/// An image of one platform, on disk.
pub struct Pulled {
    manifest: Vec<u8>,
    media_type: String,
    config: Vec<u8>,
    /// Its layers as the registry keeps them, lowest first.
    pub layers: Vec<PathBuf>,
}

impl<'a> Registry<'a> {
    /// A client that asks `mirrors` first.
    pub fn new(mirrors: &'a Mirrors, downloads: &'a Downloads) -> Self {
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(mirrors.plain_hosts()),
            connect_timeout: Some(Duration::from_secs(10)),
            read_timeout: Some(Duration::from_secs(30)),
            ..ClientConfig::default()
        });
        Self { client, mirrors, downloads }
    }

    /// Brings the manifest, configuration and layers of `image` for `arch` here.
    ///
    /// # Errors
    /// `KC-DOWNLOAD`, `KC-DOWNLOAD-DIGEST`.
    pub async fn pull(&self, image: &str, arch: Arch, report: &dyn Report) -> Result<Pulled, Problem> {
        let reference = self.reference(image)?;
        let from = self.mirrors.image(image);
        let (mut manifest, mut digest) = self.manifest(&from, &reference, report).await?;
        let mut parsed = parse(&from, &manifest)?;
        let is_of_a_list = parsed["manifests"].is_array();
        if let Some(list) = parsed["manifests"].as_array() {
            digest = for_platform(list, arch)
                .ok_or_else(|| Problem::new(Code::Download, format!("{from} does not exist for {arch}")))?;
            let own = reference.clone_with_digest(digest.clone());
            (manifest, _) = self.manifest(&from, &own, report).await?;
            check_digest(&from, &manifest, &digest)?;
            parsed = parse(&from, &manifest)?;
        } else {
            check_digest(&from, &manifest, &digest)?;
        }
        let config = self.blob(&from, &reference, &parsed["config"], report).await?;
        let config = std::fs::read(&config)
            .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", config.display())).because(e))?;
        if !is_of_a_list {
            must_be_for(image, reference.registry(), &config, arch)?;
        }
        let mut layers = vec![];
        for layer in parsed["layers"].as_array().into_iter().flatten() {
            layers.push(self.blob(&from, &reference, layer, report).await?);
        }
        let media_type = parsed["mediaType"].as_str().unwrap_or(MANIFESTS[0]).to_owned();
        Ok(Pulled { manifest, media_type, config, layers })
    }

    /// What the registry, or its mirror, says when it is asked, once, for the manifest of `image`.
    pub async fn ask(&self, image: &str) -> Answer {
        let Ok(reference) = self.reference(image) else { return Answer::HasNot };
        match self.manifest_once(&reference).await {
            Ok((bytes, _)) if is_manifest(&bytes) => Answer::Has,
            Err(OciDistributionError::RequestError(_) | OciDistributionError::IoError(_)) => Answer::Silent,
            Ok(_) | Err(_) => Answer::HasNot,
        }
    }

    /// Where `image` is fetched from.
    fn reference(&self, image: &str) -> Result<Reference, Problem> {
        self.mirrors.image(image).parse().map_err(|e: oci_client::ParseError| {
            Problem::new(Code::Download, format!("{image} has no valid mirror")).because(e)
        })
    }

    async fn manifest(
        &self,
        from: &str,
        reference: &Reference,
        report: &dyn Report,
    ) -> Result<(Vec<u8>, String), Problem> {
        let login = &Login::default();
        let ask = || async move {
            match self.manifest_once(reference).await {
                Ok(manifest) => Ok(manifest),
                Err(e) => Err(self.missed(from, reference, e, login).await),
            }
        };
        self.downloads.again(from, report, ask).await
    }

    /// What a registry's answer means for further attempts; one that lets nobody in is asked whether it may yet.
    async fn missed(&self, from: &str, reference: &Reference, e: OciDistributionError, login: &Login) -> Miss {
        let wants_token = matches!(e, OciDistributionError::UnauthorizedError { .. });
        match miss(from, e) {
            Miss::Again(problem) if wants_token => {
                let registry = reference.resolve_registry();
                let is_plain = self.mirrors.plain_hosts().iter().any(|host| host == registry);
                let base = format!("{}://{registry}", if is_plain { "http" } else { "https" });
                if login.is_wanted(&base, reference, self.downloads).await {
                    Miss::Final(problem.hint(LOGIN_HINT))
                } else {
                    Miss::Again(problem)
                }
            }
            other => other,
        }
    }

    async fn manifest_once(&self, reference: &Reference) -> Result<(Vec<u8>, String), OciDistributionError> {
        let accepted: Vec<&str> = INDEXES.into_iter().chain(MANIFESTS).collect();
        let asked = self.client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &accepted).await;
        asked.map(|(bytes, digest)| (bytes.to_vec(), digest))
    }

    async fn blob(
        &self,
        from: &str,
        reference: &Reference,
        descriptor: &Value,
        report: &dyn Report,
    ) -> Result<PathBuf, Problem> {
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        let sha256 = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex)).ok_or_else(|| {
            Problem::new(Code::Download, format!("{from} names a part by `{digest}`, which is no SHA-256 digest"))
        })?;
        let total = descriptor["size"].as_u64();
        let name = from.rsplit('/').next().unwrap_or(from).replace(':', "-");
        let digest = digest.as_str();
        let login = &Login::default();
        let open = move |offset: u64, _| async move {
            let ask = |offset| self.client.pull_blob_stream_partial(reference, digest, offset, None);
            let (asked, begun) = match ask(offset).await {
                // What is there is as long as the blob, or longer: begin anew. Registries say so in many ways.
                Err(e) if offset > 0 && is_refusal(&e) => (ask(0).await, 0),
                asked => (asked, offset),
            };
            if asked.is_ok() {
                login.let_in();
            }
            match asked {
                Ok(BlobResponse::Full(s)) => Ok(piece(false, total, s.stream.boxed())),
                Ok(BlobResponse::Partial(s)) => Ok(piece(begun == offset, total, s.stream.boxed())),
                Err(e) => Err(self.missed(from, reference, e, login).await),
            }
        };
        self.downloads.resume(from, &name, sha256, report, open).await
    }
}

fn piece(
    continues: bool,
    total: Option<u64>,
    bytes: futures::stream::BoxStream<'static, std::io::Result<tokio_util::bytes::Bytes>>,
) -> Piece {
    Piece { continues, total, etag: None, bytes: bytes.into_stream().boxed() }
}

fn parse(from: &str, bytes: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(bytes)
        .map_err(|e| Problem::new(Code::Download, format!("{from} has no readable manifest")).because(e))
}

/// Whether it is the manifest of an image or a list of such, rather than the page that a network has for everything.
fn is_manifest(bytes: &[u8]) -> bool {
    let read: Value = serde_json::from_slice(bytes).unwrap_or_default();
    read["manifests"].is_array() || read["layers"].is_array()
}

fn check_digest(from: &str, bytes: &[u8], digest: &str) -> Result<(), Problem> {
    if format!("sha256:{}", hex::encode(Sha256::digest(bytes))) == digest {
        return Ok(());
    }
    Err(Problem::new(Code::DownloadDigest, format!("the manifest of {from} does not have the digest {digest}")))
}

fn for_platform(list: &[Value], arch: Arch) -> Option<String> {
    let fits = |m: &&Value| m["platform"]["os"] == "linux" && m["platform"]["architecture"] == arch.as_str();
    list.iter().find(fits)?["digest"].as_str().map(str::to_owned)
}

/// Refuses an image for another CPU: one that comes without a list of them tells only in its configuration for which.
fn must_be_for(image: &str, registry: &str, config: &[u8], arch: Arch) -> Result<(), Problem> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let found = match (config["os"].as_str(), config["architecture"].as_str()) {
        (Some("linux"), Some(cpu)) if cpu == arch.as_str() => return Ok(()),
        (Some(os), Some(cpu)) => format!("{os}/{cpu}"),
        _ => "a CPU that it does not name".to_owned(),
    };
    let what = format!("{registry} has {image} only for {found}, not for linux/{arch}");
    Err(Problem::new(Code::Download, what)
        .hint("Set another mirror in config.yaml, or build it: kubecamp bundle build --source modules."))
}

/// What a registry's answer means for further attempts.
fn miss(from: &str, e: OciDistributionError) -> Miss {
    let (refused, crowded, denied) = (is_refusal(&e), is_crowded(&e), is_denial(&e));
    let problem = Problem::new(Code::Download, format!("{from} could not be pulled"));
    let problem = if denied { problem.hint(LOGIN_HINT) } else { problem };
    let problem = match e {
        // Its own text would name the address a second time.
        OciDistributionError::RequestError(e) => problem.because(e.without_url()),
        OciDistributionError::IoError(e) => problem.because(e),
        said => problem.detail([in_short(&said)]),
    };
    if refused {
        Miss::Final(problem)
    } else if crowded {
        // The client does not show for how long.
        Miss::Later(problem, None)
    } else {
        Miss::Again(problem)
    }
}

/// What a registry said, in one line.
fn in_short(said: &OciDistributionError) -> String {
    let text = match said {
        OciDistributionError::ServerError { code, message, .. } => format!("it answers {code}: {}", message.trim()),
        OciDistributionError::RegistryError { envelope, .. } => envelope.to_string(),
        OciDistributionError::UnauthorizedError { .. } => {
            "it answers 401, and a mirror must let everybody pull".to_owned()
        }
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    line.trim_end_matches(": ").chars().take(SAID).collect()
}

/// Whether the registry has too many requests just now.
fn is_crowded(e: &OciDistributionError) -> bool {
    match e {
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|e| matches!(e.code, OciErrorCode::Toomanyrequests))
        }
        OciDistributionError::ServerError { code, .. } => *code == 429,
        _ => false,
    }
}

/// Whether the registry knows the client well enough, and lets only others have this.
fn is_denial(e: &OciDistributionError) -> bool {
    match e {
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|e| matches!(e.code, OciErrorCode::Denied | OciErrorCode::Unauthorized))
        }
        OciDistributionError::ServerError { code, .. } => *code == 403,
        _ => false,
    }
}

/// Whether the registry will say the same to the same request. "Not authorized" is none of that: the client tells of no
/// token that it could not get, and asks without one.
fn is_refusal(e: &OciDistributionError) -> bool {
    match e {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|e| !matches!(e.code, OciErrorCode::Toomanyrequests))
        }
        OciDistributionError::ServerError { code, .. } => (400..500).contains(code) && *code != 429,
        _ => false,
    }
}

impl Pulled {
    /// Writes the image in OCI layout, its bytes as the registry keeps them, named `image` for containerd.
    pub fn write(&self, image: &str, arch: Arch, to: &Path) -> std::io::Result<()> {
        let sha256 = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
        let digest = sha256(&self.manifest);
        let described = serde_json::json!({
            "mediaType": self.media_type, "digest": format!("sha256:{digest}"), "size": self.manifest.len(),
        });
        let small: BTreeMap<String, Vec<u8>> =
            [(blob_path(&digest), self.manifest.clone()), (blob_path(&sha256(&self.config)), self.config.clone())]
                .into();
        let layers = self.layers.iter().map(|file| LayerFile::new(file)).collect::<std::io::Result<Vec<_>>>()?;
        write_layout(&index(image, arch, described)?, &small, &layers, to)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_cpu_gets_its_own_image_of_a_list() {
        let of =
            |os: &str, cpu: &str, digest: &str| json!({"digest": digest, "platform": {"os": os, "architecture": cpu}});
        // Registries list what is no image too, as the attestation of one.
        let list = [
            of("unknown", "unknown", "sha256:a"),
            of("windows", "amd64", "sha256:b"),
            of("linux", "arm64", "sha256:c"),
            of("linux", "amd64", "sha256:d"),
        ];
        assert_eq!(for_platform(&list, Arch::Amd64).as_deref(), Some("sha256:d"));
        assert_eq!(for_platform(&list, Arch::Arm64).as_deref(), Some("sha256:c"));
        assert_eq!(for_platform(&list[..2], Arch::Arm64), None);
    }
}

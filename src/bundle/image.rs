use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{layout, write::compress};
use crate::core::{Arch, digest};

/// Images carry no time, so that equal inputs give equal bytes.
const CREATED: &str = "1970-01-01T00:00:00Z";
const SEARCH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How an image's program is started when the pod does not say.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The user, as `65535:65535`; empty is root.
    pub user: String,
}

/// A file that becomes a layer's blob as it is.
#[derive(Debug, Clone)]
pub struct LayerFile {
    file: PathBuf,
    size: u64,
    sha256: String,
}

impl LayerFile {
    /// The blob in this file.
    pub fn new(file: &Path) -> io::Result<Self> {
        let (size, sha256) = digest(&mut File::open(file)?)?;
        Ok(Self { file: file.to_owned(), size, sha256 })
    }
}

/// What layers are, as one of a bundle's inputs: a bundle whose layers are anything else is made anew.
pub const LAYERS: &str = "zstd";

/// A layer of an image, compressed: containerd writes, flushes and hashes each blob before it unpacks it, so that a tar file
/// as it is costs a node four times the bytes.
#[derive(Debug, Clone)]
pub struct Layer {
    blob: LayerFile,
    diff_id: String,
}

impl Layer {
    /// Compresses the layer in this tar file into the file `to`.
    pub fn of_tar(tar: &Path, to: &Path) -> io::Result<Self> {
        let plain = compress(tar, to)?;
        Ok(Self { blob: LayerFile::new(to)?, diff_id: plain.sha256 })
    }
}

/// Writes the image called `reference` as a tar file in OCI layout that containerd imports under that name.
pub fn write_image(reference: &str, arch: Arch, layers: &[Layer], start: &Start, to: &Path) -> io::Result<()> {
    let mut set = json!({ "Env": [SEARCH], "Entrypoint": start.entrypoint, "WorkingDir": "/" });
    if !start.user.is_empty() {
        set["User"] = json!(start.user);
    }
    let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", l.diff_id)).collect();
    let config = json!({
        "architecture": arch, "os": "linux", "created": CREATED, "config": set,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": vec![json!({ "created": CREATED }); layers.len()],
    });
    let config = serde_json::to_vec(&config)?;
    let layers: Vec<LayerFile> = layers.iter().map(|l| l.blob.clone()).collect();
    let layer_list: Vec<Value> =
        layers.iter().map(|l| descriptor("application/vnd.oci.image.layer.v1.tar+zstd", &l.sha256, l.size)).collect();
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": described("application/vnd.oci.image.config.v1+json", &config), "layers": layer_list,
    }))?;
    let index = index(reference, arch, described(MANIFEST_TYPE, &manifest))?;
    let mut small = BTreeMap::new();
    small.insert(blob_path(&hex::encode(Sha256::digest(&config))), config);
    small.insert(blob_path(&hex::encode(Sha256::digest(&manifest))), manifest);
    write_layout(&index, &small, &layers, to)
}

/// The media type of an OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The `index.json` that makes containerd call the image `reference`.
pub fn index(reference: &str, arch: Arch, mut manifest: Value) -> serde_json::Result<Vec<u8>> {
    let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    manifest["platform"] = json!({ "architecture": arch, "os": "linux" });
    manifest["annotations"] =
        json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag });
    serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
    }))
}

/// Where a blob is in an OCI layout.
pub fn blob_path(sha256: &str) -> String {
    format!("blobs/sha256/{sha256}")
}

fn descriptor(media_type: &str, sha256: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{sha256}"), "size": size })
}

fn described(media_type: &str, bytes: &[u8]) -> Value {
    descriptor(media_type, &hex::encode(Sha256::digest(bytes)), bytes.len() as u64)
}

/// Writes the layout: small blobs from memory, layers from their files, each once and in order.
pub fn write_layout(
    index: &[u8],
    small: &BTreeMap<String, Vec<u8>>,
    layers: &[LayerFile],
    to: &Path,
) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 20, File::create(to)?);
    let mut put = |path: &str, size: u64, from: &mut dyn io::Read| -> io::Result<()> {
        out.write_all(layout::header(path, size)?.as_bytes())?;
        if io::copy(from, &mut out)? != size {
            return Err(io::Error::other(format!("{path} changed while it was written")));
        }
        out.write_all(&vec![0; layout::padding(size) as usize])
    };
    let version = br#"{"imageLayoutVersion":"1.0.0"}"#;
    put("oci-layout", version.len() as u64, &mut version.as_slice())?;
    put("index.json", index.len() as u64, &mut &*index)?;
    for (path, bytes) in small {
        put(path, bytes.len() as u64, &mut bytes.as_slice())?;
    }
    let layers: BTreeMap<&str, &LayerFile> = layers.iter().map(|l| (l.sha256.as_str(), l)).collect();
    for (sha256, layer) in layers {
        put(&blob_path(sha256), layer.size, &mut File::open(&layer.file)?)?;
    }
    out.write_all(&[0; layout::END as usize])?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, io::Read};

    use super::*;

    #[test]
    fn a_layer_is_kept_compressed_and_known_by_what_it_unpacks_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let tar = b"as good as a tar file ".repeat(1000);
        fs::write(at("layer.tar"), &tar).unwrap();
        let layer = Layer::of_tar(&at("layer.tar"), &at("layer.tar.zst")).unwrap();
        write_image("registry.k8s.io/x:v1", Arch::Amd64, &[layer], &Start::default(), &at("x.tar")).unwrap();

        let mut files = HashMap::new();
        for entry in tar::Archive::new(File::open(at("x.tar")).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), bytes);
        }
        let blob = |described: &Value| &files[&blob_path(&described["digest"].as_str().unwrap()["sha256:".len()..])];
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let manifest = json(blob(&json(&files["index.json"])["manifests"][0]));
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        let packed = blob(layer);
        assert_eq!((layer["size"].as_u64(), packed.len() < tar.len()), (Some(packed.len() as u64), true));
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), tar);
        let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(&tar)));
        assert_eq!(json(blob(&manifest["config"]))["rootfs"]["diff_ids"], json!([diff_id]));
    }
}

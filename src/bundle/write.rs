use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Bundle, layout,
    manifest::{Audience, Content, FORMAT, Kind, Manifest, Member, Origins, Stored},
};
use crate::core::{Arch, digest};

/// Part of the format: another level gives other bytes. 9 is a tenth smaller than the default for two seconds more per
/// 100 MB, which every upload to every host saves again.
const LEVEL: i32 = 9;

/// One finished binary or image on disk, and what the manifest says about it.
#[derive(Debug, Clone)]
pub struct Part {
    /// See [`Member::name`].
    pub name: String,
    /// See [`Member::kind`].
    pub kind: Kind,
    /// See [`Member::version`].
    pub version: String,
    /// See [`Member::images`].
    pub images: Vec<String>,
    /// See [`Member::role`].
    pub role: Audience,
    /// See [`Member::install`].
    pub install: Option<String>,
    /// See [`Member::origin`].
    pub origin: String,
    /// See [`Member::licence`].
    pub licence: String,
    /// The plain bytes.
    pub file: PathBuf,
}

/// What a bundle says of itself besides its members.
#[derive(Debug, Clone)]
pub struct Title {
    /// See [`Manifest::kubernetes`].
    pub kubernetes: String,
    /// See [`Manifest::arch`].
    pub arch: Arch,
    /// See [`Manifest::source`].
    pub source: Origins,
    /// See [`Manifest::replaced`].
    pub replaced: Vec<String>,
}

/// A part after compression: its member entry, and the file with the compressed bytes.
#[derive(Debug)]
pub struct Packed {
    member: Member,
    file: PathBuf,
}

impl Part {
    /// Compresses the part into the folder `to`; the same bytes give the same result on every machine.
    ///
    /// What one of the `earlier` bundles holds already is copied from there.
    pub fn pack(self, to: &Path, earlier: &[Bundle]) -> io::Result<Packed> {
        let (folder, end) = match self.kind {
            Kind::Binary => ("bin", ".zst"),
            Kind::Image => ("images", ".tar.zst"),
        };
        let path = format!("{folder}/{}{end}", self.name);
        let file = to.join(path.replace('/', "-"));
        let plain = match copy_from(earlier, &self.file, &file)? {
            Some(plain) => plain,
            None => compress(&self.file, &file)?,
        };
        let (size, sha256) = digest(&mut File::open(&file)?)?;
        let member = Member {
            name: self.name,
            kind: self.kind,
            version: self.version,
            images: self.images,
            role: self.role,
            install: self.install,
            origin: self.origin,
            licence: self.licence,
            plain,
            stored: Stored { path, size, sha256 },
        };
        Ok(Packed { member, file })
    }
}

/// Copies the compressed form of `plain` from a bundle that has it; nothing is believed that was not just read.
fn copy_from(earlier: &[Bundle], plain: &Path, to: &Path) -> io::Result<Option<Content>> {
    if earlier.is_empty() {
        return Ok(None);
    }
    let (size, sha256) = digest(&mut File::open(plain)?)?;
    for bundle in earlier {
        let Some(member) = bundle.members().find(|m| m.plain.sha256 == sha256) else { continue };
        let stored = bundle.stored(member);
        io::copy(&mut stored.open()?, &mut File::create(to)?)?;
        let good = digest(&mut File::open(to)?)? == (stored.size(), stored.sha256().to_owned())
            && digest(&mut zstd::Decoder::new(File::open(to)?)?).is_ok_and(|plain| plain == (size, sha256.clone()));
        if good {
            return Ok(Some(Content { size, sha256 }));
        }
    }
    Ok(None)
}

/// Compresses a file as a bundle has it; gives size and digest of what went in.
pub(super) fn compress(from: &Path, to: &Path) -> io::Result<Content> {
    let (source, mut hasher) = (File::open(from)?, Sha256::new());
    let size = source.metadata()?.len();
    let mut reader = BufReader::with_capacity(1 << 18, source);
    let mut encoder = zstd::Encoder::new(BufWriter::with_capacity(1 << 18, File::create(to)?), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(size))?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = reader.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        encoder.write_all(&buffer[..n])?;
    }
    encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(Content { size, sha256: hex::encode(hasher.finalize()) })
}

/// Writes the bundle of these parts to `to`, by way of a temporary name beside it.
pub fn write(title: Title, mut parts: Vec<Packed>, to: &Path) -> io::Result<()> {
    parts.sort_by(|a, b| a.member.name.cmp(&b.member.name));
    let Title { kubernetes, arch, source, replaced } = title;
    let members = parts.iter().map(|p| p.member.clone()).collect();
    let manifest = Manifest { format: FORMAT, kubernetes, arch, source, replaced, members }.to_bytes()?;
    let sum = layout::sum_line(&hex::encode(Sha256::digest(&manifest)));
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, tempfile::NamedTempFile::new_in(folder)?);
    append(&mut out, layout::MANIFEST, manifest.len() as u64, &mut manifest.as_slice())?;
    append(&mut out, layout::MANIFEST_SUM, sum.len() as u64, &mut sum.as_bytes())?;
    for Packed { member, file } in &parts {
        append(&mut out, &member.stored.path, member.stored.size, &mut File::open(file)?)?;
    }
    out.write_all(&[0; layout::END as usize])?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    readable_by_all(file.path())?;
    file.persist(to)?;
    Ok(())
}

/// A temporary file is private; a bundle is not: other users of the machine may share it.
fn readable_by_all(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

fn append(out: &mut impl Write, path: &str, size: u64, from: &mut dyn Read) -> io::Result<()> {
    out.write_all(layout::header(path, size)?.as_bytes())?;
    if io::copy(from, out)? != size {
        return Err(io::Error::other(format!("{path} changed while it was packed")));
    }
    io::copy(&mut io::repeat(0).take(layout::padding(size)), out)?;
    Ok(())
}

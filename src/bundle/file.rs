use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::{
    layout::{self, Places},
    manifest::{FORMAT, Manifest, Member, is_plain_name, is_plain_reference, is_sha256, may_install, stays_inside},
    slice::Slice,
};
use crate::core::{Arch, Blob, Code, Problem};

/// A manifest larger than this is not one of ours.
const MANIFEST_LIMIT: u64 = 4 << 20;

/// A bundle file whose manifest and headers were checked; its members are read on demand.
#[derive(Debug, Clone)]
pub struct Bundle {
    path: PathBuf,
    pub(super) file: Arc<File>,
    manifest: Manifest,
    id: String,
    offsets: HashMap<String, u64>,
}

impl Bundle {
    /// Opens the bundle at `path` and checks everything but the members' content; writes nothing.
    ///
    /// # Errors
    /// `KC-BUNDLE-FORMAT` when it is no bundle of this format, `KC-BUNDLE-PATH` when a member would leave its folder,
    /// `KC-BUNDLE-BROKEN` when it is cut short or its headers were altered.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let unreadable = |e| Problem::new(Code::LocalFile, format!("cannot read {}", path.display())).because(e);
        let file = Arc::new(File::open(path).map_err(unreadable)?);
        let length = file.metadata().map_err(unreadable)?.len();
        let reader = Reader { path, file: &file, length };
        reader.check_entries()?;
        let bytes = reader.manifest_bytes()?;
        let manifest = reader.parse(&bytes)?;
        let id = hex::encode(Sha256::digest(&bytes));
        let places = Places::of(bytes.len() as u64, &manifest.members);
        reader.check_places(&places, &id)?;
        let offsets = places.all.into_iter().map(|(path, at, _)| (path, at)).collect();
        Ok(Self { path: path.to_owned(), file, manifest, id, offsets })
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of its manifest, which names every other digest: two bundles with one id have the same content.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its members, sorted by name.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.manifest.members.iter()
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members().find(|m| m.name == name)
    }

    /// The reference of one of its images, as `registry.k8s.io/pause:3.10`.
    ///
    /// # Errors
    /// `KC-BUNDLE-FORMAT` where it has no image of this name.
    pub fn image(&self, name: &str) -> Result<&str, Problem> {
        let image = self.member(name).and_then(|m| m.images.first());
        image
            .map(String::as_str)
            .ok_or_else(|| Problem::new(Code::BundleFormat, format!("the bundle has no image {name}")))
    }

    /// The compressed bytes of `member`, read from the bundle file.
    pub fn stored(&self, member: &Member) -> Blob {
        let (file, at, size) = (Arc::clone(&self.file), self.offset(member), member.stored.size);
        Blob::new(size, &member.stored.sha256, move || Ok(Box::new(Slice::new(Arc::clone(&file), at, size))))
    }

    /// The bytes of `member` as nodes need them, decompressed while they are read.
    pub fn plain(&self, member: &Member) -> Blob {
        let (file, at, size) = (Arc::clone(&self.file), self.offset(member), member.stored.size);
        Blob::new(member.plain.size, &member.plain.sha256, move || {
            Ok(Box::new(zstd::Decoder::new(Slice::new(Arc::clone(&file), at, size))?))
        })
    }

    /// Writes the member of this name to `to` as a program, whole or not at all; false where the bundle has none.
    ///
    /// # Errors
    /// `KC-BUNDLE-BROKEN` when its bytes are not those of the manifest, `KC-LOCAL-FILE` when it cannot be written.
    pub fn unpack(&self, name: &str, to: &Path) -> Result<bool, Problem> {
        let Some(member) = self.member(name) else { return Ok(false) };
        let unpack = || -> io::Result<bool> {
            let folder = to.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            if !copy_whole(&self.plain(member), &mut file)? {
                return Ok(false);
            }
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
            file.persist(to)?;
            Ok(true)
        };
        let fail = |e| Problem::new(Code::LocalFile, format!("cannot unpack {name} to {}", to.display())).because(e);
        if unpack().map_err(fail)? {
            return Ok(true);
        }
        let what = format!("{}: the bytes of `{name}` were altered", self.path.display());
        Err(Problem::new(Code::BundleBroken, what))
    }

    /// Whether it holds Kubernetes `kubernetes` for `arch`.
    ///
    /// # Errors
    /// `KC-BUNDLE-ARCH` or `KC-BUNDLE-VERSION`.
    pub fn check_fits(&self, kubernetes: &str, arch: Arch) -> Result<(), Problem> {
        let (path, has) = (self.path.display(), &self.manifest);
        let right = format!("kubecamp bundle build --kubernetes {kubernetes} --arch {arch}");
        if has.arch != arch {
            let what = format!("{path} is for {}, the hosts are {arch}", has.arch);
            return Err(Problem::new(Code::BundleArch, what).hint(format!("Build the right one: {right}.")));
        }
        if has.kubernetes != kubernetes {
            let what = format!("{path} holds Kubernetes {}, the profile asks for {kubernetes}", has.kubernetes);
            return Err(Problem::new(Code::BundleVersion, what)
                .hint(format!("Build the right one: {right}. Or change the profile.")));
        }
        Ok(())
    }

    fn offset(&self, member: &Member) -> u64 {
        // A member of another bundle has no place here; reading at the end fails like a cut file.
        self.offsets.get(&member.stored.path).copied().unwrap_or(u64::MAX)
    }
}

/// Copies a blob, and says whether it has the length and digest that it claims; never goes far beyond that length. What
/// cannot be decompressed is not as it was made, and only a failure to write is an error.
fn copy_whole(blob: &Blob, to: &mut impl Write) -> io::Result<bool> {
    let mut from = blob.open()?.take(blob.size().saturating_add(1));
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0; 1 << 18]);
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(size == blob.size() && hex::encode(hasher.finalize()) == blob.sha256()),
            Ok(n) => n,
            Err(_) => return Ok(false),
        };
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        size += n as u64;
    }
}

/// The checks of [`Bundle::open`], on a file that is not trusted yet.
struct Reader<'a> {
    path: &'a Path,
    file: &'a Arc<File>,
    length: u64,
}

impl Reader<'_> {
    fn problem(&self, code: Code, what: &str) -> Problem {
        Problem::new(code, format!("{}: {what}", self.path.display()))
    }

    fn broken(&self, what: &str) -> Problem {
        self.problem(Code::BundleBroken, what)
    }

    fn read(&self, at: u64, size: u64) -> Result<Vec<u8>, Problem> {
        let mut bytes = vec![];
        if at.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(self.broken("the file ends too early"));
        }
        Slice::new(Arc::clone(self.file), at, size)
            .read_to_end(&mut bytes)
            .map_err(|e| self.broken("the file cannot be read to its end").because(e))?;
        Ok(bytes)
    }

    fn header(&self, at: u64) -> Result<Option<tar::Header>, Problem> {
        let bytes = self.read(at, layout::BLOCK)?;
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&bytes).clone();
        // The checksum counts its own eight bytes as blanks.
        let sum: u32 = (0..bytes.len()).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(bytes[i]) }).sum();
        if header.cksum().ok() == Some(sum) {
            return Ok(Some(header));
        }
        Err(match at {
            0 => self.problem(Code::BundleFormat, "this is not a bundle"),
            _ => self.broken(&format!("the header at byte {at} was altered")),
        })
    }

    /// Looks at what every entry of the tar file is called and is, before anything else is believed.
    fn check_entries(&self) -> Result<(), Problem> {
        let mut at = 0;
        while let Some(header) = self.header(at)? {
            let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
            if !stays_inside(&name) {
                return Err(self.problem(Code::BundlePath, &format!("the member `{name}` leaves its folder")));
            }
            if header.entry_type() != tar::EntryType::Regular {
                return Err(self.problem(Code::BundlePath, &format!("the member `{name}` is not a plain file")));
            }
            if at == 0 && name != layout::MANIFEST {
                return Err(self.problem(Code::BundleFormat, "this is not a bundle: it does not begin with a manifest"));
            }
            let size = header.size().map_err(|e| self.broken("a header has no size").because(e))?;
            let next = at.checked_add(layout::BLOCK).and_then(|at| at.checked_add(size.checked_next_multiple_of(512)?));
            at = next.filter(|at| *at < self.length).ok_or_else(|| self.broken(&format!("it ends within `{name}`")))?;
        }
        Ok(())
    }

    fn manifest_bytes(&self) -> Result<Vec<u8>, Problem> {
        let none = || self.problem(Code::BundleFormat, "this is not a bundle: it has no manifest");
        let size = self.header(0)?.ok_or_else(none)?.size().map_err(|_| none())?;
        if size > MANIFEST_LIMIT {
            return Err(none());
        }
        self.read(layout::BLOCK, size)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Manifest, Problem> {
        let unfit = |e| self.problem(Code::BundleFormat, "its manifest cannot be read").because(e);
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(unfit)?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            other => {
                let found = other.map_or("none".to_owned(), |f| f.to_string());
                let what = format!("its format is {found}, this version of kubecamp reads {FORMAT}");
                return Err(self.problem(Code::BundleFormat, &what));
            }
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(unfit)?;
        manifest.members.iter().try_for_each(|member| self.check_member(member))?;
        if !manifest.members.windows(2).all(|pair| pair[0].name < pair[1].name) {
            return Err(self.broken("the members of its manifest are not in order"));
        }
        Ok(manifest)
    }

    /// Refuses what would be more than a name where it is used: in paths and scripts that root runs on the hosts.
    fn check_member(&self, member: &Member) -> Result<(), Problem> {
        if !is_plain_name(&member.name) {
            let what = format!("the name of its member `{}` is not plain", member.name);
            return Err(self.problem(Code::BundlePath, &what));
        }
        let install = member.install.as_deref();
        if !stays_inside(&member.stored.path) || install.is_some_and(|to| !may_install(to)) {
            let to = install.unwrap_or(&member.stored.path);
            let what = format!("the member `{}` would be written to `{to}`", member.name);
            return Err(self.problem(Code::BundlePath, &what));
        }
        if let Some(image) = member.images.iter().find(|image| !is_plain_reference(image)) {
            let what = format!("the member `{}` has an image `{image}`, which is no reference", member.name);
            return Err(self.problem(Code::BundleFormat, &what));
        }
        if !is_sha256(&member.plain.sha256) || !is_sha256(&member.stored.sha256) {
            let what = format!("the member `{}` has a digest that is no SHA-256", member.name);
            return Err(self.problem(Code::BundleFormat, &what));
        }
        Ok(())
    }

    /// Compares length, headers, digest of the manifest and padding with what the manifest implies, byte by byte.
    fn check_places(&self, places: &Places, id: &str) -> Result<(), Problem> {
        if self.length != places.end {
            return Err(self.broken(&format!("it has {} bytes, {} are expected", self.length, places.end)));
        }
        for (path, at, size) in &places.all {
            let good = layout::header(path, *size).map_err(|e| self.broken("a member has no valid path").because(e))?;
            let end = at + size;
            let clean = self.read(end, layout::padding(*size))?.iter().all(|b| *b == 0);
            if self.read(at - layout::BLOCK, layout::BLOCK)? != good.as_bytes() || !clean {
                return Err(self.broken(&format!("the header or padding of `{path}` was altered")));
            }
        }
        let sum = layout::sum_line(id);
        let at = places.all.iter().find(|(path, ..)| path == layout::MANIFEST_SUM).map_or(0, |(_, at, _)| *at);
        if self.read(at, sum.len() as u64)? != sum.as_bytes() {
            return Err(self.broken("its manifest was altered"));
        }
        if self.read(places.end - layout::END, layout::END)?.iter().any(|b| *b != 0) {
            return Err(self.broken("its last blocks were altered"));
        }
        Ok(())
    }
}

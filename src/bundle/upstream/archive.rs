use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;

/// Takes files out of a tar archive, compressed or not: each path inside it to a place; nothing else is ever written.
pub fn extract(archive: &Path, wanted: &[(&str, PathBuf)]) -> io::Result<()> {
    let mut head = [0; 2];
    File::open(archive)?.read_exact(&mut head)?;
    let raw = BufReader::with_capacity(1 << 18, File::open(archive)?);
    let reader: Box<dyn Read> = if head == [0x1f, 0x8b] { Box::new(GzDecoder::new(raw)) } else { Box::new(raw) };
    let mut missing = wanted.to_vec();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").trim_start_matches('/').to_owned();
        let Some(i) = missing.iter().position(|(inside, _)| *inside == name) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (_, to) = missing.swap_remove(i);
        let mut fresh = tempfile::NamedTempFile::new_in(to.parent().unwrap_or(Path::new(".")))?;
        io::copy(&mut entry, &mut fresh)?;
        make_executable(fresh.path())?;
        fresh.persist(to)?;
    }
    match missing.first() {
        None => Ok(()),
        Some((inside, _)) => {
            let what = format!("{} holds no file {inside}", archive.display());
            Err(io::Error::new(io::ErrorKind::NotFound, what))
        }
    }
}

/// Makes `file` a program.
pub fn make_executable(file: &Path) -> io::Result<()> {
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

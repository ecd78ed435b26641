//! Files and folders that are for this user alone.

use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
    process::geteuid,
};

/// Makes a folder, and those above it that are missing, for this user alone.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Takes the rights of everybody else off a file or a folder of this user.
///
/// What is not there, belongs to somebody else or is a link is left alone.
pub fn tighten(path: &Path) -> io::Result<()> {
    // Only a place, not an open file: closing one would let go of the locks that SQLite has on it in this process.
    let place = match open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        place => place?,
    };
    let found = fstat(&place)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    let ours = found.st_uid == geteuid().as_raw();
    if !ours || !matches!(kind, FileType::RegularFile | FileType::Directory) || found.st_mode & 0o077 == 0 {
        return Ok(());
    }
    // By what was looked at, since the name may be another's by now.
    let held = format!("/proc/self/fd/{}", place.as_raw_fd());
    fs::set_permissions(held, fs::Permissions::from_mode(found.st_mode & 0o7700))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_ours_is_closed_and_a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        for name in ["file", "other"] {
            fs::write(at(name), "x").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        symlink(at("other"), at("link")).unwrap();
        make_folder(&at("new/folder")).unwrap();
        assert_eq!((mode("new"), mode("new/folder")), (0o700, 0o700));
        fs::set_permissions(at("new"), fs::Permissions::from_mode(0o2755)).unwrap();
        for name in ["file", "link", "new", "absent"] {
            tighten(&at(name)).unwrap();
        }
        assert_eq!((mode("file"), mode("other"), mode("new")), (0o600, 0o644, 0o2700));
    }
}

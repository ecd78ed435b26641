use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, fchown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, mkdirat, open, openat, renameat, statat, unlinkat},
    io::Errno,
};

use super::accounts;
use crate::core::{Code, Problem};

/// The home folder of a student's account, into which root writes.
///
/// Its owner may have put a link or anything else where a file goes: no link is followed, and only what is the owner's own
/// is touched.
pub struct Home {
    path: PathBuf,
    uid: u32,
    gid: u32,
}

/// A file of a home that is longer is not read.
const LONGEST: u64 = 1 << 20;

impl Home {
    /// The home of this account.
    pub async fn of(account: &str) -> Result<Self, Problem> {
        let missing = || Problem::new(Code::GateAccount, format!("the account {account} has no home folder"));
        let owner = accounts::anywhere(Path::new("/"), account).await?.ok_or_else(missing)?;
        let line = accounts::run("getent", &["passwd", account]).await?;
        let path = line.trim().split(':').nth(5).filter(|p| p.starts_with('/')).ok_or_else(missing)?;
        Ok(Self { path: path.into(), uid: owner.uid, gid: owner.gid })
    }

    /// For tests: a home of other ids than an account's.
    #[cfg(test)]
    pub fn at(path: &Path, uid: u32, gid: u32) -> Self {
        Self { path: path.to_owned(), uid, gid }
    }

    /// Reads a file of `folder`, which is in the home, or the home itself when empty; none where there is none to read.
    ///
    /// Root reads here what becomes the owner's: one that is somebody else's, or stands elsewhere too, is not read.
    pub fn read(&self, folder: &str, name: &str) -> Option<String> {
        let folder = self.folder(folder, false).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, name, flags, Mode::empty()).ok()?);
        let found = file.metadata().ok()?;
        if !found.is_file() || found.uid() != self.uid || found.nlink() != 1 {
            return None;
        }
        let mut bytes = vec![];
        file.take(LONGEST + 1).read_to_end(&mut bytes).ok()?;
        // A part of it is not the file: who writes it anew would cut off the rest.
        let whole = u64::try_from(bytes.len()).is_ok_and(|length| length <= LONGEST);
        String::from_utf8(bytes).ok().filter(|_| whole)
    }

    /// Has a file of `folder` begin with this line; what is in it stays.
    ///
    /// Whether it holds the line now: what its owner has there that cannot be read, as a link or another encoding, is left
    /// as it is.
    pub fn begin_with(&self, folder: &str, name: &str, line: &str) -> Result<bool, Problem> {
        let text = match self.read(folder, name) {
            Some(text) if text.lines().any(|known| known.trim() == line) => return Ok(true),
            Some(text) => format!("{line}\n\n{text}"),
            None if self.lacks(folder, name) => format!("{line}\n\n"),
            None => return Ok(false),
        };
        self.put(folder, name, &text).map(|()| true)
    }

    /// Whether nothing of this name is in `folder`, or that is not there either.
    fn lacks(&self, folder: &str, name: &str) -> bool {
        let look = |folder: OwnedFd| statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
        let found = self.folder(folder, false).and_then(look);
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Writes a file of `folder`, readable by its owner alone, whole or not at all.
    pub fn put(&self, folder: &str, name: &str, text: &str) -> Result<(), Problem> {
        let file = self.path.join(folder).join(name);
        self.write(folder, name, text)
            .map_err(|e| Problem::new(Code::GateAccount, format!("cannot write {}", file.display())).because(e))
    }

    /// Whether there is a file of this name in the home itself that can be taken: a folder is none.
    pub fn has(&self, name: &str) -> bool {
        let look = |home: OwnedFd| statat(&home, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from);
        let found = self.folder("", false).and_then(look);
        found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) != FileType::Directory)
    }

    /// Removes a file of the home itself; whether there was one.
    pub fn take(&self, name: &str) -> bool {
        self.folder("", false).is_ok_and(|home| unlinkat(&home, name, AtFlags::empty()).is_ok())
    }

    fn write(&self, folder: &str, name: &str, text: &str) -> io::Result<()> {
        let folder = self.folder(folder, true)?;
        let part = format!(".{name}.kubecamp");
        let _ = unlinkat(&folder, part.as_str(), AtFlags::empty());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&folder, part.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(text.as_bytes())?;
        fchown(&file, Some(self.uid), Some(self.gid))?;
        file.sync_all()?;
        renameat(&folder, part.as_str(), &folder, name)?;
        Ok(())
    }

    /// Opens a folder of the home as what it is now, whatever becomes of its name.
    fn folder(&self, name: &str, make: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let home = self.own(open(&self.path, flags, Mode::empty())?)?;
        if name.is_empty() {
            return Ok(home);
        }
        let made = make
            && match mkdirat(&home, name, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
        let inner = openat(&home, name, flags, Mode::empty())?;
        if made {
            fchown(&inner, Some(self.uid), Some(self.gid))?;
        }
        self.own(inner)
    }

    fn own(&self, folder: OwnedFd) -> io::Result<OwnedFd> {
        match fstat(&folder)?.st_uid == self.uid {
            true => Ok(folder),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder is somebody else's")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    use super::*;

    #[test]
    fn files_are_private_and_links_are_not_followed() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let meta = fs::metadata(dir.path()).unwrap();
        let home = Home { path: dir.path().to_owned(), uid: meta.uid(), gid: meta.gid() };
        assert_eq!(home.read(".kube", "config"), None);
        assert!(!dir.path().join(".kube").exists(), "looking makes nothing");
        home.put(".kube", "config", "one").unwrap();
        home.put(".kube", "config", "two").unwrap();
        assert_eq!(home.read(".kube", "config").as_deref(), Some("two"));
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(".kube"), mode(".kube/config")), (0o700, 0o600));
        assert_eq!(fs::read_dir(dir.path().join(".kube")).unwrap().count(), 1, "no part is left");
        // A link to a file is replaced, and one to a folder is refused.
        let precious = other.path().join("precious");
        fs::write(&precious, "kept").unwrap();
        symlink(&precious, dir.path().join("lab.txt")).unwrap();
        symlink(other.path(), dir.path().join(".ssh")).unwrap();
        assert_eq!(home.read("", "lab.txt"), None);
        home.put("", "lab.txt", "mine").unwrap();
        assert!(home.has("lab.txt") && !home.has(".kube") && !home.has("none"));
        assert!(home.take("lab.txt") && !home.take("lab.txt") && !home.has("lab.txt") && precious.exists());
        assert_eq!(home.put(".ssh", "config", "x").unwrap_err().code, Code::GateAccount);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
        assert!(!other.path().join("config").exists());
        let stranger = Home { path: dir.path().to_owned(), uid: meta.uid() + 1, gid: meta.gid() };
        assert!(stranger.put("", "lab.txt", "x").is_err());
    }

    #[test]
    fn what_is_not_the_owners_alone_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let meta = fs::metadata(dir.path()).unwrap();
        let home = Home { path: dir.path().to_owned(), uid: meta.uid(), gid: meta.gid() };
        let (file, twin) = (dir.path().join("config"), dir.path().join("twin"));
        fs::write(&file, "Host a\n").unwrap();
        let stranger = Home { path: dir.path().to_owned(), uid: meta.uid() + 1, gid: meta.gid() };
        assert_eq!(stranger.read("", "config"), None);
        let stays = || {
            assert_eq!(home.read("", "config"), None);
            assert!(!home.begin_with("", "config", "Include x").unwrap());
            assert_eq!(fs::read_to_string(&file).unwrap(), "Host a\n");
        };
        fs::hard_link(&file, &twin).unwrap();
        stays();
        fs::remove_file(&twin).unwrap();
        assert_eq!(home.read("", "config").as_deref(), Some("Host a\n"));
        // Only root can give a file away.
        if chown(&file, Some(meta.uid() + 1), None).is_ok() {
            stays();
        }
    }

    #[test]
    fn a_line_comes_first_and_what_cannot_be_read_stays() {
        let dir = tempfile::tempdir().unwrap();
        let meta = fs::metadata(dir.path()).unwrap();
        let home = Home { path: dir.path().to_owned(), uid: meta.uid(), gid: meta.gid() };
        let file = dir.path().join(".ssh/config");
        let begin = || home.begin_with(".ssh", "config", "Include x").unwrap();
        assert!(begin());
        assert_eq!(fs::read_to_string(&file).unwrap(), "Include x\n\n");
        fs::write(&file, "Host a\n").unwrap();
        assert!(begin() && begin());
        assert_eq!(fs::read_to_string(&file).unwrap(), "Include x\n\nHost a\n");
        let long = vec![b'#'; usize::try_from(LONGEST).unwrap() + 1];
        for theirs in [&b"# Ren\xe9\nHost a\n"[..], &long[..]] {
            fs::write(&file, theirs).unwrap();
            assert!(!begin());
            assert_eq!(fs::read(&file).unwrap(), theirs);
        }
        let dotfile = dir.path().join("dotfile");
        fs::rename(&file, &dotfile).unwrap();
        symlink(&dotfile, &file).unwrap();
        assert!(!begin() && file.is_symlink());
    }
}

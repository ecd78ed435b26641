use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::error::{absent, is_full, unwritten};
use crate::{
    core::{Code, Problem},
    engine::Lock,
    hub::private::tighten,
};

/// The file of `sqlite://PATH`.
pub(super) fn place(path: &str) -> Result<PathBuf, Problem> {
    // To SQLite an empty path and `:memory:` are a database for each connection, and `file:` begins an address with options.
    if path.is_empty() || path == ":memory:" || path.starts_with("file:") || path.contains('?') {
        return Err(Problem::new(Code::HubInvalid, format!("`sqlite://{path}` names no file"))
            .hint("Use sqlite://PATH, as sqlite:///var/lib/kubecamp-hub/hub.db, without options."));
    }
    Ok(path.into())
}

/// What to do about a file that cannot be a hub's database: the code's own hint is about one that is, and runs.
pub(super) fn hinted(problem: Problem) -> Problem {
    use rusqlite::ErrorCode::{CannotOpen, NotADatabase, PermissionDenied, ReadOnly};
    let Some(source) = problem.source.as_ref().filter(|_| problem.code == Code::HubDatabase) else { return problem };
    let system = source.downcast_ref::<io::Error>().map(io::Error::kind);
    let sqlite = source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    let hint = match (system, sqlite) {
        (Some(ErrorKind::NotFound | ErrorKind::NotADirectory), _) => "Make its folder first, or correct --database.",
        (Some(ErrorKind::IsADirectory | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem), _)
        | (_, Some(CannotOpen | PermissionDenied | ReadOnly)) => {
            "Name a file, which the hub's user may write as well as its folder."
        }
        (_, Some(NotADatabase)) => "Name the file of a hub, or one that is not there yet.",
        _ => return problem,
    };
    problem.hint(hint)
}

/// Sees to it that the file is there, for this user alone where it is made.
pub(super) fn prepare(path: &Path, make: bool) -> Result<(), Problem> {
    let fail = |e| unwritten(format!("the database {} cannot be made", path.display()), e);
    if make {
        match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(fail(e)),
            _ => {}
        }
    }
    if path.exists() { Ok(()) } else { Err(absent(&path.display())) }
}

/// Holds the file for one hub until the lock is dropped or the process ends; a second hub is refused.
///
/// The lock is on a file beside it: SQLite has locks of its own on the database, which go when any descriptor of it is
/// closed. And it is beside what a link leads to, so that two names of one database do not make two of it.
pub(super) fn hold(path: &Path) -> Result<Lock, Problem> {
    Lock::take_file(&lock_of(path), |holder| {
        Problem::new(Code::HubRunning, format!("another hub works on {} (process {holder})", path.display()))
    })
}

/// Keeps hubs away while somebody who is none changes the tables; refused where one works on the file, which does not know
/// the new ones.
///
/// None where no hub ever held it: a lock file that is made here might be another user's than the hub's. Several of them
/// share it, since each waits until the other's change is done.
pub(super) fn hold_for_upgrade(path: &Path) -> Result<Option<File>, Problem> {
    let lock = lock_of(path);
    let fail = |e| unwritten(format!("{} cannot be locked", lock.display()), e);
    let mut file = match File::open(&lock) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(e)) => Err(fail(e)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let what = format!("a hub of an older kubecamp works on {} (process {})", path.display(), holder.trim());
            Err(Problem::new(Code::HubRunning, what)
                .hint("Start the hub anew with this kubecamp first: that changes its tables."))
        }
    }
}

/// Whether it is a hub that holds the file, and not somebody who changes its tables: those share the lock.
pub(super) fn is_a_hubs(path: &Path) -> bool {
    File::open(lock_of(path)).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn lock_of(path: &Path) -> PathBuf {
    let mut lock = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    lock.push(".lock");
    lock.into()
}

/// Takes the rights of others off the file and off what lies beside it: all that people did is in it, and the secrets by
/// which webhooks are signed.
///
/// SQLite gives its other files the mode of this one.
pub(super) fn close_to_others(path: &Path) {
    // The files beside it are where the database is in truth, and not where a link to it is.
    let files = fs::canonicalize(path).map(|path| beside(&path)).unwrap_or_default();
    for file in files {
        if let Err(error) = tighten(&file) {
            tracing::warn!(file = %file.display(), %error, "others may read what belongs to the hub");
        }
    }
}

/// Whether the file system of a database takes no more of whoever asks, found by writing beside it: a quota shows in no
/// figure.
pub(super) fn has_no_space(path: &Path) -> bool {
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(folder) = place.parent() else { return false };
    // It has no name, and is gone in any case.
    tempfile::tempfile_in(folder).and_then(fill).is_err_and(|error| is_full(&error))
}

/// Writes as much as SQLite writes at once.
fn fill(mut file: File) -> io::Result<()> {
    file.write_all(&[1; 64 << 10])?;
    file.sync_all()
}

/// The database, SQLite's own files and the copies of older editions.
fn beside(path: &Path) -> Vec<PathBuf> {
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let mut files = Vec::from(["", "-wal", "-shm", "-journal"].map(named));
    let copies = named(".before-");
    let there = path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let is_copy =
        |file: &PathBuf| file.as_os_str().as_encoded_bytes().starts_with(copies.as_os_str().as_encoded_bytes());
    files.extend(there.map(|entry| entry.path()).filter(is_copy));
    files
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::hub::store::{Backups, Store};

    #[tokio::test]
    async fn nobody_else_reads_the_database_or_a_copy_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("hub.db").display());
        let modes = || {
            let mut found: Vec<(String, u32)> = fs::read_dir(folder.path())
                .unwrap()
                .map(Result::unwrap)
                .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().permissions().mode() & 0o777))
                .collect();
            found.sort();
            found
        };
        let store = Store::open(&url).await.unwrap();
        let private = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), 0o600)).collect::<Vec<_>>();
        assert_eq!(modes(), private(&["hub.db", "hub.db-shm", "hub.db-wal"]));
        store.close().await;
        // As an earlier kubecamp left them.
        fs::write(folder.path().join("hub.db.before-1"), "x").unwrap();
        for (name, _) in modes() {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let store = Store::open(&url).await.unwrap();
        assert_eq!(modes(), private(&["hub.db", "hub.db-shm", "hub.db-wal", "hub.db.before-1"]));
        store.close().await;
    }

    #[test]
    fn a_disk_without_space_is_found_by_writing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_no_space(&folder.path().join("hub.db")), "there is space for the tests");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert!(fill(full).is_err_and(|error| is_full(&error)));
        assert!(!has_no_space(Path::new("/nowhere/hub.db")), "what cannot be written for another reason is not full");
    }

    #[tokio::test]
    async fn what_names_no_file_is_refused() {
        for url in ["sqlite://", "sqlite://:memory:", "sqlite://file:x", "sqlite:///tmp/x?mode=ro"] {
            assert_eq!(Store::open(url).await.unwrap_err().code, Code::HubInvalid, "{url}");
        }
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_made_only_by_who_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("typo.db");
        let url = format!("sqlite://{}", path.display());
        assert_eq!(Store::open_existing(&url, Backups::Made).await.unwrap_err().code, Code::HubInvalid);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert_eq!(
            Store::open_existing(&url, Backups::Made).await.unwrap_err().code,
            Code::HubInvalid,
            "an empty file is no hub's"
        );
        Store::open(&url).await.unwrap().close().await;
        Store::open_existing(&url, Backups::Made).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn a_second_hub_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("hub.db"), folder.path().join("link.db"));
        let url = |path: &Path| format!("sqlite://{}", path.display());
        let first = Store::open_alone(&url(&path), Backups::Made).await.unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for name in [&path, &link] {
            let second = Store::open_alone(&url(name), Backups::Made).await.unwrap_err();
            assert_eq!(second.code, Code::HubRunning);
            let want = format!("{} (process {})", name.display(), std::process::id());
            assert!(second.what.ends_with(&want), "{second}");
        }
        let lock = fs::metadata(folder.path().join("hub.db.lock")).unwrap();
        assert_eq!(lock.permissions().mode() & 0o777, 0o600);
        // Whoever is no hub works beside one.
        Store::open_existing(&url(&path), Backups::Made).await.unwrap().close().await;
        let clone = first.clone();
        drop(first);
        assert_eq!(
            Store::open_alone(&url(&path), Backups::Made).await.unwrap_err().code,
            Code::HubRunning,
            "it is still in use"
        );
        clone.close().await;
        drop(clone);
        Store::open_alone(&url(&path), Backups::Made).await.unwrap().close().await;
    }

    #[tokio::test]
    async fn what_cannot_be_a_database_is_told_what_to_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text"), "127.0.0.1 localhost\n".repeat(100)).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        for (name, hint) in [
            ("text", "not there yet"),
            ("folder", "Name a file"),
            ("", "Name a file"),
            ("none/hub.db", "Make its folder"),
        ] {
            let url = format!("sqlite://{}", folder.path().join(name).display());
            let problem = Store::open_alone(&url, Backups::Made).await.unwrap_err();
            assert_eq!(problem.code, Code::HubDatabase, "{name}");
            assert!(problem.all_hints()[0].contains(hint), "{name}: {problem:?}");
        }
    }

    #[tokio::test]
    async fn nothing_is_written_into_a_file_that_was_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join("hub.db"), folder.path().join("away.db"));
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let now = crate::hub::domain::Epoch(1);
        store.writable(now).await.unwrap();
        fs::rename(&path, &away).unwrap();
        for other in [false, true] {
            if other {
                fs::write(&path, "").unwrap();
            }
            let refused = store.write("console", now).await.err().unwrap();
            assert!(refused.code == Code::HubDatabase && refused.what.contains("removed or replaced"), "{refused}");
            assert_eq!(store.writable(now).await.unwrap_err().code, Code::HubDatabase, "whoever asks for it is told");
        }
        fs::rename(&away, &path).unwrap();
        assert!(store.write("console", now).await.is_ok(), "it is the same one again");
        store.close().await;
    }

    #[tokio::test]
    async fn a_file_of_another_program_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let url = format!("sqlite://{}", path.display());
        let text = "127.0.0.1 localhost\n".repeat(100);
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            Store::open_existing(&url, Backups::Made).await.is_err()
                && Store::open_alone(&url, Backups::Made).await.is_err()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::{
    editions::edition,
    error::unwritten,
    sqlite::{problem_at, slow},
};
use crate::core::Problem;

/// Copies a database of an edition before `known`, which is about to be upgraded, to `PATH.before-EDITION`; the copy.
///
/// What an earlier upgrade from there left stays: then the new one is `PATH.before-EDITION.2` and so on, unless it would
/// be the same, as where an upgrade fails at each start of the hub.
pub(super) fn backup(connection: &Connection, path: &Path, known: i64) -> Result<Option<PathBuf>, Problem> {
    let had = edition(connection)?;
    if had == 0 || had >= known {
        return Ok(None);
    }
    let aside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".before-{had}{end}"));
        PathBuf::from(name)
    };
    let part = aside(".part");
    let fail = |e| unwritten(format!("the copy {} cannot be written", part.display()), e);
    // Whole or not at all: the half of a hub that was killed here would be taken for what one can go back to.
    fresh(&part).map_err(fail)?;
    let name = part.to_string_lossy().into_owned();
    slow(|| connection.execute("VACUUM INTO ?1", [name])).map_err(|e| problem_at(path, e))?;
    keep(&part, aside).map(Some).map_err(fail)
}

/// An empty file for this user alone, which SQLite takes for its copy.
fn fresh(part: &Path) -> io::Result<()> {
    match fs::remove_file(part) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(part).map(drop)
}

/// Gives a whole copy the first name that is free.
fn keep(part: &Path, aside: impl Fn(&str) -> PathBuf) -> io::Result<PathBuf> {
    File::open(part)?.sync_all()?;
    let mut copy = aside("");
    for number in 2.. {
        if fs::symlink_metadata(&copy).is_err() {
            fs::rename(part, &copy)?;
            break;
        }
        if fs::read(&copy)? == fs::read(part)? {
            // It counts as made now: by its own time it would be the first to go after the next upgrade. Where it is another
            // user's, who alone may set that, it is a whole copy all the same.
            let _ = File::open(&copy).and_then(|copy| copy.set_modified(fs::metadata(part)?.modified()?));
            fs::remove_file(part)?;
            break;
        }
        copy = aside(&format!(".{number}"));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::hub::store::Store;

    /// A hub's database, and a connection to it.
    async fn hub(folder: &Path) -> (PathBuf, Connection) {
        let path = folder.join("hub.db");
        Store::open(&format!("sqlite://{}", path.display())).await.unwrap().close().await;
        let connection = Connection::open(&path).unwrap();
        (path, connection)
    }

    #[tokio::test]
    async fn a_copy_is_made_before_an_upgrade_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let (path, connection) = hub(folder.path()).await;
        assert_eq!(backup(&connection, &path, 5).unwrap(), None);
        let copy = backup(&connection, &path, 6).unwrap().unwrap();
        assert_eq!(copy, folder.path().join("hub.db.before-5"));
        let url = format!("sqlite://{}", copy.display());
        assert!(Store::open(&url).await.is_ok(), "the copy is a whole database");
    }

    #[tokio::test]
    async fn half_a_copy_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, connection) = hub(folder.path()).await;
        let part = folder.path().join("hub.db.before-5.part");
        fs::write(&part, "SQLite format 3").unwrap();
        let copy = backup(&connection, &path, 6).unwrap().unwrap();
        assert!(!part.exists(), "what a killed hub left is no copy");
        assert!(Store::open(&format!("sqlite://{}", copy.display())).await.is_ok());
    }

    #[tokio::test]
    async fn an_older_copy_stays_and_a_new_one_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (path, connection) = hub(folder.path()).await;
        let first = backup(&connection, &path, 6).unwrap().unwrap();
        let (long_ago, file) = (UNIX_EPOCH + Duration::from_secs(86_400), File::open(&first).unwrap());
        file.set_modified(long_ago).unwrap();
        assert_eq!(backup(&connection, &path, 6).unwrap().unwrap(), first, "nothing has changed");
        let age = file.metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default();
        assert!(age < Duration::from_secs(3600), "it is the one that was made last: {age:?}");
        let old = fs::read(&first).unwrap();
        for number in 2..4 {
            let work = "INSERT INTO courses (id, title, policy) VALUES (?1, 'after', '{}')";
            connection.execute(work, [format!("c{number}")]).unwrap();
            let copy = backup(&connection, &path, 6).unwrap().unwrap();
            assert_eq!(copy, folder.path().join(format!("hub.db.before-5.{number}")));
            let kept = Connection::open(&copy).unwrap();
            let courses: i64 = kept.query_row("SELECT count(*) FROM courses", (), |row| row.get(0)).unwrap();
            assert_eq!(courses, number - 1);
        }
        assert_eq!(fs::read(&first).unwrap(), old, "what one could go back to is still there");
    }
}

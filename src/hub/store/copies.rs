use std::{
    fs::{self, Metadata},
    path::{Path, PathBuf},
};

use super::Store;

/// So many copies of one database stay, with the one that was made last.
const KEPT: usize = 3;

/// The copy of a database from before an upgrade that went well.
#[derive(Debug, Clone)]
pub(super) struct Copied {
    at: PathBuf,
    /// Older ones, which went for it.
    removed: Vec<PathBuf>,
}

impl Copied {
    /// Of a SQLite file, beside which it lies; `known` is the edition that the file has by now.
    pub(super) fn of_sqlite(at: PathBuf, database: &Path, known: i64) -> Self {
        let name = database.file_name().and_then(|name| name.to_str());
        let removed = remove_older(&at, |copy, file| Some((file.modified().ok()?, of_file(copy, name?, known)?)));
        Self { at, removed }
    }

    /// Of a PostgreSQL, in the folder of its copies; `known` is the edition that it has by now.
    pub(super) fn of_postgres(at: PathBuf, known: i64) -> Self {
        let own = at.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once(".before-"));
        let removed = remove_older(&at, |copy, _| of_dump(copy, own?.0, known).map(str::to_owned));
        Self { at, removed }
    }
}

impl Store {
    /// The copy that was made of it when it was opened, where its tables were of an older edition.
    pub fn backup(&self) -> Option<&Path> {
        self.copied.as_ref().map(|copied| copied.at.as_path())
    }

    /// Older copies that were removed after that one: the newest three stay.
    pub fn removed_backups(&self) -> &[PathBuf] {
        match &self.copied {
            Some(copied) => &copied.removed,
            None => &[],
        }
    }
}

/// Removes what the hub itself has named so in the folder of a copy, but for the newest; which. `made` says of a name of the
/// hub's when that copy was made, as an order.
fn remove_older<K: Ord>(kept: &Path, made: impl Fn(&str, &Metadata) -> Option<K>) -> Vec<PathBuf> {
    let folder = kept.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut others: Vec<(K, PathBuf)> = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        // Of an entry itself, not of what a link leads to.
        let Some(file) = entry.metadata().ok().filter(Metadata::is_file) else { continue };
        if kept.file_name() == Some(&*name) || has_a_hub(&path) {
            continue;
        }
        others.extend(name.to_str().and_then(|name| made(name, &file)).map(|key| (key, path)));
    }
    others.sort_unstable();
    others.truncate(others.len().saturating_sub(KEPT - 1));
    let remove = |copy: &PathBuf| match fs::remove_file(copy) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(copy = %copy.display(), %error, "an old copy of the database cannot be removed");
            false
        }
    };
    others.into_iter().map(|(_, copy)| copy).filter(remove).collect()
}

/// Whether a hub worked on a copy itself, as where somebody went back: then it is a database, and no copy any more.
fn has_a_hub(copy: &Path) -> bool {
    [".lock", "-wal", "-shm", "-journal"].iter().any(|end| {
        let mut beside = copy.as_os_str().to_owned();
        beside.push(end);
        Path::new(&beside).exists()
    })
}

/// The how manieth copy of its edition a name is, where it is that of a copy of this SQLite file.
fn of_file(name: &str, database: &str, known: i64) -> Option<i64> {
    let rest = name.strip_prefix(database)?.strip_prefix(".before-")?;
    let (edition, again) = match rest.split_once('.') {
        Some((edition, again)) => (edition, number(again).filter(|again| *again > 1)?),
        None => (rest, 1),
    };
    is_older(edition, known).then_some(again)
}

/// When a copy was made, where a name is that of a copy of this PostgreSQL.
fn of_dump<'a>(name: &'a str, database: &str, known: i64) -> Option<&'a str> {
    let rest = name.strip_prefix(database)?.strip_prefix(".before-")?.strip_suffix(".dump")?;
    let (edition, time) = rest.split_once('.')?;
    let is_time = |(at, byte): (usize, u8)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    let is_made = time.len() == 16 && time.bytes().enumerate().all(is_time);
    (is_made && is_older(edition, known)).then_some(time)
}

/// Whether it is an edition from which this hub upgrades: a date in a name of somebody's own is none.
fn is_older(edition: &str, known: i64) -> bool {
    number(edition).is_some_and(|edition| edition < known)
}

/// A number from 1 as the hub writes it.
fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rusqlite::Connection;

    use super::*;
    use crate::hub::store::editions::{for_sqlite, upgrade};

    fn put(folder: &Path, name: &str, day: u64) {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(day * 86_400)).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // What SQLite itself has beside its file comes and goes.
        all.retain(|name| !name.starts_with("hub.db-"));
        all.sort();
        all
    }

    /// What nobody but the hub's owner removes: none of these is named as the hub names a copy of `hub.db`.
    const OTHERS: [&str; 11] = [
        "hub.db.before-01",
        "hub.db.before-1.1",
        "hub.db.before-1.2.old",
        "hub.db.before-1.part",
        "hub.db.before-20240101",
        "hub.db.before-99",
        "hub.db.before-upgrade",
        "hub.dbx.before-1",
        "hub.before-1.20200101T000000Z.dump",
        "my-hub.db.before-1",
        "other.db.before-1",
    ];

    #[tokio::test]
    async fn an_upgrade_leaves_the_newest_three_copies_and_whatever_else_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        upgrade(&mut Connection::open(&path).unwrap(), &for_sqlite()[..2], || Ok(())).unwrap();
        OTHERS.iter().for_each(|name| put(folder.path(), name, 1));
        fs::create_dir(folder.path().join("hub.db.before-2.9")).unwrap();
        std::os::unix::fs::symlink("other.db.before-1", folder.path().join("hub.db.before-1.9")).unwrap();
        // Somebody went back to this one where it lies.
        put(folder.path(), "hub.db.before-1.7", 2);
        put(folder.path(), "hub.db.before-1.7.lock", 2);
        let before = names(folder.path());
        for (name, day) in [("hub.db.before-1", 5), ("hub.db.before-1.2", 4), ("hub.db.before-2", 3)] {
            put(folder.path(), name, day);
        }
        put(folder.path(), "hub.db.before-1.3", 6);
        let store = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        assert_eq!(store.backup(), Some(&*folder.path().join("hub.db.before-2.2")));
        let gone = ["hub.db.before-2", "hub.db.before-1.2"].map(|name| folder.path().join(name));
        assert_eq!(store.removed_backups(), gone);
        store.close().await;
        let mut left = names(folder.path());
        for kept in ["hub.db.before-1", "hub.db.before-1.3", "hub.db.before-2.2"] {
            assert!(left.contains(&kept.to_owned()), "{kept}: {left:?}");
            left.retain(|name| name != kept);
        }
        assert_eq!(left, before, "nothing else went");
        let again = Store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        assert!(again.backup().is_none() && again.removed_backups().is_empty());
        again.close().await;
    }

    #[test]
    fn of_a_postgresql_the_newest_three_stay_by_the_time_in_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let name = |edition: i64, day: u64| format!("camp.before-{edition}.202601{day:02}T120000Z.dump");
        // A copy of the files may have given them any time.
        for day in 1..6 {
            put(folder.path(), &name(1, day), 40 - day);
        }
        let others =
            ["camp2.before-1.20260101T120000Z.dump", "camp.before-1.2026.dump", "camp.before-1.dump", "camp.dump"];
        others.iter().for_each(|name| put(folder.path(), name, 1));
        let newer = name(9, 1);
        put(folder.path(), &newer, 1);
        let newest = folder.path().join(name(2, 9));
        fs::write(&newest, "x").unwrap();
        let copied = Copied::of_postgres(newest, 3);
        assert_eq!(copied.removed, [1, 2, 3].map(|day| folder.path().join(name(1, day))));
        let left = names(folder.path());
        for kept in others.iter().map(|name| (*name).to_owned()).chain([name(1, 4), name(1, 5), name(2, 9), newer]) {
            assert!(left.contains(&kept), "{kept}: {left:?}");
        }
    }
}

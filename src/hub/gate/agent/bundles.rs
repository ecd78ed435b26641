use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, DirEntry},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::MachinesConfig;
use crate::core::{Code, Problem};

/// So long after it came a bundle stays in any case: an enrolment brings it before the configuration that names it.
const NEW: Duration = Duration::from_secs(86_400);

/// Removes bundles from the labs' home that an enrolment brought, and that neither the configuration names nor any lab; which.
///
/// A lab starts from the bundle that it was made from for as long as there is the lab. So where one cannot be read, or is being
/// made at `now`, or the folder of labs is not there, as on a disk that is not mounted, nothing is removed: which bundles are
/// needed nobody knows.
pub fn drop_unused_bundles(config: &MachinesConfig, now: SystemTime) -> Result<Vec<PathBuf>, Problem> {
    let home = &config.home;
    let unused: Vec<PathBuf> =
        entries(home)?.iter().filter(|file| is_enrolled(file, now)).map(DirEntry::path).collect();
    if unused.is_empty() {
        return Ok(vec![]);
    }
    let Some(mut named) = named_by_labs(home)? else { return Ok(vec![]) };
    named.extend(config.bundle.as_deref().and_then(Path::file_name).map(OsStr::to_owned));
    // By the name alone, which is the digest: whatever way leads to the folder, one that is named stays.
    let unused = unused.into_iter().filter(|file| file.file_name().is_some_and(|name| !named.contains(name)));
    let remove = |file: PathBuf| match fs::remove_file(&file) {
        Err(error) => Err(stays(&format!("{} cannot be removed", file.display())).because(error)),
        Ok(()) => Ok(file),
    };
    unused.map(remove).collect()
}

/// The files' names of the bundles that labs were made from; none where their folder is not there, or a lab is being made,
/// which does not say yet.
fn named_by_labs(home: &Path) -> Result<Option<BTreeSet<OsString>>, Problem> {
    let (labs, mut named) = (home.join("data/labs"), BTreeSet::new());
    if matches!(labs.try_exists(), Ok(false)) {
        return Ok(None);
    }
    for lab in entries(&labs)? {
        let folder = lab.path();
        let state = folder.join("state.json");
        let text = match fs::read_to_string(&state) {
            Ok(text) => text,
            // No lab, but a file beside them, or what runs of one have logged that is gone.
            Err(error) if error.kind() == ErrorKind::NotADirectory => continue,
            Err(error)
                if error.kind() == ErrorKind::NotFound && matches!(folder.join("lab.yaml").try_exists(), Ok(false)) =>
            {
                continue;
            }
            Err(error) => return Err(unread(&state).because(error)),
        };
        let noted: Value = serde_json::from_str(&text).map_err(|error| unread(&state).because(error))?;
        match (noted.get("bundle"), noted.get("clean")) {
            (Some(Value::String(file)), _) => named.extend(Path::new(file).file_name().map(OsStr::to_owned)),
            (Some(Value::Null), Some(Value::Bool(true))) if is_worked_on(&folder) => return Ok(None),
            // Made without one, or never made.
            (Some(Value::Null), _) => {}
            _ => return Err(unread(&state)),
        }
    }
    Ok(Some(named))
}

/// Whether a run has this lab now, by the kernel's list of locks; where nobody can tell, one has.
///
/// The lock itself is not tried: who waits for it ends the process that stands in it.
fn is_worked_on(folder: &Path) -> bool {
    let inode = match fs::metadata(folder.join("lock")) {
        Ok(lock) => format!(":{}", lock.ino()),
        Err(error) => return error.kind() != ErrorKind::NotFound,
    };
    let held = |locks: String| locks.lines().any(|line| line.split_whitespace().any(|word| word.ends_with(&inode)));
    fs::read_to_string("/proc/locks").map_or(true, held)
}

/// Whether it is a file as enrolments put bundles there, named by its digest, and no new one.
fn is_enrolled(file: &DirEntry, now: SystemTime) -> bool {
    let name = file.file_name();
    let digest = name.to_str().and_then(|name| name.strip_suffix(".bundle")).unwrap_or_default();
    if digest.len() != 16 || !digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return false;
    }
    let Ok(found) = file.metadata() else { return false };
    let age = found.modified().ok().and_then(|came| now.duration_since(came).ok());
    found.is_file() && age.is_some_and(|age| age >= NEW)
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> Result<Vec<DirEntry>, Problem> {
    let read = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        read => read.and_then(|found| found.collect::<io::Result<Vec<_>>>()),
    };
    read.map_err(|error| unread(folder).because(error))
}

fn unread(place: &Path) -> Problem {
    stays(&format!("{} cannot be read", place.display()))
}

fn stays(why: &str) -> Problem {
    Problem::new(Code::LocalFile, format!("bundles that no lab needs may stay on the server: {why}"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::engine::Lock;

    const OLD: &str = "aaaaaaaaaaaaaaaa.bundle";
    const BOUND: &str = "bbbbbbbbbbbbbbbb.bundle";
    const OWN: &str = "0123456789abcdef.bundle";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 100 * NEW
    }

    /// A home with these files, each a day old but for those that are named new.
    fn home(files: &[&str], new: &[&str]) -> (tempfile::TempDir, MachinesConfig) {
        let dir = tempfile::tempdir().unwrap();
        for name in files.iter().chain(new) {
            let came = if new.contains(name) { now() - NEW / 2 } else { now() - NEW };
            File::create(dir.path().join(name)).unwrap().set_modified(came).unwrap();
        }
        let text = format!("{{home: {0}, bundle: {0}/{OWN}}}", dir.path().display());
        (dir, serde_yaml::from_str(&text).unwrap())
    }

    fn lab(home: &Path, name: &str, state: &str) -> PathBuf {
        let folder = home.join("data/labs").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("lab.yaml"), "").unwrap();
        fs::write(folder.join("state.json"), state).unwrap();
        folder
    }

    fn left(home: &Path) -> Vec<String> {
        let mut all: Vec<_> = entries(home).unwrap().iter().map(|e| e.file_name().into_string().unwrap()).collect();
        all.retain(|name| name != "data");
        all.sort();
        all
    }

    #[test]
    fn a_bundle_goes_that_neither_a_lab_nor_the_configuration_names() {
        let others = ["mine.bundle", "aaaaaaaaaaaaaaaa.bundle.kc-part", "AAAAAAAAAAAAAAAA.bundle", "tried"];
        let (dir, config) = home(&[[OLD, BOUND, OWN].as_slice(), &others].concat(), &["cccccccccccccccc.bundle"]);
        let home = dir.path();
        fs::create_dir(home.join("dddddddddddddddd.bundle")).unwrap();
        // By whatever way the folder was named.
        lab(home, "gate-amy", &format!(r#"{{"format": 1, "place": "local", "bundle": "/by/a/link/{BOUND}"}}"#));
        lab(home, "gate-bob", r#"{"format": 1, "place": "local", "bundle": null, "clean": false}"#);
        // Its lab is gone; the logs of its runs stay.
        fs::create_dir_all(home.join("data/labs/gate-cem/runs")).unwrap();
        fs::write(home.join("data/labs/note"), "").unwrap();
        let before = left(home);
        assert_eq!(drop_unused_bundles(&config, now()).unwrap(), [home.join(OLD)]);
        let want: Vec<_> = before.into_iter().filter(|name| name != OLD).collect();
        assert_eq!(left(home), want);
        assert!(drop_unused_bundles(&config, now()).unwrap().is_empty());
        fs::remove_dir_all(home.join("data/labs/gate-amy")).unwrap();
        assert_eq!(drop_unused_bundles(&config, now()).unwrap(), [home.join(BOUND)]);
    }

    #[test]
    fn no_bundle_goes_where_a_labs_own_is_not_known() {
        for state in [
            "{",
            r#"{"format": 9, "place": "local"}"#,
            r#"{"format": 1, "place": "local", "bundle": {"in": "the moon"}}"#,
        ] {
            let (dir, config) = home(&[OLD, OWN], &[]);
            lab(dir.path(), "gate-amy", state);
            assert!(drop_unused_bundles(&config, now()).is_err(), "{state}");
            assert_eq!(left(dir.path()), [OWN, OLD], "{state}");
        }
        // Which it is being made from stands there once its machines are changed. One whose first run was refused needs none.
        let (dir, config) = home(&[OLD, OWN], &[]);
        let folder = lab(dir.path(), "gate-amy", r#"{"format": 1, "place": "local", "bundle": null, "clean": true}"#);
        let run = Lock::take(&folder).unwrap();
        assert!(drop_unused_bundles(&config, now()).unwrap().is_empty() && left(dir.path()) == [OWN, OLD]);
        drop(run);
        assert_eq!(drop_unused_bundles(&config, now()).unwrap(), [dir.path().join(OLD)]);
        let (dir, config) = home(&[OLD, OWN], &[]);
        fs::remove_file(lab(dir.path(), "gate-amy", "").join("state.json")).unwrap();
        assert!(drop_unused_bundles(&config, now()).is_err() && left(dir.path()) == [OWN, OLD]);
        // Nor where labs are is there.
        let (dir, config) = home(&[OLD, OWN], &[]);
        for link in [false, true] {
            if link {
                fs::create_dir(dir.path().join("data")).unwrap();
                std::os::unix::fs::symlink("/nonexistent/labs", dir.path().join("data/labs")).unwrap();
            }
            assert!(drop_unused_bundles(&config, now()).unwrap().is_empty() && left(dir.path()) == [OWN, OLD]);
        }
        // Of a clock that was set back nobody knows how old anything is.
        let (dir, config) = home(&[OLD, OWN], &[]);
        assert!(drop_unused_bundles(&config, now() - 2 * NEW).unwrap().is_empty() && left(dir.path()) == [OWN, OLD]);
        let none = MachinesConfig { home: dir.path().join("none"), ..config };
        assert!(drop_unused_bundles(&none, now()).unwrap().is_empty(), "no home is there yet");
    }
}

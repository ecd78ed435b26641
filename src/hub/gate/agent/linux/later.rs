use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::accounts::{Owner, run};
use crate::core::{Code, Problem};

/// Files that make somebody's jobs run by the clock, by the account's name.
const BY_NAME: &[&str] =
    &["var/spool/cron/crontabs", "var/spool/cron/tabs", "var/spool/cron", "var/lib/systemd/linger"];

/// Folders of jobs that belong to whoever owns the file: at and batch.
const BY_OWNER: &[&str] = &["var/spool/cron/atjobs", "var/spool/at", "var/spool/at/spool", "var/spool/atjobs"];

/// Removes what would start processes of the account after its slot: linger, its user manager, cron, at.
pub(super) async fn clear(root: &Path, owner: &Owner) -> Result<(), Problem> {
    let mut failed = vec![];
    for folder in BY_NAME {
        remove(&root.join(folder).join(&owner.name), &mut failed);
    }
    for folder in BY_OWNER {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries.flatten() {
            if entry.metadata().is_ok_and(|m| m.is_file() && owner.owns(m.uid())) {
                remove(&entry.path(), &mut failed);
            }
        }
    }
    // Only where systemd is process 1; elsewhere these only wait for a bus that is not there.
    if root == Path::new("/") && Path::new("/run/systemd/system").exists() {
        let uid = owner.uid;
        for args in [
            ["stop", "--no-block", &format!("user@{uid}.service")],
            ["kill", "--signal=KILL", &format!("user-{uid}.slice")],
        ] {
            let _ = run("systemctl", &args).await;
        }
        let _ = run("loginctl", &["terminate-user", &owner.name]).await;
    }
    if failed.is_empty() {
        return Ok(());
    }
    let what = format!("jobs of {} for later cannot be removed", owner.name);
    Err(Problem::new(Code::GateNotEmpty, what).detail(failed))
}

fn remove(file: &Path, failed: &mut Vec<String>) {
    match fs::remove_file(file) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            failed.push(format!("{}: {e}", file.display()));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_of_the_account_go_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        for folder in BY_NAME.iter().chain(BY_OWNER) {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let put = |name: &str| fs::write(root.path().join(name), "x").unwrap();
        let uid = fs::metadata(root.path()).unwrap().uid();
        for name in ["crontabs/kct-a", "crontabs/kct-b", "atjobs/a00001"] {
            put(&format!("var/spool/cron/{name}"));
        }
        put("var/lib/systemd/linger/kct-a");
        let owner = |uid| Owner { name: "kct-a".into(), uid, gid: 1, subordinate: vec![] };
        clear(root.path(), &owner(uid + 1)).await.unwrap();
        let there = |name: &str| root.path().join(name).exists();
        assert!(!there("var/spool/cron/crontabs/kct-a") && !there("var/lib/systemd/linger/kct-a"));
        assert!(there("var/spool/cron/crontabs/kct-b") && there("var/spool/cron/atjobs/a00001"));
        clear(root.path(), &owner(uid)).await.unwrap();
        assert!(!there("var/spool/cron/atjobs/a00001"));
        fs::create_dir_all(root.path().join("var/spool/cron/crontabs/kct-a/x")).unwrap();
        assert_eq!(clear(root.path(), &owner(uid)).await.unwrap_err().code, Code::GateNotEmpty);
    }
}

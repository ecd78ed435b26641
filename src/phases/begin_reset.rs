use std::sync::Arc;

use async_trait::async_trait;

use super::{
    cluster::PROVEN,
    reset_host::{Records, Scripts},
    steps::DRAIN,
};
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
    host::{
        scan,
        script::{at_rest, unpacked},
    },
};

/// Marks the host as one that is being reset, once nothing of an earlier run is at work on it.
///
/// A phase of its own: what is left to do is looked for after it. A killed run's last change, as a join, may still start a
/// kubelet while this one waits for it to end.
pub struct BeginReset {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

#[async_trait]
impl Phase for BeginReset {
    fn id(&self) -> PhaseId {
        PhaseId::new("begin-reset")
    }

    fn title(&self) -> &'static str {
        "begin the reset"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let scripts = Scripts::new(view, &self.records, Some("reset/begin.sh"))?;
        let begin = self.begin(view, &scripts);
        let cp = &view.lab.control_plane().name;
        if *view.node == *cp {
            return Ok(vec![begin]);
        }
        // A control plane that is not there or fails has nothing to drain with, and its workers are cleaned all the same.
        Ok(vec![begin.needs(Need::After(cp.clone(), StepId::new(DRAIN)))])
    }
}

impl BeginReset {
    /// Marks the host, so that an interrupted reset knows it for ours whatever is gone already, and gives it back the
    /// record that it has lost.
    ///
    /// The mark is no condition: on a full disk the reset is what makes room. The record is one, since it alone says what was
    /// there before and must stay.
    fn begin(&self, view: &View<'_>, scripts: &Scripts) -> Step {
        let record = self.records.get(view.node).map(|text| {
            format!(
                "[ -s $KC/before ] || keep_record <<'KC_RECORD_END' || exit 1\n{}\nKC_RECORD_END\n",
                text.trim_end()
            )
        });
        let text = scripts.text();
        // Marks of what `up` found out about a lab that is about to go: they would mislead the next `up`.
        let change = format!(
            "{text}{} || exit 1\nours || exit 0\nrm -rf {PROVEN} $KC/images $KC/binaries $KC/spared $KC/begun\nbegin_reset\n{}\
             scan() {{\n{}\n}}\nscan_begun\ntrue",
            unpacked(),
            record.as_deref().unwrap_or_default(),
            scan::SCRIPT
        );
        let has_record = if record.is_some() { "[ -s $KC/before ]" } else { "true" };
        let check = format!("{text}{} && {{ ! ours || {{ [ -e $KC/resetting ] && {has_record}; }}; }}", at_rest());
        Step::script("begin", "note that the host is being reset", Check::Before(check), change)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        os::unix::fs::symlink,
        path::Path,
        process::{Command, Output},
    };

    use super::*;
    use crate::{
        engine::Change,
        host::Facts,
        profile::{self, Lab},
    };

    /// What the first step of a reset does on a host below `root`, where the lab's folder has this record of it.
    async fn begun(root: &Path, record: Option<&str>) -> Output {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let node = lab.control_plane().name.clone();
        let fleet = BTreeMap::from([(node.clone(), Facts::parse(""))]);
        let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
        let records = Arc::new(record.map(|text| (node.clone(), text.to_owned())).into_iter().collect());
        let step = BeginReset { records }.steps(&view).await.unwrap().remove(0);
        let Change::Script(script) = &step.change else { panic!("it is no script") };
        let below = |text: String, top: &str| text.replace(top, &format!("{}{top}", root.display()));
        let script = ["/var/", "/run/", "/etc/"].into_iter().fold(script.clone(), below);
        Command::new("sh").arg("-c").arg(script).output().unwrap()
    }

    #[tokio::test]
    async fn no_room_for_the_mark_stops_no_reset() {
        let root = tempfile::tempdir().unwrap();
        let (own, logs) = (root.path().join("var/lib/kubecamp"), root.path().join("var/log/pods"));
        for folder in [own.join("incoming"), own.join("images"), logs.clone()] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("large"), "x").unwrap();
        }
        fs::write(own.join("before"), "path\t/root\n").unwrap();
        fs::write(own.join("manifest"), "x").unwrap();
        // It can be written once the logs are gone.
        symlink(&logs, own.join("resetting")).unwrap();
        let ended = begun(root.path(), Some("path\t/other")).await;
        assert!(ended.status.success() && ended.stdout.is_empty(), "{ended:?}");
        assert!(logs.is_file() && !own.join("incoming").exists() && !own.join("images").exists());
        assert_eq!(fs::read_to_string(own.join("before")).unwrap(), "path\t/root\n", "the host's own comes first");

        // It cannot be written at all.
        fs::remove_file(own.join("resetting")).unwrap();
        symlink(root.path().join("none/none"), own.join("resetting")).unwrap();
        let ended = begun(root.path(), None).await;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success() && said.contains("cannot be noted"), "{ended:?}");
        assert!(own.join("manifest").exists() && own.join("before").exists());
    }

    #[tokio::test]
    async fn a_host_that_was_started_anew_is_seen_before_anything_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("var/lib/kubecamp");
        fs::create_dir_all(&own).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        for (was, seen) in [("another", true), (boot.trim(), false)] {
            fs::write(own.join("before"), format!("boot\t{was}\n")).unwrap();
            let ended = begun(root.path(), None).await;
            assert!(ended.status.success(), "{ended:?}");
            let scan = fs::read_to_string(own.join("begun")).unwrap_or_default();
            assert_eq!(scan.contains("\nlink\tlo\n"), seen, "{was}");
        }
    }

    #[tokio::test]
    async fn without_the_record_nothing_is_removed_that_may_have_been_there() {
        let root = tempfile::tempdir().unwrap();
        let (own, logs) = (root.path().join("var/lib/kubecamp"), root.path().join("var/log/pods"));
        fs::create_dir_all(own.join("incoming")).unwrap();
        fs::create_dir_all(&logs).unwrap();
        symlink("/dev/full", own.join("before.part")).unwrap();
        let ended = begun(root.path(), Some("path\t/root")).await;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains("free some space"), "{ended:?}");
        assert!(logs.exists() && !own.join("incoming").exists() && !own.join("before").exists());

        fs::remove_file(own.join("before.part")).unwrap();
        let ended = begun(root.path(), Some("path\t/root")).await;
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(fs::read_to_string(own.join("before")).unwrap(), "path\t/root\n");
    }
}

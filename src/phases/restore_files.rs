use std::sync::Arc;

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Puts back every file, folder, unit and setting as the host's manifest says it was.
pub struct RestoreFiles {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

#[async_trait]
impl Phase for RestoreFiles {
    fn id(&self) -> PhaseId {
        PhaseId::new("restore-files")
    }

    fn title(&self) -> &'static str {
        "restore files and settings"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let scripts = Scripts::new(view, &self.records, Some("reset/restore.sh"))?;
        let any = |list: &str| format!("[ -n \"$({list})\" ]");
        Ok(vec![
            scripts.step("files", "restore files, folders and units", "files_left", "restore_files"),
            scripts.step("made", "remove what the cluster made by itself", "made_left", "remove_made"),
            scripts.step("settings", "restore kernel settings", &any("settings"), "restore_settings"),
            scripts.step("modules", "unload kernel modules", &any("modules"), "remove_modules"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use crate::host::template;

    #[test]
    fn a_record_that_a_full_disk_cut_off_is_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let restore = template::text("reset/restore.sh").unwrap();
        let script = format!("KC={}\nTAB='\t'\n{restore}\nmanifest", dir.path().display());
        let whole = "tree\tabsent\t/etc/kubernetes\nfile\tabsent\t/etc/crictl.yaml\n";
        let cut = format!("{whole}tree\tabsent\t/var/lib");
        for (text, seen) in [(whole, whole), (cut.as_str(), whole), ("dir\tabsent\t/opt", "")] {
            std::fs::write(dir.path().join("manifest"), text).unwrap();
            let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), seen, "{text}");
        }
    }
}

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;

use super::{
    gate_host::{self, STUDENTS},
    gate_paths::{DROP_IN, FOLDER, LOG, STARTED},
};
use crate::{
    core::{Code, PhaseId, Problem, shell::quote},
    engine::{Check, Phase, Step, View},
    host::template,
};

/// Takes the gate off a server: accounts closed, agent stopped, every file as it was.
pub struct GateLeave {
    /// The group of students' accounts; none is the one that the server is enrolled with.
    pub group: Option<String>,
    /// Whether their accounts and homes are removed; else they are closed.
    pub remove_accounts: bool,
    /// Which group it is, once the server was asked.
    pub found: Arc<OnceLock<String>>,
}

#[async_trait]
impl Phase for GateLeave {
    fn id(&self) -> PhaseId {
        PhaseId::new("gate-leave")
    }

    fn title(&self) -> &'static str {
        "take the gate off"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let functions = template::text("gate/leave.sh")?;
        let script = |text: &str| gate_host::script(&format!("{functions}\n{text}"));
        let installed = gate_host::group_on(view, &format!("{functions}\nenrolled_group")).await?;
        let group = self.group_of(installed)?;
        let words = format!("{} {}", quote(&group), if self.remove_accounts { "yes" } else { "no" });
        Ok(vec![
            Step::script("agent", "stop the agent", Check::Script(script("agent_ended")?), script("stop_agent")?),
            Step::script(
                "accounts",
                "close the students' accounts",
                Check::Script(script(&format!("[ -z \"$(accounts_left {words})\" ]"))?),
                script(&format!("close_accounts {words}"))?,
            ),
            Step::script(
                "labs",
                "remove the labs and their engine",
                Check::Script(script("[ -z \"$(labs_left)\" ]")?),
                script("remove_labs")?,
            )
            .limit(Duration::from_secs(900)),
            Step::script(
                "files",
                "restore files and sshd",
                Check::Script(script(&format!("[ ! -e $KC ] && [ ! -e {DROP_IN} ] && [ ! -e {FOLDER} ]"))?),
                script(&format!(
                    "forget_rules; gate_back; reload_sshd || kc_die 'sshd refuses its configuration'\n\
                     if has_systemd; then systemctl daemon-reload; systemctl reset-failed kubecamp-agent 2>/dev/null; fi\n\
                     rm -f {STARTED} {LOG}; rm -rf \"$KC\"",
                ))?,
            ),
        ])
    }
}

impl GateLeave {
    /// Whose accounts are closed. The gate's own word counts: it is these that only the gate keeps out, and a command that
    /// names others would leave them open.
    fn group_of(&self, installed: Option<String>) -> Result<String, Problem> {
        let group = match (installed, &self.group) {
            (Some(installed), Some(named)) if installed != *named => {
                let what = format!("the students of this server are the group {installed}, not {named}");
                return Err(Problem::new(Code::Usage, what).hint("Leave --group out."));
            }
            (Some(installed), _) => installed,
            (None, named) => named.clone().unwrap_or_else(|| STUDENTS.to_owned()),
        };
        Ok(self.found.get_or_init(|| group).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_a_full_disk_cut_off_is_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        for folder in ["ours", "theirs"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let manifest = format!("tree\tabsent\t{root}/ours\ntree\tabsent\t{root}/theirs");
        std::fs::write(dir.path().join("manifest"), manifest).unwrap();
        let script = format!("KC={root}\n{}\ngate_back", template::text("gate/leave.sh").unwrap());
        assert!(std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success());
        assert!(!dir.path().join("ours").exists() && dir.path().join("theirs").exists());
    }

    #[test]
    fn an_agent_that_only_waits_to_be_started_has_not_ended() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        let ended = |state: &str, enabled: bool| {
            let script = format!(
                "{}\nWANTED={}\nhas_systemd() {{ true; }}\nsystemctl() {{ case $* in show*) echo {state} ;; *) {enabled} ;; esac; }}\nagent_ended",
                template::text("gate/lib.sh").unwrap(),
                link.display()
            );
            std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success()
        };
        assert!(ended("inactive", false) && ended("failed", false));
        // Between two tries; stopped, until the server begins anew.
        assert!(!ended("activating", false) && !ended("active", false) && !ended("inactive", true));
        std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
        assert!(!ended("inactive", false), "what starts it is still there");
    }

    #[test]
    fn of_sshds_file_the_gates_line_goes_and_nothing_else() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let file = dir.path().join("etc/ssh/sshd_config");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        // As an older kubecamp has it.
        fs::write(dir.path().join("kept/0123"), "Port 22\nPasswordAuthentication yes").unwrap();
        let run = |what: &str| {
            let (lib, leave) = (template::text("gate/lib.sh").unwrap(), template::text("gate/leave.sh").unwrap());
            let script = format!("{lib}\nKC={root}\n{leave}\n{what}");
            assert!(std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success());
        };
        for record in ["line\tabsent", "file\tkept:0123"] {
            fs::write(dir.path().join("manifest"), format!("{record}\t{}\n", file.display())).unwrap();
            fs::write(&file, "Port 22\nPasswordAuthentication yes").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            run(&format!("rewrite {} with_include", file.display()));
            let with = fs::read_to_string(&file).unwrap();
            assert_eq!(with, format!("Include {DROP_IN}\nPort 22\nPasswordAuthentication yes"));
            fs::write(&file, with.replace(" yes", " no")).unwrap();
            run("gate_back");
            assert_eq!(fs::read_to_string(&file).unwrap(), "Port 22\nPasswordAuthentication no", "{record}");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no part is left");
        }
    }

    #[test]
    fn the_group_is_the_one_that_the_server_is_enrolled_with() {
        let of = |named: Option<&str>, installed: Option<&str>| {
            let found = Arc::default();
            let leave =
                GateLeave { group: named.map(str::to_owned), remove_accounts: false, found: Arc::clone(&found) };
            let group = leave.group_of(installed.map(str::to_owned));
            assert_eq!(found.get(), group.as_ref().ok(), "what stays is told by its name");
            group.map_err(|p| p.code)
        };
        assert_eq!(of(None, Some("lab-students")), Ok("lab-students".to_owned()));
        assert_eq!(of(Some("lab-students"), Some("lab-students")), Ok("lab-students".to_owned()));
        assert_eq!(of(None, Some("students@corp.example")), Ok("students@corp.example".to_owned()));
        assert_eq!(of(Some("other"), Some("lab-students")), Err(Code::Usage));
        assert_eq!(of(Some("other"), None), Ok("other".to_owned()));
        assert_eq!(of(None, None), Ok(STUDENTS.to_owned()));
    }

    #[test]
    fn of_an_enrolment_that_broke_off_the_group_that_it_made_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let found = |installed: &str, manifest: &str| {
            std::fs::write(dir.path().join("manifest"), manifest).unwrap();
            let script = format!(
                "KC={}\n{}\ninstalled_group() {{ echo '{installed}'; }}\nenrolled_group",
                dir.path().display(),
                template::text("gate/leave.sh").unwrap()
            );
            let ran = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
        };
        let made = "tree\tabsent\t/x\ngroup\tabsent\tours\n";
        assert_eq!(found("", made), "ours");
        assert_eq!(found("theirs", made), "theirs");
        assert_eq!(found("", "tree\tabsent\t/x\ngroup\tabsent\tou"), "", "a full disk cut that off");
    }

    #[test]
    fn what_a_closed_account_left_for_later_goes() {
        use std::{fs, os::unix::fs::MetadataExt};
        let dir = tempfile::tempdir().unwrap();
        let (cron, linger) = (dir.path().join("var/spool/cron"), dir.path().join("var/lib/systemd/linger"));
        for folder in [&cron.join("crontabs"), &cron.join("atjobs"), &linger] {
            fs::create_dir_all(folder).unwrap();
        }
        let (own, other) = (cron.join("crontabs/kct-a"), cron.join("crontabs/kct-b"));
        let (job, linger) = (cron.join("atjobs/a00001"), linger.join("kct-a"));
        let owner = fs::metadata(dir.path()).unwrap().uid();
        let run = |uid: u32, what: &str| {
            for file in [&own, &other, &job, &linger] {
                fs::write(file, "x").unwrap();
            }
            let script = format!(
                "{}\nROOT={}\nstudents() {{ echo kct-a; }}\nid() {{ echo {uid}; }}\nprocesses() {{ :; }}\n\
                 userdel() {{ :; }}\nusermod() {{ :; }}\ngetent() {{ return 2; }}\n{what}",
                template::text("gate/leave.sh").unwrap(),
                dir.path().display(),
            );
            assert!(std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success());
            [&own, &other, &job, &linger].map(|file| file.exists())
        };
        for removed in ["yes", "no"] {
            let left = run(owner + 70_000, &format!("close_accounts kct {removed}"));
            assert_eq!(left, [false, true, true, false], "{removed}: jobs of at go by who owns them");
        }
        assert_eq!(run(owner, "forget_later kct-a"), [false, true, false, false]);
    }

    #[test]
    fn processes_in_user_namespaces_are_the_accounts_too() {
        let dir = tempfile::tempdir().unwrap();
        let subuid = dir.path().join("subuid");
        std::fs::write(&subuid, "kct-b:100000:65536\nkct-a:165536:65536\n1007:300000:10\nkct-a:0:9\n").unwrap();
        let rows = [
            "10 1007 1007 1007",
            "11 0 0 0",
            "12 165536 165536 165536",
            "13 100000 100000 100000",
            "14 1008 1008 1008",
            "15 0 0 1007",
            "16 231072 231072 231072",
            "17 300009 300009 300009",
        ];
        let script = format!(
            "{}\nSUBUID={}\nid() {{ echo 1007; }}\nps() {{ printf '%s\\n' {}; }}\nprocesses kct-a",
            template::text("gate/leave.sh").unwrap(),
            subuid.display(),
            rows.map(quote).join(" ")
        );
        let ran = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let found = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(found.split_whitespace().collect::<Vec<_>>(), ["10", "12", "15", "17"]);
    }
}

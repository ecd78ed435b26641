use std::sync::Arc;

use async_trait::async_trait;

use super::{
    gate_host::{self, Enrolment},
    gate_lists,
    gate_paths::{FOLDER, KEPT, PRINCIPALS, STATE},
};
use crate::{
    core::{Code, PhaseId, Problem, shell::quote},
    engine::{Check, Phase, Step, View},
};

/// Makes the students' group and the folder of their principals.
pub struct GateGroup(pub Arc<Enrolment>);

#[async_trait]
impl Phase for GateGroup {
    fn id(&self) -> PhaseId {
        PhaseId::new("gate-group")
    }

    fn title(&self) -> &'static str {
        "make the students' group"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        gate_host::hub_may_be_here(view, &self.0).await?;
        self.refuse_another(view).await?;
        let unasked = gate_lists::lets_students_in(view, &self.0.group).await?;
        let group = self.0.group_word();
        let check = format!("getent group {group} >/dev/null && [ -d {PRINCIPALS} ] && [ -d {STATE} ]");
        let change = gate_host::script(&format!(
            "getent group {group} >/dev/null || {{ kc_record group absent {group}; groupadd --system {group} || exit 1; }}\n\
             kc_tree {FOLDER} && mkdir -p {PRINCIPALS} {STATE} || exit 1\n\
             chown root:root {FOLDER} {PRINCIPALS} && chmod 755 {FOLDER} {PRINCIPALS} && chmod 700 {KEPT}"
        ))?;
        let made = Step::script("group", "make the students' group and folders", Check::Script(check), change);
        Ok(unasked.into_iter().chain([made]).collect())
    }
}

impl GateGroup {
    /// Members of a group that the gate leaves would come in by their own keys, at any time.
    async fn refuse_another(&self, view: &View<'_>) -> Result<(), Problem> {
        let Some(other) = gate_host::group_on(view, "installed_group").await?.filter(|it| *it != self.0.group) else {
            return Ok(());
        };
        Err(Problem::new(Code::GateHost, format!("the server's students are the members of the group {other}"))
            .on(view.node)
            .hint(format!("Name that one: --group {}.", quote(&other)))
            .hint("Or close their accounts first: kubecamp hub unenroll, then enroll with the other group."))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        core::NodeId,
        host::{Host, Viewer},
        profile::{self, Lab},
        transport::{Reply, ScriptedTransport},
    };

    fn with(group: &str) -> Enrolment {
        Enrolment { group: group.into(), ..Enrolment::sample() }
    }

    #[tokio::test]
    async fn a_server_whose_sshd_lets_no_student_in_is_refused() {
        assert!(asked("", "port 22\ndenyusers games\ndenygroups games\ndefault-group users\n").await.is_ok());
        let untold = asked("", "port 22\nunasked amy: no RDomain\n").await.unwrap();
        assert_eq!(untold.iter().map(|step| step.id.to_string()).collect::<Vec<_>>(), ["lists", "group"]);
        let default = asked("", "denygroups games\ndenygroups users\ndefault-group users\n").await.err().unwrap();
        assert_eq!(default.detail, ["denygroups users"]);
        let refused = asked("", "port 22\ndenygroups ours\n").await.err().unwrap();
        assert_eq!((refused.code, refused.detail), (Code::GateHost, vec!["denygroups ours".to_owned()]));
    }

    /// How the phase takes a server whose own files, and whose sshd, say this.
    async fn asked(said: &str, sshd: &str) -> Result<Vec<Step>, Problem> {
        asked_with(with("ours"), said, sshd, "").await
    }

    async fn asked_with(with: Enrolment, said: &str, sshd: &str, ports: &str) -> Result<Vec<Step>, Problem> {
        let node: NodeId = "s1".parse().unwrap();
        let link = ScriptedTransport::new()
            .on("/proc/net/tcp", Reply::ok(ports))
            .on("id -u", Reply::ok("root"))
            .on("\"$SSHD\" -T", Reply::ok(sshd))
            .on("installed_group", Reply::ok(said));
        let host = Host::open(node.clone(), Arc::new(link), None).await.unwrap();
        let (viewer, fleet) = (Viewer::new(&host), BTreeMap::new());
        let lab = Lab::new("s1".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let view = View { lab: &lab, node: &node, fleet: &fleet, host: Some(&viewer) };
        GateGroup(Arc::new(with)).steps(&view).await
    }

    #[tokio::test]
    async fn a_hub_on_the_loopback_where_nothing_listens_is_refused() {
        let hub = "http://127.0.0.1:8443".to_owned();
        let here = Enrolment { hub, own_port: Some(8443), ..with("ours") };
        assert!(asked_with(here.clone(), "", "", "listens\n").await.is_ok());
        let refused = asked_with(here, "", "", "").await.err().unwrap();
        assert!(refused.code == Code::GateLink && refused.what.contains("http://127.0.0.1:8443 is the server itself"));
        assert!(asked_with(with("ours"), "", "", "").await.is_ok(), "no other address is looked for there");
    }

    #[tokio::test]
    async fn a_server_with_another_group_is_refused() {
        for said in ["", "\n", "ours\n"] {
            assert_eq!(asked(said, "").await.ok().map(|steps| steps.len()), Some(1), "{said:?}");
        }
        // Whatever is said there is said: a name that is not seen would leave its accounts open.
        let named = [
            ("theirs\n", "--group theirs."),
            ("students@corp.example\n", "--group students@corp.example."),
            ("$(reboot)\n", "--group '$(reboot)'."),
            ("étudiants\n", "--group 'étudiants'."),
        ];
        for (said, hint) in named {
            let refused = asked(said, "").await.err().unwrap();
            assert_eq!(refused.code, Code::GateHost, "{said:?}");
            assert!(refused.to_string().contains(said.trim()) && refused.all_hints()[0].contains(hint), "{said:?}");
        }
        for said in ["-x\n", "a\u{1b}[2Jb\n", "a\"b\n", "CORP\\\\students\n"] {
            assert_eq!(asked(said, "").await.err().map(|refused| refused.code), Some(Code::GateHost), "{said:?}");
        }
    }
}

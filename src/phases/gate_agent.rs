use std::sync::Arc;

use async_trait::async_trait;

use super::gate_host::{self, Enrolment, FOLDER, PROGRAM};
use crate::{
    core::{Blob, PhaseId, Problem},
    engine::{Change, Check, Phase, Step, Upload, View},
    host::{script, template},
};

/// Puts the agent on the server: program, configuration, token, unit.
pub struct GateAgent {
    /// What it is enrolled with.
    pub with: Arc<Enrolment>,
    /// Whether to start it: last of all, once the door is its.
    pub start: bool,
}

#[async_trait]
impl Phase for GateAgent {
    fn id(&self) -> PhaseId {
        PhaseId::new(if self.start { "gate-start" } else { "gate-agent" })
    }

    fn title(&self) -> &'static str {
        if self.start { "start the agent" } else { "install the agent" }
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        if self.start {
            // The program too: a newer one is to run, though the server knows the token and all else already.
            let sum = format!("cat {FOLDER}/* {PROGRAM} 2>/dev/null | sha256sum");
            let check = gate_host::script(&format!(
                "agent_runs && [ \"$(cat /run/kubecamp-agent.config 2>/dev/null)\" = \"$({sum})\" ]"
            ))?;
            let change = gate_host::script(&format!("start_agent && {sum} > /run/kubecamp-agent.config"))?;
            return Ok(vec![Step::script("start", "start the agent", Check::Script(check), change)]);
        }
        let openssh = super::gate_door::openssh(view).await?;
        let config = self.with.agent_yaml(openssh);
        let unit = template::text("gate/agent.service")?;
        let hub_ca = self.with.hub_ca.as_deref().map(|pem| script::put(&format!("{FOLDER}/hub_ca.pem"), 0o644, pem));
        let files = format!(
            "{}{}{}{}if has_systemd; then\n{}fi; true",
            script::put(&format!("{FOLDER}/agent.yaml"), 0o644, &config),
            script::put(&format!("{FOLDER}/user_ca.pub"), 0o644, &format!("{}\n", self.with.user_ca.trim())),
            hub_ca.unwrap_or_default(),
            format_args!("kc_record file absent {FOLDER}/token; kc_keep {PROGRAM}\n"),
            script::put("/etc/systemd/system/kubecamp-agent.service", 0o644, &unit),
        );
        let check = self.with.are_there(&config, &unit);
        let program = self.with.agent()?;
        let token = Blob::from_bytes(format!("{}\n", self.with.token.expose()).into_bytes());
        let sum = |blob: &Blob, to: &str| format!("echo '{}  {to}' | sha256sum -c --status -", blob.sha256());
        let there = format!("{} && {}", sum(&program, PROGRAM), sum(&token, &format!("{FOLDER}/token")));
        let upload = |what: &str, blob, to: String, mode| Upload {
            what: what.into(),
            blob,
            to,
            mode,
            have: String::new(),
            then: String::new(),
        };
        let uploads = vec![
            upload("token", token, format!("{FOLDER}/token"), 0o600),
            upload("kubecamp", program, PROGRAM.into(), 0o755),
        ];
        let put = Change::Upload { files: uploads, then: format!("chown root:root {PROGRAM} {FOLDER}/token") };
        Ok(vec![
            Step::script(
                "files",
                "write the agent's configuration and unit",
                Check::Script(check),
                gate_host::script(&files)?,
            ),
            Step::new("program", "upload the agent", Check::Script(there), put).limit(300),
        ])
    }
}

impl Enrolment {
    /// A check that the server has the files of this enrolment, as they are now: an authority's certificate may be another
    /// one under the same name.
    fn are_there(&self, config: &str, unit: &str) -> String {
        let hub_ca =
            self.hub_ca.as_deref().map(|pem| format!(" && {}", script::has(&format!("{FOLDER}/hub_ca.pem"), pem)));
        format!(
            "{} && {}{} && {{ [ ! -d /run/systemd/system ] || {}; }} && grep -q {PROGRAM} /var/lib/kubecamp-gate/manifest",
            script::has(&format!("{FOLDER}/agent.yaml"), config),
            script::has(&format!("{FOLDER}/user_ca.pub"), &format!("{}\n", self.user_ca.trim())),
            hub_ca.unwrap_or_default(),
            script::has("/etc/systemd/system/kubecamp-agent.service", unit),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Secret;

    #[test]
    fn another_certificate_of_the_hubs_authority_is_put_there() {
        let there = |hub_ca: Option<&str>| {
            let with = Enrolment {
                server: "s1".into(),
                hub: "https://hub.example.org".into(),
                token: Secret::new("kct_x"),
                user_ca: "ssh-ed25519 AAAA".into(),
                plan_key: "ssh-ed25519 AAAA".into(),
                hub_ca: hub_ca.map(str::to_owned),
                admin_key: "ssh-ed25519 AAAA".into(),
                admin: "root".into(),
                program: "kubecamp".into(),
                group: "kubecamp-students".into(),
                permit_open: vec![],
                exempt: vec![],
                labs: None,
                more: String::new(),
            };
            with.are_there(&with.agent_yaml((9, 2)), "[Unit]")
        };
        assert!(there(Some("old")) != there(Some("new")) && there(Some("new")).contains("/hub_ca.pem"));
        assert_eq!(there(Some("new")), there(Some("new")));
        assert!(!there(None).contains("hub_ca.pem"));
    }
}

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    gate_host::{self, Enrolment, is_there, upload},
    gate_paths::{CONFIG, FOLDER, HUB_CA, MANIFEST, PROGRAM, STARTED, TOKEN, UNIT, USER_CA},
};
use crate::{
    core::{Blob, Code, PhaseId, Problem, shell::quote},
    engine::{Change, Check, Phase, Step, View},
    host::{script, template},
};

/// Puts the agent on the server: program, token, configuration, unit.
pub struct GateAgent {
    /// What it is enrolled with.
    pub with: Arc<Enrolment>,
    /// Which part of it.
    pub part: AgentPart,
}

/// What of the agent comes at a time, in this order: an enrolment may break off after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentPart {
    /// The program: it reads the configuration of an older one, which refuses its own.
    Program,
    /// Its token, configuration and unit, once all that they name is there.
    Files,
    /// It begins: last of all, once the door is its.
    Start,
}

#[async_trait]
impl Phase for GateAgent {
    fn id(&self) -> PhaseId {
        PhaseId::new(match self.part {
            AgentPart::Program => "gate-agent",
            AgentPart::Files => "gate-config",
            AgentPart::Start => "gate-start",
        })
    }

    fn title(&self) -> &'static str {
        match self.part {
            AgentPart::Program => "install the agent",
            AgentPart::Files => "configure the agent",
            AgentPart::Start => "start the agent",
        }
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        match self.part {
            AgentPart::Program => self.program(),
            AgentPart::Files => self.files(gate_host::openssh(view).await?),
            AgentPart::Start => start(),
        }
    }
}

impl GateAgent {
    fn program(&self) -> Result<Vec<Step>, Problem> {
        let program = self.with.agent()?;
        let (check, part) = (is_there(&program, PROGRAM), format!("{PROGRAM}.kc-part"));
        let reach = self.with.reach(&check)?;
        // One that does not run would replace an agent that does.
        let own = format!(
            "chown root:root {part} && timeout 30 {part} --version >/dev/null || {{ rm -f {part}; \
             kc_die 'this kubecamp does not run on the server: name the --program for its CPU'; }}\n\
             mv -f {part} {PROGRAM}"
        );
        let put = Change::Upload { files: vec![upload("kubecamp", program, &part, 0o755)], then: own };
        Ok(vec![
            // Before anything is replaced.
            Step::script(
                "record",
                "note what was there before",
                Check::Script(format!("grep -q {PROGRAM} {MANIFEST}")),
                gate_host::script(&format!("kc_record file absent {TOKEN}; kc_keep {PROGRAM}"))?,
            ),
            Step::new("program", "upload the agent", Check::Script(check), put).limit(Duration::from_secs(300)),
            reach,
        ])
    }

    fn files(&self, openssh: (u32, u32)) -> Result<Vec<Step>, Problem> {
        let token = Blob::from_bytes(format!("{}\n", self.with.token.expose()).into_bytes());
        let (check, own) = (is_there(&token, TOKEN), format!("chown root:root {TOKEN}"));
        let put = Change::Upload { files: vec![upload("token", token, TOKEN, 0o600)], then: own };
        let config = self.with.agent_yaml(openssh);
        let unit = template::text("gate/agent.service")?;
        let files = format!(
            "{}{}{}if has_systemd; then\n{}fi; true",
            self.with.sound(&config),
            script::put(USER_CA, 0o644, &format!("{}\n", self.with.user_ca.trim())),
            script::put(CONFIG, 0o644, &config),
            script::put(UNIT, 0o644, &unit),
        );
        Ok(vec![
            Step::new("token", "upload the agent's token", Check::Script(check), put),
            Step::script(
                "files",
                "write the agent's configuration and unit",
                Check::Script(self.with.are_there(&config, &unit)),
                gate_host::script(&files)?,
            ),
        ])
    }
}

fn start() -> Result<Vec<Step>, Problem> {
    // The program too: a newer one is to run, though the server knows the token and all else already.
    let sum = format!("cat {FOLDER}/* {PROGRAM} 2>/dev/null | sha256sum");
    let check = gate_host::script(&format!("agent_runs && [ \"$(cat {STARTED} 2>/dev/null)\" = \"$({sum})\" ]"))?;
    let change = gate_host::script(&format!("start_agent && {sum} > {STARTED}"))?;
    Ok(vec![Step::script("start", "start the agent", Check::Script(check), change)])
}

impl Enrolment {
    /// Proves that the hub answers the program here, before anything else of an agent that works is replaced. `is_new` is true
    /// where the program is there: the checks of a phase come before its changes, and one of before proves nothing.
    fn reach(&self, is_new: &str) -> Result<Step, Problem> {
        let asks = self.asks_hub();
        let check = gate_host::script(&format!("{is_new} && {asks}"))?;
        let change =
            gate_host::script(&format!("{asks} >/dev/null || kc_die 'what was there before stays as it was'"))?;
        Ok(Step::script("reach", "reach the hub from the server", Check::Before(check), change)
            .fails_as(Code::GateLink))
    }

    /// Shell text that is true where the hub answers by all that the agent will go by: its program, the hub's address and
    /// authority, and its proxies. Not by the token: its first use ends that of an agent that runs.
    fn asks_hub(&self) -> String {
        // What it says of sshd makes no difference here.
        let config = self.agent_yaml((9, 2)).replace(&format!("hub-ca: {HUB_CA}\n"), "");
        let ca = self.hub_ca.as_deref().map(|pem| {
            format!("printf %s {} >\"$d/ca\" && printf 'hub-ca: %s\\n' \"$d/ca\" >>\"$d/yaml\" || exit 1\n", quote(pem))
        });
        format!(
            "( d=$(mktemp -d) || exit 1; trap 'rm -rf \"$d\"' EXIT\nprintf '%s\\n' {} >\"$d/yaml\" || exit 1\n{}\
             as_agent timeout 30 {PROGRAM} agent --reach --config \"$d/yaml\" )",
            quote(&config),
            ca.unwrap_or_default()
        )
    }

    /// Shell text that ends where the program does not take the configuration, with the files of before: an agent that cannot
    /// begin puts everybody out. What the configuration names must be there for that, so the hub's authority comes first.
    fn sound(&self, config: &str) -> String {
        let (ca, new, before) = (HUB_CA, format!("{CONFIG}.new"), format!("{HUB_CA}.before"));
        let put = self.hub_ca.as_deref().map(|pem| script::put(ca, 0o644, pem)).unwrap_or_default();
        format!(
            "rm -f {before}; [ ! -e {ca} ] || cp -a {ca} {before} || exit 1\n\
             {put}printf %s {} > {new} && timeout 60 {PROGRAM} agent --check --config {new} >/dev/null || {{ rm -f {new}; \
             if [ -e {before} ]; then mv -f {before} {ca}; else rm -f {ca}; fi; kc_die 'the agent refuses its new configuration; that of before stays'; }}\n\
             rm -f {new} {before}\n",
            quote(config)
        )
    }

    /// A check that the server has the files of this enrolment, as they are now: an authority's certificate may be another
    /// one under the same name.
    fn are_there(&self, config: &str, unit: &str) -> String {
        let hub_ca = self.hub_ca.as_deref().map(|pem| format!(" && {}", script::has(HUB_CA, pem)));
        format!(
            "{} && {}{} && {{ [ ! -d /run/systemd/system ] || {}; }}",
            script::has(CONFIG, config),
            script::has(USER_CA, &format!("{}\n", self.user_ca.trim())),
            hub_ca.unwrap_or_default(),
            script::has(UNIT, unit),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_is_asked_by_what_the_agent_will_go_by() {
        use std::{fs, os::unix::fs::PermissionsExt, process::Command};
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let says = "#!/bin/sh\n[ \"$1 $2 $3\" = 'agent --reach --config' ] || exit 9\n\
                    ca=$(sed -n 's/^hub-ca: //p' \"$4\"); echo \"${https_proxy-none} $(grep ^hub: \"$4\") $(cat $ca /dev/null)\"\n";
        fs::write(&program, says).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let asked = |hub_ca: Option<&str>, world: &str| {
            let with = Enrolment { hub_ca: hub_ca.map(str::to_owned), ..Enrolment::sample() };
            let text = with.asks_hub().replace(PROGRAM, &program.display().to_string());
            let text = gate_host::script(&format!("{world}\n{text}")).unwrap();
            let mut sh = Command::new("sh");
            sh.arg("-c").arg(text).env("https_proxy", "http://login").env("TMPDIR", dir.path());
            let out = sh.output().unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left there");
            (out.status.success(), String::from_utf8(out.stdout).unwrap())
        };
        let bare = "has_systemd() { false; }";
        let hub = "hub: \"https://hub.example.org\"";
        assert_eq!(asked(None, bare), (true, format!("http://login {hub} \n")));
        assert_eq!(asked(Some("it's\nPEM"), bare), (true, format!("http://login {hub} it's\nPEM\n")));
        let unit =
            |says: &str| format!("has_systemd() {{ :; }}; systemctl() {{ [ $1 = show ] || printf 'A=b\\n{says}'; }}");
        assert_eq!(asked(None, &unit("")), (true, format!("none {hub} \n")));
        assert_eq!(asked(None, &unit("https_proxy=http://unit\\n")), (true, format!("http://unit {hub} \n")));
        assert!(!asked(None, "has_systemd() { false; }; timeout() { false; }").0);
    }

    #[test]
    fn another_certificate_of_the_hubs_authority_is_put_there() {
        let there = |hub_ca: Option<&str>| {
            let with = Enrolment { hub_ca: hub_ca.map(str::to_owned), ..Enrolment::sample() };
            with.are_there(&with.agent_yaml((9, 2)), "[Unit]")
        };
        assert!(there(Some("old")) != there(Some("new")) && there(Some("new")).contains("/hub_ca.pem"));
        assert_eq!(there(Some("new")), there(Some("new")));
        assert!(!there(None).contains("hub_ca.pem"));
    }
}

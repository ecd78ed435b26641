//! Enrolment on a host of its own kind of namespace, with a real sshd: what it changes, and that all of it goes again.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use kubecamp::{
    core::{Code, Event, EventKind, NodeId, Problems, Secret},
    engine::{Journal, Mode, Phase, Run, Summary, run_flow},
    flows,
    host::{Facts, Host},
    hub::gate::{HubKey, agent::Config},
    phases::{Enrolment, GateLeave},
    profile::{self, Lab},
    transport::Io,
};

use crate::support::sandbox::Sandbox;

const GROUP: &str = "kct-enroll-g";
const STUDENT: &str = "kct-enroll";

/// Every file with its mode, owner and content, where enrolment works. Of `subuid` and `subgid` the lines count: who adds
/// an account sorts them by their ranges.
const SNAPSHOT: &str = "find /etc /usr/local /root/.ssh /var/lib -xdev \\( -type f -o -type l -o -type d \\) \
    ! -path '/var/lib/incus*' ! -path '/var/lib/docker*' ! -path '/etc/*-' ! -name .pwd.lock -printf '%p %y %m %u %g %l\\n' 2>/dev/null | sort; \
    find /etc -xdev -type f ! -path '/etc/*-' ! -path '/etc/sub?id' ! -name .pwd.lock -exec sha256sum {} + | sort; \
    sed 's/^/subuid /' /etc/subuid | sort; sed 's/^/subgid /' /etc/subgid | sort";

/// Takes any configuration, and reaches any hub.
const AGENT: &str =
    "#!/bin/sh\ncase $* in *--reach*|--version) exit ;; *--check*) exit 0 ;; esac\nwhile :; do sleep 1; done\n";

struct Camp {
    host: Arc<Host>,
    files: tempfile::TempDir,
    _sandbox: Sandbox,
}

fn node() -> NodeId {
    "s1".parse().unwrap()
}

impl Camp {
    async fn start() -> Self {
        let sandbox = Sandbox::start();
        let host = sandbox.host(&node()).await;
        let files = tempfile::tempdir().unwrap();
        // Stands for the agent, and lives as one.
        let program = files.path().join("program");
        fs::write(&program, AGENT).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let camp = Self { host, files, _sandbox: sandbox };
        camp.sh("mkdir -p /run/sshd && /usr/sbin/sshd -o PidFile=/run/sshd.pid && mkdir -p -m 700 /root/.ssh && echo '# mine' > /root/.ssh/authorized_keys")
            .await;
        camp
    }

    async fn sh(&self, script: &str) -> String {
        let exit = self.host.root(script, Duration::from_secs(60), Io::default()).await.unwrap();
        assert!(exit.ok(), "{script}: {exit:?}");
        exit.text()
    }

    async fn flow(&self, phases: &[Box<dyn Phase>]) -> Result<(Summary, Vec<String>), Problems> {
        let heard: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let ear = Arc::clone(&heard);
        let listen = move |event: &Event| {
            if let EventKind::StepEnded { step, outcome, .. } = &event.kind {
                ear.lock().unwrap().push(format!("{step} {outcome:?}"));
            }
        };
        let journal = Arc::new(Journal::unkept(vec![Arc::new(listen)]));
        let lab = Lab::new("s1".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let run = Run::new(lab, Mode::Apply, journal, tokio_util::sync::CancellationToken::new());
        let hosts = BTreeMap::from([(node(), Arc::clone(&self.host))]);
        let fleet = BTreeMap::from([(node(), Facts::default())]);
        run_flow(&run, phases, &[node()], &hosts, &fleet).await?;
        let heard = heard.lock().unwrap().clone();
        Ok((run.summary(), heard))
    }

    fn with(&self) -> Enrolment {
        let line =
            |name: &str| HubKey::load_or_make(&self.files.path().join(name), name).unwrap().public_line().unwrap();
        Enrolment {
            server: "s1".into(),
            hub: "unix:/run/hub.sock".into(),
            own_port: None,
            token: Secret::new("kct_secret-token"),
            user_ca: line("ca"),
            plan_key: line("plan"),
            hub_ca: None,
            admin_key: line("admin"),
            admin: "root".into(),
            program: self.files.path().join("program"),
            group: GROUP.into(),
            permit_open: vec!["10.0.0.2:22".into()],
            exempt: vec!["192.0.2.0/24".into()],
            labs: None,
            more: "lead: 60\n".into(),
        }
    }

    fn leave(remove_accounts: bool) -> Vec<Box<dyn Phase>> {
        flows::unenroll(GateLeave { group: None, remove_accounts, found: Arc::default() })
    }
}

#[tokio::test]
async fn live_gate_enrolment_comes_and_goes() {
    let camp = Camp::start().await;
    // A rule of the server's own about the same account.
    let own = format!("Match User {STUDENT}\\n    AuthorizedKeysFile .ssh/authorized_keys\\n");
    camp.sh(&format!("mkdir -p /etc/ssh/sshd_config.d && printf '{own}' > /etc/ssh/sshd_config.d/10-own.conf")).await;
    // What is meant for whoever else is there.
    let all = "AllowGroups nobody-else\\nAllowUsers nobody-else\\nForceCommand /bin/false\\n\
               ChrootDirectory /var/empty\\nDisableForwarding yes\\n";
    camp.sh(&format!("printf '{all}' > /etc/ssh/sshd_config.d/05-all.conf")).await;
    let before = camp.sh(SNAPSHOT).await;
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
    let (again, heard) = camp.flow(&flows::enroll(camp.with())).await.unwrap();
    assert_eq!(again.changed, 0, "{heard:?}");
    // What sshd thinks of a student and of root.
    camp.sh(&format!("useradd -M -p '*' -G {GROUP} {STUDENT}")).await;
    let says = async |who: &str| camp.sh(&format!("/usr/sbin/sshd -T -C user={who},host=h,addr=192.0.2.7")).await;
    let student = says(STUDENT).await;
    for line in [
        "authorizedkeysfile none",
        "trustedusercakeys /etc/kubecamp-gate/user_ca.pub",
        "authorizedprincipalsfile /etc/kubecamp-gate/principals/%u",
        "passwordauthentication no",
        "allowtcpforwarding local",
        "permitopen 10.0.0.2:22",
        "permituserrc no",
        "allowagentforwarding no",
        "allowusers *",
        &format!("allowgroups {GROUP}"),
        "forcecommand none",
        "chrootdirectory none",
        "disableforwarding no",
    ] {
        assert!(student.lines().any(|l| l == line), "{line}\n{student}");
    }
    let root = says("root").await;
    assert!(root.contains("trustedusercakeys none") && !root.contains("authorizedkeysfile none"), "{root}");
    let config = camp.sh("cat /etc/kubecamp-gate/agent.yaml").await;
    let file = camp.files.path().join("agent.yaml");
    fs::write(&file, &config).unwrap();
    let config = Config::load(&file).unwrap_or_else(|p| panic!("{p}\n{config}"));
    assert_eq!((config.server.as_str(), config.lead, config.group.as_str()), ("s1", 60, GROUP));
    assert_eq!(
        camp.sh("stat -c '%a %U' /etc/kubecamp-gate/token; cat /etc/kubecamp-gate/token").await,
        "600 root\nkct_secret-token"
    );
    assert!(camp.sh("cat /root/.ssh/authorized_keys").await.contains(camp.with().admin_key.trim()));
    camp.sh("p=$(cat /run/kubecamp-agent.pid) && kill -0 $p").await;
    // A newer program is the one that runs, with the token of before.
    let agent = "cat /run/kubecamp-agent.pid";
    let older = camp.sh(agent).await;
    fs::write(camp.files.path().join("program"), format!("{AGENT}# newer\n")).unwrap();
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
    assert_ne!(camp.sh(agent).await, older);
    // A server of before has the rules under a name that is read later; two of them would both count.
    let former = "/etc/ssh/sshd_config.d/50-kubecamp.conf";
    camp.sh(&format!(
        "mv /etc/ssh/sshd_config.d/00-kubecamp.conf {former} && printf 'file\\tabsent\\t{former}\\n' >>/var/lib/kubecamp-gate/manifest"
    ))
    .await;
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
    camp.sh(&format!("[ ! -e {former} ] && [ -e /etc/ssh/sshd_config.d/00-kubecamp.conf ]")).await;
    // Accounts of another group would be left open beside it.
    let other = Enrolment { group: "kct-enroll-h".into(), ..camp.with() };
    let problems = camp.flow(&flows::enroll(other)).await.err().unwrap();
    assert_eq!(problems.iter().next().unwrap().code, Code::GateHost);
    camp.sh("! getent group kct-enroll-h").await;
    let (again, heard) = camp.flow(&flows::enroll(camp.with())).await.unwrap();
    assert_eq!(again.changed, 0, "{heard:?}");
    camp.sh(&format!(
        "setsid -f setpriv --reuid {STUDENT} --clear-groups sleep 1000 >/dev/null 2>&1\n\
         for i in $(seq 100); do pgrep -U {STUDENT} && exit 0; sleep 0.1; done; exit 1"
    ))
    .await;
    // Closed accounts stay, and are closed, whatever the name of their group.
    camp.flow(&Camp::leave(false)).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(camp.sh(&format!("getent shadow {STUDENT} | cut -d: -f8")).await, "1");
    camp.sh(&format!("! pgrep -r D,R,S,T -U {STUDENT}")).await;
    camp.sh("! pgrep -f 'kubecamp-agen[t] agent'").await;
    let (again, heard) = camp.flow(&Camp::leave(false)).await.unwrap();
    assert_eq!(again.changed, 0, "{heard:?}");
    // Enrolled again and left for good, everything is as before.
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
    camp.flow(&Camp::leave(true)).await.unwrap_or_else(|p| panic!("{p}"));
    let after = camp.sh(SNAPSHOT).await;
    let new: Vec<_> = after.lines().filter(|l| !before.lines().any(|b| b == *l)).collect();
    let gone: Vec<_> = before.lines().filter(|l| !after.lines().any(|a| a == *l)).collect();
    assert!(new.is_empty() && gone.is_empty(), "new {new:#?}\ngone {gone:#?}");
}

#[tokio::test]
async fn live_gate_what_was_changed_in_sshds_own_file_meanwhile_stays() {
    let camp = Camp::start().await;
    let file = "/etc/ssh/sshd_config";
    camp.sh(&format!("sed -i '/^[[:space:]]*Include/d; /^[[:space:]]*PasswordAuthentication/d' {file}")).await;
    let before = camp.sh(SNAPSHOT).await;
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
    assert!(camp.sh(&format!("head -n 1 {file}")).await.ends_with("/00-kubecamp.conf"));
    camp.sh(&format!("sed -i '2i PasswordAuthentication no' {file}")).await;
    camp.flow(&Camp::leave(true)).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(camp.sh(&format!("head -n 1 {file}")).await, "PasswordAuthentication no");
    camp.sh(&format!("sed -i 1d {file}")).await;
    assert!(camp.sh(SNAPSHOT).await == before, "only that line was another");
}

#[tokio::test]
async fn live_gate_what_works_is_replaced_by_nothing_that_does_not() {
    let camp = Camp::start().await;
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
    let files = "ls -A /etc/kubecamp-gate && sha256sum /etc/kubecamp-gate/agent.yaml /etc/ssh/sshd_config.d/00-kubecamp.conf && \
                 cat /run/kubecamp-agent.pid && kill -0 $(cat /run/kubecamp-agent.pid)";
    let program = "ls /usr/local/sbin && sha256sum /usr/local/sbin/kubecamp-agent";
    let before = (camp.sh(files).await, camp.sh(program).await);
    let other = || Enrolment { more: "lead: 61\n".into(), hub_ca: Some("another".into()), ..camp.with() };
    // For another CPU, say.
    fs::write(camp.files.path().join("program"), "#!/bin/sh\nexit 126\n").unwrap();
    let problems = camp.flow(&flows::enroll(other())).await.err().unwrap();
    assert!(problems.to_string().contains("does not run on the server"), "{problems}");
    assert_eq!((camp.sh(files).await, camp.sh(program).await), before);
    // One that does not reach the hub.
    fs::write(camp.files.path().join("program"), AGENT.replace("*--reach*|", "*--reach*) echo lost >&2; exit 1 ;; "))
        .unwrap();
    let problems = camp.flow(&flows::enroll(other())).await.err().unwrap();
    assert_eq!(problems.iter().next().unwrap().code, Code::GateLink);
    assert!(problems.to_string().contains("lost"), "{problems}");
    assert_eq!(camp.sh(files).await, before.0);
    // One that does not know a key of the configuration.
    let old = AGENT.replace("exit 0", "exit 1");
    fs::write(camp.files.path().join("program"), old).unwrap();
    let refused = async || {
        let problems = camp.flow(&flows::enroll(other())).await.err().unwrap();
        assert!(problems.to_string().contains("the agent refuses its new configuration"), "{problems}");
    };
    refused().await;
    assert_eq!(camp.sh(files).await, before.0);
    camp.sh("echo before > /etc/kubecamp-gate/hub_ca.pem").await;
    refused().await;
    assert_eq!(camp.sh("cd /etc/kubecamp-gate && cat hub_ca.pem && rm hub_ca.pem").await, "before");
    assert_eq!(camp.sh(files).await, before.0);
}

#[tokio::test]
async fn live_gate_enrolment_that_sshd_refuses_is_taken_back() {
    let camp = Camp::start().await;
    let wrong = Enrolment { permit_open: vec!["nonsense".into()], ..camp.with() };
    let problems = camp.flow(&flows::enroll(wrong)).await.err().unwrap();
    assert_eq!(problems.iter().next().unwrap().code, Code::StepFailed);
    assert!(problems.to_string().contains("sshd refuses the gate"), "{problems}");
    camp.sh("[ ! -e /etc/ssh/sshd_config.d/00-kubecamp.conf ] && /usr/sbin/sshd -t").await;
    camp.flow(&flows::enroll(camp.with())).await.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test]
async fn live_gate_lists_of_sshd_refuse_a_server_where_they_meet_a_student() {
    let camp = Camp::start().await;
    camp.sh(&format!("groupadd {GROUP} && useradd -M -G {GROUP} kct-first && useradd -M -G {GROUP} {STUDENT}")).await;
    let says = async |blocks: &str| {
        camp.sh(&format!("mkdir -p /etc/ssh/sshd_config.d && printf '{blocks}' > /etc/ssh/sshd_config.d/90-own.conf"))
            .await;
        camp.flow(&flows::enroll(camp.with())).await
    };
    let refused = says(&format!("Match User {STUDENT}\\n    DenyUsers *\\n")).await.err().unwrap();
    assert_eq!(refused.iter().next().unwrap().code, Code::GateHost);
    // Who logs in from this very computer, or comes by a port that nobody listens at, is no student.
    let others = "Match Address 127.0.0.1\\n    DenyUsers *\\nMatch LocalPort 9\\n    DenyUsers *\\n\
                  Match Address *,!10.0.0.0/8\\n    DenyUsers *\\n";
    says(others).await.unwrap_or_else(|p| panic!("{p}"));
    camp.flow(&Camp::leave(true)).await.unwrap_or_else(|p| panic!("{p}"));
}

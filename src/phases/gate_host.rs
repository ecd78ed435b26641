use std::path::PathBuf;

use serde_json::json;

use super::gate_paths::{CONFIG, HOME, HUB_CA, PRINCIPALS, TOKEN, USER_CA};
use crate::{
    core::{Blob, Code, Problem, Secret, shell::quote},
    engine::{Upload, View},
    host::template,
    machine::Wanted,
    profile::Mirror,
};

/// What a server is enrolled with: plain values, so that this room needs to know nothing of the hub's.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The server's name at the hub.
    pub server: String,
    /// Where the agent finds the hub: `https://...`, `http://...` or `unix:/path`.
    pub hub: String,
    /// The hub's port, where that address is the server's own loopback.
    pub own_port: Option<u16>,
    /// The agent's token at the hub.
    pub token: Secret,
    /// The hub's user CA, one OpenSSH public key line.
    pub user_ca: String,
    /// The key that plans are signed with, one OpenSSH public key line.
    pub plan_key: String,
    /// The certificate of the hub's own authority for HTTPS, in PEM.
    pub hub_ca: Option<String>,
    /// The break-glass key: one OpenSSH public key line that lets an admin in whatever the gate does.
    pub admin_key: String,
    /// Whose authorized_keys gets it.
    pub admin: String,
    /// The kubecamp program that the agent is.
    pub program: PathBuf,
    /// The group of students' accounts.
    pub group: String,
    /// `HOST:PORT` that students may reach through this host; empty is none.
    pub permit_open: Vec<String>,
    /// Networks that sshd does not punish for wrong tries, where it knows such a list.
    pub exempt: Vec<String>,
    /// The labs that the agent is to make on the server; none where it makes none.
    pub labs: Option<GateMachines>,
    /// More lines of the agent's configuration, YAML.
    pub more: String,
}

/// How labs are made on an enrolled server.
#[derive(Debug, Clone)]
pub struct GateMachines {
    /// What their machines are.
    pub kind: Wanted,
    /// The bundle that they are made from; none is fetched or built on the server.
    pub bundle: Option<Blob>,
    /// Whether their machines reach what the server reaches.
    pub outbound: bool,
    /// Where new ones get images that are not in the bundle.
    pub mirrors: Vec<Mirror>,
    /// For how many days one is kept without a slot; none is the agent's own default.
    pub keep: Option<u32>,
}

/// The students' group where nobody names another one.
pub(super) const STUDENTS: &str = "kubecamp-students";
/// How long before its start a lab is brought up, in seconds: an `up` that makes machines anew takes minutes.
const LEAD: u32 = 600;

/// The first OpenSSH release whose principals files know `expiry-time` in UTC.
const EXPIRY_TIME: (u32, u32) = (9, 1);
/// The first that knows `PerSourcePenaltyExemptList`.
const PENALTIES: (u32, u32) = (9, 8);
/// The first that knows `Include`, which the drop-in needs.
const INCLUDE: (u32, u32) = (8, 2);

/// A script of the gate: its functions, then `text`.
pub(super) fn script(text: &str) -> Result<String, Problem> {
    Ok(format!("{}\n{text}", template::text("gate/lib.sh")?))
}

/// The group that a function of the gate's scripts finds on the host; none where it finds none, and in a plan without one.
///
/// What cannot be a name is refused: taken for none, another group would stand in for it, and the real one be left open.
pub(super) async fn group_on(view: &View<'_>, text: &str) -> Result<Option<String>, Problem> {
    let Some(viewer) = view.host else { return Ok(None) };
    let said = viewer.read(&script(text)?).await?.text();
    let name = said.lines().next().unwrap_or_default().trim();
    if name.is_empty() {
        return Ok(None);
    }
    // A shell takes any other as one word, once it is quoted; these two are not themselves in the agent's configuration.
    if name.starts_with('-') || name.contains(|c: char| c.is_control() || "\"\\".contains(c)) {
        return Err(Problem::new(Code::GateHost, "the group that the server is enrolled with has no name of a group")
            .on(view.node)
            .detail([name])
            .hint(format!("See group in {CONFIG} on the server.")));
    }
    Ok(Some(name.to_owned()))
}

/// Refuses a hub that is named by the server's own loopback where nothing listens there: another computer's was meant.
pub(super) async fn hub_may_be_here(view: &View<'_>, with: &Enrolment) -> Result<(), Problem> {
    let (Some(viewer), Some(port)) = (view.host, with.own_port) else { return Ok(()) };
    if viewer.read(&listens(port, "/proc/net")).await?.text().contains("listens") {
        return Ok(());
    }
    let what = format!("{} is the server itself when the server asks it, and nothing listens there", with.hub);
    Err(Problem::new(Code::GateLink, what)
        .on(view.node)
        .hint("Name the hub as the server reaches it: --hub URL, with --hub-ca where its certificate needs one.")
        .hint("Where the hub, or a tunnel to it, is to run on the server: start that first."))
}

/// Shell text that says `listens` where a TCP port does, or where nobody can tell.
fn listens(port: u16, net: &str) -> String {
    format!(
        "if [ ! -r {net}/tcp ] || cat {net}/tcp {net}/tcp6 2>/dev/null | grep -q ':{port:04X} [0-9A-F]*:0000 0A '; \
         then echo listens; fi"
    )
}

/// A file for the server.
pub(super) fn upload(what: &str, blob: Blob, to: &str, mode: u32) -> Upload {
    Upload { what: what.into(), blob, to: to.into(), mode, have: String::new(), then: String::new() }
}

/// Shell text that is true where the file at `to` has these bytes.
pub(super) fn is_there(blob: &Blob, to: &str) -> String {
    format!("echo '{}  {to}' | sha256sum -c --status -", blob.sha256())
}

/// The OpenSSH release of the host; too old a one cannot be a gate.
///
/// In a plan without the host, any.
pub(super) async fn openssh(view: &View<'_>) -> Result<(u32, u32), Problem> {
    let Some(viewer) = view.host else { return Ok((9, 2)) };
    let exit = viewer.read("ssh -V 2>&1").await?;
    let refuse = |why: String| {
        Problem::new(Code::GateHost, format!("the server cannot be a gate: {why}"))
            .on(view.node)
            .hint("Use a server with OpenSSH 8.2 or newer: Debian 11, Ubuntu 20.04, RHEL 9 or later.")
    };
    match version(&exit.text()) {
        Some(version) if version >= INCLUDE => Ok(version),
        Some((major, minor)) => Err(refuse(format!("its OpenSSH {major}.{minor} is too old"))),
        None => Err(refuse("it has no OpenSSH".into())),
    }
}

/// `OpenSSH_9.2p1 Debian-2+deb12u10` is (9, 2).
fn version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split("OpenSSH_").nth(1)?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// sshd's drop-in: what students of `group` may, with the CA in `ca` and principals files in `principals`.
pub fn sshd_drop_in(
    group: &str,
    ca: &str,
    principals: &str,
    permit_open: &[String],
    exempt: &[String],
    openssh: (u32, u32),
) -> Result<String, Problem> {
    let exempt = if openssh >= PENALTIES { exempt.join(",") } else { String::new() };
    let values = json!({
        "group": group, "ca": ca, "principals": principals, "permit_open": permit_open.join(" "), "exempt": exempt,
    });
    template::render("gate/sshd.conf.tera", &values)
}

impl Enrolment {
    /// The program with its digest.
    pub(super) fn agent(&self) -> Result<Blob, Problem> {
        let unreadable =
            |e| Problem::new(Code::LocalFile, format!("cannot read {}", self.program.display())).because(e);
        Blob::from_file(&self.program).map_err(unreadable)
    }

    /// The drop-in on an enrolled server.
    pub(super) fn drop_in(&self, openssh: (u32, u32)) -> Result<String, Problem> {
        // A forward opens its connection as the holder, who reaches the own lab's machines only, and no network of labs.
        let any = ["any".to_owned()];
        let open = if self.labs.is_some() && self.permit_open.is_empty() { &any[..] } else { &self.permit_open[..] };
        sshd_drop_in(&self.group, USER_CA, PRINCIPALS, open, &self.exempt, openssh)
    }

    /// The agent's configuration, YAML; JSON's strings are YAML's too.
    pub fn agent_yaml(&self, openssh: (u32, u32)) -> String {
        let hub_ca = self.hub_ca.as_ref().map(|_| format!("hub-ca: {HUB_CA}\n")).unwrap_or_default();
        format!(
            "server: {}\nhub: {}\ntoken-file: {TOKEN}\n{hub_ca}plan-key: {}\ngroup: {}\nexpiry-time: {}\n{}{}",
            json!(self.server),
            json!(self.hub),
            json!(self.plan_key.trim()),
            json!(self.group),
            openssh >= EXPIRY_TIME,
            self.labs.as_ref().map(|labs| labs.yaml(&self.more)).unwrap_or_default(),
            self.more
        )
    }

    /// The group as a word of the shell.
    pub(super) fn group_word(&self) -> String {
        quote(&self.group)
    }
}

#[cfg(test)]
impl Enrolment {
    /// A server whose agent makes no labs, for tests.
    pub(crate) fn sample() -> Self {
        Self {
            server: "s1".into(),
            hub: "https://hub.example.org".into(),
            own_port: None,
            token: Secret::new("kct_x"),
            user_ca: "ssh-ed25519 AAAA".into(),
            plan_key: "ssh-ed25519 AAAA".into(),
            hub_ca: None,
            admin_key: "ssh-ed25519 AAAA".into(),
            admin: "root".into(),
            program: "kubecamp".into(),
            group: "kubecamp-students".into(),
            permit_open: vec![],
            exempt: vec![],
            labs: None,
            more: String::new(),
        }
    }
}

impl GateMachines {
    /// Where their bundle goes.
    ///
    /// Each has a file of its own: labs that exist find theirs by its path.
    pub(super) fn bundle_at(&self) -> Option<String> {
        self.bundle.as_ref().map(|bundle| format!("{HOME}/{}.bundle", &bundle.sha256()[..16]))
    }

    /// Their lines of the agent's configuration; what `more` says already stays as it is there.
    fn yaml(&self, more: &str) -> String {
        let bundle = self.bundle_at().map(|at| format!(", bundle: {at}")).unwrap_or_default();
        let lead = if more.lines().any(|l| l.starts_with("lead:")) { String::new() } else { format!("lead: {LEAD}\n") };
        let outbound = if self.outbound { ", outbound: true" } else { "" };
        let keep = self.keep.map(|days| format!(", keep-labs: {days}")).unwrap_or_default();
        format!("{lead}machines: {{kind: {}{bundle}{outbound}{}{keep}}}\n", self.kind, self.mirrors_yaml())
    }

    fn mirrors_yaml(&self) -> String {
        let each = |m: &Mirror| format!("{{registry: {}, endpoints: {}}}", json!(m.registry), json!(m.endpoints));
        let all: Vec<_> = self.mirrors.iter().map(each).collect();
        if all.is_empty() { String::new() } else { format!(", mirrors: [{}]", all.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_gate_installs_and_asks_may_go_through_the_servers_proxy() {
        let text = crate::host::script::beside(&script("env").unwrap(), &[]);
        let mut sh = std::process::Command::new("sh");
        let proxies = [("https_proxy", "http://proxy.example:3128/'$x y"), ("NO_PROXY", "localhost,127.0.0.1")];
        let out = sh.arg("-c").arg(text).env_remove("no_proxy").envs(proxies).output().unwrap();
        let env = String::from_utf8(out.stdout).unwrap();
        for (name, value) in proxies {
            assert!(env.lines().any(|line| line == format!("{name}={value}")), "{env}");
        }
        assert!(out.stderr.is_empty() && !env.contains("no_proxy="), "{env}");
    }

    #[test]
    fn labs_have_their_lines_in_the_agents_configuration() {
        let (bundle, mirrors) = (Some(Blob::from_bytes(*b"abc")), vec![]);
        let labs = GateMachines { kind: Wanted::Vm, bundle, outbound: false, mirrors, keep: None };
        assert_eq!(
            labs.yaml("poll: 2\n"),
            "lead: 600\nmachines: {kind: vm, bundle: /var/lib/kubecamp-gate/home/ba7816bf8f01cfea.bundle}\n"
        );
        let other = GateMachines { bundle: Some(Blob::from_bytes(*b"b")), ..labs.clone() };
        assert_ne!(other.bundle_at(), labs.bundle_at(), "labs that exist keep the bundle that they were made from");
        let bare = GateMachines { kind: Wanted::Auto, bundle: None, ..labs };
        assert_eq!(bare.yaml("lead: 60\n"), "machines: {kind: auto}\n");
        let mirror = Mirror { registry: "docker.io".into(), endpoints: vec!["https://m/a".into(), "http://n".into()] };
        let open = GateMachines { outbound: true, mirrors: vec![mirror], keep: Some(7), ..bare };
        let mirrors = r#"[{registry: "docker.io", endpoints: ["https://m/a","http://n"]}]"#;
        assert_eq!(
            open.yaml("lead: 60\n"),
            format!("machines: {{kind: auto, outbound: true, mirrors: {mirrors}, keep-labs: 7}}\n")
        );
    }

    #[test]
    fn versions_of_openssh() {
        assert_eq!(version("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19"), Some((9, 2)));
        assert_eq!(version("OpenSSH_10.0p2 Debian-7"), Some((10, 0)));
        assert_eq!(version("Dropbear"), None);
    }

    #[test]
    fn whether_a_port_listens_is_read_from_the_kernels_list() {
        let dir = tempfile::tempdir().unwrap();
        let said = |port: u16| {
            let text = listens(port, &dir.path().display().to_string());
            let ran = std::process::Command::new("sh").arg("-c").arg(text).output().unwrap();
            assert!(ran.status.success() && ran.stderr.is_empty());
            String::from_utf8(ran.stdout).unwrap()
        };
        assert_eq!(said(8443), "listens\n", "nobody can tell");
        let rows = "  sl  local_address rem_address   st tx_queue\n\
                    \u{20}  0: 0100007F:20FB 00000000:0000 0A 00000000:00000000\n\
                    \u{20}  1: 0100007F:1F90 0100007F:20FB 01 00000000:00000000\n";
        std::fs::write(dir.path().join("tcp"), rows).unwrap();
        assert_eq!((said(8443).as_str(), said(8080).as_str(), said(80).as_str()), ("listens\n", "", ""));
        let sixth = "   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0\n";
        std::fs::write(dir.path().join("tcp6"), sixth).unwrap();
        assert_eq!((said(80).as_str(), said(81).as_str()), ("listens\n", ""));
    }

    #[test]
    fn new_accounts_are_in_a_default_group_where_they_get_none_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let defs = dir.path().join("login.defs");
        let group = |says: &str| {
            std::fs::write(&defs, says).unwrap();
            let script = format!(
                "{}\nLOGIN_DEFS={}\nuseradd() {{ printf 'GROUP=100\\nHOME=/home\\n'; }}\n\
                 getent() {{ [ \"$*\" = 'group 100' ] && echo users:x:100:; }}\ndefault_group",
                template::text("gate/lib.sh").unwrap(),
                defs.display()
            );
            let ran = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            String::from_utf8(ran.stdout).unwrap()
        };
        assert_eq!(group("UMASK 022\nUSERGROUPS_ENAB yes\n"), "");
        for none in ["USERGROUPS_ENAB no\n", "# USERGROUPS_ENAB yes\n", ""] {
            assert_eq!(group(none), "users\n", "{none:?}");
        }
    }

    #[test]
    fn the_drop_in_fits_the_version() {
        let text = |openssh| {
            sshd_drop_in("g", "/ca", "/p", &["10.0.0.2:22".into()], &["192.0.2.0/24".into()], openssh).unwrap()
        };
        assert!(
            text((9, 8)).starts_with("# kubecamp")
                && text((9, 8)).contains("PerSourcePenaltyExemptList 192.0.2.0/24\n")
        );
        assert!(!text((9, 2)).contains("PerSource"));
        assert!(text((9, 2)).contains("    AuthorizedPrincipalsFile /p/%u\n"));
        assert!(text((9, 2)).contains("    AllowTcpForwarding local\n    PermitOpen 10.0.0.2:22\n"));
        assert!(text((9, 2)).ends_with("Match all\n"), "what the host's own file says next counts for everybody again");
        // What the server says for everybody.
        for line in
            ["AllowUsers *", "AllowGroups g", "ForceCommand none", "ChrootDirectory none", "DisableForwarding no"]
        {
            assert!(text((9, 2)).contains(&format!("    {line}\n")), "{line}");
        }
        let closed = sshd_drop_in("g", "/ca", "/p", &[], &[], (9, 2)).unwrap();
        assert!(closed.contains("    AllowTcpForwarding no\n") && !closed.contains("PermitOpen"));
    }
}

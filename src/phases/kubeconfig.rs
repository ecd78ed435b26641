use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::{
    core::{Code, LabName, PhaseId, Problem, Report, bracketed},
    engine::{Change, Check, Phase, Step, Task, View},
    host::Viewer,
};

/// As whom kubeadm's admin.conf signs in.
const ADMIN: &str = "kubernetes-admin";

/// Brings the administrator's keys to the user's computer, in a kubeconfig of its own that the user alone can read.
pub struct Kubeconfig {
    /// Where it goes.
    pub to: PathBuf,
    /// The address under which this computer reaches the API server.
    pub server: String,
}

impl Kubeconfig {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("kubeconfig");
}

#[async_trait]
impl Phase for Kubeconfig {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "fetch the kubeconfig"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let Some(viewer) = view.host else { return Ok(vec![]) };
        let (lab, to, server) = (view.lab.name().clone(), self.to.clone(), self.server.clone());
        let task = Fetch { viewer: viewer.clone(), lab, to, server };
        let title = format!("write {}", self.to.display());
        Ok(vec![Step::new("fetch", title, Check::Never, Change::Task(Arc::new(task)))])
    }
}

struct Fetch {
    viewer: Viewer,
    lab: LabName,
    to: PathBuf,
    server: String,
}

impl Fetch {
    /// What is to be in the file on this computer; `None` before kubeadm init.
    async fn wanted(&self) -> Result<Option<String>, Problem> {
        let exit = self.viewer.read("cat /etc/kubernetes/admin.conf").await?;
        if !exit.ok() {
            return Ok(None);
        }
        let text = for_here(&String::from_utf8_lossy(&exit.stdout), &self.lab, &self.server);
        text.map(Some).ok_or_else(|| unfit().on(self.viewer.node()))
    }
}

fn unfit() -> Problem {
    let what = "the control plane's admin.conf does not hold the administrator's keys as kubeadm writes them";
    Problem::new(Code::VerifyFailed, what).hint(
        "As root there move /etc/kubernetes/admin.conf away and run kubeadm init phase kubeconfig admin --config \
         /etc/kubernetes/kubecamp/init.yaml, then kubecamp up again.",
    )
}

/// A kubeconfig for this computer. Of the control plane's own it has two certificates and a key, and nothing else: whoever
/// is root there can write what they like into that one, and kubectl runs programs and sends off files that it finds named.
fn for_here(conf: &str, lab: &LabName, server: &str) -> Option<String> {
    let conf: Value = serde_yaml::from_str(conf).ok()?;
    let authority = pem(&conf, ("clusters", "cluster"), lab.as_str(), "certificate-authority-data", "CERTIFICATE")?;
    let certificate = pem(&conf, ("users", "user"), ADMIN, "client-certificate-data", "CERTIFICATE")?;
    let key = pem(&conf, ("users", "user"), ADMIN, "client-key-data", "PRIVATE KEY")?;
    let host = bracketed(server);
    // Quoted, since a lab may be called `no`.
    let [server, cluster, context] =
        [format!("https://{host}:6443"), lab.to_string(), format!("{ADMIN}@{lab}")].map(|text| json!(text).to_string());
    // In a cloud a host has another public address after each stop, which the API server's certificate does not know: it is
    // asked for by a name that kubeadm puts into each.
    Some(format!(
        r"apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    server: {server}
    tls-server-name: kubernetes
    certificate-authority-data: {authority}
users:
- name: {ADMIN}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: {context}
  context:
    cluster: {cluster}
    user: {ADMIN}
current-context: {context}
"
    ))
}

/// The value `key` of the entry called `name` in one of the lists, where it is base64 of PEM that is of this kind.
fn pem<'a>(conf: &'a Value, (list, entry): (&str, &str), name: &str, key: &str, kind: &str) -> Option<&'a str> {
    let named = conf.get(list)?.as_array()?.iter().find(|one| one["name"] == name)?;
    let text = named.get(entry)?.get(key)?.as_str()?;
    let plain = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
    let (first, last) = (plain.lines().next()?, plain.lines().next_back()?);
    let end = format!("{kind}-----");
    let whole = first.starts_with("-----BEGIN ") && last.starts_with("-----END ");
    (whole && first.ends_with(&end) && last.ends_with(&end)).then_some(text)
}

#[async_trait]
impl Task for Fetch {
    async fn done(&self) -> Result<bool, Problem> {
        let Some(wanted) = self.wanted().await? else { return Ok(false) };
        Ok(fs::read_to_string(&self.to).is_ok_and(|text| text == wanted) && is_private(&self.to))
    }

    async fn run(&self, _: &dyn Report) -> Result<(), Problem> {
        let text = self.wanted().await?.ok_or_else(|| {
            Problem::new(Code::VerifyFailed, "the control plane has no admin.conf").on(self.viewer.node())
        })?;
        write_private(&self.to, &text)
            .map_err(|e| Problem::new(Code::LocalFile, format!("cannot write {}", self.to.display())).because(e))
    }
}

fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0)
}

/// Written beside and renamed: mode 0600 from its first byte on.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: &str) -> String {
        BASE64_STANDARD.encode(format!("-----BEGIN {kind}-----\nTUlJ\n-----END {kind}-----\n"))
    }

    /// As kubeadm writes it.
    fn admin_conf() -> String {
        format!(
            r"apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {certificate}
    server: https://10.0.0.1:6443
  name: team7
contexts:
- context:
    cluster: team7
    user: kubernetes-admin
  name: kubernetes-admin@team7
current-context: kubernetes-admin@team7
kind: Config
preferences: {{}}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
",
            certificate = encoded("CERTIFICATE"),
            key = encoded("RSA PRIVATE KEY"),
        )
    }

    fn made(conf: &str, server: &str) -> Option<Value> {
        let text = for_here(conf, &"team7".parse().unwrap(), server)?;
        Some(serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
    }

    fn wanted(url: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "team7", "cluster": {
                "server": url,
                "tls-server-name": "kubernetes",
                "certificate-authority-data": encoded("CERTIFICATE"),
            }}],
            "users": [{"name": "kubernetes-admin", "user": {
                "client-certificate-data": encoded("CERTIFICATE"),
                "client-key-data": encoded("RSA PRIVATE KEY"),
            }}],
            "contexts": [
                {"name": "kubernetes-admin@team7", "context": {"cluster": "team7", "user": "kubernetes-admin"}},
            ],
            "current-context": "kubernetes-admin@team7",
        })
    }

    #[test]
    fn the_keys_come_and_the_server_is_the_one_that_this_computer_reaches() {
        for (server, url) in
            [("203.0.113.7", "203.0.113.7"), ("cp.example", "cp.example"), ("2001:db8::1", "[2001:db8::1]")]
        {
            assert_eq!(made(&admin_conf(), server), Some(wanted(&format!("https://{url}:6443"))));
        }
    }

    #[test]
    fn a_lab_may_have_a_name_that_yaml_reads_as_something_else() {
        let conf = admin_conf().replace("team7", "no").replace("name: no\n", "name: \"no\"\n");
        let text = for_here(&conf, &"no".parse().unwrap(), "192.0.2.1").unwrap();
        assert!(text.contains("- name: \"no\"\n") && text.contains("    cluster: \"no\"\n"), "{text}");
    }

    #[test]
    fn nothing_else_of_the_hosts_file_comes_to_this_computer() {
        let conf = admin_conf();
        let instead = |old: &str, new: &str| {
            assert!(conf.contains(old), "{old}");
            conf.replacen(old, new, 1)
        };
        let user = |more: &str| instead("  user:\n", &format!("  user:\n    {more}\n"));
        let cluster = |more: &str| instead("- cluster:\n", &format!("- cluster:\n    {more}\n"));
        let runs = "{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [-c, touch /tmp/x], interactiveMode: Never}";
        let good = [
            user(&format!("exec: {runs}")),
            user("tokenFile: /home/user/.ssh/id_ed25519"),
            user("auth-provider: {name: gcp, config: {cmd-path: sh}}"),
            user("client-key: /etc/passwd"),
            cluster("proxy-url: http://192.0.2.66:8080"),
            cluster("insecure-skip-tls-verify: true"),
            cluster("note: |\n      server: https://192.0.2.66:6443"),
            instead("users:\n", &format!("users:\n- name: other\n  user: {{exec: {runs}}}\n")),
            instead("contexts:\n", "contexts:\n- {name: other, context: {cluster: x, user: other}}\n"),
            instead("current-context: kubernetes-admin@team7", "current-context: other"),
        ];
        for conf in &good {
            assert_eq!(made(conf, "192.0.2.1"), Some(wanted("https://192.0.2.1:6443")), "{conf}");
        }
        let (certificate, key) = (encoded("CERTIFICATE"), encoded("RSA PRIVATE KEY"));
        let bad = [
            String::new(),
            "[".to_owned(),
            instead("certificate-authority-data", "certificate-authority"),
            instead("client-certificate-data", "client-certificate"),
            instead("client-key-data", "client-key"),
            instead("- name: kubernetes-admin", "- name: other"),
            conf.replace("name: team7", "name: other"),
            conf.replace(&key, &certificate),
            conf.replace(&key, &BASE64_STANDARD.encode("-----BEGIN PRIVATE KEY-----\n")),
            conf.replace(&key, "\"LS0t\\n    exec: {command: sh}\""),
            conf.replace(&key, "{command: sh}"),
        ];
        for conf in &bad {
            assert_eq!(made(conf, "192.0.2.1"), None, "{conf}");
        }
    }
}

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use crate::{
    core::{Code, PhaseId, Problem, Report},
    engine::{Change, Check, Phase, Step, Task, View},
    host::Viewer,
};

/// Brings the administrator's kubeconfig to the user's computer, readable by the user alone.
pub struct Kubeconfig {
    /// Where it goes.
    pub to: PathBuf,
    /// The address under which this computer reaches the API server.
    pub server: String,
}

#[async_trait]
impl Phase for Kubeconfig {
    fn id(&self) -> PhaseId {
        PhaseId::new("kubeconfig")
    }

    fn title(&self) -> &'static str {
        "fetch the kubeconfig"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let Some(viewer) = view.host else { return Ok(vec![]) };
        let task = Fetch { viewer: viewer.clone(), to: self.to.clone(), server: self.server.clone() };
        let title = format!("write {}", self.to.display());
        Ok(vec![Step::new("fetch", title, Check::Never, Change::Task(Arc::new(task)))])
    }
}

struct Fetch {
    viewer: Viewer,
    to: PathBuf,
    server: String,
}

impl Fetch {
    /// The administrator's kubeconfig with the server's address as this computer sees it; `None` before kubeadm
    /// init.
    async fn wanted(&self) -> Result<Option<String>, Problem> {
        let exit = self.viewer.read("cat /etc/kubernetes/admin.conf").await?;
        if !exit.ok() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&exit.stdout).into_owned();
        Ok(Some(with_server(&text, &self.server)))
    }
}

/// A kubeconfig with another server, by name or address, and a name that kubeadm puts into every API server's certificate:
/// in a cloud a host has another public address after each stop, which the certificate does not know.
fn with_server(kubeconfig: &str, server: &str) -> String {
    let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
    let line = |l: &str| match l.split_once("server: https://") {
        Some((indent, _)) => format!("{indent}server: https://{host}:6443\n{indent}tls-server-name: kubernetes\n"),
        None => format!("{l}\n"),
    };
    kubeconfig.lines().map(line).collect()
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
    use super::with_server;

    #[test]
    fn the_server_is_the_one_that_this_computer_reaches() {
        let conf = "clusters:\n- cluster:\n    server: https://10.0.0.1:6443\n  name: kubernetes\n";
        for (server, url) in
            [("203.0.113.7", "203.0.113.7"), ("cp.example", "cp.example"), ("2001:db8::1", "[2001:db8::1]")]
        {
            let line = format!("    server: https://{url}:6443\n    tls-server-name: kubernetes\n");
            assert_eq!(with_server(conf, server), conf.replace("    server: https://10.0.0.1:6443\n", &line));
        }
    }
}

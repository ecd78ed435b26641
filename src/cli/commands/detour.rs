use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::Once,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::net::TcpStream;

use super::Context;
use crate::{
    cli::{
        args::KubectlArgs,
        output,
        store::{Login, State},
    },
    core::{Code, LabName, Problem, Problems},
    profile::Lab,
    transport::{LinkError, SshTransport, Transport, Tunnel},
};

/// How long the API server may take to answer directly: long enough for a lost packet to be sent again, and no longer,
/// since behind a firewall that says nothing each kubectl waits for it. A slower link goes through SSH.
const PATIENCE: Duration = Duration::from_millis(1500);

/// First words with which kubectl asks no API server. What `config` writes belongs into the lab's own file.
const OFFLINE: [&str; 6] = ["completion", "config", "help", "kustomize", "options", "plugin"];

/// Flags with which it asks none, as `version --client`, or another than the lab's.
const ELSEWHERE: [&str; 5] = ["--help", "-h", "--client", "--client=true", "--kubeconfig"];

/// kubectl's way through SSH to an API server that this computer does not reach by itself.
pub(super) struct Detour {
    link: SshTransport,
    tunnel: Tunnel,
    /// The kubeconfig that leads into the tunnel; removed when this is dropped.
    file: NamedTempFile,
}

impl Detour {
    /// Opens the way where it is needed: a jump host stands before the control plane, or its API server does not answer.
    pub(super) async fn if_needed(
        cx: &Context,
        lab: &Lab,
        state: &State,
        args: &KubectlArgs,
    ) -> Result<Option<Self>, Problems> {
        if asks_another(&args.args) {
            return Ok(None);
        }
        let Some(api) = Api::of(&cx.store.file("kubeconfig"), lab.name()) else { return Ok(None) };
        let node = &lab.control_plane().name;
        let found = cx.target(lab, state, node, &args.connect).await;
        let told = Login::of(&args.connect, Some(&state.login)).jump;
        let jumps =
            told.is_some_and(|jump| jump != "none") || matches!(&found, Ok(Some(target)) if !target.jump.is_empty());
        if !jumps && api.answers().await {
            return Ok(None);
        }
        // Only now: who gets there directly needs no way over SSH, and no ssh_config that can be read.
        let Some(target) = found? else { return Ok(None) };
        let name = target.name();
        if cx.global.verbose {
            output::say(&format!("kubectl reaches {} through {name}, over SSH", api.at));
        }
        let tried = (!jumps).then(|| format!("nor does its API server answer directly: {}", api.at));
        let link = SshTransport::connect(target).await.map_err(|p| p.on(node).detail(tried))?;
        // Where nothing answers there, kubectl would only see that its connection ends.
        let probe = link.forward("127.0.0.1", api.port).await.map_err(|e| {
            Problem::new(Code::HostUnreachable, format!("the API server cannot be reached through {name}"))
                .on(node)
                .because(e)
                .hint("See with kubecamp status whether the lab runs.")
                .hint("The host's sshd must forward connections: AllowTcpForwarding and PermitOpen in sshd_config.")
        })?;
        drop(probe);
        let (once, of) = (Once::new(), node.clone());
        let told = move |e: &LinkError| once.call_once(|| output::problems(&e.problem().on(&of).into()));
        let tunnel = Tunnel::open(&link, usual_port(cx.store.folder()), api.port, told).await.map_err(|e| {
            Problem::new(Code::Internal, "no port of this computer's loopback can be listened at").because(e)
        })?;
        let file = private_file(&api.through(tunnel.at())).map_err(|e| {
            Problem::new(Code::LocalFile, format!("cannot write a file in {}", env::temp_dir().display())).because(e)
        })?;
        Ok(Some(Self { link, tunnel, file }))
    }

    /// What KUBECONFIG has to be.
    ///
    /// Of several files the first one that names a cluster describes it; users, contexts and what kubectl writes stay in
    /// the lab's `own`, so that no key is copied.
    pub(super) fn kubeconfig(&self, own: &Path) -> Result<OsString, Problem> {
        env::join_paths([self.file.path(), own]).map_err(|e| {
            Problem::new(Code::LocalFile, format!("kubectl cannot be told of {}", own.display()))
                .because(e)
                .hint("Let neither KUBECAMP_HOME nor TMPDIR have a colon in its path.")
        })
    }

    /// Ends what still goes through the tunnel, and the connection.
    pub(super) async fn close(self) {
        drop(self.tunnel);
        self.link.close().await;
    }
}

/// Whether plain kubectl with this kubeconfig of the lab reaches its API server from here.
pub(super) async fn answers_directly(kubeconfig: &Path, lab: &LabName) -> bool {
    match Api::of(kubeconfig, lab) {
        Some(api) => api.answers().await,
        None => true,
    }
}

/// The API server as the lab's kubeconfig has it.
struct Api {
    cluster: String,
    authority: String,
    /// Host and port.
    at: String,
    port: u16,
}

impl Api {
    /// That of the lab; `None` where the file is not as `up` wrote it: it leads where somebody wanted.
    fn of(kubeconfig: &Path, lab: &LabName) -> Option<Self> {
        #[derive(Deserialize)]
        struct Kubeconfig {
            clusters: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            name: String,
            cluster: Cluster,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Cluster {
            server: String,
            certificate_authority_data: String,
        }
        let text = fs::read_to_string(kubeconfig).ok()?;
        let found: Kubeconfig = serde_yaml::from_str(&text).ok()?;
        let Entry { name, cluster } = found.clusters.into_iter().find(|entry| entry.name == lab.as_str())?;
        let at = cluster.server.strip_prefix("https://")?.to_owned();
        let port = at.rsplit_once(':')?.1.parse().ok()?;
        Some(Self { cluster: name, authority: cluster.certificate_authority_data, at, port })
    }

    async fn answers(&self) -> bool {
        let answer = tokio::time::timeout(PATIENCE, TcpStream::connect(self.at.as_str())).await;
        answer.is_ok_and(|connected| connected.is_ok())
    }

    /// A kubeconfig that says of the cluster only where it is now. kubeadm puts `kubernetes` into every API server's
    /// certificate.
    fn through(&self, at: SocketAddr) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": self.cluster,
                "cluster": {
                    "server": format!("https://{at}"),
                    "tls-server-name": "kubernetes",
                    "certificate-authority-data": self.authority,
                },
            }],
        })
        .to_string()
    }
}

/// Whether kubectl asks nobody for this, or somebody else than the lab's API server.
pub(super) fn asks_another(args: &[OsString]) -> bool {
    // What follows `--` is for a program in a pod.
    let mut words = args.iter().map(|arg| arg.to_str().unwrap_or_default()).take_while(|word| *word != "--").peekable();
    words.peek().is_none_or(|first| OFFLINE.contains(first))
        || words.any(|word| ELSEWHERE.contains(&word) || word.starts_with("--kubeconfig="))
}

/// The port of a lab's tunnel where it is free, above those that a system gives out. kubectl files what it learns of an
/// API server under its address, and finds it again only there.
fn usual_port(folder: &Path) -> u16 {
    let bytes = folder.as_os_str().as_encoded_bytes();
    let sum = bytes.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    61_000 + u16::try_from(sum % 4_000).unwrap_or_default()
}

/// A temporary file that only this user can read.
fn private_file(text: &str) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("kubecamp-")?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    certificate-authority-data: LS0tCg==\n    \
        server: https://[2001:db8::1]:6443\n    tls-server-name: kubernetes\n  name: team7\ncontexts:\n- context: {cluster: team7, user: admin}\n  \
        name: admin@team7\ncurrent-context: admin@team7\npreferences: {}\nusers:\n- name: admin\n  \
        user: {client-key-data: S0VZ}\n";

    fn api(text: &str) -> Option<Api> {
        let file = private_file(text).unwrap();
        Api::of(file.path(), &"team7".parse().unwrap())
    }

    #[test]
    fn the_tunnels_kubeconfig_names_the_cluster_and_no_secret() {
        let api = api(OWN).unwrap();
        assert_eq!((api.at.as_str(), api.port), ("[2001:db8::1]:6443", 6443));
        let text = api.through("127.0.0.1:61234".parse().unwrap());
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let cluster = &read["clusters"][0];
        assert_eq!(
            (&cluster["name"], &cluster["cluster"]["server"]),
            (&json!("team7"), &json!("https://127.0.0.1:61234"))
        );
        assert_eq!(cluster["cluster"]["certificate-authority-data"], "LS0tCg==");
        assert_eq!(cluster["cluster"]["tls-server-name"], "kubernetes");
        assert!(read.get("users").is_none() && read.get("current-context").is_none(), "{text}");
    }

    #[test]
    fn a_kubeconfig_that_somebody_changed_is_theirs() {
        for text in ["", "clusters: []\n", &OWN.replace("https://", "http://"), &OWN.replace("name: team7", "name: x")]
        {
            assert!(api(text).is_none(), "{text}");
        }
        assert!(Api::of(Path::new("/none"), &"team7".parse().unwrap()).is_none());
    }

    #[test]
    fn only_what_asks_the_api_server_goes_there() {
        let another = |line: &str| asks_another(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for line in
            ["", "--help", "config view", "get pods -h", "version --client", "--kubeconfig x get", "get --kubeconfig=x"]
        {
            assert!(another(line), "{line}");
        }
        for line in ["get config", "-n x get pods", "version", "exec x -- kubectl --kubeconfig=y version --client -h"] {
            assert!(!another(line), "{line}");
        }
    }

    #[test]
    fn a_lab_has_a_port_of_its_own() {
        let [a, b] = ["/labs/a", "/labs/b"].map(|folder| usual_port(Path::new(folder)));
        assert!(a != b && [a, b].iter().all(|port| (61_000..65_000).contains(port)), "{a} {b}");
    }
}

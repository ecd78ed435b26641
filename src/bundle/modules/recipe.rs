use std::path::{Path, PathBuf};

use crate::{
    bundle::{catalogue::CNI_PLUGINS, versions::Versions},
    core::Arch,
};

/// How one component is built: a wrapper module that requires the project's modules at pinned versions.
///
/// The wrapper is what `go install module@version` would be, if that allowed replaced modules and a go.sum that covers
/// everything.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The component, for progress and folders.
    pub name: &'static str,
    /// Module and version of everything that it pins; the first one is its origin in the manifest.
    pub requires: Vec<(&'static str, String)>,
    /// What is compiled.
    pub main: Main,
    /// Whether C code is linked in, statically.
    pub cgo: bool,
    /// Build tags, separated by blanks.
    pub tags: &'static str,
    /// Values set at link time, as `package.variable=value`.
    pub set: Vec<String>,
    /// Modules replaced by a folder of ours: module, folder, and its files.
    pub stubs: Vec<Stub>,
    /// Modules replaced by a folder of the user's.
    pub replaced: Vec<(String, PathBuf)>,
    /// Whether the first module's `./staging` replacements become released versions.
    pub staging: Option<String>,
}

/// What a recipe compiles.
#[derive(Debug, Clone)]
pub enum Main {
    /// Main packages of the required modules, each with the name of its output.
    Packages(Vec<(String, String)>),
    /// Our own main package and the name of its output.
    Source(&'static str, &'static str),
}

/// A module of ours that stands in for another.
#[derive(Debug, Clone)]
pub struct Stub {
    /// The module that it stands in for.
    pub module: &'static str,
    /// Its folder below the wrapper.
    pub folder: &'static str,
    /// Its files: name and content.
    pub files: &'static [(&'static str, &'static str)],
}

impl Recipe {
    fn new(name: &'static str, module: &'static str, version: &str) -> Self {
        let requires = vec![(module, version.to_owned())];
        let (cgo, tags, set) = (false, "", vec![]);
        let (main, stubs, replaced) = (Main::Packages(vec![]), vec![], vec![]);
        Self { name, requires, main, cgo, tags, set, stubs, replaced, staging: None }
    }

    fn packages<S: AsRef<str>>(mut self, list: impl IntoIterator<Item = (S, &'static str)>) -> Self {
        let module = self.requires[0].0;
        let full = |package: &str| if package.is_empty() { module.to_owned() } else { format!("{module}/{package}") };
        self.main = Main::Packages(list.into_iter().map(|(p, out)| (full(p.as_ref()), out.to_owned())).collect());
        self
    }

    /// The names of its outputs.
    pub fn outputs(&self) -> Vec<&str> {
        match &self.main {
            Main::Packages(list) => list.iter().map(|(_, out)| out.as_str()).collect(),
            Main::Source(_, out) => vec![out],
        }
    }

    /// `module@version` of its first module.
    pub fn origin(&self) -> String {
        let (module, version) = &self.requires[0];
        format!("{module}@{version}")
    }

    /// Whether `folder`, a tree of `module`, has what it compiles of that module.
    pub fn has_programs(&self, module: &str, folder: &Path) -> bool {
        let Main::Packages(list) = &self.main else { return false };
        let below = |package: &str| package.strip_prefix(module).map(|rest| folder.join(rest.trim_start_matches('/')));
        let mut own = list.iter().filter_map(|(package, _)| below(package)).peekable();
        own.peek().is_some() && own.all(|package| package.is_dir())
    }

    /// Where its outputs come from, for the manifest: a user's folder is not the release that its version names.
    pub fn provenance(&self) -> String {
        match &self.replaced[..] {
            [] => self.origin(),
            some => {
                let modules: Vec<&str> = some.iter().map(|(module, _)| module.as_str()).collect();
                format!("{}, replaced: {}", self.origin(), modules.join(" "))
            }
        }
    }
}

/// Every component that is built with Go, the longest first.
pub fn recipes(v: &Versions, arch: Arch) -> Vec<Recipe> {
    vec![
        kubernetes(v),
        containerd(v),
        coredns(v),
        etcd(v),
        flannel(v, arch),
        runc(v),
        crictl(v),
        cni(v),
        cni_flannel(v),
    ]
}

fn kubernetes(v: &Versions) -> Recipe {
    let names =
        ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubeadm", "kubectl", "kubelet"];
    let mut recipe = Recipe::new("kubernetes", "k8s.io/kubernetes", &v.kubernetes)
        .packages(names.map(|name| (format!("cmd/{name}"), name)));
    // Commit and date are fixed: a module does not know them, and the time of the build would change the bytes.
    let values = [
        ("gitVersion", v.kubernetes.as_str()),
        ("gitMajor", "1"),
        ("gitMinor", v.minor()),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("gitTreeState", "clean"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ];
    recipe.set = values.iter().map(|(key, value)| format!("k8s.io/component-base/version.{key}={value}")).collect();
    recipe.staging = Some(v.libraries());
    recipe
}

fn containerd(v: &Versions) -> Recipe {
    let names = ["containerd", "containerd-shim-runc-v2", "ctr"];
    let module = "github.com/containerd/containerd/v2";
    let mut recipe = Recipe::new("containerd", module, v.containerd).packages(names.map(|n| (format!("cmd/{n}"), n)));
    // A lab uses overlayfs; the other snapshotters would bring C libraries and size.
    recipe.tags = "netgo osusergo static_build no_btrfs no_devmapper no_zfs no_aufs";
    recipe.set = vec![
        format!("{module}/version.Version={}", v.containerd),
        format!("{module}/version.Revision="),
        format!("{module}/version.Package={module}"),
    ];
    recipe
}

fn coredns(v: &Versions) -> Recipe {
    let mut recipe = Recipe::new("coredns", "github.com/coredns/coredns", v.coredns);
    // Its own main brings every plugin of every cloud; a lab's Corefile needs a fifth of them.
    recipe.main = Main::Source(include_str!("files/coredns.go"), "coredns");
    recipe.tags = "grpcnotrace";
    recipe.set = vec![format!("github.com/coredns/coredns/coremain.GitCommit={}", v.coredns)];
    recipe
}

fn etcd(v: &Versions) -> Recipe {
    let version = v.etcd_module();
    let mut recipe = Recipe::new("etcd", "go.etcd.io/etcd/server/v3", &version);
    for module in ["go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3"] {
        recipe.requires.push((module, version.clone()));
    }
    let outputs = ["etcd", "etcdctl", "etcdutl"];
    recipe.main = Main::Packages(
        recipe.requires.iter().zip(outputs).map(|((module, _), out)| ((*module).to_owned(), out.to_owned())).collect(),
    );
    recipe.set = vec![format!("go.etcd.io/etcd/api/v3/version.GitSHA={version}")];
    recipe
}

fn flannel(v: &Versions, arch: Arch) -> Recipe {
    let mut recipe = Recipe::new("flannel", "github.com/flannel-io/flannel", v.flannel).packages([("", "flanneld")]);
    recipe.cgo = arch == Arch::Amd64; // its udp backend is C there, and a stub elsewhere
    recipe.tags = "netgo osusergo";
    recipe.set = vec![format!("github.com/flannel-io/flannel/pkg/version.Version={}", v.flannel)];
    // One of its backends needs a cloud SDK that Go proxies do not all serve.
    recipe.stubs = vec![
        Stub {
            module: "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common",
            folder: "cloud-common",
            files: &[
                ("common.go", include_str!("files/cloud-common.go")),
                ("errors/errors.go", include_str!("files/cloud-errors.go")),
            ],
        },
        Stub {
            module: "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc",
            folder: "cloud-vpc",
            files: &[("v20170312/vpc.go", include_str!("files/cloud-vpc.go"))],
        },
    ];
    recipe
}

fn runc(v: &Versions) -> Recipe {
    let mut recipe = Recipe::new("runc", "github.com/opencontainers/runc", v.runc).packages([("", "runc")]);
    recipe.cgo = true;
    // Without `seccomp` it starts no pod: "config provided but seccomp not supported".
    recipe.tags = "seccomp netgo osusergo urfave_cli_no_docs";
    recipe
}

fn crictl(v: &Versions) -> Recipe {
    let mut recipe = Recipe::new("crictl", "sigs.k8s.io/cri-tools", v.crictl).packages([("cmd/crictl", "crictl")]);
    recipe.set = vec![format!("sigs.k8s.io/cri-tools/pkg/version.Version={}", v.crictl)];
    recipe
}

const CNI: &str = "github.com/containernetworking/plugins";

fn cni(v: &Versions) -> Recipe {
    let kind = |plugin: &str| match plugin {
        "host-local" | "static" | "dhcp" => "ipam",
        "bandwidth" | "firewall" | "portmap" | "tuning" => "meta",
        _ => "main",
    };
    let mut recipe = Recipe::new("cni", CNI, v.cni)
        .packages(CNI_PLUGINS.iter().map(|name| (format!("plugins/{}/{name}", kind(name)), *name)));
    recipe.set = vec![format!("{CNI}/pkg/utils/buildversion.BuildVersion={}", v.cni)];
    recipe
}

fn cni_flannel(v: &Versions) -> Recipe {
    let mut recipe =
        Recipe::new("cni-flannel", CNI, v.flannel_cni_module).packages([("plugins/meta/flannel", "flannel")]);
    recipe.set = vec![format!("{CNI}/pkg/utils/buildversion.BuildVersion={}", v.flannel_cni_module)];
    recipe
}

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    bundle::{Bundle, Kind, Member},
    core::{PhaseId, Problem, shell::quote},
    engine::{Change, Check, Phase, Step, Upload, View},
    transport::HASH,
};

/// Puts the bundle's programs on the host.
pub struct Binaries {
    /// Where they come from.
    pub bundle: Arc<Bundle>,
}

/// Programs of the runtime live apart, so that another containerd or runc of the host stays what PATH finds.
const RUNTIME: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr", "runc"];

/// Where a program of the bundle is installed on a host.
fn place(name: &str, default: &str) -> String {
    if RUNTIME.contains(&name) { format!("/opt/kubecamp/bin/{name}") } else { default.to_owned() }
}

/// Shell text that runs `body` for every line of `wanted`, as `$sha`, `$size` and `$path`.
fn each(wanted: &str, body: &str) -> String {
    format!("printf '%s' {} | while read -r sha size path; do {body}; done", quote(wanted))
}

impl Binaries {
    /// A host that has zstd gets the compressed bytes, a third of the whole, and unpacks one while the next travels.
    fn upload(&self, member: &Member, to: String, zstd: bool) -> Upload {
        let what = member.name.clone();
        if !zstd {
            return Upload {
                what,
                blob: self.bundle.plain(member),
                to,
                mode: 0o755,
                have: String::new(),
                then: String::new(),
            };
        }
        let then = format!(
            "{HASH} p={path}.kc-part; zstd -qdc \"$KC_FILE\" > \"$p\" || {{ rm -f \"$p\"; exit 1; }}\n\
             set -- $(h <\"$p\"); [ \"$1\" = {sha256} ] || {{ rm -f \"$p\"; echo \"the digest is $1, not {sha256}\" >&2; exit 1; }}\n\
             chmod 755 \"$p\" && mv -fT \"$p\" {path} && rm -f \"$KC_FILE\"",
            path = quote(&to),
            sha256 = member.plain.sha256
        );
        let have = format!(
            "{HASH} [ -x {path} ] && [ \"$(stat -c %s {path})\" = {size} ] && set -- $(h <{path}) && [ \"$1\" = {sha256} ]",
            path = quote(&to),
            size = member.plain.size,
            sha256 = member.plain.sha256
        );
        let to = format!("/var/lib/kubecamp/incoming/{}.zst", member.name);
        Upload { what, blob: self.bundle.stored(member), to, mode: 0o600, have, then }
    }
}

#[async_trait]
impl Phase for Binaries {
    fn id(&self) -> PhaseId {
        PhaseId::new("binaries")
    }

    fn title(&self) -> &'static str {
        "install kubeadm, kubelet, containerd and the CNI plugins"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut files = vec![];
        let mut wanted = String::new();
        for member in self.bundle.members().filter(|m| m.kind == Kind::Binary) {
            if !member.for_workers() && !view.is_control_plane() {
                continue;
            }
            let Some(install) = &member.install else { continue };
            let to = place(&member.name, install);
            wanted.push_str(&format!("{} {} {to}\n", member.plain.sha256, member.plain.size));
            files.push(self.upload(member, to, view.facts().yes("tool.zstd")));
        }
        // Hashing 300 MB on every run would cost a second per host: size and time of change prove that a file is
        // still the one whose digest was verified on arrival.
        // A prepared machine may have more than this node needs.
        let check = each(
            &wanted,
            "grep -qxF \"$sha $size $path $(stat -c %s:%Y \"$path\")\" /var/lib/kubecamp/binaries || exit 1",
        );
        let kept = each(&wanted, "grep -q \"^file\t[^\t]*\t$path\\$\" /var/lib/kubecamp/manifest || exit 1");
        let before = each(
            &wanted,
            "kc_dirs \"$(dirname \"$path\")\" && { kc_known file \"$path\" || kc_keep \"$path\"; } || exit 1",
        );
        let after = format!(
            "{} > /var/lib/kubecamp/binaries.part && mv /var/lib/kubecamp/binaries.part /var/lib/kubecamp/binaries",
            each(&wanted, "echo \"$sha $size $path $(stat -c %s:%Y \"$path\")\"")
        );
        Ok(vec![
            Step::script("keep", "remember files that will be replaced", Check::Script(kept), before),
            Step::new("install", "upload the programs", Check::Script(check), Change::Upload { files, then: after })
                .limit(120),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_data_whatever_is_in_it() {
        let script = each("0 1 /bin/a'$(echo ran)'`echo ran`\n2 3 /bin/b c\n", "echo \"<$path>\"");
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "</bin/a'$(echo ran)'`echo ran`>\n</bin/b c>\n");
    }
}

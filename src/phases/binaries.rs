use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::cluster::uploads_before;
use crate::{
    bundle::{Bundle, Kind, Member},
    core::{PhaseId, Problem, shell::quote},
    engine::{Change, Check, Need, Phase, Step, Upload, View},
};

/// Puts the bundle's programs on the host.
///
/// The control plane has the longest way to go, and the user's uplink is shared: one worker gets them beside it, which the
/// uplink has room for, and the others after it. Where it failed they go on, so that the next run finds them prepared.
pub struct Binaries {
    /// Where they come from.
    pub bundle: Arc<Bundle>,
}

/// Programs of the runtime live apart, so that another containerd or runc of the host stays what PATH finds.
const RUNTIME: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr", "runc"];

/// Where it stands which programs were verified on arrival, and as what they lay on the disk then.
const VERIFIED: &str = "/var/lib/kubecamp/binaries";

/// Where a program of the bundle is installed on a host.
fn place(name: &str, default: &str) -> String {
    if RUNTIME.contains(&name) { format!("/opt/kubecamp/bin/{name}") } else { default.to_owned() }
}

/// Shell text that runs `body` for every line of `wanted`, as `$sha`, `$size` and `$path`.
fn each(wanted: &str, body: &str) -> String {
    format!("printf '%s' {} | while read -r sha size path; do {body}; done", quote(wanted))
}

/// The same, with `$mark` of each, its line in [`VERIFIED`] as it is now. One program looks at all of the files: starting one for
/// each takes a busy host longer than all else here.
fn each_marked(wanted: &str, body: &str) -> String {
    let paths = wanted.lines().filter_map(|l| l.splitn(3, ' ').nth(2)).map(quote).collect::<Vec<_>>().join(" ");
    let mark = "rest=${now#*\"$nl$path \"}; mark=\"$sha $size $path ${rest%%\"$nl\"*}\"";
    format!(
        "nl='\n'; now=\"$nl$(stat -c '%n %s:%Y' -- {paths})\" || exit 1\n{}",
        each(wanted, &format!("{mark}; {body}"))
    )
}

/// A check that all were verified, and are what they were then. Hashing 300 MB on every run would cost a second per host: size and
/// time of change prove that a file is still the one whose digest was right on arrival. A prepared machine may have more.
fn verified(wanted: &str) -> String {
    let all = each_marked(wanted, "case $known in *\"$nl$mark$nl\"*) ;; *) exit 1 ;; esac");
    format!("nl='\n'; known=\"$nl$(cat {VERIFIED})$nl\" || exit 1\n{all}")
}

/// Writes down what was verified.
fn verify(wanted: &str) -> String {
    format!("( {} ) > {VERIFIED}.part && mv {VERIFIED}.part {VERIFIED}", each_marked(wanted, "echo \"$mark\""))
}

/// A check that all are in the host's manifest. A last line that a full disk cut off, if only by its end, will be made anew.
fn kept(wanted: &str) -> String {
    let manifest = "/var/lib/kubecamp/manifest";
    let known = "awk -F '\t' -v cut=\"$end\" '!asked { last = \"\"; if ($1 == \"file\") { last = $3; known[last] } next } \
                 cut != \"\" { delete known[last]; cut = \"\" } \
                 { sub(/^[^ ]* [^ ]* /, \"\") } !($0 in known) { exit 1 }'";
    format!("end=$(tail -c 1 {manifest}) || exit 1; printf '%s' {} | {known} {manifest} asked=1 -", quote(wanted))
}

/// Remembers what will be replaced.
fn keep(wanted: &str) -> String {
    each(wanted, "kc_dirs \"${path%/*}\" && kc_keep \"$path\" || exit 1")
}

impl Binaries {
    /// A host that has zstd gets the compressed bytes, a third of the whole.
    fn upload(&self, member: &Member, to: String, zstd: bool) -> Upload {
        let blob = if zstd {
            self.bundle.stored(member).unpacked_on_arrival(member.plain.size, &member.plain.sha256)
        } else {
            self.bundle.plain(member)
        };
        Upload { what: member.name.clone(), blob, to, mode: 0o755, have: String::new(), then: String::new() }
    }
}

impl Binaries {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("binaries");
}

#[async_trait]
impl Phase for Binaries {
    fn id(&self) -> PhaseId {
        Self::ID
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
            files.push(self.upload(member, to, view.facts().has_tool("zstd")));
        }
        let put = Change::Upload { files, then: verify(&wanted) };
        let install = Step::new("install", "upload the programs", Check::Script(verified(&wanted)), put)
            .limit(Duration::from_secs(120));
        let first = Need::After(view.lab.control_plane().name.clone(), install.id.clone());
        Ok(vec![
            Step::script("keep", "remember files that will be replaced", Check::Script(kept(&wanted)), keep(&wanted)),
            if view.is_control_plane() || uploads_before(view).is_none() { install } else { install.needs(first) },
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(script: &str) -> bool {
        std::process::Command::new("sh").args(["-c", script]).status().unwrap().success()
    }

    #[test]
    fn a_file_counts_as_verified_as_long_as_it_lies_there_as_it_did() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let paths = [format!("{root}/kube"), format!("{root}/kube let"), format!("{root}/kubelet")];
        for path in &paths {
            std::fs::write(path, "1234").unwrap();
        }
        let wanted: String = paths.iter().map(|path| format!("5e1f 4 {path}\n")).collect();
        let text = |script: String| script.replace(VERIFIED, &format!("{root}/binaries"));
        let (check, after) = (text(verified(&wanted)), text(verify(&wanted)));
        assert!(!runs(&check), "nothing was verified yet");
        assert!(runs(&after) && runs(&check));
        for path in &paths {
            std::fs::write(path, "12345").unwrap();
            assert!(!runs(&check), "{path}");
            assert!(runs(&after) && runs(&check));
            std::fs::remove_file(path).unwrap();
            assert!(!runs(&check) && !runs(&after), "{path}");
            std::fs::write(path, "1234").unwrap();
            assert!(runs(&after) && runs(&check));
        }
        // A prepared machine has more; a node that needs more than is there has not got it.
        assert!(runs(&text(verified(&format!("{}\n", wanted.lines().next().unwrap())))));
        assert!(!runs(&text(verified(&wanted.replacen("5e1f", "5e10", 1)))));
    }

    #[test]
    fn every_file_that_will_be_replaced_is_remembered_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let text = |script: String| script.replace("/var/lib/kubecamp", &root);
        let wanted = format!("0 1 {root}/bin/new\n0 1 {root}/bin/deep/er\n0 1 {root}/old\n");
        std::fs::write(dir.path().join("old"), "old").unwrap();
        assert!(!runs(&text(kept(&wanted))));
        let lib = crate::host::script::LIB;
        for _ in 0..2 {
            assert!(runs(&text(format!("{lib}\n{}", keep(&wanted)))));
            assert!(runs(&text(kept(&wanted))));
        }
        assert!(!runs(&text(kept(&format!("{wanted}0 1 {root}/bin/n\n")))));
        let manifest = std::fs::read_to_string(dir.path().join("manifest")).unwrap();
        let lines: Vec<_> = manifest.lines().map(|l| l.replace(&root, "")).collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        for line in
            ["dir\tabsent\t/bin", "dir\tabsent\t/bin/deep", "file\tabsent\t/bin/new", "file\tabsent\t/bin/deep/er"]
        {
            assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
        }
        let old = lines[4].strip_prefix("file\tkept:").and_then(|l| l.strip_suffix("\t/old")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("kept").join(old)).unwrap(), "old");
        for cut in [1, 2] {
            std::fs::write(dir.path().join("manifest"), &manifest[..manifest.len() - cut]).unwrap();
            assert!(!runs(&text(kept(&wanted))), "{cut}");
            assert!(runs(&text(format!("{lib}\n{}", keep(&wanted)))) && runs(&text(kept(&wanted))), "{cut}");
            assert_eq!(std::fs::read_to_string(dir.path().join("manifest")).unwrap(), manifest, "{cut}");
        }
    }

    #[test]
    fn a_line_is_data_whatever_is_in_it() {
        let script = each("0 1 /bin/a'$(echo ran)'`echo ran`\n2 3 /bin/b c\n", "echo \"<$path>\"");
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "</bin/a'$(echo ran)'`echo ran`>\n</bin/b c>\n");
    }
}

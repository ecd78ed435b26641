use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    bundle::{Bundle, Kind},
    core::{Code, PhaseId, Problem, shell::quote},
    engine::{Change, Check, Phase, Step, Upload, View},
};

/// Imports the bundle's container images into the host's containerd.
pub struct Images {
    /// Where they come from.
    pub bundle: Arc<Bundle>,
}

/// The reference of one of the bundle's images, as `registry.k8s.io/pause:3.10`.
pub fn image_of<'a>(bundle: &'a Bundle, name: &str) -> Result<&'a str, Problem> {
    let image = bundle.member(name).and_then(|m| m.images.first());
    image.map(String::as_str).ok_or_else(|| Problem::new(Code::BundleFormat, format!("the bundle has no image {name}")))
}

const CTR: &str = "/opt/kubecamp/bin/ctr -a /run/kubecamp/containerd.sock -n k8s.io";
const DONE: &str = "/var/lib/kubecamp/images";

#[async_trait]
impl Phase for Images {
    fn id(&self) -> PhaseId {
        PhaseId::new("images")
    }

    fn title(&self) -> &'static str {
        "import container images"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut steps = vec![];
        let mut refs = vec![];
        let mut files = vec![];
        for member in self.bundle.members().filter(|m| m.kind == Kind::Image) {
            if !member.for_workers() && !view.is_control_plane() {
                continue;
            }
            // containerd reads zstd by itself and checks every layer's digest.
            let blob = self.bundle.stored(member);
            let mark = format!("{DONE}/{}", &blob.sha256()[..24]);
            refs.extend(member.images.iter().map(|r| (r.clone(), mark.clone())));
            let then = format!(
                "[ -e {mark} ] || {CTR} images import \"$KC_FILE\" >/dev/null || exit 1\n\
                 for r in {names}; do {CTR} images label \"$r\" io.cri-containerd.image=managed io.cri-containerd.pinned=pinned >/dev/null || exit 1; done\n\
                 mkdir -p {DONE} && : > {mark} && rm -f \"$KC_FILE\"",
                names = member.images.iter().map(|r| quote(r)).collect::<Vec<_>>().join(" ")
            );
            files.push(Upload {
                what: member.name.clone(),
                to: format!("/var/lib/kubecamp/incoming/{}.tar.zst", member.name),
                blob,
                mode: 0o600,
                then,
            });
        }
        let marks = refs.iter().map(|(_, m)| format!("[ -e {m} ]")).collect::<Vec<_>>().join(" && ");
        let names = refs.iter().map(|(r, _)| quote(r)).collect::<Vec<_>>().join(" ");
        let check = format!(
            "{marks} && have=$({CTR} images ls -q) && for r in {names}; do printf '%s\\n' \"$have\" | grep -qxF \"$r\" || exit 1; done"
        );
        let count = files.len();
        let title = format!("upload and import {count} images");
        let change = Change::Upload { files, then: String::new() };
        steps.push(Step::new("import", title, Check::Script(check), change).limit(300));
        Ok(steps)
    }
}

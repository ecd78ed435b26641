//! How images of the bundle come into a host's containerd.

use std::time::Duration;

use crate::{
    bundle::{Bundle, Kind, Member},
    core::{Blob, shell::quote},
    engine::{Change, Check, Step, Upload},
};

const CTR: &str = "/opt/kubecamp/bin/ctr -a /run/kubecamp/containerd.sock -n k8s.io";
const DONE: &str = "/var/lib/kubecamp/images";

/// Whether an image is one of the static pods, without which kubeadm init cannot begin.
pub(super) fn is_of_static_pods(member: &Member) -> bool {
    matches!(member.name.as_str(), "pause" | "etcd" | "kube-apiserver" | "kube-controller-manager" | "kube-scheduler")
}

/// A check that containerd knows all of the quoted references.
fn known(refs: &str) -> String {
    format!(
        "have=$({CTR} images ls -q) && for r in {refs}; do printf '%s\\n' \"$have\" | grep -qxF \"$r\" || exit 1; done"
    )
}

/// How a host knows which image it has under some names: another bundle's may have the same.
struct Mark {
    /// Where it stands, one place for one member of any bundle.
    place: String,
    /// Where earlier versions left an empty file for this very image, for as long as nothing stands there.
    earlier: String,
    /// The digest of the member that was imported last.
    image: String,
}

impl Mark {
    fn of(member: &Member, refs: &str, image: &str) -> Self {
        let place = Blob::from_bytes(format!("{} {refs}", member.name).into_bytes());
        let at = |name: &str| format!("{DONE}/{}", &name[..24]);
        Self { place: at(place.sha256()), earlier: at(image), image: image.to_owned() }
    }

    /// A check that this image was the last one, whole by itself.
    fn stands(&self) -> String {
        let Self { place, earlier, image } = self;
        format!(
            "{{ if [ -e {place} ]; then read -r was < {place} && [ \"$was\" = {image} ]; else [ -e {earlier} ]; fi; }}"
        )
    }
}

/// A check that one image was imported and is still there.
fn have(mark: &Mark, refs: &str) -> String {
    format!("{} && {}", mark.stands(), known(refs))
}

/// Imports an uploaded image. The CRI plugin gives it its labels and a reference by its digest, and keeps it as its
/// configuration says. The mark does not stand in its way: it stays where somebody removed the image. What a killed run had
/// begun goes on at the host, and takes the file away at its end while this one waits for it: then all is done.
fn bring(mark: &Mark, have: &str) -> String {
    format!(
        "[ -e \"$KC_FILE\" ] || {{ ( {have} ) && exit 0; }}\n\
         {CTR} images import \"$KC_FILE\" >/dev/null || exit 1\n\
         mkdir -p {DONE} && echo {} > {} && rm -f \"$KC_FILE\"",
        mark.image, mark.place
    )
}

/// One step that uploads and imports those of the bundle's images that are `wanted`; each is imported while the next is under
/// way.
pub(super) fn import(id: &'static str, bundle: &Bundle, wanted: impl Fn(&Member) -> bool) -> Step {
    let (mut files, mut marks, mut refs) = (vec![], vec![], vec![]);
    for member in bundle.members().filter(|m| m.kind == Kind::Image && wanted(m)) {
        // containerd reads zstd by itself and checks every layer's digest.
        let blob = bundle.stored(member);
        let names = member.images.iter().map(|r| quote(r)).collect::<Vec<_>>().join(" ");
        let mark = Mark::of(member, &names, blob.sha256());
        let to = format!("/var/lib/kubecamp/incoming/{}.tar.zst", member.name);
        let have = have(&mark, &names);
        let then = bring(&mark, &have);
        files.push(Upload { what: member.name.clone(), to, blob, mode: 0o600, have, then });
        marks.push(mark.stands());
        refs.push(names);
    }
    let check = format!("{} && {}", marks.join(" && "), known(&refs.join(" ")));
    let title = match files.as_slice() {
        [one] => format!("upload and import the image of {}", one.what),
        more => format!("upload and import {} images", more.len()),
    };
    let change = Change::Upload { files, then: String::new() };
    Step::new(id, title, Check::Script(check), change).limit(Duration::from_secs(300))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    /// What ctr does, with a containerd that is one file: the names of its images.
    const SHAM: &str = "list=$(dirname \"$0\")/list\ncase $2 in\n\
        import) cat \"$3\" >> \"$list\" ;;\nls) cat \"$list\" ;;\nesac\n";

    fn mark(image: &str) -> Mark {
        let at = |name: &str| format!("{DONE}/{name}");
        Mark { place: at("place"), earlier: at(image), image: image.to_owned() }
    }

    fn runs(root: &Path, text: &str) -> bool {
        let text = text.replace(CTR, &format!("sh {}/ctr", root.display()));
        let text = text.replace(DONE, &root.join("done").display().to_string());
        let script = format!("KC_FILE={}/file\n{text}", root.display());
        Command::new("sh").arg("-c").arg(script).status().unwrap().success()
    }

    #[test]
    fn an_image_comes_back_whether_it_or_its_mark_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("ctr"), SHAM).unwrap();
        let (mark, refs) = (mark("0123"), "registry.k8s.io/pause:3.10 registry.k8s.io/pause:3");
        let have = have(&mark, refs);
        let bring = bring(&mark, &have);
        for gone in ["list", "done/place", "list"] {
            let _ = fs::remove_file(root.join(gone));
            // containerd has a list, if only an empty one.
            fs::File::options().create(true).append(true).open(root.join("list")).unwrap();
            fs::write(root.join("file"), refs.replace(' ', "\n") + "\n").unwrap();
            assert!(!runs(root, &have), "{gone}");
            assert!(runs(root, &bring) && runs(root, &have), "{gone}");
            assert!(!root.join("file").exists());
        }
        // A killed run's import ended while this one waited for the lock that both take.
        assert!(runs(root, &bring), "it is there, though its file is gone");
        fs::remove_file(root.join("done/place")).unwrap();
        assert!(!runs(root, &bring), "neither it nor its file is there");
    }

    #[test]
    fn another_bundles_image_of_the_same_name_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let refs = "registry.k8s.io/pause:3.10";
        fs::write(root.join("ctr"), SHAM).unwrap();
        fs::write(root.join("list"), "").unwrap();
        let [one, other] = ["0123", "4567"].map(|image| {
            let mark = mark(image);
            let have = have(&mark, refs);
            (bring(&mark, &have), have)
        });
        for (now, not) in [(&one, &other), (&other, &one), (&one, &other)] {
            assert!(!runs(root, &now.1));
            fs::write(root.join("file"), format!("{refs}\n")).unwrap();
            assert!(runs(root, &now.0) && runs(root, &now.1) && !runs(root, &not.1));
        }
        // A full disk cut it off: what is there under the name is not known.
        fs::write(root.join("done/place"), "").unwrap();
        assert!(!runs(root, &one.1) && !runs(root, &other.1));
    }

    #[test]
    fn what_an_earlier_version_imported_counts_until_something_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let refs = "registry.k8s.io/pause:3.10";
        fs::write(root.join("ctr"), SHAM).unwrap();
        fs::write(root.join("list"), format!("{refs}\n")).unwrap();
        fs::create_dir(root.join("done")).unwrap();
        for image in ["0123", "4567"] {
            fs::write(root.join("done").join(image), "").unwrap();
            assert!(runs(root, &have(&mark(image), refs)));
        }
        fs::write(root.join("file"), "").unwrap();
        assert!(runs(root, &bring(&mark("4567"), "false")));
        assert!(runs(root, &have(&mark("4567"), refs)) && !runs(root, &have(&mark("0123"), refs)));
    }
}

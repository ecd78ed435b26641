use std::sync::Arc;

use crate::{
    bundle::Bundle,
    core::PhaseId,
    engine::Phase,
    phases::{Binaries, Images, ImagesLater, Owner, Record, Runtime, Settle},
    profile::Lab,
};

/// From a machine of the node image to one that has binaries and images already, of which others are copies.
pub fn prepared(bundle: &Arc<Bundle>) -> Vec<Box<dyn Phase>> {
    vec![
        Box::new(Record { owner: Owner::new() }),
        Box::new(Binaries { bundle: Arc::clone(bundle) }),
        Box::new(Runtime { bundle: Arc::clone(bundle) }),
        Box::new(Images { bundle: Arc::clone(bundle) }),
        Box::new(ImagesLater { bundle: Arc::clone(bundle) }),
        Box::new(Settle),
    ]
}

/// The phases of [`prepared`] whose work a machine that begins as its image has; the others are of the one machine alone.
const BROUGHT: [PhaseId; 4] = [Binaries::ID, Runtime::ID, Images::ID, ImagesLater::ID];

/// Whether a machine of `lab` that begins as a prepared image has all that a phase of `up` would bring.
pub fn is_prepared(phase: &PhaseId, lab: &Lab) -> bool {
    // The profile's mirrors are written on each machine.
    let is_whole = *phase != Runtime::ID || lab.profile().mirrors.is_empty();
    is_whole && BROUGHT.contains(phase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bundle::{Audience, Kind, Origins, Part, Title, write},
        core::Arch,
        profile::{self, Mirror},
    };

    /// A bundle of one part.
    fn bundle(folder: &std::path::Path) -> Arc<Bundle> {
        let (plain, out) = (folder.join("plain"), folder.join("a.bundle"));
        std::fs::write(&plain, "bytes").unwrap();
        let part = Part {
            name: "kubelet".into(),
            kind: Kind::Binary,
            version: "v1".into(),
            images: vec![],
            role: Audience::All,
            install: None,
            origin: String::new(),
            licence: String::new(),
            file: plain,
        };
        let title = Title { kubernetes: "v1".into(), arch: Arch::Amd64, source: Origins::Modules, replaced: vec![] };
        write(title, vec![part.pack(folder, &[]).unwrap()], &out).unwrap();
        Arc::new(Bundle::open(&out).unwrap())
    }

    #[test]
    fn a_machine_of_the_image_lacks_what_its_mirrors_need_and_nothing_else_of_it() {
        let profile = profile::load("1x4c12g").unwrap();
        let lab = |profile| Lab::new("lab".parse().unwrap(), profile).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let flow = prepared(&bundle(dir.path()));
        let brought = |lab: &Lab| -> Vec<_> {
            let phases = flow.iter().map(|phase| phase.id()).filter(|id| is_prepared(id, lab));
            phases.map(|id| id.to_string()).collect()
        };
        assert!(BROUGHT.iter().all(|id| flow.iter().any(|phase| phase.id() == *id)));
        // Each machine is claimed anew.
        assert_eq!(brought(&lab(profile.clone())), ["binaries", "runtime", "images", "images-later"]);
        let mut profile = profile;
        profile.mirrors = vec![Mirror { registry: "docker.io".into(), endpoints: vec!["https://m.example".into()] }];
        assert_eq!(brought(&lab(profile)), ["binaries", "images", "images-later"]);
    }
}

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

/// Whether a machine of `lab` that begins as a prepared image has all that a phase of `up` would bring.
pub fn is_prepared(phase: &PhaseId, lab: &Lab) -> bool {
    // The profile's mirrors are written on each machine.
    let is_whole = *phase != Runtime::ID || lab.profile().mirrors.is_empty();
    is_whole && [Binaries::ID, Runtime::ID, Images::ID, ImagesLater::ID].contains(phase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, Mirror};

    #[test]
    fn a_machine_of_the_image_lacks_what_its_mirrors_need_and_nothing_else_of_it() {
        let profile = profile::load("1x4c12g").unwrap();
        let lab = |profile| Lab::new("lab".parse().unwrap(), profile).unwrap();
        let brought = |lab: &Lab| -> Vec<_> {
            [Record::ID, Binaries::ID, Runtime::ID, Images::ID, ImagesLater::ID]
                .into_iter()
                .filter(|id| is_prepared(id, lab))
                .map(|id| id.to_string())
                .collect()
        };
        // Each machine is claimed anew.
        assert_eq!(brought(&lab(profile.clone())), ["binaries", "runtime", "images", "images-later"]);
        let mut profile = profile;
        profile.mirrors = vec![Mirror { registry: "docker.io".into(), endpoints: vec!["https://m.example".into()] }];
        assert_eq!(brought(&lab(profile)), ["binaries", "images", "images-later"]);
    }
}

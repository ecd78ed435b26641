use std::sync::Arc;

use crate::{
    bundle::Bundle,
    engine::Phase,
    phases::{Binaries, Images, ImagesLater, Owner, Record, Runtime, Settle},
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

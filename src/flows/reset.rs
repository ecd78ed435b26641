use std::sync::Arc;

use crate::{
    engine::Phase,
    phases::{BeginReset, CleanNetwork, Drain, ProveClean, Records, RestoreFiles, StopCluster},
};

/// From hosts in whatever state to hosts that are proven to be as they were before `up`.
pub fn reset(records: Records) -> Vec<Box<dyn Phase>> {
    let records = Arc::new(records);
    let known = || Arc::clone(&records);
    vec![
        Box::new(Drain),
        Box::new(BeginReset { records: known() }),
        Box::new(StopCluster { records: known() }),
        Box::new(CleanNetwork { records: known() }),
        Box::new(RestoreFiles { records: known() }),
        Box::new(ProveClean { records: known() }),
    ]
}

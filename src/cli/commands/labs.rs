use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use crate::{
    cli::{
        output::{self, Format},
        store::{State, Store, Where},
    },
    core::{LabName, Problems},
    profile::{Cni, Lab, ProxyMode},
    render::table,
};

#[derive(Serialize)]
struct LabLine {
    lab: String,
    layout: String,
    kubernetes: String,
    place: String,
    cni: Cni,
    proxy_mode: ProxyMode,
    clean: bool,
    /// Whether it is clean because it was reset, rather than because it never came up.
    reset: bool,
    folder: PathBuf,
}

impl LabLine {
    fn of(name: &LabName, lab: &Lab, state: State, store: &Store) -> Self {
        let reset = store.was_reset(&state);
        let place = match state.place {
            Where::Local => "local".to_owned(),
            Where::Hosts(hosts) => hosts.iter().map(|(_, h)| h.to_string()).collect::<Vec<_>>().join(", "),
        };
        Self {
            // What --name takes: its folder's, also where that was moved.
            lab: name.to_string(),
            layout: lab.layout().to_string(),
            kubernetes: lab.profile().kubernetes.clone(),
            place,
            cni: lab.profile().network.cni,
            proxy_mode: lab.profile().proxy.mode,
            clean: state.clean,
            reset,
            folder: store.folder().to_owned(),
        }
    }
}

/// Every lab, as it is known here: no host is looked at.
pub(super) fn list(cx: &Context, output: Format) -> Result<(), Problems> {
    Store::must_list(&cx.places.labs)?;
    let (mut labs, mut damaged) = (vec![], vec![]);
    for name in Store::all(&cx.places.labs) {
        let store = Store::of(&cx.places.labs, &name);
        match store.load() {
            Ok(Some((lab, state))) => labs.push(LabLine::of(&name, &lab, state, &store)),
            Ok(None) => {}
            // It hides none of the others.
            Err(problem) => damaged.push(problem),
        }
    }
    output::value(output, &labs, |wide| labs_text(&labs, wide))?;
    Problems::check(damaged)
}

fn labs_text(labs: &[LabLine], wide: bool) -> String {
    let heading = ["LAB", "LAYOUT", "KUBERNETES", "STATE", "WHERE"];
    let mut rows = vec![output::columns(wide, heading, ["CNI", "PROXY", "FOLDER"])];
    rows.extend(labs.iter().map(|l| {
        let state = match (l.clean, l.reset) {
            (true, true) => "reset",
            (true, false) => "clean",
            (false, _) => "in use",
        };
        output::columns(
            wide,
            [l.lab.as_str(), &l.layout, &l.kubernetes, state, &l.place],
            [&l.cni.to_string(), &l.proxy_mode.to_string(), &l.folder.display().to_string()],
        )
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;

    #[test]
    fn a_lab_that_was_reset_is_shown_among_all() {
        let dir = tempfile::tempdir().unwrap();
        let name: LabName = "lab".parse().unwrap();
        let (store, lab) =
            (Store::of(dir.path(), &name), Lab::new(name.clone(), profile::load("1x4c12g").unwrap()).unwrap());
        let shown = |clean| {
            let state = State { clean, ..State::new(Where::Hosts(vec![])) };
            labs_text(&[LabLine::of(&name, &lab, state, &store)], false)
        };
        assert!(shown(true).contains("clean") && shown(false).contains("in use"), "{}", shown(true));
        store.keep_records(&Default::default()).unwrap();
        assert!(shown(true).contains("reset") && shown(false).contains("in use"), "{}", shown(true));
    }
}

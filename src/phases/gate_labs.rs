use std::sync::Arc;

use async_trait::async_trait;

use super::gate_host::{self, BUNDLE, Enrolment, GateMachines, HOME, PROGRAM};
use crate::{
    core::{Blob, Code, PhaseId, Problem},
    engine::{Change, Check, Phase, Step, Upload, View},
};

/// Makes a server ready for labs: their bundle is there, and packages, engine, images are as after a first lab, so that
/// the first slot need not wait for them.
pub struct GateLabs(pub Arc<Enrolment>);

/// The lab that is made and removed again to prove that labs can be made.
const TRIAL: &str = "gate-trial";

#[async_trait]
impl Phase for GateLabs {
    fn id(&self) -> PhaseId {
        PhaseId::new("gate-labs")
    }

    fn title(&self) -> &'static str {
        "make the server ready for labs"
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        let Some(labs) = &self.0.labs else { return Ok(vec![]) };
        let folder = Step::script(
            "home",
            "make the labs' home",
            Check::Script(format!("[ -d {HOME} ]")),
            gate_host::script(&format!("mkdir -p -m 700 {HOME}"))?,
        );
        let (bundle, sum) = match &labs.bundle {
            Some(file) => {
                let unreadable =
                    |e| Problem::new(Code::LocalFile, format!("cannot read {}", file.display())).because(e);
                let blob = Blob::from_file(file).map_err(unreadable)?;
                let sum = blob.sha256().to_owned();
                (Some(upload(blob)), sum)
            }
            None => (None, "none".to_owned()),
        };
        Ok([Some(folder), bundle, Some(trial(labs, &sum)?)].into_iter().flatten().collect())
    }
}

fn upload(blob: Blob) -> Step {
    let check = format!("echo '{}  {BUNDLE}' | sha256sum -c --status -", blob.sha256());
    let file = Upload {
        what: "bundle".into(),
        blob,
        to: BUNDLE.into(),
        mode: 0o600,
        have: String::new(),
        then: String::new(),
    };
    let put = Change::Upload { files: vec![file], then: String::new() };
    Step::new("bundle", "upload the labs' bundle", Check::Script(check), put).limit(1800)
}

/// A lab on one machine, up and down again, by the program that the agent is.
fn trial(labs: &GateMachines, sum: &str) -> Result<Step, Problem> {
    let bundle = if labs.bundle.is_some() { format!(" --bundle {BUNDLE}") } else { String::new() };
    let kubecamp = format!("{PROGRAM} --name {TRIAL} --yes --plain");
    let outbound = if labs.outbound { " --outbound" } else { "" };
    let mark = format!("{} {sum}{outbound}", labs.kind);
    let change = gate_host::script(&format!(
        "command -v nft >/dev/null || apt-get install -yq --no-install-recommends nftables </dev/null || exit 1\n\
         KUBECAMP_HOME={HOME}; export KUBECAMP_HOME\n\
         {kubecamp} up --local --allow-undersized --layout 1x4c12g --machines {}{outbound}{bundle} </dev/null || exit 1\n\
         {kubecamp} down </dev/null || exit 1\n\
         echo '{mark}' > {HOME}/tried",
        labs.kind
    ))?;
    // What was tried with a way out works without one too.
    let check =
        format!("case \"$(cat {HOME}/tried 2>/dev/null)\" in '{mark}'|'{mark} --outbound') ;; *) false ;; esac");
    Ok(Step::script("trial", "make a lab once and remove it", Check::Script(check), change).limit(3600))
}

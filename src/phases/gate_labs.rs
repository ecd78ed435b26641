use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    gate_host::{self, Enrolment, GateMachines, is_there, upload},
    gate_paths::{HOME, PROGRAM},
};
use crate::{
    core::{Blob, PhaseId, Problem},
    engine::{Change, Check, Phase, Step, View},
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
        let bundle = labs.bundle.clone().zip(labs.bundle_at()).map(|(blob, at)| bundle(blob, &at));
        let trial = trial(labs, self.0.agent()?.sha256())?;
        Ok([Some(folder), bundle, Some(trial)].into_iter().flatten().collect())
    }
}

/// Shell text that installs nft where there is none. A new server has no lists of packages, or its timers load them just now:
/// for the lists apt-get itself waits for nobody. What cannot be loaded may be there in lists of before.
const NFT: &str = "has nft || {\n\
    apt() { DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 \"$@\" </dev/null; }\n\
    i=0; while ! said=$(apt update 2>&1); do\n\
    case $said in *'Could not get lock'*) ;; *) echo \"$said\" >&2; break ;; esac\n\
    i=$((i + 1)); [ $i -lt 200 ] || break; sleep 3; done\n\
    apt install --yes --no-install-recommends nftables; }";

/// An agent removes one that no lab and no configuration of its own needs, once that is a day old: one that is there counts as
/// new again for as long as the enrolment may take, and longer.
fn bundle(blob: Blob, to: &str) -> Step {
    let check = Check::Script(format!("{} && [ -n \"$(find {to} -mmin -720)\" ]", is_there(&blob, to)));
    let put = Change::Upload { files: vec![upload("bundle", blob, to, 0o600)], then: format!("touch {to}") };
    Step::new("bundle", "upload the labs' bundle", check, put).limit(Duration::from_secs(1800))
}

/// A lab on one machine, up and down again, by the program of this digest that the agent is: another program, or the same one
/// with another bundle, is tried anew.
fn trial(labs: &GateMachines, program: &str) -> Result<Step, Problem> {
    let bundle = labs.bundle_at().map(|at| format!(" --bundle {at}")).unwrap_or_default();
    let sum = labs.bundle.as_ref().map_or("none", Blob::sha256);
    let kubecamp = format!("{PROGRAM} --name {TRIAL} --yes --plain");
    let outbound = if labs.outbound { " --outbound" } else { "" };
    let mark = format!("{} {sum} {program}{outbound}", labs.kind);
    let change = gate_host::script(&format!(
        "{NFT} || exit 1\n\
         KUBECAMP_HOME={HOME}; export KUBECAMP_HOME\n\
         {kubecamp} up --local --allow-undersized --layout 1x4c12g --machines {}{outbound}{bundle} </dev/null || exit 1\n\
         {kubecamp} down </dev/null || exit 1\n\
         echo '{mark}' > {HOME}/tried",
        labs.kind
    ))?;
    // What was tried with a way out works without one too.
    let check =
        format!("case \"$(cat {HOME}/tried 2>/dev/null)\" in '{mark}'|'{mark} --outbound') ;; *) false ;; esac");
    Ok(Step::script("trial", "make a lab once and remove it, which takes minutes", Check::Script(check), change)
        .limit(Duration::from_secs(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Wanted;

    fn texts(step: Step) -> (String, String) {
        match (step.done_if, step.change) {
            (Check::Script(check), Change::Script(change)) => (check, change),
            _ => panic!("the trial is a script with a check"),
        }
    }

    #[test]
    fn what_installs_nft_loads_the_lists_once_nobody_else_does() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let (sham, log) = (dir.path().join("apt-get"), dir.path().join("log"));
        let ran = |there: bool, update: &str| {
            fs::write(&log, "").unwrap();
            let text =
                format!("#!/bin/sh\necho \"$4\" >>{0}\n[ \"$4\" != update ] || {{ {update}; }}\n", log.display());
            fs::write(&sham, text).unwrap();
            fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
            let world = format!("PATH={}:$PATH; has() {{ {there}; }}; sleep() {{ :; }}", dir.path().display());
            let text = gate_host::script(&format!("{world}\n{NFT} || exit 1")).unwrap();
            assert!(std::process::Command::new("sh").arg("-c").arg(text).status().unwrap().success());
            fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(ran(true, "true").is_empty(), "there is nothing to do");
        let held =
            format!("[ $(grep -c update {}) = 3 ] || {{ echo 'E: Could not get lock /x'; exit 100; }}", log.display());
        assert_eq!(ran(false, &held), ["update", "update", "update", "install"]);
        assert_eq!(ran(false, "echo 'E: no network'; exit 100"), ["update", "install"]);
    }

    #[test]
    fn a_bundle_that_is_there_already_is_made_new_again() {
        use std::{
            fs::{self, File},
            process::Command,
            time::SystemTime,
        };
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("a.bundle");
        let step = bundle(Blob::from_bytes(*b"abc"), &to.display().to_string());
        let (Check::Script(check), Change::Upload { then, .. }) = (&step.done_if, &step.change) else {
            panic!("the bundle is an upload with a check")
        };
        let sh = |text: &str| Command::new("sh").arg("-c").arg(text).stderr(std::process::Stdio::null()).status();
        let holds = || sh(check).unwrap().success();
        assert!(!holds(), "there is none");
        fs::write(&to, "abc").unwrap();
        assert!(holds());
        File::options()
            .write(true)
            .open(&to)
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(86_000))
            .unwrap();
        assert!(!holds());
        assert!(sh(then).unwrap().success() && holds());
        fs::write(&to, "abd").unwrap();
        assert!(!holds());
    }

    #[test]
    fn another_bundle_and_another_program_are_tried_anew() {
        let labs = |bundle: &[u8]| {
            let bundle = Some(Blob::from_bytes(bundle));
            GateMachines { kind: Wanted::Vm, bundle, outbound: false, mirrors: vec![], keep: None }
        };
        let tried = |bundle: &[u8], program: &str| texts(trial(&labs(bundle), program).unwrap());
        let (check, change) = tried(b"abc", "p1");
        assert_eq!(tried(b"abc", "p1").0, check);
        assert!(
            change.contains(" --bundle /var/lib/kubecamp-gate/home/ba7816bf8f01cfea.bundle </dev/null"),
            "{change}"
        );
        assert!(tried(b"abc", "p2").0 != check && tried(b"b", "p1").0 != check);
        assert!(!tried(b"b", "p1").1.contains("ba7816bf8f01cfea"));
    }
}

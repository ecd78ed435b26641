use super::report::{Finding, Level};
use crate::{
    cli::{
        args::ConnectArgs,
        commands::{Context, status, sudo_password, up::this_arch},
    },
    core::{Code, NodeId, Problem, Problems},
    engine::{Crew, Lock},
    phases::preflight::{self, Allowances},
    profile::Lab,
};

/// What the lab's hosts say, by the same preflight as `up`, and whether a lab that was brought up is there, by the same
/// questions as `status`; nothing where there is no lab.
pub(super) async fn findings(cx: &Context, connect: &ConnectArgs) -> Result<Vec<Finding>, Problems> {
    let (lab, state) = match cx.store.load() {
        Ok(Some(known)) => known,
        Ok(None) => return Ok(vec![]),
        Err(problem) => return Ok(all(Level::Problem, "lab", [&problem])),
    };
    let targets = match cx.targets(&lab, &state, connect).await {
        Ok(targets) => targets,
        Err(problems) => return Ok(all(Level::Problem, "reach", problems.iter())),
    };
    let password = sudo_password(connect).await?;
    let (crew, absent) = Crew::muster_those_that_come(&targets, Some(&password), None).await;
    let mut found = all(Level::Problem, "reach", &absent);
    let arch = this_arch();
    let arch = crew.fleet.values().find_map(crate::host::Facts::arch).map_or(arch, Ok);
    if let Ok(arch) = arch {
        let seen = preflight::check(&lab, &state.owner(), &crew.hosts, &crew.fleet, arch, Allowances::default()).await;
        found.extend(all(Level::Warning, "preflight", &seen.warnings));
        found.extend(all(Level::Problem, "preflight", &seen.problems));
    }
    if !state.clean {
        found.extend(all(Level::Problem, "lab", &status::trouble(cx, &lab, &state, &targets, &crew).await));
    }
    found.extend(good(&lab, &crew, &found));
    crew.dismiss().await;
    Ok(found)
}

/// That a run is at work on the lab: what is found on its hosts may be only half-done.
pub(super) fn at_work(cx: &Context) -> Option<Finding> {
    let holder = Lock::holder(cx.store.folder())?;
    let what = format!("a run works on this lab (process {}): what is found may be half-done", holder.process);
    let problem = Problem::new(Code::LabBusy, what).hint("Wait for it, and ask again.");
    Some(Finding::of(Level::Warning, "lab", &problem))
}

fn all<'a>(level: Level, check: &str, problems: impl IntoIterator<Item = &'a Problem>) -> Vec<Finding> {
    problems.into_iter().map(|p| Finding::of(level, check, p)).collect()
}

/// The hosts that nothing was found on.
fn good(lab: &Lab, crew: &Crew, found: &[Finding]) -> Vec<Finding> {
    let clear = |node: &&NodeId| crew.hosts.contains_key(*node) && !found.iter().any(|f| f.on == **node);
    let names = lab.nodes().iter().map(|n| &n.name).filter(clear);
    names.map(|on| Finding { on: on.clone(), ..Finding::ok("preflight", "nothing stands in the way of up") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_at_work_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        assert!(at_work(&cx).is_none());
        let _lock = Lock::take(cx.store.folder()).unwrap();
        let told = at_work(&cx).unwrap();
        assert!(told.level == Level::Warning && told.found.contains(&std::process::id().to_string()), "{told:?}");
    }
}

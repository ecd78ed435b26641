use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Context,
    up::{Request, Site, this_arch},
};
use crate::{
    cli::{args::PlanArgs, output},
    core::{Arch, NodeId, Problems},
    engine::{Journal, Mode, Planned, Run, run_flow},
    flows::{self, LocalResult},
    host::Facts,
    machine::{IncusProvider, Provider},
    profile::Lab,
    render::{count, table},
};

/// `kubecamp plan`: the same path with nothing changed; machines that do not exist are assumed to be as asked.
pub(super) async fn plan(cx: &Context, args: PlanArgs) -> Result<(), Problems> {
    let mut request = Request::of(cx, args.up)?;
    request.verify_bundle(cx).await?;
    if request.is_local() {
        request.find_packages(cx).await?;
    } else {
        request.leave_no_machines(cx).await?;
    }
    let run = Run::new(request.lab.clone(), Mode::Plan, Arc::new(Journal::unkept(vec![])), cx.cancel.clone());
    let result = LocalResult::default();
    if request.is_local() {
        request.prepare(cx, &run, &result, this_arch()?).await?;
    }
    plan_hosts(cx, &request, &run, &result).await?;
    let from_image = begin_as_image(result.provider.get(), &run.lab, request.is_new()).await;
    let planned = run.summary().planned.into_iter();
    let planned: Vec<_> = planned.map(|step| after_machines(step, &run.lab, from_image)).collect();
    output::value(args.output, &planned, |wide| plan_text(&planned, wide))?;
    Ok(())
}

async fn plan_hosts(cx: &Context, request: &Request, run: &Run, result: &LocalResult) -> Result<(), Problems> {
    if request.is_local() && result.machines.get().is_none() {
        let Some(bundle) = result.bundle.get() else {
            output::say(&without_bundle(&run.lab, this_arch()?));
            return Ok(());
        };
        output::say(match result.provider.get() {
            Some(_) => {
                "note: the lab's machines do not run yet, or are to get another size or key, so the plan assumes new machines."
            }
            None if request.is_new() => "note: the lab has no machines yet, so the plan assumes new machines.",
            None => {
                "note: the engine of local machines does not run, so nobody can tell what machines it holds: the plan assumes new machines.\n\
                 hint: kubecamp machine engine start starts it; then the plan looks at those that are there."
            }
        });
        let nodes: Vec<_> = run.lab.nodes().iter().map(|n| n.name.clone()).collect();
        let fleet = run.lab.nodes().iter().map(|n| (n.name.clone(), Facts::assumed(n))).collect();
        return run_flow(run, &flows::up(&request.up(cx, bundle, &[])), &nodes, &BTreeMap::new(), &fleet).await;
    }
    let site = Site::open(cx, request, run, result).await?;
    let ended = async {
        if let Some(bundle) = site.bundle(result).await? {
            return site.flow(&bundle).await;
        }
        output::say(&without_bundle(&run.lab, site.arch()?));
        Ok(())
    };
    let ended = ended.await;
    site.close().await;
    ended
}

/// Whether none of the lab's machines is there yet, so that each will begin as the prepared image. Where the engine does not say
/// that any more, the plan is made all the same.
async fn begin_as_image(provider: Option<&Arc<IncusProvider>>, lab: &Lab, is_new: bool) -> bool {
    match provider {
        Some(provider) => provider.list(Some(lab.name())).await.is_ok_and(|machines| machines.is_empty()),
        // Where no engine runs, a lab that nobody knows has none.
        None => is_new,
    }
}

/// A step on a machine that is still to be made waits for that. It is done then where the image brings what the step
/// would; a machine that is there already may be of another image.
fn after_machines(mut step: Planned, lab: &Lab, from_image: bool) -> Planned {
    if step.assumed {
        step.depends_on.insert(0, format!("{}/make", NodeId::here()));
        step.done = from_image && flows::is_prepared(&step.phase, lab);
    }
    step
}

/// Why a plan ends before the hosts, and what builds the bundle that the lab asks for.
fn without_bundle(lab: &Lab, arch: Arch) -> String {
    format!(
        "The steps on the hosts depend on the bundle, which is not built yet: kubecamp bundle build --kubernetes {} --arch {arch}.",
        lab.profile().kubernetes
    )
}

fn plan_text(planned: &[Planned], wide: bool) -> String {
    let mut rows = vec![output::columns(wide, ["NODE", "PHASE", "STEP", "CHANGE"], ["STATE", "WHAT"])];
    for step in planned {
        let mut change = match (step.done, step.assumed) {
            (true, false) => "nothing: done already".to_owned(),
            (true, true) => "nothing: the machines' image brings it".to_owned(),
            _ => step.title.clone(),
        };
        if !step.done && !step.depends_on.is_empty() {
            let needs: BTreeSet<_> = step.depends_on.iter().cloned().collect();
            change.push_str(&format!(" (depends on {})", needs.into_iter().collect::<Vec<_>>().join(", ")));
        }
        let state = if step.done { "done" } else { "to do" };
        rows.push(output::columns(
            wide,
            [&step.on.to_string(), &step.phase.to_string(), &step.step.to_string(), &change],
            [state, &step.title],
        ));
    }
    let todo = planned.iter().filter(|p| !p.done).count();
    let done = planned.len() - todo;
    let (todo, are) = (count(todo as u64, "step"), if done == 1 { "is" } else { "are" });
    format!("{}{todo} would change something, {done} {are} done already\n", table(&rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::machine::{FakeIncus, Kind};

    #[test]
    fn a_plan_without_a_bundle_says_how_to_build_the_one_it_needs() {
        let mut profile = crate::profile::load("1x4c12g").unwrap();
        profile.kubernetes = "v1.35.4".into();
        let text = without_bundle(&Lab::new("lab".parse().unwrap(), profile).unwrap(), Arch::Arm64);
        assert!(text.ends_with("kubecamp bundle build --kubernetes v1.35.4 --arch arm64."), "{text}");
    }

    #[tokio::test]
    async fn an_engine_that_falls_silent_loses_no_plan() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let machine = json!({"name": "lab-cp", "status": "Stopped", "type": "container",
            "config": {"user.kubecamp.lab": "lab", "user.kubecamp.node": "cp"}});
        for (answer, wanted) in [(json!([]), true), (json!([machine]), false), (json!("<html>"), false)] {
            let dir = tempfile::tempdir().unwrap();
            let fake = FakeIncus::new([("GET /instances?recursion=2", answer)]);
            let provider = Arc::new(fake.provider(&dir, Kind::Container));
            assert_eq!(begin_as_image(Some(&provider), &lab, true).await, wanted);
        }
        assert!(begin_as_image(None, &lab, true).await && !begin_as_image(None, &lab, false).await);
    }

    #[test]
    fn what_the_machines_image_brings_is_not_to_do() {
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let step = |phase: &'static str, assumed| Planned {
            phase: crate::core::PhaseId::new(phase),
            on: "cp".parse().unwrap(),
            step: crate::core::StepId::new("step"),
            title: "upload it".to_owned(),
            done: false,
            depends_on: vec![],
            assumed,
        };
        let done = |phase, assumed, from_image| after_machines(step(phase, assumed), &lab, from_image).done;
        assert!(done("binaries", true, true) && done("images", true, true));
        assert!(!done("binaries", true, false), "a machine that is there may be of another image");
        assert!(!done("binaries", false, true) && !done("control-plane", true, true));
        let text =
            plan_text(&["images", "control-plane"].map(|phase| after_machines(step(phase, true), &lab, true)), false);
        assert!(
            text.contains("nothing: the machines' image brings it\n") && text.contains("(depends on here/make)"),
            "{text}"
        );
        assert!(text.ends_with("\n1 step would change something, 1 is done already\n"), "{text}");
    }

    #[test]
    fn a_wide_plan_names_what_is_done_already_too() {
        let step = |id: &'static str, done| Planned {
            phase: crate::core::PhaseId::new("kernel"),
            on: "cp".parse().unwrap(),
            step: crate::core::StepId::new(id),
            title: format!("load {id}"),
            done,
            depends_on: vec![],
            assumed: false,
        };
        let planned = [step("modules", true), step("sysctls", false)];
        let (table, wide) = (plan_text(&planned, false), plan_text(&planned, true));
        assert!(table.ends_with("\n1 step would change something, 1 is done already\n"), "{table}");
        assert!(!table.contains("load modules") && table.contains("load sysctls"), "{table}");
        assert!(wide.contains("done   load modules") && wide.contains("to do  load sysctls"), "{wide}");
    }
}

use std::{path::Path, sync::Arc};

use super::{PREFLIGHT, Request, Site, agree_to_packages, run_here, this_arch};
use crate::{
    cli::{
        args::UpArgs,
        commands::{Context, detour::answers_directly},
        output,
        store::Store,
    },
    core::{Class, Code, EventKind, NodeId, Problem, Problems, Report},
    engine::{Crew, Mode, Phase, Run},
    flows::{self, LocalResult},
    profile::{self, Lab, Profile},
};

/// `kubecamp up`.
pub(in crate::cli::commands) async fn up(cx: &Context, args: UpArgs) -> Result<(), Problems> {
    let mut request = Request::of(cx, args)?;
    request.verify_bundle(cx).await?;
    if request.is_local() {
        request.find_packages(cx).await?;
        agree_to_packages(cx, &request.packages).await?;
    } else {
        request.leave_no_machines(cx).await?;
    }
    let lock = cx.lock(request.known.as_ref())?;
    let journal = cx.journal()?;
    if request.is_local() {
        // Machines are found again by their lab's name, so it is there before the first of them. There is no cluster on
        // them yet: who is refused now, as for a disk that cannot shrink, may ask for something else.
        let known = request.known.as_ref().map(|(_, state)| state);
        cx.store.save(&request.lab, &request.state().until_changed(known))?;
    }
    let run = Run::new(request.lab.clone(), Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let ended = carry_out(cx, &request, &run).await.map_err(|problems| match request.is_local() {
        true => without_refused(cx, &request, problems),
        false => problems,
    });
    let ended = cx.end(&run, ended);
    drop(lock);
    let jumps = ended?;
    finish(cx, &request, jumps).await;
    Ok(())
}

/// The problems, and where they say that what was asked for does not fit, the lab is as before: the next `up` without any flags
/// would be refused for the same.
fn without_refused(cx: &Context, request: &Request, problems: Problems) -> Problems {
    if !problems.iter().any(|problem| matches!(problem.code.class(), Class::Input | Class::Preflight)) {
        return problems;
    }
    match put_back(&cx.store, request) {
        Ok(()) => problems,
        Err(problem) => problems.into_vec().into_iter().chain([problem]).collect::<Vec<_>>().into(),
    }
}

/// Puts the profile back that the lab had, or one that is new has without flags; the nodes stay, since machines are made like
/// them by now. One whose hosts began to change is what was asked for.
fn put_back(store: &Store, request: &Request) -> Result<(), Problem> {
    let Some((asked, state)) = store.load()?.filter(|(_, state)| state.clean) else { return Ok(()) };
    let named = || request.args.profile.clone().unwrap_or_else(|| asked.layout().to_string());
    let before = match &request.known {
        Some((lab, _)) => Some(lab.profile().clone()),
        None => profile::load(&named()).ok(),
    };
    let of_asked = |before| Profile { layout: asked.layout(), nodes: asked.nodes().to_vec(), ..before };
    match before.and_then(|before| Lab::new(asked.name().clone(), of_asked(before)).ok()) {
        Some(lab) => store.save(&lab, &state),
        None => Ok(()),
    }
}

/// Says what to do next; `jumps` where a jump host stands before the control plane.
async fn finish(cx: &Context, request: &Request, jumps: bool) {
    let kubeconfig = cx.store.file("kubeconfig");
    let reached = match request.is_local() {
        true => !request.is_private(),
        false => !jumps && answers_directly(&kubeconfig, request.lab.name()).await,
    };
    output::say(&ready_text(&request.lab, reached.then_some(kubeconfig.as_path())));
}

/// What there is now, and what to do with it; `kubeconfig` is for the user's own kubectl, where that reaches the lab.
fn ready_text(lab: &Lab, kubeconfig: Option<&Path>) -> String {
    let name = lab.name();
    let flag = name.flag();
    let own = kubeconfig.map(|file| format!("\n  export KUBECONFIG={}", file.display())).unwrap_or_default();
    let plain = format!("\nPlain kubectl does not reach it from here: use kubecamp{flag} kubectl.");
    let only = if own.is_empty() { plain.as_str() } else { "" };
    format!(
        "The lab {name} is ready: {} with {} and kube-proxy in {} mode.\nNext:\n  kubecamp{flag} kubectl -- get nodes\n  kubecamp{flag} ssh {}{own}\n  kubecamp{flag} reset    # gives the machines back clean{only}",
        lab.layout(),
        lab.profile().network.cni,
        lab.profile().proxy.mode,
        lab.control_plane().name,
    )
}

/// Brings the lab up; returns whether a jump host stands before its control plane.
async fn carry_out(cx: &Context, request: &Request, run: &Run) -> Result<bool, Problems> {
    let result = LocalResult::default();
    let local = request.local_phases(cx, &result, run.mode, this_arch()?)?;
    announce(request, run, &local);
    // Machines must be made before they can be asked; hosts are asked before a bundle is built for them.
    if request.is_local() {
        run_here(run, &local).await?;
    }
    let site = Site::open(cx, request, run, &result).await?;
    let ended = async {
        let bundle = site.bundle(&result).await?;
        site.change(&bundle.ok_or_else(|| Problem::new(Code::Internal, "the bundle did not get ready"))?).await
    };
    let ended = ended.await;
    let jumps = site.is_behind_jump();
    site.close().await;
    ended.map(|()| jumps)
}

/// Tells every phase to come, in the order in which they come.
fn announce(request: &Request, run: &Run, local: &[Box<dyn Phase>]) {
    let mut nodes = vec![NodeId::here()];
    nodes.extend(request.lab.nodes().iter().map(|n| n.name.clone()));
    let local: Vec<_> = local.iter().map(|p| p.id()).collect();
    let (before, after) = if request.is_local() { (local, vec![]) } else { (vec![], local) };
    let phases = [before, vec![Crew::CONNECT, PREFLIGHT], after, flows::UP.to_vec()].concat();
    run.journal.event(EventKind::RunStarted { flow: "up".into(), lab: request.lab.name().clone(), nodes, phases });
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::{
            args::{Args, Command},
            store::{State, Where},
        },
        machine::EngineAt,
        profile::Cni,
    };

    fn asked(cx: &Context, words: &[&str]) -> Request {
        let words = ["kubecamp", "up", "--allow-undersized"].into_iter().chain(words.iter().copied());
        let Command::Up(args) = Args::parse_from(words).command else { panic!("another command") };
        Request::of(cx, args).unwrap()
    }

    #[test]
    fn what_was_refused_is_not_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let lab = Lab::new(cx.global.name.clone(), profile::load("1x4c12g").unwrap()).unwrap();
        let kept = || cx.store.load().unwrap().unwrap().0;
        // Of a lab that was reset, and of a new one.
        for known in [true, false] {
            for (words, nodes) in [(&["--cni", "bridge"][..], 1), (&["--layout", "3x2c4g", "--cni", "bridge"][..], 3)] {
                cx.store.forget().unwrap();
                if known {
                    cx.store.save(&lab, &State { clean: true, ..State::new(Where::Local) }).unwrap();
                }
                let mut line = vec!["--local"];
                if !known && nodes == 1 {
                    line.extend(["--layout", "1x4c12g"]);
                }
                line.extend(words);
                let request = asked(&cx, &line);
                let state = request.state().until_changed(request.known.as_ref().map(|(_, state)| state));
                cx.store.save(&request.lab, &state).unwrap();
                let failed: Problems = Problem::new(Code::MachineStart, "x").into();
                without_refused(&cx, &request, failed);
                assert_eq!(kept(), request.lab, "the same command goes on");
                let refused: Problems = Problem::new(Code::HostNetwork, "x").into();
                assert_eq!(without_refused(&cx, &request, refused).iter().count(), 1);
                assert_eq!((kept().profile().network.cni, kept().nodes().len()), (Cni::Flannel, nodes), "{words:?}");
                assert_eq!(kept().nodes(), request.lab.nodes(), "as the machines are");
                cx.store.save(&request.lab, &request.state()).unwrap();
                put_back(&cx.store, &request).unwrap();
                assert_eq!(kept(), request.lab, "its hosts began to change");
            }
        }
    }

    #[test]
    fn plain_kubectl_is_named_only_where_it_reaches_the_lab() {
        let lab = Lab::new("team7".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let reached = ready_text(&lab, Some(Path::new("/labs/team7/kubeconfig")));
        assert!(reached.contains("\n  export KUBECONFIG=/labs/team7/kubeconfig\n"), "{reached}");
        let private = ready_text(&lab, None);
        assert!(
            !private.contains("KUBECONFIG") && private.ends_with("use kubecamp --name team7 kubectl."),
            "{private}"
        );
        for text in [reached, private] {
            assert!(text.contains("\n  kubecamp --name team7 kubectl -- get nodes\n"), "{text}");
            assert!(
                text.contains("\n  kubecamp --name team7 reset    # gives "),
                "the line works as it stands: {text}"
            );
        }
    }

    #[test]
    fn a_lab_in_the_private_engine_is_known_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let lab = Lab::new(cx.global.name.clone(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        for (engine, private) in
            [(EngineAt::Private("/data/engine".into()), true), (EngineAt::Incus("/run/incus".into()), false)]
        {
            let state = State { engine: Some(engine), ..State::new(Where::Local) };
            cx.store.save(&lab, &state).unwrap();
            let Command::Up(args) = Args::parse_from(["kubecamp", "up"]).command else { panic!("another command") };
            assert_eq!(Request::of(&cx, args).unwrap().is_private(), private);
        }
    }
}

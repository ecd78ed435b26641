use super::*;
use crate::profile;

fn line(node: &str, facts: &str, said: &str) -> NodeStatus {
    let unseen = NodeStatus::unseen(node.parse().unwrap(), "root@192.0.2.1".into());
    let mut line = NodeStatus { state: "unreachable".into(), reached: true, ..unseen };
    see(&mut line, &Facts::parse(facts), said);
    line
}

const NODE: &str = "lab=lab\njoined=yes\n";

fn judged(cp: (&str, &str), worker: &str, store: &Store, state: &State) -> [Cow<'static, str>; 2] {
    let mut lines = [line("cp", cp.0, cp.1), line("worker-1", worker, "\n")];
    judge(&mut lines, store, state);
    lines.map(|l| l.state)
}

#[test]
fn who_is_not_ready_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path(), &"lab".parse().unwrap());
    let state = State::new(Where::Local);
    let says = "iptables\nNODE cp v1.36.3 True\nNODE worker-1 v1.36.3 False\n\nAPI answers\n";
    let of = |cp, worker| judged(cp, worker, &store, &state);
    assert_eq!(of((NODE, says), NODE), ["Ready", "NotReady"]);
    let silent = "iptables\n\nAPI silent\n";
    assert_eq!(of((NODE, silent), NODE), ["API server does not answer"; 2]);
    assert_eq!(of((NODE, silent), "lab=lab\n")[1], "not in the cluster");
    assert_eq!(of((NODE, "iptables\nNODE cp v1.36.3 True\n\nAPI answers\n"), "lab=lab\n")[1], "not in the cluster");
    assert_eq!(of(("", "\n"), NODE)[1], "joined", "nobody could be asked");
    assert_eq!(of(("", "\n"), ""), ["not in the cluster"; 2], "it never came up");
    // One host of two was reset, then all.
    let kept = ("worker-1".parse::<NodeId>().unwrap(), "scan".to_owned());
    store.keep_records(&BTreeMap::from([kept])).unwrap();
    assert_eq!(of((NODE, silent), ""), ["API server does not answer", "reset"]);
    store.keep_records(&Default::default()).unwrap();
    let clean = State { clean: true, ..State::new(Where::Local) };
    assert_eq!(judged(("", "\n"), "", &store, &clean), ["reset"; 2]);
}

#[test]
fn a_node_that_is_not_as_asked_is_a_problem_with_what_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path(), &"team7".parse().unwrap());
    let lab = Lab::new("team7".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
    let asked = lab.profile().proxy.mode.to_string();
    let other = if asked == "iptables" { "nftables" } else { "iptables" };
    let told = |cp: (&str, &str), worker: (&str, &str)| {
        let mut lines = [line("cp", cp.0, cp.1), line("worker-1", worker.0, worker.1)];
        judge(&mut lines, &store, &State::new(Where::Local));
        lines.each_ref().map(|line| line.trouble(&lab))
    };
    let what = |found: [Option<Problem>; 2]| found.map(|p| p.map(|p| p.what).unwrap_or_default());
    let mode = format!("{asked}\n");
    let says = format!("{mode}NODE cp v1.36.3 True\nNODE worker-1 v1.36.3 True\n\nAPI answers\n");
    let stopped = says.replace("worker-1 v1.36.3 True", "worker-1 v1.36.3 Unknown");
    let silent = format!("{mode}\nAPI silent\n");
    let (mode, says, silent) = (mode.as_str(), says.as_str(), silent.as_str());
    assert_eq!(what(told((NODE, says), (NODE, mode))), ["", ""]);
    let [_, differs] = what(told((NODE, says), (NODE, other)));
    assert_eq!(differs, format!("kube-proxy is in mode {other}, and the lab asks for {asked}"));
    assert_eq!(what(told((NODE, says), (NODE, "\n"))), ["", "kube-proxy does not answer"]);
    assert_eq!(what(told((NODE, stopped.as_str()), (NODE, mode))), ["", "the node is NotReady"]);
    assert_eq!(what(told((NODE, silent), (NODE, mode))), ["the API server does not answer"; 2]);
    assert_eq!(what(told((NODE, silent), ("", "\n")))[1], "the node is not in the cluster");
    let [Some(problem), _] = told((NODE, silent), (NODE, mode)) else { panic!("it is no problem") };
    assert!(problem.code == Code::VerifyFailed && problem.on.is_some(), "{problem}");
    assert!(problem.all_hints()[0].starts_with("kubecamp --name team7 up mends"), "{:?}", problem.hints);
}

#[test]
fn a_host_of_another_lab_is_no_node_of_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, lab) = (Store::of(dir.path(), &"team7".parse().unwrap()), "team7".parse().unwrap());
    let state = State::new(Where::Local);
    let says = "iptables\nNODE cp v1.36.3 True\nNODE worker-1 v1.36.3 True\n\nDeployment 2 1\nAPI answers\n";
    for (name, told) in [("team9", "of lab team9"), ("team7", "of another lab team7")] {
        let facts = format!("lab={name}\nlab.id=theirs\njoined=yes\nrules.missing=yes\n");
        let mut lines = ["cp", "worker-1"].map(|node| line(node, &facts, says));
        for line in &mut lines {
            line.keep_apart(&state.owner().claim(&lab, &Facts::parse(&facts)), &lab);
        }
        judge(&mut lines, &store, &state);
        let fleet = BTreeMap::from([
            ("cp".parse().unwrap(), Facts::parse(&facts)),
            ("worker-1".parse().unwrap(), Facts::parse("")),
        ]);
        let shown = Lab::new(lab.clone(), profile::load("2x4c8g").unwrap()).unwrap();
        assert_eq!(named_others(&shown, &state, &fleet), [format!("cp is {told}")]);
        for line in &lines {
            assert_eq!((&*line.state, line.ready, line.proxy_mode.as_deref()), (told, None, None));
            assert!(line.trouble(&shown).is_none() && line.mendable(&shown).is_empty());
        }
    }
    let mut ours = line("cp", "lab=team7\n", says);
    ours.keep_apart(&state.owner().claim(&lab, &Facts::parse("lab=team7\n")), &lab);
    assert_eq!(ours.seen.nodes.len(), 2);
}

#[test]
fn what_up_would_mend_is_a_problem_although_the_node_is_ready() {
    let lab = Lab::new("team7".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
    let what = |facts: &str, counts: &str| {
        let said = format!("iptables\nNODE cp v1.36.3 True\n{counts}\nAPI answers\n");
        let found = line("cp", facts, &said).mendable(&lab);
        assert!(found.iter().all(|p| p.all_hints()[0] == "kubecamp --name team7 up mends it."), "{found:?}");
        found.into_iter().map(|p| p.what).collect::<Vec<_>>()
    };
    assert!(what(NODE, "Deployment 2 2\n").is_empty() && what(NODE, "").is_empty());
    assert_eq!(what(NODE, "Deployment 2 1\n"), ["1 of 2 pods of CoreDNS are ready"]);
    assert_eq!(what(NODE, "Deployment 2 \n"), ["0 of 2 pods of CoreDNS are ready"]);
    let both = what("lab=team7\nrules.missing=yes\nbridge.missing=yes\n", "");
    assert_eq!(both, ["kube-proxy's rules are not all in the kernel", "pods have lost their bridge"]);
}

#[test]
fn what_a_host_says_of_itself_is_only_text() {
    let facts = "lab=lab\nos.name=\x1b]52;c;eA==\x07\nkernel=\u{202e}x\nroute.source=\x1b[2J\n";
    let said = "\x1b[2Jiptables\nNODE cp v1\x1b]0;x\x07 True\n\nAPI answers\n";
    let mut cp = line("cp", facts, said);
    cp.machine = Some(Hardware::of(&Facts::parse(facts)));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path(), &"lab".parse().unwrap());
    judge(std::slice::from_mut(&mut cp), &store, &State::new(Where::Local));
    let text = text(&[cp], true);
    assert_eq!(text.lines().count(), 2, "{text}");
    for shown in ["\\x1b[2Jiptables", "v1\\x1b]0;x\\x07", "\\x1b]52;c;eA==\\x07", "\\u{202e}x"] {
        assert!(text.contains(shown), "{text}");
    }
    assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text}");
}

#[test]
fn a_machine_that_does_not_run_comes_with_what_starts_it() {
    let problem = asleep(&"team7".parse().unwrap(), &"cp".parse().unwrap());
    assert!(problem.all_hints()[0].contains("kubecamp up --name team7"), "{problem}");
}

#[test]
fn a_machine_that_does_not_run_is_named_with_its_state() {
    let lab: LabName = "team7".parse().unwrap();
    let machine = |node: &str, state| Machine {
        name: format!("team7-{node}"),
        lab: lab.clone(),
        node: node.parse().unwrap(),
        kind: crate::machine::Kind::Container,
        state,
        address: None,
        netns: None,
        host_keys: vec![],
    };
    let there = [machine("cp", MachineState::Stopped), machine("worker-1", MachineState::Other)];
    let of = |node: &str, machines| resting(&lab, &node.parse().unwrap(), machines);
    assert_eq!(of("cp", Some(&there[..])), ("team7-cp".to_owned(), "stopped"));
    assert_eq!(of("worker-1", Some(&there[..])), ("team7-worker-1".to_owned(), "not running"));
    assert_eq!(of("worker-2", Some(&there[..])), ("no machine".to_owned(), "not running"));
    assert_eq!(of("cp", None), ("team7-cp".to_owned(), "not running"), "its engine does not run");
}

#[test]
fn the_hints_of_a_node_that_was_kept_back_name_the_lab() {
    output::problems_of(" --name team7".to_owned());
    let kept = line("cp", "", "").kept_back(&Problem::new(Code::ClusterLost, "gone"));
    assert_eq!(kept.problem.as_deref(), Some("gone"));
    assert_eq!(kept.hints, ["Run kubecamp --name team7 reset, then kubecamp --name team7 up."]);
}

#[test]
fn who_wants_a_password_for_sudo_was_reached() {
    for (code, reached) in
        [(Code::Sudo, true), (Code::SudoPassword, true), (Code::StepTimeout, true), (Code::HostUnreachable, false)]
    {
        assert_eq!(was_let_in(code), reached, "{code}");
    }
    assert!(is_of_sudo(Code::SudoPassword) && !is_of_sudo(Code::StepTimeout));
}

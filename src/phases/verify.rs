use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{
    cluster::{ASK, KUBECTL, PROVEN, VXLAN, is_new},
    node_objects::restore,
    readiness, steps,
    values::PROBES,
};
use crate::{
    bundle::Bundle,
    core::{Blob, Code, NodeId, PhaseId, Problem, StepId, shell::quote},
    engine::{Check, Need, Phase, Step, View},
    host::{Facts, fact, template},
    profile::{Cni, Lab},
};

/// Proves that the lab works: every node ready, names answered on every node, a Service reaching a pod on every node
/// from every node, kube-proxy in the mode that was asked.
pub struct Verify {
    /// Names CoreDNS's image, which serves as the probe, and is part of what was verified.
    pub bundle: Arc<Bundle>,
}

const REACH: &str = "reach";

impl Verify {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("verify");
}

#[async_trait]
impl Phase for Verify {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "prove that the lab works"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let stamp = self.stamp(view)?;
        let proven = view.lab.nodes().iter().all(|n| view.fleet.get(&n.name).is_some_and(|f| is_proven(f, &stamp)));
        let mut steps = vec![];
        if view.is_control_plane() {
            if !proven {
                steps.push(self.probes(view)?);
            }
            steps.push(ready(view));
        }
        steps.push(answers(view)?);
        if !proven {
            steps.push(reach(view, &stamp)?);
            if view.is_control_plane() {
                steps.push(clear(view));
            }
        }
        Ok(steps)
    }
}

impl Verify {
    /// What a proof is about: the profile and the bundle.
    fn stamp(&self, view: &View<'_>) -> Result<String, Problem> {
        let text = format!("{}{}", view.lab.to_yaml()?, self.bundle.id());
        Ok(Blob::from_bytes(text.into_bytes()).sha256()[..24].to_owned())
    }

    fn probes(&self, view: &View<'_>) -> Result<Step, Problem> {
        let image = self.bundle.image("coredns")?;
        let nodes: Vec<_> = view.lab.nodes().iter().map(|n| n.name.as_str()).collect();
        let manifest = template::render("node/probe.yaml.tera", &json!({"nodes": nodes, "image": image}))?;
        // Of what is no Service nothing is printed. Probes that a run left which was killed are made anew.
        let change = format!(
            "make() {{ {KUBECTL} create --validate=false -o 'jsonpath={{.spec.clusterIP}} ' -f - <<'KC_END'\n{manifest}KC_END\n}}\n\
             ips=$(make 2>/dev/null) || {{ {KUBECTL} delete ns kubecamp-verify --ignore-not-found >/dev/null; ips=$(make); }} || exit 1\n\
             set -- $ips; [ $# = {} ] || exit 1; echo \"KC-OUT probes=$*\"",
            nodes.len()
        );
        // The workers' Node objects are there before they join: each starts its probe with its other first pods.
        Ok(Step::script("probes", "start a probe on every node", Check::Never, change).gives(&[&PROBES]))
    }
}

/// Whether what a host shows is the proof of what runs there now: pods restarted since then, in another mode perhaps,
/// are proven anew. So is a lab after something was mended that its pods cannot do without.
fn is_proven(facts: &Facts, stamp: &str) -> bool {
    let broken = facts.yes(fact::RULES_MISSING) || facts.yes(fact::BRIDGE_MISSING) || facts.moved_from().is_some();
    !broken
        && facts.get(fact::KUBE_PROXY).is_some_and(|now| facts.get(fact::VERIFIED) == Some(&format!("{stamp} {now}")))
}

/// Whether a node has another address than it had in its lab.
fn has_moved(view: &View<'_>) -> bool {
    view.fleet.values().any(|facts| facts.moved_from().is_some())
}

/// Shell text that starts kube-proxy anew where a worker's address changed: it asks for that once, when it starts, and has the
/// ports of Services (`NodePort`) on that address alone.
fn follow(view: &View<'_>) -> String {
    let moved = |node: &NodeId| {
        let facts = view.fleet.get(node)?;
        facts.moved_from().and(facts.address()).map(|address| format!("follow {node} {address}\n"))
    };
    let all: String = view.lab.workers().filter_map(|worker| moved(&worker.name)).collect();
    if all.is_empty() {
        return all;
    }
    format!(
        "is_at() {{ [ \"$({ASK} get node \"$1\" -o 'jsonpath={{.status.addresses[?(@.type==\"InternalIP\")].address}}' 2>/dev/null)\" = \"$2\" ]; }}\n\
         follow() {{\nkc_wait 60 is_at \"$1\" \"$2\"\n\
         {KUBECTL} -n kube-system delete pods -l k8s-app=kube-proxy --field-selector \"spec.nodeName=$1\" --wait=false >/dev/null 2>&1\n}}\n{all}"
    )
}

/// Every node Ready, and what the cluster itself runs.
fn ready(view: &View<'_>) -> Step {
    let mut change = readiness::wait(view, false, 150);
    // Of a new lab CoreDNS shows that they work, and they say so themselves seconds later. In an old one a student may have
    // broken them, for which nobody shall wait long, or deleted a node, for which one would wait in vain.
    if !is_new(view) {
        change = format!("{}{}{change}\n{}", restore(view), follow(view), readiness::wait(view, true, 60));
    }
    let check = readiness::is_whole(view, true);
    // What was waited for needs no second look, and a new lab no first one.
    let done_if = if is_new(view) || has_moved(view) { Check::Never } else { Check::Before(check) };
    let mut step = Step::script("ready", "wait until every node and what runs the cluster are ready", done_if, change)
        .limit(Duration::from_secs(280))
        .fails_as(Code::VerifyFailed);
    for worker in view.lab.workers() {
        step = step.needs(Need::Step(worker.name.clone(), StepId::new(steps::JOIN)));
    }
    step
}

fn prelude(view: &View<'_>, deadline: u32) -> Result<String, Problem> {
    let mode = view.lab.profile().proxy.mode;
    let dns = view.lab.dns_service_ip();
    let api = view.lab.api_service_ip();
    Ok(format!(
        "API={api} DNS={dns} MODE={mode} DEADLINE={deadline}\n{}{}",
        template::text("host/kube-proxy.sh")?,
        template::text("node/reach.sh")?
    ))
}

/// Shell text of `blame REASON`, which ends the step. First comes what kube-proxy lacks on this node itself, then what nothing
/// else would name: the way between the hosts, which a cloud's security group shuts without a word. A single host has none.
fn blame(lab: &Lab) -> Result<String, Problem> {
    let what = match lab.profile().network.cni {
        Cni::Flannel => format!("UDP {VXLAN}, in which flannel carries what pods say to each other"),
        Cni::Bridge => format!(
            "everything of the pod network {}, which a cloud drops for as long as it checks source and destination",
            lab.pod_cidr()
        ),
    };
    let told = quote(&format!("Between the hosts must be open, in security groups and firewalls: {what}."));
    let apart = if lab.nodes().len() < 2 { String::new() } else { format!("echo {told} >&2\n") };
    Ok(format!(
        "{}blame() {{\n\
         rules_are_there \"$MODE\" || kc_die \"kube-proxy's rules for the mode $MODE are not all in the kernel of this node: $1\"\n\
         {apart}kc_die \"$1\"\n}}\n",
        template::text("host/proxy-rules.sh")?
    ))
}

/// What can be seen at any time without making anything.
fn answers(view: &View<'_>) -> Result<Step, Problem> {
    let services = "answer_tcp $API 443 && answer_tcp $DNS 53";
    let check = format!("{}mode_is && answer_dns && {services}", prelude(view, 0)?);
    // What was just mended may answer by one of CoreDNS's pods and not yet by the other. A new lab has nothing to mend.
    let steady = "steady() { answer_dns && answer_dns && answer_dns && services; }\n\
                  until_true steady || blame \"CoreDNS at $DNS answers from this node only now and then\"";
    let steady = if is_new(view) { "" } else { steady };
    let change = format!(
        "{}{}until_true mode_is || kc_die \"kube-proxy does not say that its mode is $MODE: $(answer_http 127.0.0.1 10249 /proxyMode | tail -n 1)\"\n\
         until_true names_answer || blame \"CoreDNS at $DNS does not answer from this node\"\n\
         services() {{ {services}; }}\n\
         until_true services || blame \"the Services of the API server ($API) and CoreDNS ($DNS) do not both take connections from this node\"\n{steady}",
        prelude(view, 120)?,
        blame(view.lab)?
    );
    let done_if = if is_new(view) { Check::Never } else { Check::Before(check) };
    Ok(Step::script("answers", "see CoreDNS answer and kube-proxy in its mode", done_if, change)
        .limit(Duration::from_secs(140))
        .fails_as(Code::VerifyFailed))
}

fn reach(view: &View<'_>, stamp: &str) -> Result<Step, Problem> {
    let change = format!(
        "{}{}for ip in $KC_PROBES; do\n\
         ok() {{ answer_http \"$ip\" 80 /health | grep -q OK; }}\n\
         until_true ok && continue\n\
         [ ! -e /etc/kubernetes/admin.conf ] || {ASK} -n kubecamp-verify get pods,svc,endpointslices -o wide >&2\n\
         blame \"the Service $ip does not reach its pod from this node\"\ndone\n\
         mkdir -p /run/kubecamp && echo {stamp} \"$(kube_proxy)\" > {PROVEN}",
        prelude(view, 120)?,
        blame(view.lab)?,
    );
    let check = format!("{}[ \"$(cat {PROVEN})\" = \"{stamp} $(kube_proxy)\" ]", prelude(view, 0)?);
    // What each host noted is of the way to the address of before.
    let done_if = if has_moved(view) { Check::Never } else { Check::Script(check) };
    let mut step = Step::script(REACH, "reach a pod on every node through its Service", done_if, change);
    // Not to wait for the probe of a worker that failed.
    for worker in view.lab.workers() {
        step = step.needs(Need::Step(worker.name.clone(), StepId::new(steps::JOIN)));
    }
    Ok(step
        .needs(Need::Value(view.lab.control_plane().name.clone(), &PROBES))
        .limit(Duration::from_secs(140))
        .fails_as(Code::VerifyFailed))
}

fn clear(view: &View<'_>) -> Step {
    let change = format!("{KUBECTL} delete ns kubecamp-verify --wait=false --ignore-not-found");
    let mut step = Step::script("clear", "remove the probes", Check::Never, change);
    for worker in view.lab.workers() {
        step = step.needs(Need::Step(worker.name.clone(), StepId::new(REACH)));
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Change, profile};

    /// What is said last where this try does not succeed on a node of such a lab, whose kube-proxy has its rules or not.
    fn failure(layout: &str, cni: Cni, failing: &str, rules: bool) -> Vec<String> {
        let mut profile = profile::load(layout).unwrap();
        profile.network.cni = cni;
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let view = View { lab: &lab, node: &"cp".parse().unwrap(), fleet: &Default::default(), host: None };
        let step = if failing == "ok" { reach(&view, "stamp") } else { answers(&view) };
        let Change::Script(change) = step.unwrap().change else { panic!("it is a script") };
        let sham = format!(
            "kc_die() {{ echo \"$*\" >&2; exit 1; }}\nKC_PROBES=10.96.0.21\n\
             answer_http() {{ :; }}\nuntil_true() {{ [ $1 != {failing} ]; }}\n"
        );
        let script = change
            .replace(&template::text("node/reach.sh").unwrap(), &sham)
            .replace(&template::text("host/proxy-rules.sh").unwrap(), &format!("rules_are_there() {{ {rules}; }}\n"));
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        String::from_utf8(out.stderr).unwrap().lines().map(str::to_owned).collect()
    }

    /// A security group says nothing, and the reason stays the last word.
    #[test]
    fn what_must_be_open_between_hosts_is_told_before_the_failure() {
        for (failing, reason) in [
            ("names_answer", "CoreDNS at 10.96.0.10 does not answer from this node"),
            ("services", "the Services of the API server "),
            ("steady", "CoreDNS at 10.96.0.10 answers from this node only now and then"),
            ("ok", "the Service 10.96.0.21 does not reach its pod from this node"),
        ] {
            for (cni, open) in
                [(Cni::Flannel, ": UDP 8472, "), (Cni::Bridge, ": everything of the pod network 10.244.0.0/16, ")]
            {
                let said = failure("2x4c8g", cni, failing, true);
                let [.., apart, last] = &said[..] else { panic!("{said:?}") };
                assert!(apart.contains(open) && last.starts_with(reason), "{said:?}");
                let alone = failure("1x4c12g", cni, failing, true);
                assert!(
                    alone.last().unwrap().starts_with(reason) && !alone.iter().any(|l| l.contains("open")),
                    "{alone:?}"
                );
                let bare = failure("2x4c8g", cni, failing, false);
                let [.., last] = &bare[..] else { panic!("{bare:?}") };
                assert!(last.starts_with("kube-proxy's rules for the mode ") && last.contains(reason), "{bare:?}");
                assert!(!bare.iter().any(|line| line.contains("open")), "no firewall is to blame: {bare:?}");
            }
        }
        let mode = failure("2x4c8g", Cni::Flannel, "mode_is", true);
        assert!(!mode.iter().any(|line| line.contains("8472")), "its mode comes from the node itself: {mode:?}");
    }

    #[test]
    fn a_lab_is_proven_anew_at_a_workers_new_address() {
        for (now, is_new) in [("192.0.2.2", false), ("192.0.2.9", true)] {
            let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
            let facts = Facts::parse(&format!("lab=lab\naddr=eth0 {now}/24\nnode.ip=192.0.2.2\n"));
            let [cp, worker] = ["cp", "worker-1"].map(|name| name.parse::<NodeId>().unwrap());
            let fleet = [(cp.clone(), Facts::parse("lab=lab\n")), (worker, facts)].into();
            let view = View { lab: &lab, node: &cp, fleet: &fleet, host: None };
            let step = ready(&view);
            let Change::Script(change) = step.change else { panic!("it is a script") };
            assert_eq!(change.contains("\nfollow worker-1 192.0.2.9\n"), is_new, "{change}");
            assert_eq!(matches!(step.done_if, Check::Never), is_new);
            assert_eq!(matches!(reach(&view, "stamp").unwrap().done_if, Check::Never), is_new);
            let proof = format!("lab=lab\nkube_proxy=1\nverified=stamp 1\naddr=eth0 {now}/24\nnode.ip=192.0.2.2\n");
            assert_eq!(is_proven(&Facts::parse(&proof), "stamp"), !is_new);
        }
    }

    #[test]
    fn an_address_is_no_program() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let evil = format!("127.0.0.1/80;touch${{IFS}}{};#", mark.display());
        let script = format!(
            "DNS='{evil}' MODE=x DEADLINE=0\n{}\nanswer_http \"$DNS\" 80 /; answer_dns",
            template::text("node/reach.sh").unwrap()
        );
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(!out.status.success() && !mark.exists(), "{out:?}");
    }

    #[test]
    fn asks_over_bashs_own_sockets() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let told = std::thread::spawn(move || {
            use std::io::{BufRead, BufReader, Write};
            let (mut one, _) = server.accept().unwrap();
            let asked: Vec<_> =
                BufReader::new(&one).lines().map(|l| l.unwrap()).take_while(|l| !l.is_empty()).collect();
            one.write_all(b"HTTP/1.0 200 OK\r\n\r\nnftables").unwrap();
            asked
        });
        let script = format!(
            "DEADLINE=0\n{}\nanswer_http 127.0.0.1 {port} /proxyMode",
            template::text("node/reach.sh").unwrap()
        );
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).ends_with("nftables"), "{out:?}");
        assert_eq!(told.join().unwrap(), ["GET /proxyMode HTTP/1.0", "Host: kubecamp"]);
    }

    /// Whether this function of the script holds, with another port in the place of its own.
    fn holds(function: &str, own: &str, port: u16) -> bool {
        let text = template::text("node/reach.sh").unwrap().replace(&format!("/{own}\""), &format!("/{port}\""));
        let script = format!("MODE=nftables DNS=127.0.0.1 DEADLINE=0\n{text}\n{function}");
        std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success()
    }

    #[test]
    fn another_mode_than_the_one_asked_for_is_no_proof() {
        for (says, right) in [("nftables", true), ("iptables", false), ("", false)] {
            let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let told = std::thread::spawn(move || {
                use std::io::{BufRead, BufReader, Write};
                let (mut one, _) = server.accept().unwrap();
                BufReader::new(&one).lines().take_while(|l| !l.as_ref().unwrap().is_empty()).for_each(drop);
                write!(one, "HTTP/1.0 200 OK\r\n\r\n{says}").unwrap();
            });
            assert_eq!(holds("mode_is", "10249", port), right, "{says}");
            told.join().unwrap();
        }
    }

    #[test]
    fn an_answer_without_an_address_is_none() {
        for (answers, right) in [(1, true), (0, false)] {
            let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let told = std::thread::spawn(move || {
                let mut query = [0; 512];
                let (_, from) = server.recv_from(&mut query).unwrap();
                server.send_to(&[query[0], query[1], 0x81, 0x80, 0, 1, 0, answers], from).unwrap();
            });
            assert_eq!(holds("answer_dns", "53", port), right, "{answers}");
            told.join().unwrap();
        }
    }
}

use std::sync::Arc;

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Takes the cluster's links, routes, packet filter rules and virtual servers out of the kernel; never flushes
/// anything of others.
pub struct CleanNetwork {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

#[async_trait]
impl Phase for CleanNetwork {
    fn id(&self) -> PhaseId {
        PhaseId::new("clean-network")
    }

    fn title(&self) -> &'static str {
        "remove links and packet filter rules"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let scripts = Scripts::new(view, &self.records, Some("reset/network.sh"))?;
        let any = |list: &str| format!("[ -n \"$({list})\" ]");
        Ok(vec![
            // While kube-ipvs0 still shows which addresses were the cluster's.
            scripts.step("ipvs", "remove virtual servers", &any("servers"), "remove_servers"),
            scripts.step(
                "links",
                "remove links, namespaces and routes",
                &any("veths; pins; pins_of_others; links; routes"),
                "remove_links",
            ),
            scripts.step("rules", "remove chains, rules and tables", "rules_left", "remove_rules"),
            scripts.step("ipsets", "remove address sets", &any("sets"), "remove_sets"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use crate::host::template;

    const HEAD: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
        -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";
    /// Of two Services, a node port and an external address, as the kernel lists them.
    const OURS: &str = "TCP  0A600001:01BB rr\n  -> C0000201:192B Masq 1 0 0\nUDP  0A60000A:0035 rr\n\
        TCP  C0000201:7531 rr\nTCP  CB007107:0050 rr\n";
    const OTHERS: &str = "TCP  C0000201:0050 rr\nTCP  0A600005:0050 rr\nFWM  00000001 rr\n\
        TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 rr\n";

    /// What is called to remove servers of this list, on a host at 192.0.2.1 that had 10.96.0.5:80 before any lab.
    fn called(list: &str, ipvsadm: bool) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{HEAD}{list}")).unwrap();
        let script = format!(
            "exec 9>&1; SERVICES=10.96.0.0/16\n\
             had() {{ [ \"$*\" = 'ipvs TCP 0A600005:0050' ]; }}\n\
             has() {{ {ipvsadm} && [ \"$1\" = ipvsadm ]; }}\n\
             awk() {{ command awk \"$1\" {}; }}\n\
             ip() {{ case $* in *kube-ipvs0*) echo '5: kube-ipvs0    inet 203.0.113.7/32 scope global' ;;\n\
             *) echo '2: eth0    inet 192.0.2.1/24 scope global' ;; esac; }}\n\
             ipvsadm() {{ echo \"$*\"; }}\n\
             find() {{ echo /kube-proxy; }}\n\
             timeout() {{ echo \"$*\" >&9; }}\n{}\nremove_servers",
            file.path().display(),
            template::text("reset/network.sh").unwrap()
        );
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn namespaces_of_others_stay_also_when_nothing_names_them_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let below = |path: &str| dir.path().join(path);
        let pod = "kubecamp/containerd/io.containerd.grpc.v1.cri/sandboxes/4";
        for folder in ["netns", "cni/results", "kubecamp", pod] {
            fs::create_dir_all(below(folder)).unwrap();
        }
        for pin in ["cni-1a", "cni-1a2b", "cni-bare", "cni-else", "cni-old", "mine"] {
            fs::write(below("netns").join(pin), "").unwrap();
        }
        fs::write(below("kubecamp/before"), "netns\tcni-old\n").unwrap();
        // The loopback's is of each pod; the beginning of a name is another name.
        for (result, pin) in [
            ("kubecamp-1-eth0", "cni-1a"),
            ("cni-loopback-1-lo", "cni-1a"),
            ("tenant-1-net1", "cni-1a"),
            ("podman-2-eth0", "cni-1a2b"),
            ("cni-loopback-3-lo", "cni-bare"),
            // A pod of the lab in a network that somebody put in the place of the lab's.
            ("k8s-pod-network-4-eth0", "cni-else"),
        ] {
            let text = format!("{{\"interfaces\":[{{\"name\":\"eth0\",\"sandbox\":\"/var/run/netns/{pin}\"}}]}}");
            fs::write(below("cni/results").join(result), text).unwrap();
        }
        let functions = ["reset/host.sh", "reset/network.sh"].map(|name| template::text(name).unwrap()).concat();
        let functions = [("/run/netns", "netns"), ("/var/lib/cni", "cni"), ("/var/lib/kubecamp", "kubecamp")]
            .iter()
            .fold(functions, |text, (path, to)| text.replace(path, &below(to).display().to_string()));
        let run = |call: &str| {
            let out = Command::new("sh").arg("-c").arg(format!("CONTROL=no\n{functions}\n{call}")).output().unwrap();
            let said = String::from_utf8(out.stdout).unwrap();
            said.lines().map(|l| l.rsplit('/').next().unwrap_or(l).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(run("pins"), ["cni-1a", "cni-bare", "cni-else"]);
        assert_eq!(run("pins_of_others"), ["cni-1a2b"]);
        run("spare netns cni-1a2b theirs");
        fs::remove_dir_all(below("cni")).unwrap();
        assert_eq!(run("pins"), ["cni-1a", "cni-bare", "cni-else"]);
        assert_eq!(run("pins_of_others"), [""; 0]);
    }

    #[test]
    fn routes_to_other_nodes_pods_go_and_those_of_links_stay() {
        let sham = "PODS=10.244.0.0/16\nhad() { [ \"$*\" = 'route 10.244.7.0/24 via 192.0.2.9 dev eth0' ]; }\nip() { cat <<'END'\n\
            10.244.1.0/24 via 192.0.2.9 dev eth0 proto kernel \n10.244.2.0/24 via 192.0.2.9 dev eth0 linkdown \n\
            10.244.7.0/24 via 192.0.2.9 dev eth0 \n10.244.9.0/24 dev mine proto kernel scope link src 10.244.9.1 \n\
            local 10.244.9.1 dev mine table local proto kernel scope host src 10.244.9.1 \nEND\n}\n";
        let script = format!("{sham}{}\nroutes", template::text("reset/network.sh").unwrap());
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let ours = "10.244.1.0/24 via 192.0.2.9 dev eth0 proto kernel\n10.244.2.0/24 via 192.0.2.9 dev eth0\n";
        assert_eq!(String::from_utf8(out.stdout).unwrap(), ours);
    }

    /// Most kernels that tests run on have no ipvs.
    #[test]
    fn virtual_servers_of_the_cluster_go_and_no_others() {
        let (both, gone) = (
            format!("{OURS}{OTHERS}"),
            "-D -t 10.96.0.1:443\n-D -u 10.96.0.10:53\n-D -t 192.0.2.1:30001\n-D -t 203.0.113.7:80\n",
        );
        assert_eq!(called(&both, true), gone);
        assert_eq!(called(OTHERS, true), "");
        // Without that tool kube-proxy removes all that there are, so it does only where they are the cluster's.
        assert_eq!(called(OURS, false), "60 /kube-proxy --cleanup\n");
        let left = called(&both, false);
        assert!(left.contains("install ipvsadm") && !left.contains("kube-proxy"), "{left}");
    }
}

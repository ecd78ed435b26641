//! What the host answers, by the steps that were done on it.

use std::time::{SystemTime, UNIX_EPOCH};

use kubecamp::transport::{LinkError, Ran, Reply};

use super::{CA, Did, IDENTITIES, Login, State, Trouble, steps};

/// The functions that come before every change; their words say nothing about the step.
const LIB: &str = include_str!("../../../templates/host/lib.sh");

/// A certificate and a key in admin.conf, as base64 of PEM.
const CERTIFICATE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tClRVbEoKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";

const KEY: &str = "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpUVWxKCi0tLS0tRU5EIFJTQSBQUklWQVRFIEtFWS0tLS0tCg==";

impl State {
    fn log(&self, did: Did) {
        self.world.0.lock().unwrap().push((self.node.clone(), did));
    }

    /// What the host answers to what it was sent; none to what it does not know.
    pub(super) fn answer(&mut self, ran: &Ran) -> Option<Reply> {
        if let Some(rest) = ran.line.strip_prefix("put ") {
            return Some(self.put(rest, ran.input.split(' ').next().unwrap_or_default()));
        }
        if ran.line.contains("id -u") {
            let word = match self.login {
                Login::Root => "root",
                Login::FreeSudo => "free",
                Login::Sudo(_) => "password",
                Login::NoSudo => "none",
                Login::Forced => "Please login as the user \"ubuntu\" rather than the user \"root\".\n\n",
            };
            return Some(Reply::ok(word));
        }
        match self.as_root(ran) {
            Ok(script) if script.is_empty() => Some(Reply::ok("")),
            Ok(script) if script.starts_with("sh -c ") => Some(self.upload(&script)),
            Ok(script) => self.script(&script),
            Err(refused) => Some(refused),
        }
    }

    /// The script, when it was run as root rightly.
    fn as_root(&self, ran: &Ran) -> Result<String, Reply> {
        let (line, input) = (unbounded(&ran.line), ran.input.clone());
        let line = line.trim_start_matches("LC_ALL=C ");
        match self.login {
            Login::Root if line == "sh -s" => Ok(input),
            Login::FreeSudo if line == "sudo -n sh -s" => Ok(input),
            Login::FreeSudo if line.starts_with("sudo -n sh -c ") => Ok(line["sudo -n ".len()..].to_owned()),
            Login::Sudo(password) if line.starts_with("sudo -k -S -p ''") => {
                let rest = input.strip_prefix(&format!("{password}\n"));
                let rest = rest.ok_or_else(|| Reply::fail(1, "sudo: 1 incorrect password attempt"))?;
                let command = line.trim_start_matches("sudo -k -S -p '' ");
                Ok(if command.starts_with("sh -c ") { command.to_owned() } else { rest.to_owned() })
            }
            login => Err(Reply::fail(126, format!("{line}: Permission denied for {login:?}"))),
        }
    }

    /// An upload that root takes from sudo: whether the file is there, or its bytes.
    fn upload(&mut self, script: &str) -> Reply {
        let between = |begin: &str, end: &str| {
            let (_, rest) = script.split_once(begin)?;
            Some(rest.split_once(end)?.0.to_owned())
        };
        let sha256 = between("[ \"$sum\" = ", " ]").expect("a digest");
        match between(" t=", ".kc-part") {
            Some(path) => {
                self.done.insert(format!("{path} {sha256}"));
                self.log(Did::Put(path));
                Reply::ok("")
            }
            None => {
                let path = between("[ -f ", " ]").expect("a path");
                if self.done.contains(&format!("{path} {sha256}")) { Reply::ok("") } else { Reply::fail(1, "") }
            }
        }
    }

    fn put(&mut self, rest: &str, sha256: &str) -> Reply {
        let path = rest.rsplit_once(' ').map_or(rest, |(path, _)| path).to_owned();
        if self.login != Login::Root {
            return Reply::fail(1, format!("{path}: Permission denied"));
        }
        if !self.done.insert(format!("{path} {sha256}")) {
            return Reply::ok("same");
        }
        self.log(Did::Put(path));
        Reply::ok("")
    }

    fn script(&mut self, script: &str) -> Option<Reply> {
        if let Some((_, body)) = script.split_once(LIB) {
            return self.change(body);
        }
        // A change's own check is asked right after it and is no change itself.
        self.log(Did::Look);
        if self.hanging.iter().any(|words| script.contains(words)) {
            return Some(Reply::Fail(LinkError::Timeout(std::time::Duration::from_secs(60))));
        }
        if script.contains("p os.id") {
            return Some(Reply::ok(self.facts()));
        }
        if script.contains("KC-REACH") {
            return Some(self.reach(script));
        }
        if script.contains("\nours\n}\nkc_main") {
            return Some(if self.done.contains("baseline") { Reply::ok("") } else { Reply::fail(1, "") });
        }
        if script.contains("echo '== now'") {
            return Some(Reply::ok(self.scan()));
        }
        if script.contains("cat /etc/kubernetes/admin.conf") {
            let there = self.done.contains("init");
            return Some(if there { Reply::ok(self.admin_conf()) } else { Reply::fail(1, "no such file") });
        }
        script.contains("echo 'KC-DONE ").then(|| Reply::ok(self.probe(script)))
    }

    /// The administrator's kubeconfig as kubeadm writes it, in a cluster that has the lab's name.
    fn admin_conf(&self) -> String {
        let lab = self.facts.lines().rev().find_map(|line| line.strip_prefix("lab=")).unwrap_or_default();
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {CERTIFICATE}\n    server: \
             https://192.0.2.1:6443\n  name: {lab}\ncontexts:\n- context:\n    cluster: {lab}\n    user: \
             kubernetes-admin\n  name: kubernetes-admin@{lab}\ncurrent-context: kubernetes-admin@{lab}\nkind: \
             Config\npreferences: {{}}\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: \
             {CERTIFICATE}\n    client-key-data: {KEY}\n"
        )
    }

    /// What the tries of the doors of other nodes say.
    fn reach(&self, script: &str) -> Reply {
        if self.shut.iter().any(|(node, ..)| *node == "link") {
            return Reply::Fail(LinkError::Lost("broken pipe".into()));
        }
        let tries = script.lines().filter_map(|l| l.strip_prefix("kc_reach ")).filter(|l| l.ends_with(" &"));
        let said = tries.map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (node, port) = (words[0], words[2]);
            let shut = self.shut.iter().find(|(n, p, _)| *n == node && p.to_string() == port);
            format!("KC-REACH {node} {port} {}\n", shut.map_or("yes", |(.., says)| says))
        });
        Reply::ok(said.collect::<String>())
    }

    fn probe(&self, script: &str) -> String {
        let mut told = String::new();
        let mut rest = script;
        while let Some((check, after)) = rest.split_once("\n) </dev/null >/dev/null 2>&1 && echo 'KC-DONE ") {
            let (number, after) = after.split_once('\'').unwrap();
            if self.holds(check) {
                told.push_str(&format!("KC-DONE {number}\n"));
            }
            rest = after;
        }
        told
    }

    fn holds(&self, check: &str) -> bool {
        let ours = self.done.contains("baseline");
        if let Some((file, digest)) = check.split_once("\"$sum\" = '") {
            let path = file.split_once("[ -f ").and_then(|(_, rest)| rest.split_once(" ]")).expect("a path").0;
            let sha256 = digest.trim_end_matches("' ]");
            // Root's sudo was told the digest apart.
            return [sha256, "\"$want\""].iter().any(|sum| self.done.contains(&format!("{path} {sum}")));
        }
        if check.contains("! ours ||") {
            let name = steps::of_check_of_reset(check);
            return !ours || self.done.contains(name);
        }
        if check.ends_with("\nforgotten") {
            return !ours;
        }
        if check.contains("! command -v kubectl") {
            return !self.done.contains("init") || self.done.contains("drain");
        }
        let name = steps::of_check(check);
        if name == "image" {
            let marks = check.split("read -r was < ").skip(1).filter_map(|words| {
                let (place, image) = words.split_once(" && [ \"$was\" = ")?;
                Some(format!("{place} {}", image.split_once(' ')?.0))
            });
            return marks.into_iter().all(|mark| self.done.contains(&mark) && !self.removed.contains(&mark));
        }
        self.done.contains(name)
    }

    fn change(&mut self, body: &str) -> Option<Reply> {
        let name = steps::of_change(body)?;
        self.log(Did::Change(name));
        let trouble = self.troubles.iter().position(|(step, _)| *step == name).map(|i| self.troubles.remove(i).1);
        match trouble {
            Some(Trouble::Fail(status, words)) => return Some(Reply::fail(status, words)),
            Some(Trouble::TooSlow) => {
                return Some(Reply::Fail(LinkError::Timeout(std::time::Duration::from_secs(240))));
            }
            Some(Trouble::Cancel(token)) => {
                token.cancel();
                return Some(Reply::Hang);
            }
            _ => {}
        }
        let reply = self.effect(name, body);
        Some(match trouble {
            Some(Trouble::LinkLost) => Reply::Fail(LinkError::Lost("broken pipe".into())),
            Some(Trouble::FailAfterOutput) => match reply {
                Reply::Exit(exit) => Reply::Exit(kubecamp::transport::Exit { status: Some(1), ..exit }),
                other => other,
            },
            Some(Trouble::Prints(lines)) => Reply::ok(lines),
            _ => reply,
        })
    }

    /// What the control plane has for this worker.
    fn identity(&self) -> Option<&'static str> {
        IDENTITIES.split(' ').find(|one| one.split_once('=').is_some_and(|(whose, _)| whose == self.node.as_str()))
    }

    fn effect(&mut self, name: &'static str, body: &str) -> Reply {
        let word_before = |to: &str| {
            let before = body.split_once(&format!(" > {to}")).map_or("", |(before, _)| before);
            before.rsplit("echo ").next().unwrap_or_default().trim_matches('\'').to_owned()
        };
        match name {
            "join" if !(self.identity().is_some_and(|own| body.contains(own)) && body.contains(CA)) => {
                return Reply::fail(
                    1,
                    "error execution phase preflight: couldn't validate the identity of the API Server",
                );
            }
            "admit" => {
                let lines: String = IDENTITIES.split(' ').map(|one| format!("KC-OUT identities={one}\n")).collect();
                return Reply::ok(format!("{lines}KC-OUT ca={CA}\n"));
            }
            "probes" => return Reply::ok("KC-OUT probes=10.96.0.21 10.96.0.22 10.96.0.23\n"),
            "image" => {
                let (_, noted) = body.split_once("mkdir -p /var/lib/kubecamp/images && echo ").unwrap();
                let (image, rest) = noted.split_once(" > ").unwrap();
                let place = rest.split_whitespace().next().unwrap();
                let mark = format!("{place} {image}");
                if body.contains(&format!("[ -e {place} ] ||")) && self.removed.contains(&mark) {
                    return Reply::fail(1, "ctr: image: not found");
                }
                self.removed.remove(&mark);
                // The name is the new one's.
                self.done.retain(|did| !did.starts_with(&format!("{place} ")));
                self.done.insert(mark);
            }
            "baseline" => {
                let claim =
                    body.split_once("\nprintf %s '").and_then(|(_, rest)| rest.split_once('\'')).map_or("", |c| c.0);
                let (name, id) = claim.trim_end().split_once('\n').unwrap_or((claim, ""));
                self.facts.push_str(&format!("lab={name}\nlab.id={id}\n"));
            }
            "reach" => {
                let words = word_before("/run/kubecamp/verified");
                let stamp = words.split_whitespace().next().unwrap_or_default();
                self.facts.push_str(&format!("verified={stamp} {}\n", self.kube_proxy()));
            }
            "ca" => self.facts.push_str("ca=MIIDBTCCAe2gAwIBAgIIK\nca.key=yes\n"),
            "init" => {
                self.facts.push_str("leftover=/etc/kubernetes/admin.conf\nleftover=/etc/kubernetes/kubelet.conf\n")
            }
            // Its configuration has the mode.
            "kube-proxy" => drop(self.done.insert("mode".to_owned())),
            "rules" => {
                self.restarts += 1;
                self.done.remove("reach");
                self.facts.push_str("rules.missing=\n");
            }
            "bridge" => {
                self.done.remove("reach");
                self.facts.push_str("bridge.missing=\n");
            }
            "join" => self.facts.push_str("leftover=/etc/kubernetes/kubelet.conf\njoined=yes\nunit.kubelet=active\n"),
            "forget" => {
                self.done.clear();
                self.removed.clear();
                self.facts.clear();
                return Reply::ok("");
            }
            _ => {}
        }
        self.done.insert(name.to_owned());
        Reply::ok("")
    }

    fn kube_proxy(&self) -> String {
        format!("71:{},", self.restarts)
    }

    fn facts(&self) -> String {
        let n = self.number;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        format!(
            "{}arch=x86_64\ninit=systemd\nhostname=h{n}\nmachine_id=m{n}\nmac=eth0 00:16:3e:00:00:{n:02x}\n\
             addr=eth0 192.0.2.{n}/24\nroute.source=192.0.2.{n}\nmtu=1500\ncores=2\nmemory=4294967296\n\
             disk.total=32212254720\ndisk.free=20000000000\ncgroup=v2\ncgroup.controllers=cpuset cpu io memory pids\n\
             now={now}\nmodule.overlay=yes\nmodule.vxlan=loadable\nmodule.br_netfilter=loadable\nmodule.ip_vs=loadable\nmodule.ip_vs_rr=loadable\nresolver=192.0.2.1\n\
             tool.iptables=yes\ntool.nft=yes\ntool.ipset=yes\ntool.ip=yes\ntool.mount=yes\ntool.systemctl=yes\ntool.flock=yes\n\
             tool.sha256sum=yes\ntool.bash=yes\nkube_proxy={}\n{}end=yes\n",
            self.system.facts(),
            self.kube_proxy(),
            self.facts
        )
    }

    fn scan(&self) -> String {
        let before = "tool\tip\nlink\teth0\n";
        let residues: String = self.residues.iter().map(|l| format!("{l}\n")).collect();
        format!("== before\n{before}== manifest\n== spared\n== now\n{before}{residues}")
    }
}

/// A command's line without the limit that the host itself keeps.
fn unbounded(line: &str) -> String {
    let Some((before, after)) = line.split_once("timeout -k 5 ") else { return line.to_owned() };
    format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start())
}

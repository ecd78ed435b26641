//! A host for tests that change everything: own network, processes, control groups and /run, and layers over the
//! folders that reset works in; nothing of it is seen outside, and all of it goes with its first process.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use async_trait::async_trait;
use kubecamp::{
    core::{NodeId, shell::quote},
    host::Host,
    transport::{Cmd, Exit, Io, LinkError, LocalTransport, Transport},
};

/// The folders whose changes stay inside.
const LAYERED: &str = "/etc /home /usr/local /opt /var/lib /var/log /root /usr/libexec /var/tmp";

/// A process with namespaces of its own.
pub struct Sandbox {
    unshare: Child,
    inside: String,
}

impl Sandbox {
    /// Makes one; needs root, as reset does.
    pub fn start() -> Self {
        let setup = format!(
            "mount -t sysfs sysfs /sys && mount -t tmpfs cgroup /sys/fs/cgroup && mount -t tmpfs run /run && mkdir -p /run/layers /run/lock /run/netns || exit 1\n\
             mount -t tmpfs layers /run/layers || exit 1\n\
             for d in {LAYERED}; do [ -d $d ] || continue; n=/run/layers/$(echo $d | tr / _); mkdir -p $n/up $n/work\n\
             mount -t overlay overlay -o lowerdir=$d,upperdir=$n/up,workdir=$n/work $d || exit 1; done\n\
             rm -rf /etc/kubernetes /etc/cni /opt/cni /opt/kubecamp /var/lib/kubelet /var/lib/kubecamp /var/lib/cni /var/lib/etcd\n\
             mount --bind /proc/sys /proc/sys && mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,ro /proc/sys || exit 1\n\
             ip link set lo up; echo ready; exec sleep 100000"
        );
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &setup])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux");
        let mut line = String::new();
        BufReader::new(unshare.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the sandbox did not come up; it needs root");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let inside = std::fs::read_to_string(children).expect("its first process").trim().to_owned();
        Self { unshare, inside }
    }

    /// The id of its first process, whose namespaces are its own.
    pub fn inside(&self) -> &str {
        &self.inside
    }

    /// A program inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.inside, "-m", "-n", "-p"]).arg(program);
        command
    }

    /// It as a host.
    pub async fn host(&self, node: &NodeId) -> Arc<Host> {
        let link = Inside(self.inside.clone());
        Arc::new(Host::open(node.clone(), Arc::new(link), None).await.expect("root inside"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Its child, process 1 inside, goes with it, and everything inside with that.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

struct Inside(String);

#[async_trait]
impl Transport for Inside {
    async fn exec(&self, cmd: &Cmd, io: Io<'_>) -> Result<Exit, LinkError> {
        let mut cmd = cmd.clone();
        cmd.line = format!("exec nsenter -t {} -m -n -p sh -c {}", self.0, quote(&cmd.line));
        LocalTransport.exec(&cmd, io).await
    }

    async fn close(&self) {}
}

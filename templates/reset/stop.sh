# Stops what runs: kubelet, containers, containerd; works without any of their tools and on frozen or stopped processes.

# Ids of processes whose program is one of these files, also when it was deleted since. Those of a machine that runs
# inside this host have another mount namespace and are not meant.
running() {
  for pattern in "$@"; do find /proc -mindepth 2 -maxdepth 2 -path '/proc/[0-9]*' -name exe -lname "$pattern" 2>/dev/null; done |
    while IFS=/ read -r _ _ pid _; do
      [ "$(readlink "/proc/$pid/ns/mnt")" = "$(readlink /proc/self/ns/mnt)" ] && echo "$pid"
    done
}
shims() {
  grep -lsa containerd-shim /proc/[0-9]*/cmdline | while IFS=/ read -r _ _ pid _; do
    [ "$(readlink "/proc/$pid/ns/mnt")" = "$(readlink /proc/self/ns/mnt)" ] || continue
    tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null | grep -qx "$SOCKET" && echo "$pid"
  done
}
kubelets() { grep -qs kubecamp /etc/systemd/system/kubelet.service || [ ! -e /etc/systemd/system/kubelet.service ] && running '/usr/local/bin/kubelet*'; }
# The pods' control groups: at the top of each hierarchy; deeper ones belong to machines inside this host.
groups() {
  for g in /sys/fs/cgroup/kubepods* /sys/fs/cgroup/*/kubepods*; do
    [ -d "$g" ] || continue
    case $g in /sys/fs/cgroup/*/*) [ -e /sys/fs/cgroup/cgroup.controllers ] && continue ;; esac
    had cgroup "$g" || echo "$g"
  done
}
in_groups() { groups | while read -r g; do find "$g" -name cgroup.procs -exec cat {} + 2>/dev/null; done | grep -vx 0 | sort -u; }
# First processes of our containers as runc noted them; an id may belong to another process by now.
inits() {
  for f in /run/kubecamp/containerd/io.containerd.runtime.v2.task/*/*/init.pid; do
    read -r pid 2>/dev/null < "$f" || [ -n "$pid" ] || continue
    grep -qs kubecamp/containerd "/proc/$pid/mountinfo" && echo "$pid"
    pid=
  done 2>/dev/null
}
everything() { { running '/opt/kubecamp/bin/*'; shims; in_groups; inits; } | sort -u; }
# A task in a frozen group dies only once the group is thawed.
thaw() {
  groups | while read -r g; do
    find "$g" -type d | while read -r d; do
      [ ! -w "$d/freezer.state" ] || echo THAWED > "$d/freezer.state"
      [ ! -w "$d/cgroup.freeze" ] || echo 0 > "$d/cgroup.freeze"
    done
    [ ! -w "$g/cgroup.kill" ] || echo 1 > "$g/cgroup.kill"
  done 2>/dev/null
}
unit_on() { has systemctl && timeout 10 systemctl -q is-active "$1" 2>/dev/null; }

kubelet_left() { { grep -qs kubecamp /etc/systemd/system/kubelet.service && { unit_on kubelet || timeout 10 systemctl -q is-enabled kubelet; }; } || [ -n "$(kubelets)" ]; }
stop_kubelet() {
  grep -qs kubecamp /etc/systemd/system/kubelet.service && stop_unit kubelet
  i=0
  while k=$(kubelets) && [ -n "$k" ] && [ $i -lt 50 ]; do kill -9 $k 2>/dev/null; i=$((i + 1)); sleep 0.1; done
  true
}

# kubeadm reset deletes whole folders: only where they are ours, and only while containerd answers.
kubeadm_helps() {
  [ -x /usr/local/bin/kubeadm ] && [ -S "$SOCKET" ] && [ -e /etc/kubernetes/kubelet.conf ] && unit_on kubecamp-containerd || return 1
  [ ! -e /var/lib/etcd/member ] || ! had path /var/lib/etcd || return 1
  grep -qsx "tree${TAB}absent${TAB}/etc/kubernetes" "$KC/manifest" && grep -qsx "tree${TAB}absent${TAB}/var/lib/kubelet" "$KC/manifest"
}
run_kubeadm() {
  timeout -k 5 45 /usr/local/bin/kubeadm reset --force --cri-socket "unix://$SOCKET" --skip-phases preflight,remove-etcd-member 2>&1 | tail -n 20
  # It may have been killed half-way; everything it does is done again below.
  rm -f /etc/kubernetes/kubelet.conf
}

containers_left() { unit_on kubecamp-containerd || [ -n "$(everything)" ]; }
stop_containers() {
  stop_unit kubecamp-containerd
  i=0
  while left=$(everything) && [ -n "$left" ] && [ $i -lt 60 ]; do
    kill -9 $left 2>/dev/null
    thaw
    i=$((i + 1)); sleep 0.1
  done
  for pid in $left; do echo "kubecamp: process $pid does not die: $(tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline")"; done
}

mounts() { mounts_under /var/lib/kubelet /run/kubecamp /var/lib/kubecamp/containerd; }
mounts_left() { [ -n "$(mounts)$(groups)" ]; }
unmount_all() {
  for round in 1 2 3; do [ -n "$(mounts)" ] && unmount_under /var/lib/kubelet /run/kubecamp /var/lib/kubecamp/containerd; done
  if has systemctl && groups | grep -q '\.slice$'; then timeout 20 systemctl stop kubepods.slice 2>/dev/null; fi
  groups | while read -r g; do find "$g" -depth -type d -exec rmdir {} + 2>/dev/null; done
  for u in kubelet kubecamp-containerd; do
    for g in /sys/fs/cgroup/system.slice/$u.service /sys/fs/cgroup/*/system.slice/$u.service; do
      [ ! -d "$g" ] || find "$g" -depth -type d -exec rmdir {} + 2>/dev/null
    done
  done
  true
}

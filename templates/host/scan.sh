# A host's state as sorted lines `kind<TAB>thing`: taken before the first change and compared after a reset. Reads only.
LC_ALL=C; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL PATH
say() { while IFS= read -r line; do printf '%s\t%s\n' "$1" "$line"; done; }
{
  # Files and folders where Kubernetes and its friends put things.
  for d in /etc/kubernetes /etc/kubecamp /etc/cni /opt/cni /opt/kubecamp /opt/containerd /etc/containerd /var/lib/kubelet /var/lib/etcd \
    /var/lib/cni /var/lib/calico /var/lib/dockershim /run/flannel /run/kubecamp /run/kubernetes /var/log/pods /var/log/containers /root/.kube; do
    [ -e "$d" ] && find "$d" -xdev -maxdepth 3 2>/dev/null | head -n 400 | say path
  done
  find /usr/local/bin /usr/local/sbin /etc/systemd/system /etc/sysctl.d /etc/modules-load.d /var/tmp/kubecamp* -xdev 2>/dev/null | say path
  [ -e /etc/crictl.yaml ] && echo /etc/crictl.yaml | say path
  for f in /etc/hosts /etc/fstab /etc/sysctl.conf /etc/passwd /etc/group /etc/resolv.conf /etc/crictl.yaml; do
    [ -r "$f" ] && sha256sum "$f" 2>/dev/null | say content
  done
  find /usr/local/bin /opt/cni/bin /etc/cni /etc/sysctl.d /etc/modules-load.d /etc/systemd/system -xdev -type f 2>/dev/null | head -n 300 | xargs -r sha256sum 2>/dev/null | say content

  # Network: links, addresses, routes, rules, namespaces.
  ip -o link show 2>/dev/null | awk '{sub(":$","",$2); sub("@.*","",$2); print $2}' | say link
  ip -o -4 addr show 2>/dev/null | awk '{print $2, $4}' | say address
  ip -4 route show table all 2>/dev/null | grep -v '^\(local\|broadcast\)' | sed 's/ *$//; s/ expires [0-9]*sec//; s/ linkdown//' | say route
  ip -4 rule show 2>/dev/null | say rule
  ls /run/netns 2>/dev/null | say netns

  # Packet filters: iptables of both kinds, nftables, ipset, ipvs; without counters and handles.
  for t in iptables-legacy-save ip6tables-legacy-save; do
    command -v $t >/dev/null 2>&1 && $t 2>/dev/null | sed -n '/^-A\|^:[^ ]* -/{s/ \[[0-9:]*\]//;p}' | say "$t"
  done
  if command -v nft >/dev/null 2>&1; then
    nft -s list ruleset 2>/dev/null | awk '/^table/{t=$2" "$3; print t; next} /^\t(chain|set|map)/{c=t" "$2; print t" "$1" "$2; next} /^\t\t[^}]/{sub("^\t+",""); if ($0 !~ /^(elements|type|size|flags|timeout|policy)/) print c": "$0}' | say nft
  elif command -v iptables-save >/dev/null 2>&1; then
    for t in iptables-save ip6tables-save; do $t 2>/dev/null | sed -n '/^-A\|^:[^ ]* -/{s/ \[[0-9:]*\]//;p}' | say $t; done
  fi
  command -v ipset >/dev/null 2>&1 && ipset list -n 2>/dev/null | say ipset
  [ -r /proc/net/ip_vs ] && awk 'NR>3 && /^(TCP|UDP|SCTP)/{print $1,$2}' /proc/net/ip_vs | say ipvs

  # What runs: programs of a cluster, their cgroups, mounts and ports.
  for c in /proc/[0-9]*/comm; do
    p=${c%/comm}; read -r name < "$c" 2>/dev/null || continue
    case $name in kube*|containerd*|etcd|flanneld|coredns|pause|runc*) echo "$name $(tr '\0' ' ' < "$p/cmdline" 2>/dev/null | cut -c1-60)";; esac
  done | say process
  find /sys/fs/cgroup -maxdepth 4 -type d \( -name 'kubepods*' -o -name 'kubelet*' -o -name 'kubecamp-containerd*' -o -name 'cri-containerd*' -o -name 'k8s.io' \) 2>/dev/null | say cgroup
  awk '$2 ~ "^/(var/lib/(kubelet|etcd|cni|kubecamp|containerd)|run/(containerd|kubecamp|netns|flannel))"{print $2}' /proc/self/mounts | say mount
  # Ephemeral ports come and go; a cluster's are fixed.
  ss -Hltn 2>/dev/null | awk '{n=$4; sub(".*:","",n); if (n < 32768) print n}' | sort -u | say port

  # Settings: sysctls, swap, units, packages.
  for k in net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv4.conf.all.route_localnet net.bridge.bridge-nf-call-iptables net.bridge.bridge-nf-call-ip6tables \
    net.ipv4.vs.conntrack net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce fs.inotify.max_user_instances fs.inotify.max_user_watches \
    net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_tcp_timeout_established net.netfilter.nf_conntrack_tcp_timeout_close_wait \
    net.netfilter.nf_conntrack_tcp_be_liberal net.ipv4.ip_local_reserved_ports vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes; do
    f=/proc/sys/$(echo "$k" | tr . /); [ -r "$f" ] && echo "$k = $(tr '\t' ' ' < "$f")"
  done | say sysctl
  awk 'NR>1{print $1}' /proc/swaps | say swap
  systemctl list-unit-files --no-legend --no-pager 2>/dev/null | awk '$2=="masked" || $1 ~ /^(kubelet|kubecamp|containerd|docker|swap)/{print $1, $2}' | say unit
  if command -v dpkg-query >/dev/null 2>&1; then dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' 2>/dev/null; else rpm -qa 2>/dev/null; fi | sha256sum | say packages
} | sort -u

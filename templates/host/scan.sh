# A host's state as sorted lines `kind<TAB>thing`: taken before the first change and compared after a reset. Reads only.
# What is listed here is also what reset spares: whatever the first scan saw stays.
LC_ALL=C; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL PATH
say() { while IFS= read -r line; do printf '%s\t%s\n' "$1" "$line"; done; }
have() { command -v "$1" >/dev/null 2>&1 && printf 'tool\t%s\n' "$2"; }
# see COMMAND...: its output in $out. One that fails would hide what it shows: that is a line too. A kernel without the
# feature has nothing to show, nor has a tool that is not installed.
see() {
  out=$("$@" 2>/dev/null); code=$?
  [ $code = 0 ] || [ $code = 127 ] && return
  how="exit code $code"; [ $code -le 128 ] || how="ended by signal $((code - 128))"
  why=$("$@" 2>&1 >/dev/null | head -n 1)
  case $why in *'not supported'*|*"can't initialize"*|*'Cannot open session'*|*'Unable to initialize Netlink'*) return ;; esac
  printf 'failed\t%s: %s %s\n' "$*" "$how" "$why"
}
shown() { [ -z "$out" ] || printf '%s\n' "$out"; }
{
  # The version of this list. Raise it with each thing that is listed more: a record of an earlier one says nothing of that, and
  # reset must not take it for the lab's. `Traces` knows that of settings; a new folder needs the same there and in `had`.
  # The third lists modules, profiles of AppArmor, and where rules were saved.
  printf 'scan\t3\n'
  # What is in the kernel alone goes with the next start.
  printf 'boot\t%s\n' "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
  # Files and folders where Kubernetes and its friends put things.
  for d in /etc/kubernetes /etc/kubecamp /etc/cni /opt/cni /opt/kubecamp /opt/containerd /opt/nri /etc/containerd /etc/nri /etc/cdi \
    /var/lib/kubelet /var/lib/etcd /var/lib/cni /var/lib/calico /var/lib/dockershim /run/flannel /run/kubecamp /run/kubernetes /run/nri /run/cdi \
    /var/log/pods /var/log/containers /usr/libexec/kubernetes /etc/systemd/logind.conf.d; do
    [ -e "$d" ] || continue
    # All that lies right in it, since reset takes what is not known from before; below that only as much as is worth reading.
    find "$d" -xdev -maxdepth 1 2>/dev/null
    find "$d" -xdev -mindepth 2 -maxdepth 3 2>/dev/null | sort | head -n 400
  done | say path
  for d in /root/.kube /run/containerd; do [ -e "$d" ] && find "$d" -xdev -maxdepth 1 2>/dev/null; done | say path
  for d in /lib/modules /etc/ssl/certs /etc/crictl.yaml /var/lib/kubecamp.gone; do [ -e "$d" ] && echo "$d"; done | say path
  # A run's own locks are there as long as it runs; it removes them, and proves that, after the last scan.
  find /run/kubecamp.lock -mindepth 1 2>/dev/null | grep -vx '/run/kubecamp\.lock/\(run\|run.who\|run.pid\|step\|upload\)' | say path
  find /usr/local/bin /usr/local/sbin /etc/systemd/system /etc/sysctl.d /etc/modules-load.d -xdev 2>/dev/null | say path
  for f in /etc/hosts /etc/fstab /etc/sysctl.conf /etc/passwd /etc/group /etc/crictl.yaml; do [ -r "$f" ] && sha256sum "$f" 2>/dev/null; done | say content
  grep -qs '^# kubecamp begin' /etc/hosts && printf 'block\t/etc/hosts\n'
# Other programs in /usr/local may be huge, and nobody here replaces them: their names are enough.
  {
    find /opt/cni/bin /etc/cni /etc/sysctl.d /etc/modules-load.d /etc/systemd/system -xdev -type f 2>/dev/null
    find /usr/local/bin \( -name 'kube*' -o -name crictl -o -name ctr -o -name 'containerd*' -o -name runc \) -type f 2>/dev/null
  } | sort | head -n 300 | tr '\n' '\0' | xargs -0 -r sha256sum 2>/dev/null | say content

  # Network: links, addresses, routes, rules, namespaces.
  for l in /sys/class/net/*; do
    n=${l##*/}; [ -L "$l" ] || continue
    case $n in
      veth*) m=$(readlink "$l/master"); echo "$n"; [ -z "$m" ] || printf '%s in %s\n' "$n" "${m##*/}" ;;
      *) echo "$n" ;;
    esac
  done | say link
  see ip -o -4 addr show; shown | awk '{print $2, $4}' | say address
  see ip -4 route show table all; shown | grep -v '^\(local\|broadcast\)' | sed 's/ expires [0-9]*sec//; s/ linkdown//; s/ *$//' | say route
  see ip -4 rule show; shown | say rule
  ls /run/netns 2>/dev/null | say netns

  # Packet filters: iptables of both kinds, nftables, ipset, ipvs; without counters and handles.
  nft='iptables-nft-save ip6tables-nft-save'
  command -v iptables-nft-save >/dev/null 2>&1 || nft='iptables-save ip6tables-save'
  if have nft nft; then
    nft=
    see nft -s list ruleset; shown | awk '
      /^table/ { t = $2 " " $3; print t; next }
      /^\t(chain|set|map|flowtable)/ { what = $1; c = t " " $1 " " $2; print c; next }
      /^\t\ttype .* hook .* policy (drop|accept);/ { if (/policy drop;/) print c ": policy drop"; next }
      /^\t\t[^}]/ && what == "chain" { sub("^\t+", ""); if ($0 !~ /^type .* hook /) print c ": " $0 }' | say nft
  fi
  for t in iptables-legacy-save ip6tables-legacy-save $nft; do
    have $t $t && see $t && shown | sed 's/ \[[0-9:]*\]$//' | awk '/^\*/ { table = substr($0, 2) } /^-A/ || /^:[^ ]* -$/ || (/^:/ && $2 != "ACCEPT") { print table " " $0 }' | say "$t"
  done
  saved_rules | say saved
  have ipset ipset && see ipset list -n && shown | say ipset
  awk 'NR > 3 && /^(TCP|UDP|SCTP)/ {print $1, $2}' /proc/net/ip_vs 2>/dev/null | say ipvs

  # What runs: programs of a cluster, their cgroups, mounts and ports; not those of machines inside this host.
  grep -sEl '^(kubelet|kube-apiserver|kube-controller|kube-scheduler|kube-proxy|etcd|flanneld|coredns|pause|containerd.*|runc.*)$' /proc/[0-9]*/comm |
    while IFS=/ read -r _ _ pid _; do
      grep -qs '/lxc\|/machine\|/docker\|/libpod' "/proc/$pid/cgroup" && continue
      # The dead that nobody has reaped have no command line.
      line=$(tr '\0' ' ' 2>/dev/null < "/proc/$pid/cmdline" | cut -c1-200); [ -n "$line" ] || continue
      read -r name 2>/dev/null < "/proc/$pid/comm" && echo "$name $line"
    done | say process
  find /sys/fs/cgroup -maxdepth 4 \( -name 'lxc*' -o -name 'machine*' -o -name 'docker*' -o -name 'libpod*' -o -name 'incus*' \) -prune -o \
    -type d \( -name 'kubepods*' -o -name 'kubelet*' -o -name 'kubecamp-*' -o -name 'cri-containerd*' \) -print 2>/dev/null | say cgroup
  awk '$2 ~ "^/(var/lib/(kubelet|etcd|cni|kubecamp|containerd)|run/(containerd|kubecamp|netns|flannel))" {print $2}' /proc/self/mounts | say mount
  # Ephemeral ports come and go; a cluster's are fixed.
  ss -Hltn 2>/dev/null | awk '{n = $4; sub(".*:", "", n); if (n < 32768) print n}' | sort -u | say port

  # Settings: sysctls, swap, units, packages.
  (cd /proc/sys && grep -s -H '' net/ipv4/ip_forward net/ipv4/conf/all/forwarding net/ipv4/conf/all/route_localnet net/bridge/bridge-nf-call-iptables net/bridge/bridge-nf-call-ip6tables \
    net/ipv4/vs/conntrack net/ipv4/vs/conn_reuse_mode net/ipv4/vs/expire_nodest_conn net/ipv4/vs/expire_quiescent_template \
    net/ipv4/conf/all/arp_ignore net/ipv4/conf/all/arp_announce net/ipv4/ip_local_reserved_ports fs/inotify/max_user_instances fs/inotify/max_user_watches \
    net/netfilter/nf_conntrack_max net/netfilter/nf_conntrack_buckets net/netfilter/nf_conntrack_tcp_timeout_established net/netfilter/nf_conntrack_tcp_timeout_close_wait \
    net/netfilter/nf_conntrack_tcp_be_liberal vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes) |
    sed 's/:/ = /; y/\/\t/. /' | say sysctl
  awk '{print $1}' /proc/modules 2>/dev/null | say module
  awk '$1 ~ /^cri-containerd/ {print $1}' /sys/kernel/security/apparmor/profiles 2>/dev/null | say apparmor
  awk 'NR > 1 {print $1}' /proc/swaps | say swap
  find /etc/systemd/system /run/systemd/system -maxdepth 1 -lname /dev/null -printf '%f masked\n' 2>/dev/null | say unit
  for d in /usr/lib/systemd/system /lib/systemd/system; do
    [ -L "${d%/systemd/system}" ] || find "$d" -maxdepth 1 \( -name 'kubelet*' -o -name 'containerd*' -o -name 'docker*' \) -printf '%f\n' 2>/dev/null
  done | sort -u | say unit
  if command -v dpkg-query >/dev/null 2>&1; then dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' 2>/dev/null; else rpm -qa 2>/dev/null; fi | sha256sum | say packages
} | sort -u

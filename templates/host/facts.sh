# Facts of a host as lines `key=value`; reads only. Works with and without root, with dash, busybox and bash.
p() { printf '%s=%s\n' "$1" "$2"; }
# By the shell itself: a program costs a busy host milliseconds to start.
read_first() { first=; { IFS= read -r first < "$1" || [ -n "$first" ]; } 2>/dev/null && printf '%s\n' "$first"; }
has() { command -v "$1" >/dev/null 2>&1; }
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
lab=/var/lib/kubecamp/lab

# name_server_answers ADDRESS PORT: asked for localhost, which it knows without asking others; any answer will do. Twice,
# since UDP loses.
name_server_answers() {
  timeout 3 bash -c 'exec 3<>"/dev/udp/$0/$1" || exit 1; for try in 1 2; do printf "kc\1\0\0\1\0\0\0\0\0\0\11localhost\0\0\1\0\1" >&3; [ "$(timeout 1 head -c 1 <&3)" != k ] || exit 0; done; exit 1' "$1" "$2" </dev/null >/dev/null 2>&1
}
# The name servers that pods get: kubeadm takes systemd-resolved's own list where that runs. Asked beside all that follows.
conf=/etc/resolv.conf
if has systemctl && systemctl -q is-active systemd-resolved 2>/dev/null && [ -e /run/systemd/resolve/resolv.conf ]; then conf=/run/systemd/resolve/resolv.conf; fi
servers=$(awk '/^nameserver/{print $2}' $conf 2>/dev/null)
asked=
if [ ! -e $lab ] && has bash && has timeout; then
  for s in $(echo "$servers" | head -n 3); do
    case $s in 127.* | ::1) continue ;; esac
    name_server_answers "$s" 53 &
    asked="$asked $!:$s"
  done
fi

if [ -r /etc/os-release ]; then
  p os.id "$(. /etc/os-release; echo "$ID")"
  p os.like "$(. /etc/os-release; echo "$ID_LIKE")"
  p os.version "$(. /etc/os-release; echo "$VERSION_ID")"
  p os.name "$(. /etc/os-release; echo "$PRETTY_NAME")"
fi
p arch "$(uname -m)"
p kernel "$(uname -r)"
p hostname "$(uname -n)"
p uid "$(id -u)"
p init "$(read_first /proc/1/comm)"
if has systemd-detect-virt; then p virt "$(systemd-detect-virt 2>/dev/null)"; fi
if has systemd-detect-virt && systemd-detect-virt -cq; then p container yes; else p container no; fi
p machine_id "$(read_first /etc/machine-id)"
p product_uuid "$(cat /sys/class/dmi/id/product_uuid 2>/dev/null)"
p now "$(date +%s.%N)"
p uptime "$(cut -d' ' -f1 /proc/uptime)"

# Cores and memory that the host may use: the limits of its cgroup where it is a container.
cores=$(nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)
memory=$(( $(awk '/^MemTotal:/{print $2}' /proc/meminfo) * 1024 ))
for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do
  limit=$(read_first "$f"); case $limit in ''|max) ;; *[!0-9]*) ;; *) [ ${#limit} -lt 16 ] && [ "$limit" -lt "$memory" ] && memory=$limit ;; esac
done
p cores "$cores"
p memory "$memory"
# mawk of Debian 12 prints large products as 3.6e+10.
# Of the file system that images and the cluster's state come to lie on.
p disk.total "$(df -P -k /var/lib | awk 'NR==2{printf "%.0f", $2*1024}')"
p disk.free "$(df -P -k /var/lib | awk 'NR==2{printf "%.0f", $4*1024}')"
awk 'NR>1{n+=$3; on=on $1 " "} END{printf "swap=%.0f\nswap.on=%s\n", n*1024, on}' /proc/swaps

if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  p cgroup v2; p cgroup.controllers "$(read_first /sys/fs/cgroup/cgroup.controllers)"
else
  p cgroup v1; p cgroup.controllers "$(awk '$3 ~ /^cgroup$/{n=$2; sub(".*/","",n); printf "%s ", n}' /proc/self/mounts)"
fi
caps=$(awk '/^CapBnd:/{print $2}' /proc/1/status)
p caps "$caps"
p nofile "$(ulimit -Hn)"
for t in iptables nft ipset conntrack ip mount modprobe tar gzip zstd sha256sum flock systemctl socat ethtool curl bash setpriv; do has $t && p "tool.$t" yes; done
p iptables.version "$(iptables --version 2>/dev/null)"

# Addresses: one line per global IPv4 address; the default route's source is the one other hosts see.
ip -o -4 addr show scope global 2>/dev/null | awk '{a=$4; if (a !~ /\//) a=a "/32"; print "addr=" $2 " " a}'
p route.source "$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n1)"
p mtu "$(cat /sys/class/net/$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n1)/mtu 2>/dev/null)"
for l in /sys/class/net/*; do
  n=${l##*/}; case $n in lo|veth*|cni0|flannel*|kube-*|docker*|br-*|kcbr*) continue;; esac
  [ -e "$l/device" ] || [ "$(read_first "$l/type")" = 1 ] && p mac "$n $(read_first "$l/address")"
done
# Only what is reached without a gateway.
ip -4 route show 2>/dev/null | awk '($1 ~ /^[0-9]/ || $1 == "default") && $2 == "dev"{print "route=" ($1 == "default" ? "0.0.0.0/0" : $1) " " $3}'

# Listening TCP ports that Kubernetes wants, with their program where we may see it, and the UDP ports.
if has ss; then
  ss -Hltnp 2>/dev/null | awk '{n=$4; sub(".*:","",n); print "listen=" n " " $6}' | sort -u
  [ -e $lab ] || ss -Hlun 2>/dev/null | awk '{n=$4; sub(".*:","",n); print "listen.udp=" n}' | sort -u
fi

# A firewall of the host itself, by the name of whoever drives it. Rules that end in one which turns all else away are
# those of some clouds' images and of Red Hat's iptables-services; docker's and libvirt's name a link. Rules of iptables-legacy
# count beside those that iptables itself shows.
turns_away() { grep -Eq '^(:INPUT DROP .*|-A (INPUT|FORWARD) (-m comment --comment ("[^"]*"|[^ ]*) )?-j (DROP|REJECT)( --reject-with [^ ]*)? *)$'; }
if [ ! -e $lab ]; then
  if has systemctl && systemctl -q is-active firewalld 2>/dev/null; then p firewall firewalld
  elif grep -qsi '^ENABLED=yes' /etc/ufw/ufw.conf; then p firewall ufw
  elif has nft && nft list chains 2>/dev/null | grep -q 'hook input .*policy drop'; then p firewall nftables
  elif has iptables-save && iptables-save 2>/dev/null | turns_away; then p firewall iptables
  elif grep -qs . /proc/net/ip_tables_names && has iptables-legacy-save && iptables-legacy-save 2>/dev/null | turns_away; then p firewall iptables-legacy
  fi
fi
# What an earlier cluster left, and whose. In the kernel a lab's own would be found too.
[ -e $lab ] || in_kernel | head -n 12 | while IFS= read -r left; do p remains "$left"; done
[ -e $lab ] || saved_rules | while IFS= read -r file; do p saved "$file"; done
# Virtual servers of others, as keepalived's: those of a lab would be found too.
[ -e $lab ] || [ ! -r /proc/net/ip_vs ] || p ipvs.foreign "$(awk 'NR > 3 && /^(TCP|UDP|SCTP|FWM)/ {n++} END {print n + 0}' /proc/net/ip_vs)"
for f in /etc/kubernetes/kubelet.conf /etc/kubernetes/admin.conf /etc/kubernetes/manifests/etcd.yaml /var/lib/etcd/member /var/lib/kubelet/config.yaml /etc/cni/net.d /opt/cni/bin /var/lib/rancher /etc/rancher /var/snap/microk8s /var/lib/k0s; do
  if [ -d "$f" ]; then [ -n "$(ls -A "$f" 2>/dev/null)" ] && p leftover "$f"; elif [ -e "$f" ]; then p leftover "$f"; fi
done
[ -s /etc/kubernetes/kubelet.conf ] && [ -e /var/lib/kubelet/pki/kubelet-client-current.pem ] && [ -s /var/lib/kubelet/kubeadm-flags.env ] && [ ! -e /etc/kubernetes/bootstrap-kubelet.conf ] && p joined yes
p resolv.conf "$conf"
# The address at which its kubelet was told to be reached.
[ -e $lab ] && read_first /var/lib/kubelet/kubeadm-flags.env >/dev/null && case $first in *--node-ip=*) first=${first##*--node-ip=}; p node.ip "${first%%[!0-9.]*}" ;; esac
# The certificate authorities that this node trusts, each by the line of its certificate that has the serial number, and
# whether it can sign: one that is being replaced is in the file beside the new one.
[ -s /etc/kubernetes/pki/ca.crt ] && awk '/^-----BEGIN CERT/{getline; print "ca=" $0}' /etc/kubernetes/pki/ca.crt
[ -s /etc/kubernetes/pki/ca.key ] && p ca.key yes
[ -e /var/lib/kubecamp/drained ] && p drained yes
# The network of its own pods, by the address that they know this host by.
[ -e $lab ] && [ -r /run/flannel/subnet.env ] && while IFS== read -r key value; do
  [ "$key" != FLANNEL_SUBNET ] || p pods "$value"
done < /run/flannel/subnet.env
[ -s /var/lib/kubecamp/before ] && p recorded yes
p lab "$(read_first /var/lib/kubecamp/lab)"
p lab.id "$(sed -n 2p /var/lib/kubecamp/lab 2>/dev/null)"
# A proof that the lab works holds no longer than the boot and the kube-proxy that it was made with.
p verified "$(read_first /run/kubecamp/verified)"
runs=$(kube_proxy)
p kube_proxy "$runs"
# Rules that somebody flushed: kube-proxy does not miss its table of nftables before something else changes. The mode is that
# of its own configuration. Before it runs, nothing is asked.
for f in /var/lib/kubelet/pods/*/volumes/kubernetes.io~configmap/kube-proxy/config.conf; do
  [ -n "$runs" ] && [ -r "$f" ] || continue
  while IFS= read -r line; do
    case $line in 'mode: '*) rules_are_there "${line#mode: }" </dev/null || p rules.missing yes ;; esac
  done < "$f"
done
# Pods whose bridge somebody deleted: the next pod makes it again, and theirs hang loose even then. Only links that the CNI
# plugins gave to pods of that bridge are looked at: others make veths too.
if [ -e $lab ]; then
  for l in $(grep -hs '"cni0"' /var/lib/cni/results/* | grep -o '"veth[0-9a-f]*"' | tr -d '"'); do
    if [ -e "/sys/class/net/$l" ] && [ ! -e "/sys/class/net/$l/master" ]; then p bridge.missing yes; break; fi
  done
fi
# Activating is also what systemd starts again and again: a packaged kubelet without its configuration, or a lab's own
# that cannot run.
for u in kubelet containerd docker crio k3s k3s-agent; do
  s=$(systemctl is-active $u 2>/dev/null)
  [ "$u $s" != 'kubelet active' ] || kubelet_runs || s=activating
  case $s in active | reloading) p "unit.$u" active ;; activating) p "unit.$u" activating ;; esac
done
# Unit files and drop-ins of a kubelet that is not ours, and the package that brought each: a drop-in wins over our unit.
for d in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
  case $d in /lib/*) [ -L /lib ] && continue ;; esac
  for f in "$d/kubelet.service" "$d"/kubelet.service.d/*.conf; do
    { [ -e "$f" ] || [ -L "$f" ]; } && ! grep -qs kubecamp "$f" || continue
    by=
    if has dpkg-query; then by=$(dpkg-query -S "$f" 2>/dev/null || dpkg-query -S "${f#/usr}" 2>/dev/null); by=${by%%:*}
    elif has rpm; then by=$(rpm -qf --qf '%{NAME}' "$f" 2>/dev/null) || by=
    fi
    p kubelet "$f $by"
  done
done
has docker && p tool.docker yes
[ -e /run/containerd/containerd.sock ] && p containerd.socket yes
for s in $servers; do p resolver "$s"; done
# Without this list, as in a container, nobody can tell what the kernel has built in.
[ -r "/lib/modules/$(uname -r)/modules.builtin" ] && p modules.listed yes
for m in br_netfilter overlay ip_vs ip_vs_rr nf_conntrack vxlan; do
  if [ -d "/sys/module/$m" ] || grep -qsw "$m" "/lib/modules/$(uname -r)/modules.builtin" || grep -qs "^${m} " /proc/modules; then p "module.$m" yes
  elif [ "$(id -u)" = 0 ] && has modprobe && modprobe -n "$m" >/dev/null 2>&1; then p "module.$m" loadable; fi
done
[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] && p module.br_netfilter yes
grep -qsw overlay /proc/filesystems && p module.overlay yes
[ -e /proc/net/ip_vs ] && p module.ip_vs yes
[ -w /proc/sys/net/ipv4/ip_forward ] && p sysctl.writable yes
# What `sysctl --system` sets after all else: number of the line, key, value.
[ -r /etc/sysctl.conf ] && awk -F= '/^[ \t]*[^#; \t]/ && NF > 1 {
  key = $1; value = $2; gsub(/[ \t]/, "", key); sub(/^-/, "", key); gsub("/", ".", key); gsub(/[ \t\r]/, "", value)
  if (key ~ /^(net[.]ipv4[.]ip_forward|net[.]bridge[.]bridge-nf-call-ip6?tables|fs[.]inotify[.]max_user_(instances|watches))$/) print NR, key, value
}' /etc/sysctl.conf 2>/dev/null | while IFS= read -r s; do p setting "$s"; done
[ -w /proc/sys/net/netfilter/nf_conntrack_max ] && p conntrack.writable yes
[ -e /dev/kmsg ] && p kmsg yes
for one in $asked; do wait "${one%%:*}" || p silent "${one#*:}"; done
p end yes

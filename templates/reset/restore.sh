# Puts files, folders, units, settings and modules back as the manifest says they were; without a manifest, by the
# built-in list of what `up` makes. Everything may have been done already by an earlier run.
PLUGINS='bandwidth bridge dhcp dummy firewall flannel host-device host-local ipvlan loopback macvlan portmap ptp sbr static tap tuning vlan vrf LICENSE README.md'

# --- what `up` makes, for hosts whose manifest is lost; the kinds of the manifest, first made first.
builtin() {
  for d in /etc/cni /etc/cni/net.d /opt/cni /opt/cni/bin /opt/kubecamp /opt/kubecamp/bin /etc/kubecamp /etc/kubecamp/cni /etc/kubecamp/cni/net.d; do printf 'dir\tabsent\t%s\n' $d; done
  for d in /var/lib/kubelet /var/lib/cni /etc/kubernetes $(etcd) /opt/kubecamp /etc/kubecamp; do printf 'tree\tabsent\t%s\n' $d; done
  for p in $PLUGINS; do printf 'file\tabsent\t/opt/cni/bin/%s\n' $p; done
  # Earlier versions put their CNI configuration into /etc/cni/net.d, and their settings into 90-kubecamp.conf.
  for f in /usr/local/bin/kubeadm /usr/local/bin/kubelet /usr/local/bin/kubectl /usr/local/bin/crictl /etc/crictl.yaml /root/.kube/config \
    /etc/cni/net.d/10-kubecamp.conflist /etc/sysctl.d/99-zz-kubecamp.conf /etc/sysctl.d/90-kubecamp.conf /etc/modules-load.d/kubecamp.conf \
    /etc/systemd/system/kubecamp-containerd.service /etc/systemd/system/kubecamp-routes.service /etc/systemd/system/kubelet.service; do
    printf 'file\tabsent\t%s\n' $f
  done
  for u in kubecamp-containerd kubelet kubecamp-routes; do printf 'unit\tabsent\t%s\n' $u; done
  printf 'block\tabsent\t/etc/hosts\n'
}
# A program of somebody else under one of those names, when nothing says that we put it there.
foreign() {
  had path "$1" && return 0
  case $1 in
    /etc/systemd/system/kubelet.service | /etc/crictl.yaml) [ -e "$1" ] && ! grep -qs 'kubecamp' "$1" ;;
    /root/.kube/config) [ -e "$1" ] && ! grep -qs '^# kubecamp: a copy of ' "$1" ;;
    *) return 1 ;;
  esac
}
# A last line that a full disk cut off is of nothing that was done, and may name a folder above what it was about.
whole_lines() { if [ -z "$(tail -c 1 "$KC/manifest" 2>/dev/null)" ]; then cat "$KC/manifest" 2>/dev/null; else sed '$d' "$KC/manifest"; fi; }
manifest() {
  if [ -s "$KC/manifest" ] && ! whole_lines | grep -qv "^[a-z]*$TAB.*$TAB."; then whole_lines
  else
    # A torn line or none: what can be read outranks the list.
    builtin | while IFS= read -r line; do
      thing=${line##*"$TAB"}; kind=${line%%"$TAB"*}
      whole_lines | grep -q "^$kind$TAB.*$TAB$thing\$" || foreign "$thing" || printf '%s\n' "$line"
    done
    whole_lines | grep "^[a-z]*$TAB.*$TAB."
  fi
}
backwards() { awk '{ line[NR] = $0 } END { for (i = NR; i; i--) print line[i] }'; }
each() { # each FUNCTION: calls it with KIND BEFORE THING, last made first
  manifest | backwards | while IFS= read -r line; do
    rest=${line#*"$TAB"}
    "$1" "${line%%"$TAB"*}" "${rest%%"$TAB"*}" "${rest#*"$TAB"}"
  done
}

same() { # same A B: type, mode, owner and content
  [ "$(stat -c '%F %a %u %g' "$1" 2>/dev/null)" = "$(stat -c '%F %a %u %g' "$2" 2>/dev/null)" ] || return 1
  if [ -L "$1" ]; then [ "$(readlink "$1")" = "$(readlink "$2")" ]; else cmp -s "$1" "$2"; fi
}
shared_folder() { case $1 in /etc/cni | /etc/cni/* | /opt/cni | /opt/cni/*) return 0 ;; *) return 1 ;; esac; }
has_block() { grep -qs '^# kubecamp \(begin\|end\)$' "$1"; }
# as_recorded FILE: whether nobody changed it, as far as the record tells, or it is known that others did.
as_recorded() {
  [ -s "$KC/before" ] && [ -e "$1" ] || return 0
  had content "$(sha256sum < "$1" | cut -d' ' -f1)  $1" || grep -qsxF "content$TAB$1" "$KC/spared"
}

# What a write or an upload that was cut off left beside the file.
parts() { for p in "$1.kc-part" "$1".kc-part.*; do { [ -e "$p" ] || [ -L "$p" ]; } && ! had path "$p" && echo "$p"; done; }
remove_parts() { parts "$1" | while IFS= read -r p; do rm -f "$p"; done; }

# left KIND BEFORE THING: prints it when it is not as it was.
left() {
  case $1 in file | block) [ -z "$(parts "$3")" ] || echo "$1 $3" ;; esac
  case $1 in
    file) case $2 in
        kept:*) [ ! -e "$KC/kept/${2#kept:}" ] && [ ! -L "$KC/kept/${2#kept:}" ] || same "$KC/kept/${2#kept:}" "$3" ;;
        *) [ ! -e "$3" ] && [ ! -L "$3" ] ;;
      esac || echo "$1 $3" ;;
    dir) [ ! -d "$3" ] || [ -n "$(ls -A "$3")" ] || echo "$1 $3" ;;
    tree) if shared_folder "$3"; then [ ! -d "$3" ] || [ -n "$(find "$3" ! -type d | head -n 1)" ]; else [ ! -e "$3" ]; fi || echo "$1 $3" ;;
    block) { ! has_block "$3" && as_recorded "$3"; } || echo "$1 $3" ;;
    unit) [ -z "$(unit_files "$3")" ] || echo "$1 $3" ;;
  esac
}
# Our unit's file, and the links that switch it on: those that were there before are somebody else's, and come back by
# entries of their own where they were replaced.
unit_files() {
  for f in "/etc/systemd/system/$1.service" /etc/systemd/system/*.wants/"$1.service"; do
    { [ -e "$f" ] || [ -L "$f" ]; } && ! had path "$f" && echo "$f"
  done
}
# By what its file says; a user may have deleted that, and then nobody else may have had one of this name.
our_unit() { grep -qs kubecamp "/etc/systemd/system/$1.service" || ! grep -qs "^\(path\|unit\)$TAB\(.*/\)\{0,1\}$1\.service" "$KC/before"; }

give_back() {
  case $1 in
    file) restore_file "$2" "$3" ;;
    dir) [ ! -d "$3" ] || rmdir "$3" 2>/dev/null ;;
    tree) if shared_folder "$3"; then [ ! -d "$3" ] || find "$3" -xdev -depth -type d -empty -delete 2>/dev/null; else remove_tree "$3"; fi ;;
    block) remove_block "$2" "$3" ;;
    unit) ! our_unit "$3" || stop_unit "$3"; unit_files "$3" | while IFS= read -r f; do rm -f "$f"; done ;;
  esac
  true
}
restore_file() {
  remove_parts "$2"
  case $1 in
    kept:*) kept=$KC/kept/${1#kept:}
      if [ ! -e "$kept" ] && [ ! -L "$kept" ]; then echo "kubecamp: the kept copy of $2 is gone"; return; fi
      same "$kept" "$2" && return
      mkdir -p "$(dirname "$2")" && cp -a "$kept" "$2.kc-part" && mv -fT "$2.kc-part" "$2" ;;
    *) [ -d "$2" ] && [ ! -L "$2" ] || rm -f "$2" ;;
  esac
}
remove_block() {
  remove_parts "$2"
  # A write in place that was cut off leaves an empty file: that is nobody's wish.
  if [ -e "$2" ] && [ ! -s "$2" ] && [ "$1" != absent ] && [ -s "$KC/kept/${1#kept:}" ]; then cat "$KC/kept/${1#kept:}" > "$2"; fi
  ! has_block "$2" || take_block "$1" "$2"
  # Others may have written it whole, as cloud-init does at each start: nothing of ours is in it then.
  as_recorded "$2" || [ ! -s "$2" ] || spare content "$2" 'edited by others since'
}
# The file may be a bind mount, so it is written in place; its last bytes are those of the kept copy or, without one,
# whichever ending has the digest of the record.
take_block() {
  rest=$(kc_without_block "$2" "$NODES") || return 0
  kept=$KC/kept/${1#kept:}
  if [ "$1" != absent ] && [ -e "$kept" ]; then
    if [ "$(cat "$kept")" = "$rest" ]; then cat "$kept" > "$2"; return; fi
  else
    for end in '\n' '' '\n\n' '\n\n\n'; do
      sum=$({ printf %s "$rest"; printf "$end"; } | sha256sum | cut -d' ' -f1)
      if had content "$sum  $2"; then { printf %s "$rest"; printf "$end"; } > "$2"; return; fi
    done
  fi
  printf '%s\n' "$rest" > "$2"
  if [ -s "$KC/before" ] || [ "$1" != absent ]; then spare content "$2" 'edited by others since'; fi
}
files_left() { [ -n "$(each left)" ]; }
# Of pods that were killed, where the folder was there before the lab. Once the images are gone nothing tells whose they are.
results() { for r in /var/lib/cni/results/* /var/lib/cni/cache/results/*; do [ -f "$r" ] && of_pod "${r##*/}" && ! had path "$r" && echo "$r"; done; }
# The gigabytes go first: into a full disk no file could be put back.
free_images() { results | while IFS= read -r r; do rm -f "$r"; done; for d in "$KC/containerd" "$KC/incoming"; do had path "$d" || remove_tree "$d"; done; }
restore_files() {
  free_images
  each give_back
  if has systemctl; then timeout 30 systemctl daemon-reload 2>/dev/null; timeout 10 systemctl reset-failed kubelet.service kubecamp-containerd.service kubecamp-routes.service 2>/dev/null; fi
  true
}

# --- what programs of the cluster make by themselves
# Folders that were there before keep what was in them.
made() {
  results
  for d in /run/flannel /run/kubernetes /run/kubecamp /var/log/pods /var/log/containers /opt/kubecamp /etc/kubecamp $(etcd) \
    /var/lib/kubelet /etc/kubernetes /usr/libexec/kubernetes /var/lib/kubecamp/containerd /var/lib/kubecamp/incoming; do
    if had path "$d"; then for e in "$d"/* "$d"/.[!.]*; do { [ -e "$e" ] || [ -L "$e" ]; } && ! had path "$e" && echo "$e"; done
    elif [ -e "$d" ]; then echo "$d"; fi
  done
  for e in /var/lib/cni/networks/kubecamp /var/lib/cni/networks/cni0 /var/lib/cni/flannel /var/lib/cni/results/kubecamp-* /var/lib/cni/cache/results/kubecamp-* \
    /root/.kube/cache /etc/systemd/logind.conf.d/99-kubelet.conf /var/tmp/kubecamp.*; do
    { [ -e "$e" ] || [ -L "$e" ]; } && ! had path "$e" && echo "$e"
  done
  # A containerd of the user's uses these too.
  [ -S /run/containerd/containerd.sock ] || for e in /run/containerd /run/nri; do [ -e "$e" ] && ! had path "$e" && echo "$e"; done
}
# Folders to be removed if they are empty and were not there. Where the record is lost, only what a containerd alone makes, and none
# of the user's runs.
may_be_ours() { [ -s "$KC/before" ] || { [ "$1" = /opt/containerd ] && [ ! -S /run/containerd/containerd.sock ]; }; }
hollow() {
  for d in /var/lib/cni /root/.kube /opt/containerd /opt/nri /etc/nri /etc/cdi /run/cdi /etc/cni /opt/cni /usr/libexec/kubernetes /lib/modules /etc/systemd/logind.conf.d; do
    [ -d "$d" ] && [ ! -L "$d" ] && may_be_ours "$d" && ! had path "$d" && [ -z "$(find "$d" ! -type d 2>/dev/null | head -n 1)" ] && echo "$d"
  done
}
# The profile that containerd loads for its containers. Whatever ran in one that goes would run on without.
profiles() {
  [ "$CONTAINER" != yes ] && looked_at 3 || return 0
  awk '$1 ~ /^cri-containerd/ {print $1}' /sys/kernel/security/apparmor/profiles 2>/dev/null | while IFS= read -r p; do
    had apparmor "$p" || grep -qsxF "apparmor$TAB$p" "$KC/spared" || echo "$p"
  done
}
remove_profiles() {
  profiles | while IFS= read -r p; do
    # The lab's own has been stopped.
    if grep -qs '^containerd' /proc/[0-9]*/comm; then spare apparmor "$p" 'another containerd may use it'
    else { printf %s "$p" > /sys/kernel/security/apparmor/.remove; } 2>/dev/null || spare apparmor "$p" 'the kernel refuses'; fi
  done
}
made_left() { [ -n "$(made; hollow; profiles)" ]; }
remove_made() {
  remove_profiles
  made | while IFS= read -r e; do remove_tree "$e"; done
  hollow | while IFS= read -r d; do find "$d" -xdev -depth -type d -empty -delete 2>/dev/null; done
  true
}

# --- kernel settings and modules
# Other people's networks that came while the lab was there and need forwarding to stay on.
others_forward() { for l in /sys/class/net/*; do case ${l##*/} in docker0 | br-* | virbr* | lxdbr* | incusbr* | podman* | cni-podman*) had link "${l##*/}" || return 0 ;; esac; done; return 1; }
shared_kernel() { [ "$CONTAINER" = yes ] && case $1 in net.*) return 1 ;; *) return 0 ;; esac; }
# Values that `up`, kube-proxy and the kubelet give. A setting with any other one was changed by somebody else meanwhile.
lab_value() {
  case "$1=$2" in
    net.ipv4.ip_forward=1 | net.ipv4.conf.all.forwarding=1 | net.ipv4.conf.all.route_localnet=1 | net.bridge.bridge-nf-call-ip*tables=1 | \
      fs.inotify.max_user_instances=1024 | fs.inotify.max_user_watches=524288 | net.ipv4.vs.conntrack=1 | net.ipv4.vs.conn_reuse_mode=[01] | \
      net.ipv4.vs.expire_nodest_conn=1 | net.ipv4.vs.expire_quiescent_template=1 | net.ipv4.conf.all.arp_ignore=1 | net.ipv4.conf.all.arp_announce=2 | \
      net.netfilter.nf_conntrack_tcp_timeout_established=86400 | net.netfilter.nf_conntrack_tcp_timeout_close_wait=3600 | \
      net.netfilter.nf_conntrack_tcp_be_liberal=1 | vm.overcommit_memory=1 | vm.panic_on_oom=0 | kernel.panic=10 | kernel.panic_on_oops=1 | \
      kernel.keys.root_maxkeys=1000000 | kernel.keys.root_maxbytes=25000000) return 0 ;;
    # kube-proxy gives so many for each core.
    net.netfilter.nf_conntrack_max=*) [ $(($2 % 32768)) = 0 ] ;;
    net.netfilter.nf_conntrack_buckets=*) [ $(($2 % 8192)) = 0 ] ;;
    *) return 1 ;;
  esac
}
# Settings that differ now, as KEY<TAB>OLD: those of the manifest, then those of the record, which programs of the
# cluster changed by themselves.
settings() {
  {
    manifest | while IFS= read -r line; do
      case $line in sysctl"$TAB"*) rest=${line#*"$TAB"}; printf '%s\t%s\n' "${rest#*"$TAB"}" "${rest%%"$TAB"*}" ;; esac
    done
    sed -n "s/^sysctl$TAB\\([^ ]*\\) = \\(.*\\)/\\1$TAB\\2/p" "$KC/before" 2>/dev/null
  } | awk -F'\t' '!seen[$1]++' | while IFS= read -r line; do
    key=${line%%"$TAB"*} old=${line#*"$TAB"}
    f=/proc/sys/$(echo "$key" | tr . /)
    [ -w "$f" ] && [ "$(tr '\t' ' ' < "$f")" != "$old" ] || continue
    grep -qsxF "sysctl$TAB$key" "$KC/spared" && continue
    # In a container these belong to the host's kernel, where another lab may need them.
    shared_kernel "$key" && case $key in fs.inotify.*) continue ;; esac
    printf '%s\t%s\n' "$key" "$old"
  done
}
restore_settings() {
  settings | while IFS= read -r line; do
    key=${line%%"$TAB"*} old=${line#*"$TAB"}
    lab_value "$key" "$(tr '\t' ' ' < "/proc/sys/$(echo "$key" | tr . /)")" || { spare sysctl "$key" 'others set it meanwhile'; continue; }
    case $key in net.ipv4.ip_forward | net.ipv4.conf.all.forwarding | net.bridge.*) others_forward && { spare sysctl "$key" 'another network of this host needs it'; continue; } ;; esac
    if [ -z "$old" ]; then echo; else printf '%s\n' "$old"; fi > "/proc/sys/$(echo "$key" | tr . /)" 2>/dev/null || spare sysctl "$key" 'the kernel refuses'
  done
}
up_loaded() { manifest | sed -n "s/^module${TAB}absent$TAB//p" | backwards | while read -r m; do [ -d "/sys/module/$m" ] && grep -qs "^$m " /proc/modules && echo "$m"; done; }
# What rules, sets, servers and mounts of a cluster brought along, and nothing uses any more. Only such whose every use the
# kernel counts: br_netfilter and vxlan work without being counted, and the manifest has them where `up` loaded them. Whoever
# listens to conntrack's events is not counted either. A container's modules are those of the computer below.
idle_modules() {
  [ "$CONTAINER" != yes ] && [ -s "$KC/before" ] && looked_at 3 || return 0
  awk -v record="$KC/before" '
    BEGIN {
      while ((getline line < record) > 0) was[line] = 1
      while ((getline line < "/proc/net/netlink") > 0) { split(line, w, " "); if (w[2] == 12 && w[4] !~ /^0+$/) heard = 1 }
    }
    heard && $1 == "nf_conntrack_netlink" { next }
    $3 == 0 && $1 ~ /^(ip_vs.*|ip_set.*|xt_.*|nft_.*|nf_nat|nf_conntrack|nf_conntrack_netlink|overlay)$/ && !(("module\t" $1) in was) { print $1 }' /proc/modules 2>/dev/null
}
modules() { up_loaded; idle_modules; }
remove_modules() {
  others_forward && return 0
  # A module in use stays: it is no residue, only memory.
  up_loaded | while read -r m; do timeout 10 modprobe -r "$m" 2>/dev/null || timeout 10 rmmod "$m" 2>/dev/null; done
  # One that goes lets go of those that it used. Not by modprobe, which would take what was there before along.
  tried=
  for round in 1 2 3 4 5 6 7 8; do
    idle=$(idle_modules)
    [ -n "$idle" ] && [ "$idle" != "$tried" ] || break
    for m in $idle; do timeout 10 rmmod "$m" 2>/dev/null; done
    tried=$idle
  done
  true
}

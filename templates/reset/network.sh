# Takes the cluster's links, rules and tables out of the kernel, by name, and nothing else.

links() {
  for l in cni0 kube-ipvs0 $(cd /sys/class/net && ls -d flannel.* flannel-* 2>/dev/null); do is_link "$l" && ! had link "$l" && echo "$l"; done
}
# A pod's end on the host: in our bridge, or with its other end in a pod's namespace. Those of docker are in others.
veths() {
  for l in /sys/class/net/veth*; do
    l=${l##*/}
    is_link "$l" && ! had link "$l" || continue
    master=$(readlink "/sys/class/net/$l/master")
    case ${master##*/} in
      cni0) echo "$l" ;;
      '') pin=$(ip -o link show "$l" 2>/dev/null | sed -n 's/.*link-netns \(cni-[^ ]*\).*/\1/p')
        [ -n "$pin" ] && ! of_others "$pin" && echo "$l" ;;
    esac
  done
}
# of_others PIN: whether another user of CNI pinned that namespace, as podman: a result of a network of theirs names it, and
# none of ours does. Each pod has one of the loopback's too. What was seen once stays noted, since results may go.
of_others() {
  noted "$1" && return 0
  theirs=1
  for result in $(grep -lsF "/netns/$1\"" /var/lib/cni/results/* /var/lib/cni/cache/results/*); do
    case ${result##*/} in kubecamp-*) return 1 ;; cni-loopback-*) ;; *) of_pod "${result##*/}" && return 1; theirs=0 ;; esac
  done
  return $theirs
}
noted() { grep -qsxF "netns$TAB$1" "$KC/spared"; }
new_pins() { for n in /run/netns/cni-*; do [ -e "$n" ] && ! had netns "${n##*/}" && echo "${n##*/}"; done; }
pins() { new_pins | while read -r n; do of_others "$n" || echo "/run/netns/$n"; done; }
pins_of_others() { new_pins | while read -r n; do of_others "$n" && ! noted "$n" && echo "$n"; done; }
# Those of a link's own network go with the link. The lab's routes to other nodes are the kernel's by their name, too.
routes() {
  ip -4 route show table all root "$PODS" 2>/dev/null | grep -v '^local\|^broadcast\|proto kernel scope link' | sed 's/ *$//; s/ linkdown//' |
    while IFS= read -r r; do had route "$r" || echo "$r"; done
}
remove_links() {
  [ ! -e /etc/systemd/system/kubecamp-routes.service ] || stop_unit kubecamp-routes
  for n in $(pins_of_others); do spare netns "$n" 'of a container that is not of the lab'; done
  for v in $(veths); do ip link del "$v"; done
  for n in $(pins); do ip netns del "${n##*/}" 2>/dev/null || { umount -l "$n" 2>/dev/null; rm -f "$n"; }; done
  for l in $(links); do ip link set "$l" down 2>/dev/null; ip link del "$l"; done
  routes | while read -r to rest; do ip route del $to $rest 2>/dev/null || ip route del "$to"; done
  if has conntrack; then timeout 10 conntrack -D -d "$SERVICES" >/dev/null 2>&1; fi
  true
}

# An old nft (1.0.6 of Debian 12) dies of tables that kube-proxy's newer one wrote, also when told to delete them. The
# layer of kube-proxy's image that holds that newer one is still there, with its libraries.
# It is looked for at the first use only: these functions come before every step.
able_nft() { command nft list tables >/dev/null 2>&1; [ $? -lt 128 ] || find /var/lib/kubecamp/containerd -path '*/usr/sbin/nft' 2>/dev/null | head -n 1; }
if has nft; then
  nft() {
    [ -n "${KC_NFT+known}" ] || KC_NFT=$(able_nft)
    if [ -n "$KC_NFT" ]; then chroot "${KC_NFT%/usr/sbin/nft}" /usr/sbin/nft "$@"; else command nft "$@"; fi
  }
fi

# --- nftables: whole tables of ours, then chains in the tables that iptables-nft uses.
tables() {
  has nft || return 0
  nft list tables 2>/dev/null | awk '$1 == "table" && ($3 == "kube-proxy" || $2 " " $3 == "ip kubecamp" || $3 ~ /^flannel-ipv[46]$/) {print $2, $3}' |
    while IFS= read -r t; do had nft "$t" || echo "$t"; done
}
# Another network of CNI (podman, nerdctl) shares the port mapping's common chains with ours.
shared_cni() {
  for s in $(savers); do "$s" 2>/dev/null; done | grep 'name: \\"' | grep -qv 'name: \\"kubecamp\\"'
}
names() { if shared_cni; then echo '^(KUBE-|FLANNEL-)'; else echo '^(KUBE-|FLANNEL-|CNI-)'; fi; }
savers() {
  found=
  for s in iptables-legacy-save ip6tables-legacy-save iptables-nft-save ip6tables-nft-save; do has $s && found=1 && echo $s; done
  [ -n "$found" ] || for s in iptables-save ip6tables-save; do has $s && echo $s; done
}
# What to feed to the matching restore: rules that jump into our chains go first, by their own words so that nobody
# else's rule can be hit, then the chains, emptied and deleted.
rules() {
  "$1" 2>/dev/null | awk -v names="$2" -v saver="$1" -v record="$KC/before" '
    BEGIN {
      while ((getline line < record) > 0) was[line] = 1
      family = saver ~ /^ip6/ ? "ip6" : "ip"
    }
    function known(c) { return (saver "\t" table " :" c " -") in was || ("nft\t" family " " table " chain " c) in was }
    /^\*/ { table = substr($0, 2); n = m = 0; split("", mine); split("", rule) }
    /^:/ { c = substr($1, 2); if (c ~ names && !known(c)) mine[c] = 1 }
    /^-A/ {
      bare = $0; gsub(/"([^"\\]|\\.)*"/, "", bare)
      target = match(bare, / -[jg] [^ ]+/) ? substr(bare, RSTART + 4, RLENGTH - 4) : ""
      if (target ~ /^CNI-DN-/ && $0 ~ /name: \\"kubecamp\\"/) mine[target] = 1
      rule[++m] = $0; from[m] = $2; to[m] = target
    }
    /^COMMIT/ {
      out = ""
      for (c in mine) out = out ":" c " - [0:0]\n"
      for (i = 1; i <= m; i++) if (to[i] in mine && !(from[i] in mine)) out = out "-D" substr(rule[i], 3) "\n"
      for (c in mine) out = out "-X " c "\n"
      if (out != "") printf "*%s\n%sCOMMIT\n", table, out
    }'
}
restore_rules() {
  restore=${1%-save}-restore
  todo=$(rules "$1" "$2"); [ -n "$todo" ] || return 0
  printf '%s\n' "$todo" | timeout 30 "$restore" -w 5 --noflush 2>/dev/null || printf '%s\n' "$todo" | timeout 30 "$restore" --noflush 2>/dev/null && return 0
  # Whole or not at all, and something stood in the way: line by line then.
  table=
  printf '%s\n' "$todo" | while IFS= read -r line; do
    case $line in
      \**) table=$line ;;
      COMMIT) ;;
      *) printf '%s\n%s\nCOMMIT\n' "$table" "$line" | timeout 10 "$restore" --noflush 2>&1 | head -n 2 ;;
    esac
  done
}
# The same over nft: also where iptables is missing or refuses to show a table.
nft_chains() {
  has nft || return 0
  nft -a list ruleset 2>/dev/null | awk -v names="$1" -v record="$KC/before" '
    BEGIN { while ((getline line < record) > 0) was[line] = 1 }
    /^table / { table = $2 " " $3; usual = table ~ /^ip6? (filter|nat|mangle|raw|security)$/; next }
    !usual { next }
    /^\tchain / { chain = $2; if (chain ~ names && !(("nft\t" table " chain " chain) in was)) { mine[table " " chain] = 1; order[++n] = table " " chain }; next }
    /^\t\t/ {
      bare = $0; gsub(/"([^"\\]|\\.)*"/, "", bare)
      if (match(bare, /(jump|goto) [^ ]+/)) { split(substr(bare, RSTART, RLENGTH), w, " "); rule[++m] = "delete rule " table " " chain " handle " $NF; to[m] = table " " w[2]; from[m] = table " " chain }
    }
    END {
      for (i = 1; i <= m; i++) if (to[i] in mine && !(from[i] in mine)) print rule[i]
      for (i = 1; i <= n; i++) print "flush chain " order[i]
      for (i = 1; i <= n; i++) print "delete chain " order[i]
    }'
}
# Base chains and tables that iptables-nft made for our rules: empty now, accepting, and not there before.
empty_base() {
  has nft || return 0
  nft list ruleset 2>/dev/null | awk -v record="$KC/before" '
    BEGIN { while ((getline line < record) > 0) was[line] = 1 }
    function close_chain() { if (chain != "" && usual) { if (empty) gone[++n] = chain; else keep[table] = 1 } chain = "" }
    /^table / { table = $2 " " $3; usual = table ~ /^ip6? (filter|nat|mangle|raw|security)$/; if (usual) tables[++t] = table; next }
    /^\t(set|map|flowtable|counter|quota|ct|limit|synproxy|secmark) / { keep[table] = 1 }
    /^\tchain / { chain = table " chain " $2; name = $2; empty = !(("nft\t" chain) in was) && name ~ /^(INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING)$/; next }
    /^\t}/ { close_chain(); next }
    /^\t\ttype / { if ($0 !~ /policy accept;/) empty = 0; next }
    /^\t\t/ { empty = 0 }
    END {
      for (i = 1; i <= n; i++) { split(gone[i], w, " "); print "delete chain " w[1] " " w[2] " " w[4] }
      for (i = 1; i <= t; i++) if (!keep[tables[i]] && !(("nft\t" tables[i]) in was)) print "delete table " tables[i]
    }'
}
run_nft() {
  [ -n "$1" ] || return 0
  printf '%s\n' "$1" | nft -f - 2>/dev/null && return 0
  for round in 1 2; do printf '%s\n' "$1" | while IFS= read -r line; do nft "$line" 2>/dev/null; done; done
}
rules_left() {
  n=$(names)
  [ -n "$(tables; nft_chains "$n"; empty_base)" ] && return 0
  for s in $(savers); do [ -n "$(rules "$s" "$n")" ] && return 0; done
  return 1
}
remove_rules() {
  n=$(names)
  tables | while read -r family name; do nft delete table "$family" "$name"; done
  for s in $(savers); do restore_rules "$s" "$n"; done
  run_nft "$(nft_chains "$n")"
  run_nft "$(empty_base)"
  true
}

# --- ipvs and ipset
number() { echo "$1" | { IFS=. read -r a b c d; echo $(((a << 24) + (b << 16) + (c << 8) + d)); }; }
within() { s=$((32 - ${2#*/})); [ $(($(number "$1") >> s)) = $(($(number "${2%/*}") >> s)) ]; }
# Virtual servers that kube-proxy made, as `-t 10.96.0.1:443`: on a Service's address, or a node port of this host.
servers() { awk 'NR > 3 && /^(TCP|UDP|SCTP)/ {print $1, $2}' /proc/net/ip_vs 2>/dev/null | while read -r proto at; do
  had ipvs "$proto $at" && continue
  case $at in \[*) continue ;; esac
  h=${at%:*}; port=$((0x${at#*:}))
  ip=$(printf '%d.%d.%d.%d' "0x${h%??????}" "0x$(echo "$h" | cut -c3-4)" "0x$(echo "$h" | cut -c5-6)" "0x${h#??????}")
  if within "$ip" "$SERVICES" || ip -o -4 addr show dev kube-ipvs0 2>/dev/null | grep -q " $ip/" ||
    { [ "$port" -ge 30000 ] && [ "$port" -le 32767 ] && ip -o -4 addr show 2>/dev/null | grep -q " $ip/"; }; then
    case $proto in TCP) echo "-t $ip:$port" ;; UDP) echo "-u $ip:$port" ;; SCTP) echo "--sctp-service $ip:$port" ;; esac
  fi
done; }
virtual() { awk 'NR > 3 && /^(TCP|UDP|SCTP|FWM)/' /proc/net/ip_vs 2>/dev/null | wc -l; }
sets() { has ipset && ipset list -n 2>/dev/null | grep '^KUBE-' | while read -r s; do had ipset "$s" || echo "$s"; done; }
remove_servers() {
  all=$(servers); [ -n "$all" ] || return 0
  if has ipvsadm; then
    printf '%s\n' "$all" | while read -r kind at; do ipvsadm -D "$kind" "$at"; done
  elif [ "$(printf '%s\n' "$all" | wc -l)" = "$(virtual)" ]; then
    # No tool here, but kube-proxy's own program in its image needs none. It flushes every virtual server, so only
    # where all are the cluster's.
    proxy=$(find /var/lib/kubecamp/containerd -type f -name kube-proxy -perm -u+x 2>/dev/null | head -n 1)
    [ -z "$proxy" ] || timeout 60 "$proxy" --cleanup >/dev/null 2>&1
  else
    echo 'kubecamp: foreign virtual servers are there too; install ipvsadm to remove those of the cluster'
  fi
}
remove_sets() { for round in 1 2; do for s in $(sets); do ipset destroy "$s" 2>/dev/null; done; done; true; }

# rules_are_there MODE: whether kube-proxy's rules for this mode are in the kernel, and the kernel's own chains lead to them; reads
# only. So they are where nobody can tell: the tool is not there, or ends as that of Debian 12 does in a container. Of the jumps
# only those count without which Services do not work, and which every kube-proxy makes: it looks for them once an hour.
rules_are_there() {
  nat='PREROUTING>KUBE-SERVICES OUTPUT>KUBE-SERVICES POSTROUTING>KUBE-POSTROUTING KUBE-SERVICES> KUBE-POSTROUTING>'
  filter='FORWARD>KUBE-FORWARD KUBE-FORWARD>'
  case $1 in
    nftables)
      command -v nft >/dev/null 2>&1 || return 0
      table=$(nft list table ip kube-proxy 2>&1)
      case $table in
        *'No such file or directory'*) return 1 ;;
        'table ip kube-proxy {'*'}') ;;
        *) return 0 ;;
      esac
      printf '%s\n' "$table" | awk '
        $1 == "chain" { chain = $2 }
        $1 == "jump" { leads[chain ">" $2] = 1 }
        /vmap @service-ips/ { leads["services>"] = 1 }
        END { exit !(leads["nat-prerouting>services"] && leads["nat-output>services"] && leads["nat-postrouting>masquerading"] && leads["services>"]) }' ;;
    iptables) kinds_lead "$nat" "$filter FORWARD>KUBE-SERVICES OUTPUT>KUBE-SERVICES" ;;
    ipvs)
      [ -r /proc/net/ip_vs ] || return 0
      [ -e /sys/class/net/kube-ipvs0 ] && grep -q '^[TU][CD]P ' /proc/net/ip_vs && kinds_lead "$nat" "$filter" ;;
  esac
}
# kinds_lead NAT FILTER: whether one kind of iptables has all of these. kube-proxy takes the kind that the kubelet took, which was
# the host's own then; since, another may have become that.
kinds_lead() {
  lost=
  for tool in iptables iptables-legacy iptables-nft; do
    command -v $tool >/dev/null 2>&1 || continue
    [ $tool != iptables-legacy ] || grep -qsx nat /proc/net/ip_tables_names || continue
    case $(leads $tool nat "$1")$(leads $tool filter "$2") in
      yesyes) return 0 ;;
      *no*) lost=yes ;;
      *) return 0 ;;
    esac
  done
  [ -z "$lost" ]
}
# leads TOOL TABLE WANTED: `yes` where of each CHAIN>TARGET wanted the chain jumps to the target, and the chain of each CHAIN> has
# rules, else `no`; nothing where the tool does not tell.
leads() {
  listed=$($1 -w -t "$2" -S 2>/dev/null) || return 0
  printf '%s\n' "$listed" | awk -v wanted="$3" '
    $1 == "-P" { told = 1 }
    $1 == "-A" { has[$2 ">"] = 1; for (i = 3; i < NF; i++) if ($i == "-j") has[$2 ">" $(i + 1)] = 1 }
    END {
      n = split(wanted, all, " "); all_there = 1
      for (i = 1; i <= n; i++) if (!(all[i] in has)) all_there = 0
      if (told) print all_there ? "yes" : "no"
    }'
}

# rules_are_there MODE: whether kube-proxy's rules for this mode are in the kernel; reads only. So they are where nobody can
# tell: the tool is not there, or ends as that of Debian 12 does in a container.
rules_are_there() {
  case $1 in
    nftables)
      command -v nft >/dev/null 2>&1 || return 0
      case $(nft list table ip kube-proxy 2>&1) in
        *'vmap @'*) return 0 ;;
        'table ip kube-proxy {'* | *'No such file or directory'*) return 1 ;;
        *) return 0 ;;
      esac ;;
    iptables)
      # kube-proxy takes the kind that the kubelet took, which was the host's own then; since, another may have become that.
      lost=
      for tool in iptables iptables-legacy iptables-nft; do
        command -v $tool >/dev/null 2>&1 || continue
        [ $tool != iptables-legacy ] || grep -qsx nat /proc/net/ip_tables_names || continue
        case $($tool -w -t nat -S KUBE-SERVICES 2>&1) in
          *'-A KUBE-SERVICES'*) return 0 ;;
          *'No chain'* | *'-N KUBE-SERVICES'*) lost=yes ;;
          *) return 0 ;;
        esac
      done
      [ -z "$lost" ] ;;
    ipvs)
      [ -r /proc/net/ip_vs ] || return 0
      [ -e /sys/class/net/kube-ipvs0 ] && grep -q '^[TU][CD]P ' /proc/net/ip_vs ;;
  esac
}

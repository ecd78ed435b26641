# What a cluster left in the kernel, a line for each; reads only. For facts, before `up`, and for reset.
in_kernel() {
  for l in cni0 kube-ipvs0 $(cd /sys/class/net && ls -d flannel.* 2>/dev/null); do [ ! -e "/sys/class/net/$l" ] || echo "link $l"; done
  {
    nft list chains | awk '/^table ip6? kube-proxy/ { print "nftables table " $2 " kube-proxy" } /^\tchain KUBE-/ { print "chain " $2 }'
    for s in iptables-legacy-save ip6tables-legacy-save iptables-save; do "$s" | sed -n 's/^:\(KUBE-[^ ]*\).*/chain \1/p'; done
  } 2>/dev/null | sort -u
}

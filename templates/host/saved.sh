# Files from which a start of the host loads packet filter rules, and which hold a cluster's, a line for each; reads only. For
# facts, before `up`, and for scans.
saved_rules() {
  grep -lsE '^:(KUBE|FLANNEL)-|^[[:space:]]*chain (KUBE|FLANNEL)-|^(add )?table ip6? (kube-proxy|kubecamp)( |$)' \
    /etc/iptables/rules.v4 /etc/iptables/rules.v6 /etc/iptables/iptables.rules /etc/iptables/ip6tables.rules \
    /etc/sysconfig/iptables /etc/sysconfig/ip6tables /etc/sysconfig/nftables.conf /etc/nftables.conf
}

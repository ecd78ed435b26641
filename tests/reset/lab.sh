# What `up` and a cluster leave on a host, made by the same functions and the real tools.
set -e
kc_dirs /opt/kubecamp/bin; kc_dirs /opt/cni/bin; kc_dirs /usr/local/bin
for p in /opt/kubecamp/bin/containerd /opt/cni/bin/bridge /opt/cni/bin/portmap /usr/local/bin/kubeadm /usr/local/bin/kubectl /usr/local/bin/kubelet; do
  kc_keep $p && echo lab > $p && chmod 755 $p || exit 1
done
for d in /var/lib/kubelet /var/lib/cni /etc/kubernetes /opt/cni; do kc_dirs "$(dirname $d)"; kc_tree $d; done
kc_block /etc/hosts; printf '# kubecamp begin\n10.0.0.1 cp\n# kubecamp end\n' >> /etc/hosts
kc_dirs /etc/kubecamp/cni/net.d; echo '{}' | kc_put /etc/kubecamp/cni/net.d/10-kubecamp.conflist 644
# Where earlier versions had it.
echo '{}' | kc_put /etc/cni/net.d/10-kubecamp.conflist 644
for f in 99-zz-kubecamp.conf 90-kubecamp.conf; do echo 'net.ipv4.ip_forward = 1' | kc_put /etc/sysctl.d/$f 644; done
echo overlay | kc_put /etc/modules-load.d/kubecamp.conf 644
echo 'kubecamp' | kc_put /etc/kubecamp/containerd.toml 644
for l in /etc/systemd/system/*.wants/kubelet.service; do [ ! -L "$l" ] || kc_keep "$l"; done
for u in kubelet kubecamp-containerd; do
  printf '[Unit]\nDescription=%s of the kubecamp lab\n' $u | kc_put /etc/systemd/system/$u.service 644
  kc_record unit absent $u
  mkdir -p /etc/systemd/system/multi-user.target.wants; ln -sf ../$u.service /etc/systemd/system/multi-user.target.wants/$u.service
done
kc_sysctl net.ipv4.ip_forward 1
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
mkdir -p /etc/kubernetes/manifests /etc/kubernetes/pki /var/lib/etcd/member /var/lib/cni/networks/kubecamp /var/lib/kubelet/pods/a/volumes/host /run/flannel \
  /var/log/pods/a /var/log/containers /root/.kube/cache/discovery /opt/containerd/bin /usr/libexec/kubernetes/kubelet-plugins /run/kubecamp/containerd /var/lib/kubecamp/containerd/x
echo x > /etc/kubernetes/admin.conf; echo x > /var/lib/cni/networks/kubecamp/10.244.0.2
# A volume bound from elsewhere: to be let go, never deleted through.
mount --bind /var/tmp/data/volume /var/lib/kubelet/pods/a/volumes/host
mkdir -p /var/lib/kubelet/pods/b; mount -t tmpfs token '/var/lib/kubelet/pods/b'; mkdir '/var/lib/kubelet/pods/b/with space'; mount -t tmpfs token '/var/lib/kubelet/pods/b/with space'

ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0; ip link set cni0 up
ip netns add cni-1a2b; ip link add veth1a2b3c4d type veth peer name eth0 netns cni-1a2b; ip link set veth1a2b3c4d master cni0
ip netns add cni-9f9f; ip link add veth9f9f9f9f type veth peer name eth0 netns cni-9f9f
ip link add kube-ipvs0 type bridge; ip addr add 10.96.0.1/32 dev kube-ipvs0
ip link add flannel.1 type vxlan id 1 dstport 8472 dev br-mine 2>/dev/null || ip link add flannel.1 type bridge
ip route add 10.244.1.0/24 via 192.0.2.9 proto kernel; ip route add 10.244.2.0/24 via 192.0.2.9
nft -f - <<'END'
table ip kube-proxy {
  chain service-A {
    meta l4proto tcp dnat to 10.0.0.1:6443
  }
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.1 . tcp . 443 : goto service-A }
  }
  chain nat-prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr . meta l4proto . th dport vmap @service-ips
  }
}
table ip6 kube-proxy {
  chain empty {
  }
}
table ip kubecamp {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 10.244.0.0/24 masquerade
  }
}
END
for t in iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy; do
  for table in mangle nat filter; do $t -t $table -N KUBE-KUBELET-CANARY; done
  $t -t mangle -N KUBE-IPTABLES-HINT
  $t -N KUBE-FIREWALL; $t -I INPUT -j KUBE-FIREWALL; $t -A KUBE-FIREWALL -m comment --comment 'block incoming localnet' -j DROP
  $t -t nat -N KUBE-SERVICES; $t -t nat -N KUBE-SVC-NPX46M4PTMTKRN6Y; $t -t nat -N KUBE-MARK-MASQ
  $t -t nat -I PREROUTING -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
  $t -t nat -A KUBE-SERVICES -p tcp --dport 443 -m comment --comment 'default/kubernetes:https "cluster" IP' -j KUBE-SVC-NPX46M4PTMTKRN6Y
  $t -t nat -A KUBE-SVC-NPX46M4PTMTKRN6Y -j KUBE-MARK-MASQ; $t -t nat -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
  $t -t nat -N FLANNEL-POSTRTG; $t -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG
  $t -N FLANNEL-FWD; $t -A FORWARD -j FLANNEL-FWD
  $t -t nat -N CNI-HOSTPORT-DNAT; $t -t nat -N CNI-DN-abcdef; $t -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
  $t -t nat -A CNI-HOSTPORT-DNAT -m comment --comment 'dnat name: "kubecamp" id: "1"' -j CNI-DN-abcdef
done
ipset create KUBE-CLUSTER-IP hash:ip,port; ipset create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip
iptables-legacy -A KUBE-FIREWALL -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT || true

#!/usr/bin/env bash
# The opponent: the same lab by hand, in the best parallel shell that we could write. No checks, no record, no proof.
#   raw-kubeadm.sh DIR KEY CP WORKER...
# DIR is an unpacked bundle: bin/ (plain programs with their install paths), images/*.tar.zst, roles (lines `name role`).
# Hosts are fresh, root logs in with KEY; run it where they can be reached.
set -eu
dir=$1 key=$2 cp=$3; shift 3
workers=("$@")
sock=$(mktemp -d)
trap 'for h in "$cp" "${workers[@]}"; do ssh -o ControlPath="$sock/%h" -O exit "$h" 2>/dev/null || true; done; rm -rf "$sock"' EXIT
on() { # on HOST COMMAND...: one connection per host, kept
  local h=$1; shift
  ssh -q -i "$key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o Ciphers=aes128-gcm@openssh.com \
    -o ControlMaster=auto -o ControlPath="$sock/%h" -o ControlPersist=60 -l root "$h" "$@"
}
hosts_file=$(printf '%s cp\n' "$cp"; i=1; for w in "${workers[@]}"; do echo "$w worker-$i"; i=$((i + 1)); done)
token=abcdef.0123456789abcdef
pause=$(sed -n 's/^pause image //p' "$dir/roles")

prepare() { # prepare HOST ROLE: push what the role needs, configure, import
  local h=$1 role=$2 list
  list=$(awk -v r="$role" '$2 == "binary" && ($3 == "all" || r == "cp") {print $4}' "$dir/members")
  tar -C "$dir/bin" -cf - $list | on "$h" 'tar -C / -xf -'
  on "$h" "
    printf '%s\n' '$hosts_file' >> /etc/hosts
    printf 'net.ipv4.ip_forward = 1\n' > /etc/sysctl.d/90-k8s.conf; sysctl -qp /etc/sysctl.d/90-k8s.conf
    mkdir -p /etc/containerd /etc/cni/net.d
    v1=false; [ -f /sys/fs/cgroup/cgroup.controllers ] && v1=true
    cat > /etc/containerd/config.toml <<T
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '$pause'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/opt/cni/bin']
  conf_dir = '/etc/cni/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = \$v1
T
    cat > /etc/cni/net.d/10-flannel.conflist <<T
{\"cniVersion\":\"0.3.1\",\"name\":\"cbr0\",\"plugins\":[{\"type\":\"flannel\",\"delegate\":{\"hairpinMode\":true,\"isDefaultGateway\":true}},{\"type\":\"portmap\",\"capabilities\":{\"portMappings\":true}}]}
T
    printf '[Service]\nType=notify\nExecStart=/usr/local/bin/containerd\nDelegate=yes\nKillMode=process\nLimitNOFILE=infinity\n' > /etc/systemd/system/containerd.service
    printf '[Unit]\nConditionPathExists=/var/lib/kubelet/config.yaml\n[Service]\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nExecStart=/usr/local/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml \$KUBELET_KUBEADM_ARGS\nRestart=always\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/kubelet.service
    systemctl daemon-reload; systemctl enable -q kubelet; systemctl start containerd"
  list=$(awk -v r="$role" '$2 == "image" && ($3 == "all" || r == "cp") {print $4}' "$dir/members")
  tar -C "$dir/images" -cf - $list | on "$h" 'mkdir -p /var/tmp/img; tar -C /var/tmp/img -xf -; for f in /var/tmp/img/*; do ctr -n k8s.io images import "$f" >/dev/null 2>&1 || exit 1; done; rm -rf /var/tmp/img'
}

began=$(date +%s.%N)
lap() { printf '%-24s %6.1f s\n' "$1" "$(echo "$(date +%s.%N) - $began" | bc)"; }
prepare "$cp" cp & pids=($!)
for w in "${workers[@]}"; do prepare "$w" worker & pids+=($!); done
for p in "${pids[@]}"; do wait "$p"; done
lap 'pushed and imported'

driver=systemd v1=
on "$cp" 'test -f /sys/fs/cgroup/cgroup.controllers' || { driver=cgroupfs; v1='failCgroupV1: false'; }
on "$cp" "cat > /root/init.yaml; kubeadm init --config /root/init.yaml >/root/init.log 2>&1 || { tail -n 20 /root/init.log; exit 1; }" <<Y
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: $token}]
localAPIEndpoint: {advertiseAddress: $cp}
nodeRegistration: {name: cp, imagePullPolicy: IfNotPresent, ignorePreflightErrors: [all]}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: $(sed -n 's/^kubernetes //p' "$dir/roles")
encryptionAlgorithm: ECDSA-P256
networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.96.0.0/16}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: $driver
$v1
failSwapOn: false
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
conntrack: {maxPerCore: 0, min: 0}
Y
lap 'control plane'
on "$cp" "kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f - >/dev/null" < "$dir/flannel.yaml" & flannel=$!
hash=$(on "$cp" "openssl x509 -pubkey -in /etc/kubernetes/pki/ca.crt -noout | openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1")
pids=(); i=1
for w in "${workers[@]}"; do
  on "$w" "kubeadm join $cp:6443 --token $token --discovery-token-ca-cert-hash sha256:$hash --node-name worker-$i --ignore-preflight-errors=all >/root/join.log 2>&1" & pids+=($!)
  i=$((i + 1))
done
for p in "${pids[@]}" $flannel; do wait "$p"; done
lap 'workers joined'
on "$cp" "export KUBECONFIG=/etc/kubernetes/admin.conf; kubectl wait --for=condition=Ready node --all --timeout=120s >/dev/null && kubectl -n kube-system wait --for=condition=Available deploy/coredns --timeout=120s >/dev/null"
lap 'nodes and CoreDNS Ready'

#!/usr/bin/env bash
# A beginner's day: the README's first command, a look around, twice the same, a crash, a broken lab, a clean end.
. "$(dirname "$0")/lib.sh"

say "cargo run --release -- up --local --yes"
ok "up --local" kc up --local --yes --plain "${roomy[@]}" || die "no lab, nothing else to try"
exits 0 kc kubectl -- get nodes --no-headers
[ "$(printf '%s\n' "$OUT" | grep -c ' Ready ')" = 3 ] && say "ok: three nodes Ready" || { say "FAILED: $OUT"; bad=$((bad + 1)); }
exits 0 kc status -o json
has '"proxy_mode": "nftables"'
exits 0 kc ssh worker-1 -- hostname
has worker-1
exits 0 kc ssh cp -- 'cd /; kubectl get nodes'
exits 3 kc ssh worker-1 -- exit 3
exits 2 kc ssh nobody -- true
has 'hint:'
[ "$(stat -c %a "$KUBECAMP_HOME/data/labs/lab/kubeconfig")" = 600 ] && say "ok: kubeconfig is private" || bad=$((bad + 1))

say "machines have their limits"
exits 0 kc ssh worker-1 -- 'nproc; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true'
has '^2$'; has '^4294967296$'

say "a Service call across nodes, by hand"
service() {
  kc kubectl -- apply -f - >/dev/null <<'YAML' || return 1
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {Corefile: ".:5353 {\n  health :8080\n  whoami\n}\n"}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: worker-2
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: "IMAGE", args: [-conf, /c/Corefile], volumeMounts: [{name: c, mountPath: /c}]}
  volumes: [{name: c, configMap: {name: web}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
YAML
  true
}
image=$(kc kubectl -- -n kube-system get deploy coredns -o 'jsonpath={.spec.template.spec.containers[0].image}')
eval "$(declare -f service | sed "s|IMAGE|$image|")"
ok "pod and Service" service
kc kubectl -- wait --for=condition=Ready pod/web --timeout=60s >/dev/null
ip=$(kc kubectl -- get svc web -o 'jsonpath={.spec.clusterIP}')
call() { kc ssh "$1" -- "curl -s -m 3 http://$ip/health" | grep -q OK; }
for node in cp worker-1 worker-2; do ok "from $node to a pod on worker-2" wait_for 30 call $node; done

say "the guide's Service, as it is written there"
hello() { sed -n '/^```yaml$/,/^```$/{/^```/!p}' "$(dirname "$0")/../../docs/guide/service.md"; }
exits 0 kc kubectl -- apply -f - < <(hello)
exits 0 kc kubectl -- rollout status deploy/hello --timeout=60s
ip=$(kc kubectl -- get svc hello -o 'jsonpath={.spec.clusterIP}')
for node in cp worker-1 worker-2; do ok "from $node" wait_for 30 call $node; done
exits 0 kc kubectl -- delete -f - < <(hello)

say "the second up changes nothing"
exits 0 kc up --local --yes --plain "${roomy[@]}"
has 'done in .*: 0 steps changed something'
say "and plan says so"
exits 0 kc plan
has '^0 steps would change something'

say "an image that somebody removed comes back, and no program runs on that was replaced"
ctr='/opt/kubecamp/bin/ctr -a /run/kubecamp/containerd.sock -n k8s.io'
exits 0 kc ssh worker-1 -- "$ctr images rm $image && ! $ctr images ls -q | grep -qxF $image"
exits 0 kc ssh worker-2 -- 'for p in /usr/local/bin/kubelet /opt/kubecamp/bin/containerd; do cp -p $p $p.new && mv $p.new $p || exit 1; done'
exits 0 kc up --local --yes --plain "${roomy[@]}"
exits 0 kc ssh worker-1 -- "$ctr images ls -q | grep -xF $image"
for unit in kubelet kubecamp-containerd; do
  exits 0 kc ssh worker-2 -- "readlink /proc/\$(systemctl show -p MainPID --value $unit)/exe"
  has '/\(kubelet\|containerd\)$'
done
say "and none is cleared away when the disk fills up"
kept() { kc ssh "$1" -- 'crictl images -o json' | python3 -c "import json,sys; all=json.load(sys.stdin)['images']; sys.exit(not (len(all) > 3 and {i['pinned'] for i in all} == {True}))"; }
for node in cp worker-1; do ok "all images of $node are pinned" wait_for 30 kept $node; done

say "a worker that lost its configuration joins anew, without waiting for the API server to miss it"
exits 0 kc kubectl -- label node worker-2 mine=yes
exits 0 kc ssh worker-2 -- 'rm -rf /etc/kubernetes'
exits 0 kc up --local --yes --plain "${roomy[@]}"
# What kubeadm says each time that it waits for the API server to miss a node.
log=$(ls -t "$KUBECAMP_HOME"/data/labs/lab/runs/*.ndjson | head -n 1)
ok "it joined" grep -q '"step":"join"' "$log"
ok "at the first try" lacks 'already exists in the cluster' "$log"
exits 0 kc kubectl -- get nodes --no-headers
[ "$(printf '%s\n' "$OUT" | grep -c ' Ready ')" = 3 ] && say "ok: three nodes Ready" || { say "FAILED: $OUT"; bad=$((bad + 1)); }
exits 0 kc kubectl -- get nodes -l mine=yes -o name
has node/worker-2

say "rules that somebody flushed come back, and so does the bridge of the pods"
exits 0 kc ssh worker-2 -- 'nft flush ruleset'
exits 0 kc up --local --yes --plain "${roomy[@]}"
exits 0 kc ssh worker-2 -- 'nft list table ip kube-proxy'
has 'vmap @'
exits 0 kc ssh worker-2 -- 'ip link del cni0'
exits 0 kc up --local --yes --plain "${roomy[@]}"
exits 0 kc ssh worker-2 -- 'ls /sys/class/net/cni0/brif'
has veth
exits 0 kc up --local --yes --plain "${roomy[@]}"
has 'done in .*: 0 steps changed something'

say "a node that somebody deleted is there again, with its pod network and flannel's note on the way to it"
exits 0 kc kubectl -- get node worker-1 -o 'jsonpath={.spec.podCIDR}'
pods=$OUT
exits 0 kc kubectl -- delete node worker-1
exits 0 kc up --local --yes --plain "${roomy[@]}"
exits 0 kc kubectl -- get node worker-1 -o 'jsonpath={.spec.podCIDR} {.metadata.annotations}'
has "^$pods .*public-ip"
exits 0 kc kubectl -- wait --for=condition=Ready node/worker-1 --timeout=60s
exits 0 kc up --local --yes --plain "${roomy[@]}"
has 'done in .*: 0 steps changed something'

say "a reset that is killed while it drains, then up: pods go to the workers again"
"$KUBECAMP" reset --yes --plain >"$KUBECAMP_HOME/broken.log" 2>&1 & pid=$!
cordoned() { kc kubectl -- get nodes | grep -q SchedulingDisabled; }
ok "the workers are cordoned" wait_for 60 cordoned
kill -9 $pid; wait $pid 2>/dev/null
exits 0 kc up --plain "${roomy[@]}"
has 'is ready'
exits 0 kc kubectl -- get nodes --no-headers
[ "$(printf '%s\n' "$OUT" | grep -c ' Ready ')" = 3 ] && say "ok: all three take pods" || { say "FAILED: $OUT"; bad=$((bad + 1)); }

say "two at once: the second is refused"
exec 9>>"$KUBECAMP_HOME/data/labs/lab/lock"; flock -n 9 || say "FAILED: somebody holds the lab"
exits 9 kc up --plain "${roomy[@]}"
has KC-LAB-BUSY
exec 9>&-

say "reset, proven clean"
exits 0 kc reset --yes --plain
has 'proven to be'
has '^PHASE  *AT  *TOOK'
exits 0 kc reset --yes --plain
has 'done in .*: 0 steps changed something'

say "kill -9 in the midst of up, then continue"
"$KUBECAMP" up --plain "${roomy[@]}" >"$KUBECAMP_HOME/killed.log" 2>&1 & pid=$!
wait_for 90 grep -q 'run kubeadm init' "$KUBECAMP_HOME/killed.log" || die "up never came to kubeadm init"
sleep 1; kill -9 $pid; wait $pid 2>/dev/null
exits 0 kc up --plain "${roomy[@]}"
has 'is ready'

say "a lab broken in every way is reset all the same"
kc ssh cp -- 'rm -rf /etc/kubernetes' || true
# Without its certificate authority it is refused, however often: a new one would be trusted by nothing.
for try in first second; do
  exits 3 kc up --plain "${roomy[@]}"
  has KC-CLUSTER-LOST; has 'kubecamp reset, then kubecamp up'
  printf '%s\n' "$OUT" | grep -q 'is ready' && { say "FAILED: ready, the $try time"; bad=$((bad + 1)); }
done
exits 3 kc plan
exits 0 kc ssh cp -- '[ ! -e /etc/kubernetes/pki ] && echo untouched'
has untouched
kc ssh cp -- 'pkill -9 etcd; rm -f /opt/kubecamp/bin/containerd' || true
kc ssh worker-1 -- 'systemctl stop kubelet; rm -f /usr/local/bin/kubeadm; pkill -STOP containerd-shim; nft add table inet mine; nft add chain inet mine c' || true
exits 0 kc reset --yes --plain
has 'proven to be'
exits 0 kc ssh worker-1 -- nft list table inet mine
has 'table inet mine'
exits 0 kc up --plain "${roomy[@]}"
has 'is ready'

say "the end, as after a restart of the computer: down starts the engine, and nothing stays"
exits 0 kc machine engine stop --yes
exits 0 kc down --yes
exits 0 kc machine list
printf '%s\n' "$OUT" | grep -q 'lab-' && { say "FAILED: machines stay: $OUT"; bad=$((bad + 1)); }
exits 0 kc machine engine stop --yes
has 'does not run'
finish

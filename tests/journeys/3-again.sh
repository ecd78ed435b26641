#!/usr/bin/env bash
# The same three hosts again and again: up, broken in another way each time, reset proven clean, up.
# KUBECAMP_CYCLES (2) says how often; ten are the promise, for which it is run by hand: it takes 40 s a cycle. The day says
# with which of the five ways it begins.
. "$(dirname "$0")/lib.sh"
cycles=${KUBECAMP_CYCLES:-2}
first=$((10#$(date +%j) % 5))

ok "three machines" kc machine make --yes --plain --name plain --layout 3x2c4g "${roomy[@]}" || die "no machines"
machines=$(kc machine list -o json)
of() { printf '%s' "$machines" | python3 -c "import json,sys;print([m['$2'] for m in json.load(sys.stdin) if m['lab']=='plain' and m['node']=='$1'][0])"; }
netns=$(of cp netns)
inside() { nsenter --net="$netns" "$KUBECAMP" --name again "$@"; }
on() { kc ssh --name plain "$1" -- "$2"; }
hosts=(); for node in cp worker-1 worker-2; do hosts+=(--host "root@$(of $node address)"); done
common=(--identity "$KUBECAMP_HOME/data/labs/plain/key")

# What people do to a lab.
break_it() {
  case $(($1 % 5)) in
    1) on cp 'rm -rf /etc/kubernetes' ;;
    2) on worker-1 'systemctl kill -s KILL kubelet; rm -rf /var/lib/kubelet/pki /opt/cni' ;;
    3) on worker-2 'systemctl stop kubecamp-containerd; rm -f /opt/kubecamp/bin/containerd' ;;
    4) on cp 'rm -rf /var/lib/etcd; pkill -STOP -x kube-apiserver; true' ;;
    0) on worker-1 'ip link delete cni0; nft flush ruleset; iptables -F; true' ;;
  esac
}

for i in $(seq "$cycles"); do
  say "cycle $i of $cycles, broken in way $(((first + i) % 5))"
  began=$SECONDS
  ok "up" inside up --plain --accept-new-host-keys --layout 3x2c4g "${hosts[@]}" "${common[@]}" "${roomy[@]}" || break
  took=$((SECONDS - began))
  ok "broken" break_it $((first + i))
  began=$SECONDS
  exits 0 inside reset --yes --plain "${common[@]}"
  has 'proven to be'
  say "cycle $i: up $took s, reset $((SECONDS - began)) s"
done

say "a host whose key changed is not talked to"
ok "worker-1 has another key" on worker-1 'rm -f /etc/ssh/ssh_host_*; ssh-keygen -q -A && systemctl restart ssh'
exits 4 inside up --plain --accept-new-host-keys --layout 3x2c4g "${hosts[@]}" "${common[@]}"
has KC-HOST-KEY-CHANGED
finish

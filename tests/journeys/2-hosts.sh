#!/usr/bin/env bash
# Plain SSH hosts with a non-root sudo user whose password is asked: Debian 12, then the bridge network on one host.
. "$(dirname "$0")/lib.sh"
command -v ssh-keygen >/dev/null || die "openssh-client is missing"

printf 'correct horse\n' > "${TMPDIR:-/tmp}/kubecamp-sudo-$$"; pw=${TMPDIR:-/tmp}/kubecamp-sudo-$$
wrong=${TMPDIR:-/tmp}/kubecamp-sudo-wrong-$$; printf 'battery staple\n' > "$wrong"
ok "three Debian 12 machines with a sudo user" kc machine make --yes --plain --name plain --layout 3x2c4g --suite bookworm --sudo-user student --sudo-password-file "$pw" "${roomy[@]}" || die "no machines"
netns=$(kc machine list -o json | python3 -c "import json,sys;print(json.load(sys.stdin)[0]['netns'])")
ip_of() { kc machine list -o json | python3 -c "import json,sys;print([m['address'] for m in json.load(sys.stdin) if m['lab']=='plain' and m['node']=='$1'][0])"; }
cp=$(ip_of cp) w1=$(ip_of worker-1) w2=$(ip_of worker-2)
key=$KUBECAMP_HOME/data/labs/plain/key
inside() { nsenter --net="$netns" "$KUBECAMP" --name team7 "$@"; }
hosts=(--host "student@$cp" --host "student@$w1" --host "student@$w2")
common=(--identity "$key" --sudo-password-file "$pw")

say "what is wrong is said, and nothing is half done"
exits 4 inside up --plain "${hosts[@]}" "${common[@]}"
has KC-HOST-KEY-UNKNOWN
exits 4 inside up --plain --accept-new-host-keys "${hosts[@]}" --identity "$key" --sudo-password-file "$wrong"
has KC-SUDO-PASSWORD
exits 4 inside up --plain --accept-new-host-keys "${hosts[@]}" --identity "$key"
has 'KC-SUDO on'
ssh-keygen -q -t ed25519 -N '' -f "$KUBECAMP_HOME/wrong" </dev/null
exits 4 inside up --plain --accept-new-host-keys "${hosts[@]}" -F /dev/null --identity "$KUBECAMP_HOME/wrong" --sudo-password-file "$pw"
has KC-HOST-AUTH
exits 3 inside up --plain --accept-new-host-keys --layout 2x4c8g --host "student@$cp" --host "student@$w1" "${common[@]}"
has KC-HOST-TOO-SMALL
exits 2 inside up --plain --layout 3x2c4g --host "student@$cp" "${common[@]}"
has KC-HOST-COUNT
exits 4 inside up --plain --accept-new-host-keys --host "student@$cp" --host "student@$w1" --host "student@$cp:1" "${common[@]}"
has KC-HOST-UNREACHABLE

say "up, a second time, reset, on a user with sudo and a password"
ok "up" inside up --plain --accept-new-host-keys "${hosts[@]}" "${common[@]}" "${roomy[@]}" || die "no lab"
exits 0 inside up --plain "${hosts[@]}" "${common[@]}" "${roomy[@]}"
has ': 0 steps changed something'
exits 0 inside kubectl -- get nodes --no-headers
[ "$(printf '%s\n' "$OUT" | grep -c ' Ready ')" = 3 ] && say "ok: three nodes Ready" || { say "FAILED: $OUT"; bad=$((bad + 1)); }
say "the lab remembers the key that up was told of"
exits 0 inside ssh cp -- true
ok "the password is in no file" lacks 'correct horse' "$KUBECAMP_HOME/data"
! grep -rq "$(kc ssh --name plain cp -- "cat /etc/kubernetes/pki/ca.key" | sed -n 2p)" "$KUBECAMP_HOME/data/labs/team7/runs" && say "ok: no key in a log" || bad=$((bad + 1))
mine=$(kc ssh --name plain worker-1 -- "base64 -w0 /var/lib/kubelet/pki/kubelet-client-current.pem | tail -c 120 | head -c 80")
[ ${#mine} = 80 ] && ! grep -rq "$mine" "$KUBECAMP_HOME/data/labs/team7/runs" && say "ok: nor a worker's" || { say "FAILED: a worker's key is in a log"; bad=$((bad + 1)); }
exits 0 inside reset --yes --plain "${common[@]}"
has 'proven to be'

say "Ctrl-C and kill -9 in the midst of up as a user with sudo, then continue"
stopped_at_init() { # stopped_at_init SIGNAL CODE: up is stopped while kubeadm init runs
  # exec, so that the process is kubecamp itself: nsenter becomes it.
  (exec nsenter --net="$netns" "$KUBECAMP" --name team7 up --plain "${hosts[@]}" "${common[@]}" "${roomy[@]}") >"$KUBECAMP_HOME/stopped.log" 2>&1 &
  local pid=$! got
  wait_for 120 grep -q 'run kubeadm init' "$KUBECAMP_HOME/stopped.log" || die "up never came to kubeadm init"
  kill "-$1" $pid; wait $pid 2>/dev/null; got=$?
  if [ $got = "$2" ]; then say "ok: exit $got after $1"; else say "FAILED: exit $got, not $2, after $1"; tail -n 20 "$KUBECAMP_HOME/stopped.log"; bad=$((bad + 1)); fi
}
stopped_at_init INT 130
exits 0 inside reset --yes --plain "${common[@]}"
has 'proven to be'
stopped_at_init KILL 137
exits 0 inside up --plain "${hosts[@]}" "${common[@]}" "${roomy[@]}"
has 'is ready'
exits 0 inside reset --yes --plain "${common[@]}"
has 'proven to be'

say "reset then up, the bridge network and iptables mode, on Debian 12"
ok "up with bridge" inside up --plain "${hosts[@]}" "${common[@]}" "${roomy[@]}" --cni bridge --proxy-mode iptables ||
  kc ssh --name plain cp -- "journalctl -u kubecamp-routes --no-pager | tail -n 12"
exits 0 inside status -o json "${common[@]}"
has '"proxy_mode": "iptables"'
exits 0 kc ssh --name plain worker-1 -- 'iptables-save -t nat | grep -e "-A KUBE-SERVICES"'
has '^-A KUBE-SERVICES'
exits 0 inside kubectl -- get pods -A -o wide --no-headers
printf '%s\n' "$OUT" | grep -q flannel && { say "FAILED: flannel runs"; bad=$((bad + 1)); }
exits 0 inside reset --yes --plain "${common[@]}"
has 'proven to be'

say "ipvs where the kernel has it; it is refused where there is none"
# Machines that are containers have this computer's kernel, and can load nothing of it themselves.
grep -qs '^ip_vs ' /proc/modules || { modprobe -a ip_vs ip_vs_rr ip_vs_wrr ip_vs_sh 2>/dev/null && loaded=yes; }
if kc ssh --name plain cp -- 'for m in ip_vs ip_vs_rr; do [ -d /sys/module/$m ] || modprobe -n $m || exit 1; done' >/dev/null 2>&1; then
  ok "up in ipvs mode" inside up --plain "${hosts[@]}" "${common[@]}" "${roomy[@]}" --cni flannel --proxy-mode ipvs
  exits 0 inside status -o json "${common[@]}"
  has '"proxy_mode": "ipvs"'
  exits 0 kc ssh --name plain worker-1 -- "grep '^TCP .* rr' /proc/net/ip_vs"
  exits 0 inside reset --yes --plain "${common[@]}"
  has 'proven to be'
  skip "the refusal of ipvs: this kernel has ip_vs"
else
  exits 3 inside up --plain "${hosts[@]}" "${common[@]}" --proxy-mode ipvs
  has KC-HOST-KERNEL
  skip "up and reset in ipvs mode: this kernel has no ip_vs"
fi
[ -z "${loaded:-}" ] || modprobe -ra ip_vs_sh ip_vs_wrr ip_vs_rr ip_vs 2>/dev/null
rm -f "$pw" "$wrong"
finish

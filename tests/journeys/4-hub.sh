#!/usr/bin/env bash
# A booked server: a hub, a server that is enrolled with labs, and three slots on it. Who comes first finds a whole lab,
# who is next a clean one, and who comes again the own one as it was left. The server is this computer in a sandbox.
left=$(cat /tmp/kubecamp-journey-4-hub/sandbox.pid 2>/dev/null) && grep -qs unshare "/proc/$left/cmdline" && kill -9 "$left"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hub.sh"
[ "$(id -u)" = 0 ] || die "a sandbox needs root"
socket=unix:$home/hub.sock sandbox= inside= at=in_ reach=(KUBECAMP_HUB="unix:$home/hub.sock")
mkdir -p "$home" && chmod 755 "$home"
# Not below /tmp, where the agent removes what an account of the sandbox left: the layers are the accounts' homes too.
layers=/srv/kubecamp-journey-4-hub
rm -rf "$layers"

clean_up() {
  [ -z "$hub" ] || kill "$hub" 2>/dev/null
  # Everything in it ends with its first process.
  [ -z "$sandbox" ] || { kill -9 "$sandbox" 2>/dev/null; wait "$sandbox" 2>/dev/null; }
  kc machine engine stop --yes >/dev/null 2>&1
  rm -rf "$layers"
  [ -n "${KEEP:-}" ] || rm -rf "$KUBECAMP_HOME"
}
logs() { say "the agent's log:"; in_ tail -n 30 /var/log/kubecamp-agent.log; say "the hub's log:"; tail -n 10 "$home/hub.log"; }
give_up() { logs; die "$@"; }

say "a server: this computer with a network, processes and folders of its own"
# Changes go to layers on the disk: the engine's file of the machines' disks is one of them.
unshare --mount --net --pid --fork --kill-child --mount-proc sh -c '
  mount -t tmpfs run /run && mkdir -p /run/lock /run/netns /run/sshd || exit 1
  for d in /etc /home /usr/local /opt /var/lib /var/log /var/spool /root /var/tmp; do
    [ -d $d ] || continue
    n=$1/$(echo $d | tr / _); mkdir -p $n/up $n/work
    mount -t overlay overlay -o lowerdir=$d,upperdir=$n/up,workdir=$n/work $d || exit 1
  done
  ip link set lo up; echo ready; exec sleep 100000' sandbox "$layers" >"$home/sandbox.out" 2>&1 & sandbox=$!
echo $sandbox >"$home/sandbox.pid"
wait_for 20 grep -q ready "$home/sandbox.out" || { cat "$home/sandbox.out"; die "the sandbox did not come up"; }
inside=$(tr -d ' ' <"/proc/$sandbox/task/$sandbox/children")
in_() { nsenter -t "$inside" -m -n -p "$@"; }

lab_parts
in_ sh -c "mkdir -p -m 700 /var/lib/kubecamp-gate/home && ln -s '$KUBECAMP_CACHE' /var/lib/kubecamp-gate/home/cache"

say "a hub, people, and the server enrolled with labs"
in_ sh -c '/usr/sbin/sshd -o PidFile=/run/sshd.pid && install -d -m 700 /root/.ssh' || die "no sshd"
people
in_ sh -c "cat '$home/ann/key.pub' >/root/.ssh/authorized_keys; ssh-keyscan -t ed25519 127.0.0.1 >/root/.ssh/known_hosts 2>/dev/null"
serve 'test -S "$home/hub.sock"' -- --listen "$socket"
camp 127.0.0.1
as ann hub server token one >"$home/token"
as ann hub server keys -o json >"$home/keys.json"
for name in user_ca plan_key; do python3 -c "import json;print(json.load(open('$home/keys.json'))['$name'])" >"$home/$name"; done
echo 'poll: 4' >"$home/agent.more"
enroll=(--yes --plain hub enroll root@127.0.0.1 --server one --hub "$socket" --identity "$home/ann/key")
enroll+=(--token-file "$home/token" --user-ca "$home/user_ca" --plan-key "$home/plan_key" --admin-key "$home/admin/key.pub")
enroll+=(--machines container --bundle "$bundle" --agent-config "$home/agent.more")
ok "enrolled, with a first lab made and removed" as ann "${enroll[@]}" || give_up "no server"
exits 0 as ann "${enroll[@]}"
has ': 0 steps changed something'

# give_back WHO: ends the slot, and sees that it is over and proven clean
give_back() {
  exits 0 as "$1" book release "$ID"
  ok "$1 is out within seconds" wait_for 15 in_ sh -c "! pgrep -r D,R,S,T -U $1"
  ok "$1 has no way to the lab any more" wait_for 5 in_ sh -c '! ip rule show | grep -q ^11500:'
  ok "saved, and proven clean" wait_for 120 is "$ID" 'done' || give_up "the slot does not end"
  in_ sh -c "setpriv --reuid \$(id -u $1) --clear-groups timeout 3 bash -c '</dev/tcp/$address/6443'" 2>/dev/null &&
    { say "FAILED: the API answers $1 after the slot"; bad=$((bad + 1)); }
}

say "amy's slot: a whole lab"
take amy --layout 1x4c12g || give_up "amy cannot book: $(cat "$home/refused")"
ok "kubectl get nodes through book ssh" wait_for 400 ready amy || give_up "amy has no lab: $(on amy 'kubectl get nodes' 2>&1)"
ok "the hub knows that the slot runs" wait_for 15 is "$ID" active
exits 0 on amy 'ssh -o BatchMode=yes cp hostname'
has '^cp$'
exits 0 on amy 'cat lab.txt; stat -c "%a %U" .kube/config .ssh/lab_key'
has '^600 amy$'; has 'ssh cp'
address=$(in_ sh -c "awk '\$1 == \"HostName\" { print \$2; exit }' ~amy/.ssh/lab_config")
exits 0 on amy 'kubectl create configmap mine --from-literal=mark=amy'
exits 0 on amy "timeout 5 bash -c '</dev/tcp/$address/6443'"
in_ setpriv --reuid 4242 --clear-groups timeout 3 bash -c "</dev/tcp/$address/6443" 2>/dev/null &&
  { say "FAILED: a stranger on the server reaches amy's API"; bad=$((bad + 1)); } || say "ok: nobody else on the server reaches it"
in_machine() { in_ ssh -o BatchMode=yes -i /var/lib/kubecamp-gate/home/data/labs/gate-amy/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "root@$address" "$1" 2>/dev/null; }
ok "root of the server is in amy's machine" in_machine true
in_machine "timeout 3 bash -c '</dev/tcp/${address%.*.*}.255.1/22'" &&
  { say "FAILED: a machine reaches the server"; bad=$((bad + 1)); } || say "ok: the machines reach nothing of the server"
on bob true >/dev/null 2>&1 && { say "FAILED: bob is in without a slot"; bad=$((bad + 1)); } || say "ok: bob is not let in"
give_back amy

say "bob's slot: a clean lab"
wait_for 60 take bob --layout 1x4c12g || give_up "bob cannot book: $(cat "$home/refused")"
ok "kubectl get nodes" wait_for 400 ready bob || give_up "bob has no lab: $(on bob 'kubectl get nodes' 2>&1)"
exits 1 on bob 'kubectl get configmap mine'
has 'not found'
exits 1 on bob "timeout 3 bash -c '</dev/tcp/$address/6443'"
other=$address address=$(in_ sh -c "awk '\$1 == \"HostName\" { print \$2; exit }' ~bob/.ssh/lab_config")
[ "$other" != "$address" ] && say "ok: another machine" || { say "FAILED: bob has amy's machine"; bad=$((bad + 1)); }
give_back bob

say "amy again: her own lab as she left it"
wait_for 60 take amy --layout 1x4c12g || give_up "amy cannot book again: $(cat "$home/refused")"
ok "kubectl get nodes" wait_for 300 ready amy || give_up "amy's lab is not back: $(on amy 'kubectl get nodes; cat lab.txt' 2>&1)"
exits 0 on amy 'kubectl get configmap mine -o jsonpath={.data.mark}'
has '^amy$'
address=$other
give_back amy

say "the gate is taken off: no lab, no engine, no rule"
exits 0 as ann --yes --plain hub unenroll root@127.0.0.1 --server one --identity "$home/ann/key"
has 'What stays there: the group kubecamp-students'
exits 0 as ann hub server list
has 'away'
exits 0 in_ sh -c '[ ! -e /var/lib/kubecamp-gate ] && ! ip rule show | grep -q ^1150 && [ -z "$(ls /run/netns)" ] && ! pgrep -r D,R,S,T incusd'
grep -q kct_ "$home/hub.log" && { say "FAILED: a token is in the hub's log"; bad=$((bad + 1)); }
finish

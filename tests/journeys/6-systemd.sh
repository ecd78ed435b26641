#!/usr/bin/env bash
# A booked server with systemd as process 1: the agent as its unit, labs in an engine that this starts, sessions of logind
# with user managers, and logins in the journal. The server is a machine of the private engine, the hub speaks TLS to it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/hub.sh"
[ "$(id -u)" = 0 ] || die "machines need root"
at=near
rm -rf "$home" && mkdir -p "$home/debs"

clean_up() {
  [ -z "$hub" ] || kill "$hub" 2>/dev/null
  kc machine engine stop --yes >/dev/null 2>&1
  [ -n "${KEEP:-}" ] || rm -rf "$KUBECAMP_HOME"
}
give_up() { say "the agent's log:"; on_server 'journalctl -u kubecamp-agent -n 30 --no-pager'; say "the hub's log:"; tail -n 10 "$home/hub.log"; die "$@"; }

lab_parts
say "a server with systemd, and what such servers have"
ok "a machine" kc --name server machine make --layout 1x4c12g --machines container --allow-undersized --yes --plain || die "no server"
read -r address netns < <(kc machine list -o json | python3 -c "import json,sys;m=json.load(sys.stdin)[0];print(m['address'],m['netns'])")
root_key=$home/data/labs/server/key
near() { nsenter --net="$netns" "$@"; } # at a computer that reaches the server
plainly=(-o ConnectTimeout=5 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i "$root_key")
on_server() { near ssh "${plainly[@]}" "root@$address" "$1" </dev/null; }
# Machines reach no mirror: what the server lacks is fetched here, for its release, and carried there, for its own apt. What
# labs need is not installed: to enroll it does that.
fetch_debs() {
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 'Codename: bookworm' | grep -q . || return 9
  local apt=(-o Dir::Etc::SourceList="$home/debs/sources" -o Dir::Etc::SourceParts=- -o Dir::State="$home/debs/state" -o Dir::State::Status="$home/debs/status" -o Dir::Cache="$home/debs")
  mkdir -p "$home/debs/state/lists/partial" "$home/debs/archives/partial" && on_server 'cat /var/lib/dpkg/status' >"$home/debs/status"
  apt-get indextargets --format 'deb $(REPO_URI) trixie main' 'Created-By: Packages' 'Codename: bookworm' 'Component: main' | head -n 1 >"$home/debs/sources"
  apt-get "${apt[@]}" -q update && apt-get "${apt[@]}" -qy --no-install-recommends --download-only install libpam-systemd polkitd tmux cron incus-base lxcfs incus-client dnsmasq-base btrfs-progs squashfs-tools iproute2 mmdebstrap zstd nftables
}
fetch_debs >"$home/apt.out" 2>&1
case $? in
  0) say "ok: packages of its release" ;;
  9) skip "6-systemd: this computer's apt knows no Debian 12, whose mirror has the packages of the machines' release"; finish ;;
  *) tail -n 5 "$home/apt.out"; die "no packages" ;;
esac
(cd "$home/debs/archives" && for deb in *.deb; do
  dpkg-deb -f "$deb" && printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d ' ' -f 1)"
done >Packages) || die "no list of packages"
on_server 'mkdir -p /srv/debs && rm -f /etc/apt/sources.list.d/* && echo "deb [trusted=yes] file:/srv/debs ./" >/etc/apt/sources.list'
near scp -q "${plainly[@]}" "$home"/debs/archives/*.deb "$home/debs/archives/Packages" "root@$address:/srv/debs/" &&
  on_server 'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install libpam-systemd polkitd tmux cron' >>"$home/apt.out" 2>&1 ||
  { tail -n 5 "$home/apt.out"; die "packages are not installed"; }
on_server 'systemctl unmask systemd-logind; systemctl restart systemd-logind polkit' # nodes go without it
# A container has none of its own; the disk of the labs' machines is one.
on_server 'for i in $(seq 0 31); do echo "b /dev/loop$i 660 root root - 7:$i"; done >/etc/tmpfiles.d/loop.conf; echo "c /dev/loop-control 660 root root - 10:237" >>/etc/tmpfiles.d/loop.conf; systemd-tmpfiles --create /etc/tmpfiles.d/loop.conf'
on_server 'mkdir -p -m 700 /var/lib/kubecamp-gate/home && mkdir -p /var/lib/kubecamp-gate/home/cache/images'
near scp -q "${plainly[@]}" "$KUBECAMP_CACHE"/images/kubecamp-node-*.tar.zst "root@$address:/var/lib/kubecamp-gate/home/cache/images/" || die "no image there"
ok "systemd is process 1, logind and cron run" on_server '[ "$(cat /proc/1/comm)" = systemd ] && systemctl is-active systemd-logind && systemctl is-active cron'

say "a hub with TLS, people, and the server enrolled"
bridge=$(near ip -4 -o route get "$address" | sed -n 's/.* src \([0-9.]*\).*/\1/p')
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=hub -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=IP:$bridge" \
  -keyout "$home/tls.key" -out "$home/tls.crt" 2>/dev/null
url=https://$bridge:8420
reach=(KUBECAMP_HUB="$url" KUBECAMP_HUB_CA="$home/tls.crt")
people
serve 'near curl -fs --cacert "$home/tls.crt" "$url/healthz"' nsenter --net="$netns" -- --listen "$bridge:8420" --tls-cert "$home/tls.crt" --tls-key "$home/tls.key"
camp "$address"
enroll=(--yes --plain hub enroll "root@$address" --server one --hub "$url" --hub-ca "$home/tls.crt" --identity "$root_key" --accept-new-host-keys --admin-key "$home/admin/key.pub"
  --machines container --bundle "$bundle")
ok "enrolled, with a first lab made and removed" as ann "${enroll[@]}" || give_up "not enrolled"
ok "the agent is a unit that runs, and comes up with the server" on_server 'systemctl is-active kubecamp-agent && systemctl is-enabled kubecamp-agent'

# came BOOKING yes|no: whether the hub knows that its holder came
came() { [ "$(python3 -c "import sqlite3;print('no' if sqlite3.connect('file:$home/hub.db?mode=ro',uri=True).execute('select came is null from bookings where id=?',('$1',)).fetchone()[0] else 'yes')")" = "$2" ]; }
# clean WHO: nothing of that account is left on the server, by the system's own word
clean() {
  on_server "systemctl is-active -q systemd-logind && id -u $1 >/dev/null && ! pgrep -U $1 && ! loginctl list-sessions --no-legend | grep -w $1 && [ ! -e /var/lib/systemd/linger/$1 ] && [ ! -e /var/spool/cron/crontabs/$1 ] &&
    ! systemctl is-active user@\$(id -u $1).service user-\$(id -u $1).slice && [ ! -e /run/user/\$(id -u $1) ] && [ ! -e /sys/fs/cgroup/systemd/user.slice/user-\$(id -u $1).slice ] && [ ! -e /sys/fs/cgroup/user.slice/user-\$(id -u $1).slice ]"
}

say "amy's slot: a session of logind, and all that systemd would keep running for her"
take amy --layout 1x4c12g || give_up "amy cannot book: $(cat "$home/refused")"
ok "amy has a lab" wait_for 300 ready amy || give_up "amy has no lab: $(on amy 'kubectl get nodes' 2>&1)"
exits 0 on amy 'kubectl create configmap mine --from-literal=mark=amy'
lab=$(on_server "sed -n 's/^ *HostName *//p' ~amy/.ssh/lab_config | head -n 1")
ok "its network is none of the server's: $lab" [ -n "$lab" -a "${lab%.*}" != "${address%.*}" ]
exits 0 on amy 'echo $XDG_RUNTIME_DIR; loginctl list-sessions --no-legend'
has '^/run/user/'; has amy
plant() {
  exits 0 on amy 'systemd-run --user --unit=stays --property=Restart=always sleep 1000 && systemd-run --user --unit=again --on-active=1 --on-unit-active=1 sleep 1'
  exits 0 on amy 'loginctl enable-linger && ls /var/lib/systemd/linger'
  has '^amy$'
  exits 0 on amy 'systemd-run --user --scope --unit=apart setsid -f sleep 1000 >/dev/null 2>&1 && setsid -f nohup sleep 1000 >/dev/null 2>&1 && tmux -L x new -d "sleep 1000" && echo "* * * * * sleep 1005" | crontab - && touch /tmp/hers /dev/shm/hers'
  ok "it runs on after she logged out" wait_for 5 on_server 'systemctl is-active user@$(id -u amy).service && [ "$(pgrep -c -U amy -f "sleep 1000$")" -ge 4 ] && pgrep -U amy tmux'
  exits 0 on amy 'systemctl --user is-active stays.service again.timer apart.scope && crontab -l && ls /tmp/hers /dev/shm/hers'
}
plant
ok "an agent that is killed comes back" on_server 'old=$(systemctl show -p MainPID --value kubecamp-agent); systemctl kill -s KILL --kill-whom=main kubecamp-agent
  for i in $(seq 100); do new=$(systemctl show -p MainPID --value kubecamp-agent); [ "$new" != 0 ] && [ "$new" != "$old" ] && systemctl is-active -q kubecamp-agent && exit 0; sleep 0.1; done; exit 1'
ok "she is still in, and her lab runs on" ready amy
ok "the hub knows that the slot runs" wait_for 15 is "$ID" active

say "the server restarts in the midst of her slot"
began=$(on_server 'systemctl show -p UserspaceTimestampMonotonic --value') && [ -n "$began" ] || give_up "systemd does not say when it began"
on_server 'systemctl reboot' >/dev/null 2>&1
is_back() { local now; now=$(on_server 'systemctl is-active -q kubecamp-agent && systemctl show -p UserspaceTimestampMonotonic --value') && [ "$now" != "$began" ]; }
ok "it is back, with the agent" wait_for 120 is_back || give_up "the server did not come back"
ok "she is let in again" wait_for 30 on amy true || give_up "amy is not let in again"
# Now already: cron begins no job before the next full minute, and her lab takes a while.
exits 0 on amy 'echo "* * * * * sleep 1005" | crontab -'
ok "her lab is back, as she left it" wait_for 300 ready amy || give_up "amy's lab is not back: $(on amy 'kubectl get nodes' 2>&1)"
exits 0 on amy 'kubectl get configmap mine -o jsonpath={.data.mark}'
has '^amy$'
plant
cp "$home"/amy/data/slots/*/key-cert.pub "$home/hers-cert.pub" || give_up "no certificate"
hers=(-o ConnectTimeout=5 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes -i "$home/amy/key" -o CertificateFile="$home/hers-cert.pub")
exits 0 near ssh "${hers[@]}" "amy@$address" true
# By a number that nothing else of hers has.
ok "cron runs her job" wait_for 70 on_server 'pgrep -U amy -fx "sleep 1005"' || on_server 'crontab -l -u amy; journalctl -t CRON -n 10 --no-pager'
exits 0 as amy book release "$ID"
# The agent asks each 5 s whether there is a new plan, so a release is heard up to 5 s later; she is out within 5 s of that.
ok "she is out within 5 s of when the agent heard of it" wait_for 10 on_server '! pgrep -U amy'
ok "no session, user manager, control group, linger or job is left" wait_for 10 clean amy || on_server 'loginctl list-sessions; loginctl user-status amy; ls /run/user; pgrep -a -U amy'
ok "proven clean" wait_for 120 is "$ID" 'done' || give_up "the slot does not end"
# Until then cron has her table; and in the second in which it goes a job may still begin.
out=$(on_server 'date +%s')
ok "her files outside of her home are gone" on_server '[ ! -e /tmp/hers ] && [ ! -e /dev/shm/hers ]'

say "bob's slot: a login that no look at the processes can have seen counts, by the journal"
wait_for 60 take bob --layout 1x4c12g || give_up "bob cannot book: $(cat "$home/refused")"
ok "the door is open" wait_for 300 on_server '[ -s /etc/kubecamp-gate/principals/bob ]' || give_up "bob is not let in"
on_server 'systemctl stop kubecamp-agent'
exits 0 on bob true
on_server 'loginctl terminate-user bob; systemctl stop user@$(id -u bob).service' >/dev/null 2>&1
ok "he is gone, and the hub does not know of him" wait_for 10 on_server '! pgrep -U bob' && came "$ID" no || give_up "it shows nothing"
# From here on a step of the hand-over may take 20 s and not 900.
on_server 'echo "hand-over-limit: 20" >>/etc/kubecamp-gate/agent.yaml && systemctl start kubecamp-agent'
ok "the hub heard of it" wait_for 20 came "$ID" yes || give_up "the login was missed"
# By the certificate of her slot, whose time is not over.
exits 255 near ssh "${hers[@]}" "amy@$address" true
has 'Permission denied'

say "the engine hangs as bob's slot ends: he is out all the same, the server is quarantined, and who is next gets another one"
engine() { on_server "kill -$1 \$(cut -d ' ' -f 1 /var/lib/kubecamp-gate/home/data/engine/daemon.pid)"; }
next=$(date -u -d "@$(($(date +%s) / 1800 * 1800 + 7200))" +%Y-%m-%dT%H:%M:%SZ)
exits 0 as ann hub server add two --address "$address" --cores 8 --memory 32GiB --buffer 0
exits 0 as amy book new "$next" --for 30m --server one --layout 1x4c12g
exits 0 on bob 'setsid -f sleep 1000 >/dev/null 2>&1'
ok "bob's lab runs, and its engine is stopped in the midst" on_server 'pgrep -x kubelet' && engine STOP || give_up "no engine to be stopped"
exits 0 as bob book release "$ID"
ok "he is out within 5 s of when the agent heard of it" wait_for 10 on_server '! pgrep -U bob'
exits 0 on_server '[ ! -s /etc/kubecamp-gate/principals/bob ]'
ok "the save comes to its limit" wait_for 60 is "$ID" quarantined || give_up "the hand-over does not end"
exits 0 as ann hub server list -o json
has '"quarantined"'; has 'saving the lab of bob took longer than 20 s'
moved() { as amy book ls -o json | python3 -c "import json,sys;sys.exit(not [b for b in json.load(sys.stdin) if b['server']=='two' and 'one is quarantined' in (b['note'] or '')])"; }
ok "amy's next slot is on another server, and she reads why" wait_for 20 moved || as amy book ls -o json
engine CONT
ok "the agent stops bob's machines once the engine goes on" wait_for 90 on_server '! pgrep -x kubelet'
# What comes now has the time that it has elsewhere: it is to end well, on a slow computer too.
exits 0 on_server 'sed -i /^hand-over-limit/d /etc/kubecamp-gate/agent.yaml && systemctl restart kubecamp-agent'
exits 0 as ann hub server health one healthy --reason "its engine goes on"
free() { as ann hub server list -o json | python3 -c "import json,sys;s=[s for s in json.load(sys.stdin) if s['id']=='one'][0];sys.exit(not (s['health']=='healthy' and s['occupant'] is None))"; }
ok "saved and proven clean, and free for others" wait_for 120 free || give_up "the server does not come back"
ok "nothing of bob is left" clean bob
# cron_ran MORE...: how often cron began a job of amy, by its own journal
cron_ran() { on_server "journalctl -t CRON --no-pager -o cat $* | grep -cF '(amy) CMD'"; }
ok "a full minute has passed since she was proven out" wait_for 65 on_server "[ \$(date +%s) -ge $((out + 62)) ]"
ok "cron had begun jobs of amy, and begins none any more" [ "$(cron_ran)" -ge 1 -a "$(cron_ran --since "@$((out + 1))")" = 0 ] || on_server 'journalctl -t CRON -n 20 --no-pager'

say "the gate is taken off, with its engine; the Incus of the packages, which that does not use, may run"
# Stopped by hand it would come back with the server.
exits 0 on_server 'systemctl stop kubecamp-agent'
exits 0 as ann --yes --plain hub unenroll "root@$address" --server one --identity "$root_key"
exits 0 on_server '[ ! -e /var/lib/kubecamp-gate ] && [ ! -L /etc/systemd/system/multi-user.target.wants/kubecamp-agent.service ] && ! systemctl cat kubecamp-agent 2>/dev/null && ! systemctl list-units --all --no-legend | grep kubecamp-agent && ! pgrep -a incusd | grep -e "--group root" && [ -z "$(ls /run/netns)" ]'
finish

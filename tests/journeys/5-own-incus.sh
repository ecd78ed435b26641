#!/usr/bin/env bash
# A lab in an Incus that is the user's own: kubecamp adds its machines, takes them away, and touches nothing else there.
# An engine of another home serves as that Incus; one that a killed journey left ends before its folder is removed.
here=/tmp/kubecamp-journey-5-own-incus
own=$here/incus owner=$here/owner
of_owner() { KUBECAMP_HOME=$owner "${KUBECAMP:-$(dirname "$0")/../../target/release/kubecamp}" "$@"; }
let_go() { umount -l "$own" 2>/dev/null; of_owner machine engine stop --yes >/dev/null 2>&1; }
let_go
. "$(dirname "$0")/lib.sh"

trap 'let_go; clean_up; exit 1' EXIT INT TERM
mkdir -p "$owner" "$own"
ok "an Incus runs" of_owner machine engine start --plain || die "no Incus, nothing to try"
# Bound elsewhere, its folder does not show whose it is.
mount --bind "$owner/data/engine/incus" "$own" || die "its folder cannot be bound"
netns=$(of_owner machine engine status | sed -n 's/.*network namespace //p')
# Where that Incus has its bridge, this user is at home.
own_kc() { nsenter --net="$netns" env INCUS_DIR="$own" "$KUBECAMP" "$@"; }
inc() { INCUS_DIR=$own INCUS_CONF=$KUBECAMP_HOME/client incus "$@"; }
inc create --empty theirs -s "$(inc storage list -f csv | head -n 1 | cut -d, -f1)" >/dev/null && inc config set theirs user.mine=yes || die "no instance of the user's own"
# The node image and the prepared machine, of which the next lab is a copy, stay as in kubecamp's own engine.
all() { inc list -f csv -c ns | grep -v '^kubecamp-image-'; inc profile show default; inc network list -f csv -c ntm; inc storage list -f csv -c nD; }
before=$(all)

say "up --local finds it"
exits 0 own_kc up --local --yes --plain "${roomy[@]}"
has 'your Incus'
exits 0 own_kc kubectl -- get nodes --no-headers
[ "$(printf '%s\n' "$OUT" | grep -c ' Ready ')" = 3 ] && say "ok: three nodes Ready" || { say "FAILED: $OUT"; bad=$((bad + 1)); }
[ -d "$KUBECAMP_HOME/data/engine" ] && { say "FAILED: a private engine was made as well"; bad=$((bad + 1)); }
exits 0 own_kc up --local --yes --plain "${roomy[@]}"
has 'done in .*: 0 steps changed something'
exits 0 own_kc machine list
has 'lab-worker-1'

say "down leaves it as it was"
exits 0 own_kc down --yes --plain
after=$(all)
if [ "$before" = "$after" ]; then say "ok: nothing else changed there"; else say "FAILED: changed:"; diff <(echo "$before") <(echo "$after"); bad=$((bad + 1)); fi
ok "it still runs" inc list -f csv
let_go
finish

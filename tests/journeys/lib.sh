# Sourced by the journeys: a private home, checks that say what they saw, clean-up whatever happens.
set -u
KUBECAMP=${KUBECAMP:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/release/kubecamp}
export KUBECAMP_CACHE=${KUBECAMP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kubecamp}
journey=$(basename "$0" .sh)
# A fixed folder: what a killed journey left running is found again and stopped.
export KUBECAMP_HOME=/tmp/kubecamp-journey-$journey
bad=0
# .ci/check sets KUBECAMP_UNDERSIZED where the computer's disk is smaller than a layout asks.
roomy=(${KUBECAMP_UNDERSIZED:-})

kc() { "$KUBECAMP" "$@"; }
say() { printf -- '--- %s: %s\n' "$journey" "$*"; }
# skip WHAT AND WHY: counted by .ci/check in its closing line
skip() { say "SKIPPED: $*"; echo "$*" >> "${KUBECAMP_SKIPPED:-/dev/null}"; }
die() { say "FAILED: $*"; exit 1; }
# ok WHAT COMMAND...: the command must succeed
ok() { local what=$1; shift; if "$@"; then say "ok: $what"; else say "FAILED: $what: $*"; bad=$((bad + 1)); return 1; fi; }
# exits CODE COMMAND...: the command must exit with that code; its output is kept in $OUT
exits() {
  local want=$1; shift
  OUT=$("$@" 2>&1); local got=$?
  if [ "$got" = "$want" ]; then say "ok: exit $got: ${*##*/}"; else say "FAILED: exit $got, not $want: $*"; printf '%s\n' "$OUT" | tail -n 20; bad=$((bad + 1)); fi
}
has() { if printf '%s\n' "$OUT" | grep -q -- "$1"; then say "ok: says '$1'"; else say "FAILED: does not say '$1':"; printf '%s\n' "$OUT" | tail -n 20; bad=$((bad + 1)); fi; }
# lacks TEXT PATH: it can be read, and does not hold that.
lacks() { grep -rqF -- "$1" "$2"; [ $? = 1 ]; }
wait_for() { # wait_for SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.3; done
}
clean_up() {
  kc machine engine stop --yes >/dev/null 2>&1
  [ -n "${KEEP:-}" ] || rm -rf "$KUBECAMP_HOME"
}
finish() { trap - EXIT; clean_up; [ $bad = 0 ] && say "all good" || say "$bad checks failed"; exit $((bad > 0)); }
trap 'clean_up; exit 1' EXIT INT TERM
clean_up

#!/usr/bin/env bash
# What a hub bears, release build on loopback: 64 clients x 1,000 overlapping requests, then a week of 10,000 bookings.
# One JSON line: winners, lost requests, p99, memory, time of the week's page. ROUNDS (1000 at most) and SERVERS make it
# smaller.
# POSTGRES=1 makes a PostgreSQL of its own, KUBECAMP_BENCH_DATABASE names one; else it is SQLite, in TMPDIR.
# CHECK=1 fails when a bound of issue 4 does not hold. Nothing else should run meanwhile.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
[ -n "${KUBECAMP_BIN:-}" ] || cargo build --release --quiet
bin=${KUBECAMP_BIN:-$target/release/kubecamp}
# Built before the hub starts; KUBECAMP_LOAD is one that was built already.
[ -n "${KUBECAMP_LOAD:-}" ] || cargo bench --quiet --bench hub --no-run
load() { if [ -n "${KUBECAMP_LOAD:-}" ]; then "$KUBECAMP_LOAD"; else cargo bench --quiet --bench hub; fi; }
home=$(mktemp -d) hub="" pg=""
leave() {
  [ -z "$hub" ] || { kill "$hub" 2>/dev/null || true; wait "$hub" 2>/dev/null || true; }
  [ -z "$pg" ] || { as_postgres "$pgbin/pg_ctl" -m immediate -D "$pg/data" stop >/dev/null || true; rm -rf "$pg"; }
  rm -rf "$home"
}
trap leave EXIT
# PostgreSQL refuses to run as root.
as_postgres() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }
if [ -n "${POSTGRES:-}" ]; then
  pg=$(mktemp -d /tmp/kubecamp-pg.XXXXXX)
  pgbin=$(dirname "$(find /usr/lib/postgresql -path '*/bin/initdb' | sort -V | tail -n 1)")
  [ "$(id -u)" != 0 ] || chown postgres "$pg"
  as_postgres "$pgbin/initdb" -A trust -U postgres -E UTF8 --locale=C -D "$pg/data" >/dev/null
  as_postgres "$pgbin/pg_ctl" -w -D "$pg/data" -l "$pg/log" -o "-k $pg -c listen_addresses=''" start >/dev/null
  as_postgres "$pgbin/createdb" -h "$pg" -U postgres hub
  KUBECAMP_BENCH_DATABASE="postgres://postgres@localhost/hub?host=$pg"
fi
export KUBECAMP_HOME=$home
args=(); [ -n "${KUBECAMP_BENCH_DATABASE:-}" ] && args=(--database "$KUBECAMP_BENCH_DATABASE")
"$bin" hub serve --listen 127.0.0.1:0 --rate 0 "${args[@]}" 2>"$home/log" & hub=$!
until grep -q 'listens on' "$home/log"; do kill -0 $hub; sleep 0.05; done
url=$(sed -n 's/.*listens on //p' "$home/log" | head -1)
"$bin" hub admin-link ann "${args[@]}" 2>/dev/null | "$bin" login --hub "$url" --link 2>/dev/null
# Each round has a half hour of its own, in 21 days, and a whole week comes after them.
printf 'open_ahead: 1000\nperson_hours: 168\ngroup_hours: 10000\nhorizon: 40\n' >"$home/policy.yaml"
"$bin" hub course set k8s --title Bench --policy "$home/policy.yaml" >/dev/null
"$bin" hub server add one --address 192.0.2.1 --cores 8 --memory 32GiB --buffer 0 >/dev/null
for n in $(seq 1 64); do echo "p$n,P$n,g$n"; done >"$home/roster.csv"
"$bin" hub course import k8s "$home/roster.csv" >/dev/null
token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$home/config/hub.json")
TOKEN=$token URL=$url PID=$hub load | tee "$home/figures"
"$bin" hub doctor >&2
[ -z "${CHECK:-}" ] || DATABASE=${KUBECAMP_BENCH_DATABASE:-} python3 - "$home/figures" <<'PY'
import json, os, sys
f = json.loads(open(sys.argv[1]).read().strip().splitlines()[-1])
rounds = int(os.environ.get("ROUNDS", 1000))
holds = {
    "no request is lost": f["lost"] == 0,
    "every request is answered": sum(n for s, n in f["statuses"].items() if int(s)) == 64 * rounds,
    # Two thirds ask for one half hour alone. The last one may be sold together with the one after it.
    "each round's half hour is sold": rounds <= f["windows_won"] <= rounds + 1,
    "no half hour is sold twice": f["most_winners"] == 1,
    "no answer is a 5xx": all(int(s) < 500 for s in f["statuses"]),
    "the hub has less than 100 MiB": f["hub_peak_mib"] < 100,
}
if "SERVERS" not in os.environ:
    holds["a week has 10,000 bookings"] = f["week_bookings"] >= 10_000
if not os.environ["DATABASE"]:
    holds["99 of 100 requests take less than 50 ms"] = f["p99_ms"] < 50
    holds["99 of 100 that get a slot take less than 50 ms"] = f["won_p99_ms"] < 50
    holds["the week's page takes less than 50 ms"] = f["week_page_ms"] < 50
    holds["the week's page takes less than 50 ms after each change"] = f["week_page_changed_most_ms"] < 50
broken = [what for what, good in holds.items() if not good]
print(f"{len(holds) - len(broken)} of {len(holds)} bounds hold" + "".join(f"; BROKEN: {b}" for b in broken))
sys.exit(bool(broken))
PY

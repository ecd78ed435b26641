#!/usr/bin/env bash
# What a hub bears, release build on loopback: 64 clients x 1,000 overlapping requests, then a week of 10,000 bookings.
# One JSON line: winners, lost requests, p99, memory, time of the week's page. ROUNDS and SERVERS make it smaller.
# KUBECAMP_BENCH_DATABASE names a PostgreSQL; else it is SQLite, in TMPDIR.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
[ -n "${KUBECAMP_BIN:-}" ] || cargo build --release --quiet
bin=${KUBECAMP_BIN:-$target/release/kubecamp}
home=$(mktemp -d)
export KUBECAMP_HOME=$home
args=(); [ -n "${KUBECAMP_BENCH_DATABASE:-}" ] && args=(--database "$KUBECAMP_BENCH_DATABASE")
"$bin" hub serve --listen 127.0.0.1:0 --rate 0 "${args[@]}" 2>"$home/log" &
hub=$!
trap 'kill $hub 2>/dev/null; wait $hub 2>/dev/null || true; rm -rf "$home"' EXIT
until grep -q 'listens on' "$home/log"; do kill -0 $hub; sleep 0.05; done
url=$(sed -n 's/.*listens on //p' "$home/log" | head -1)
"$bin" hub admin-link ann "${args[@]}" 2>/dev/null | "$bin" login --hub "$url" --link 2>/dev/null
printf 'open_ahead: 1000\nperson_hours: 168\ngroup_hours: 10000\n' >"$home/policy.yaml"
"$bin" hub course set k8s --title Bench --policy "$home/policy.yaml" >/dev/null
"$bin" hub server add one --address 192.0.2.1 --cores 8 --memory 32GiB >/dev/null
for n in $(seq 1 64); do echo "p$n,P$n,g$n"; done >"$home/roster.csv"
"$bin" hub course import k8s "$home/roster.csv" >/dev/null
token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$home/config/hub.json")
TOKEN=$token URL=$url PID=$hub cargo bench --quiet --bench hub
"$bin" hub doctor >&2

# A hub with a small camp in it, for tests of what people see: sourced, it leaves the hub running until the script ends.
# Sets: bin, home, url, seed FILES; `as WHO ARGS...` runs the program as somebody who is signed in.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${KUBECAMP:-$root/target/debug/kubecamp}
home=$(mktemp -d)
hub=
leave() { [ -z "$hub" ] || { kill "$hub" 2>/dev/null || true; wait "$hub" 2>/dev/null || true; }; rm -rf "$home"; }
trap leave EXIT
# fetched WHAT COMMAND...: where the command cannot fetch it, one line says so: the tools themselves say nothing or too much
fetched() {
  local what=$1; shift
  "$@" >/dev/null 2>&1 || { echo "FAILED: $what could not be fetched: ${1##*/} ended with $?; does its registry answer?" >&2; return 1; }
}
as() { local who=$1; shift; KUBECAMP_HOME=$home/$who "$bin" "$@"; }
api() { # api WHO METHOD PATH [JSON]: the hub's answer
  local token; token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$home/$1/config/hub.json")
  curl -sS -X "$2" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' ${4:+-d "$4"} "$url$3"
}
# Not by `as`: the process that is ended must be the hub itself.
KUBECAMP_HOME=$home/hub "$bin" hub serve --listen 127.0.0.1:0 --rate "${RATE:-0}" 2>"$home/log" & hub=$!
until grep -q 'listens on' "$home/log"; do kill -0 $hub; sleep 0.05; done
url=$(sed -n 's/.*listens on //p' "$home/log" | head -1)
as hub hub admin-link ann 2>/dev/null | as ann login --hub "$url" --link 2>/dev/null
printf 'open_ahead: 20\nperson_hours: 60\ngroup_hours: 400\n' >"$home/rules.yaml"
as ann hub course set k8s --title Kubernetes --policy "$home/rules.yaml" >/dev/null
as ann hub server add one --address 192.0.2.7 --cores 8 --memory 32GiB >/dev/null
as ann hub server add two --address 192.0.2.8 --cores 16 --memory 64GiB --mode shared >/dev/null
as ann hub server add late --address 192.0.2.9 --cores 8 --memory 32GiB --opening 'mon-sun 08:00-22:00' --zone Europe/Berlin >/dev/null
printf '%s\n' amy,Amy,red bob,Bob,red cem,Cem,blue 'dan,Dan <b>x</b>,blue' >"$home/roster.csv"
as ann hub course import k8s "$home/roster.csv" >/dev/null
as ann hub user add tea --full-name 'Tea Cher' --role teacher >/dev/null
for who in amy bob cem tea; do as ann hub user link $who 2>/dev/null | as $who login --hub "$url" --link 2>/dev/null; done

#!/usr/bin/env bash
# The pages in a real Chromium: what people do, with a mouse, a keyboard, a phone and without scripts; axe finds nothing.
# Pictures are kept in target/pages, or where PICTURES says.
. "$(dirname "$0")/camp.sh"
pictures=${PICTURES:-$root/target/pages}
mkdir -p "$pictures"
tools=$root/target/pages-tools
AXE=axe-core@4.14.1
[ -f "$tools/node_modules/axe-core/axe.min.js" ] || fetched "$AXE" npm install --prefix "$tools" --no-audit --no-fund --no-save --silent "$AXE"
half=$(( $(date +%s) / 1800 * 1800 ))
# The Monday after today (the first Monday was day 4): of that week every day is ahead, whenever this runs.
week=$(( ((half / 86400 + 3) / 7 * 7 + 4) * 86400 ))
at() { date -u -d "@$1" +%FT%TZ; }
# One slot runs: its agent said so. One is ahead, one is another's, somebody waits.
amy=$(as amy book new "$(at $half)" --for 2h --server one -o json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -1)
as amy book new "$(at $((week + 5 * 86400 + 72000)))" --for 1h --server two --layout 2x4c8g >/dev/null
as bob book new "$(at $((half + 14400)))" --for 2h --server one >/dev/null
as cem book wait "$(at $((half + 14400)))" --for 2h --server one >/dev/null
as ann hub server maintenance one --from "$(at $((week + 7200)))" --to "$(at $((week + 14400)))" --reason 'new disk <script>' >/dev/null
token=$(as ann hub server token one)
told() { curl -sS -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d "$1" "$url/api/v1/agent/events"; }
now=$(date +%s)
states="" n=0
for state in arming active; do n=$((n + 1)); states="$states{\"seq\":$n,\"at\":$now,\"kind\":\"state\",\"booking\":\"$amy\",\"state\":\"$state\"},"; done
[ "$(told "{\"server\":\"one\",\"events\":[${states%,}]}")" = 200 ]
as ann book ls --all -o json >"$home/all.json"
grep -q '"state": *"active"' "$home/all.json"
# Dan is in two courses.
as ann hub course set net --title Networks --policy "$home/rules.yaml" >/dev/null
as ann hub group add lan --course net >/dev/null
as ann hub group join lan dan >/dev/null
# Eve too, and one of hers has a raster of its own; a server is open for a step of that one alone.
{ cat "$home/rules.yaml"; echo 'grid: 20'; } >"$home/quick.yaml"
as ann hub course set quick --title Quick --policy "$home/quick.yaml" >/dev/null
as ann hub group add hall --course quick >/dev/null
as ann hub user add eve --full-name Eve >/dev/null
for group in lan hall; do as ann hub group join $group eve >/dev/null; done
as ann hub server add slit --address 192.0.2.10 --cores 8 --memory 32GiB --opening 'mon-sun 08:40-09:05' >/dev/null
# Three at once on the shared server, of people whom nothing else is about.
for who in fay gus hal; do
  as ann hub user add $who --full-name "${who^}" >/dev/null
  as ann hub group join lan $who >/dev/null
  as ann book new "$(at $((week + 86400 + 36000)))" --for 2h --server two --layout 1x4c12g --person $who >/dev/null
done
# A link ends those before it, so each is made when it is needed.
printf '#!/bin/sh\nexec env KUBECAMP_HOME=%s %s hub user link "$1" 2>/dev/null\n' "$home/ann" "$bin" >"$home/link"
chmod +x "$home/link"
WEEK=$(date -u -d "@$week" +%F)
export WEEK URL=$url PICTURES=$pictures AXE_FILE=$tools/node_modules/axe-core/axe.min.js CHROMIUM=${CHROMIUM:-$(command -v chromium)}
export LINK=$home/link BOOKING=$amy
node "$root/tests/served/pages.mjs" || { echo "the hub's last lines:"; tail -n 60 "$home/log"; exit 1; }

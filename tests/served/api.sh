#!/usr/bin/env bash
# schemathesis reads the served OpenAPI document and asks what it allows and what it forbids: no 500, only documented
# answers, as each role. Bounded in number; the seed makes a failure come back.
RATE=0
. "$(dirname "$0")/camp.sh"
tools=$root/target/api-tools
SCHEMATHESIS=schemathesis==4.32.5
# One that was made for another folder does not start.
"$tools/bin/st" --version >/dev/null 2>&1 || { python3 -m venv --clear "$tools" && fetched "$SCHEMATHESIS" "$tools/bin/pip" install --quiet --disable-pip-version-check "$SCHEMATHESIS"; }
half=$(( $(date +%s) / 1800 * 1800 ))
as amy book new "$(date -u -d "@$((half + 86400))" +%FT%TZ)" --for 1h --server one >/dev/null
# takes WHO METHOD PATH [JSON]: what is well formed and allowed is taken; the answer in $home/answer
takes() {
  local token code; token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$home/$1/config/hub.json")
  code=$(curl -sS -o "$home/answer" -w '%{http_code}' -X "$2" -H "Authorization: Bearer $token" ${4:+-H 'Content-Type: application/json' -d "$4"} "$url/api/v1$3")
  case $code in 2??) ;; *) echo "$1 $2 $3 is refused ($code): $(cat "$home/answer")"; return 1 ;; esac
}
made() { python3 -c "import json; print(json.load(open('$home/answer'))['id'])"; }
# By chance hardly any body suits the rules (a free time on the raster, a name that is there), so that a route which refused
# all of them would pass below: one that suits is sent to each that people need.
starts=$((half + 172800))
hour="{\"starts\":$starts,\"ends\":$((starts + 3600))}"
wish="{\"server\":\"one\",\"layout\":\"1x4c12g\",\"window\":$hour}"
takes amy POST /bookings "$wish"; slot=$(made)
takes amy POST "/bookings/$slot/extend" "{\"ends\":$((starts + 5400))}"
takes bob POST /waits "$wish"; wait=$(made)
takes bob POST "/bookings/$wait/cancel" '{}'
takes amy POST "/bookings/$slot/give" '{"to":"cem"}'
takes cem POST "/bookings/$slot/cancel" '{"reason":"ill"}'
takes amy POST /series "{\"first\":{\"server\":\"one\",\"layout\":\"1x4c12g\",\"window\":$hour},\"weekly\":{\"zone\":\"UTC\",\"starts\":\"$(date -u -d "@$starts" +%FT%T)\",\"ends\":\"$(date -u -d "@$((starts + 3600))" +%FT%T)\",\"weeks\":2}}"
takes amy POST /tokens '{"kind":"feed"}'
ssh-keygen -q -t ed25519 -N '' -C '' -f "$home/key" </dev/null
takes amy PUT /me/keys "{\"keys\":[\"$(cut -d ' ' -f 1,2 "$home/key.pub")\"]}"
takes tea POST /bookings "{\"person\":\"bob\",\"server\":\"two\",\"layout\":\"1x4c12g\",\"window\":$hour,\"reason\":\"was ill\"}"; slot=$(made)
class="{\"course\":\"k8s\",\"layout\":\"1x4c12g\",\"minutes\":60,\"slots\":1,\"within\":{\"starts\":$starts,\"ends\":$((starts + 36000))},\"reason\":\"the exam\"}"
takes tea POST /class-plans "$class"
takes tea POST /class-plans/book "$class"
takes tea POST "/bookings/$slot/cancel" '{"reason":"fire drill"}'
takes tea POST /people/bob/link
takes ann POST /people '{"id":"fay","name":"Fay","role":"student"}'
takes ann PUT /courses/net '{"title":"Networks"}'
takes ann PUT /groups/lan '{"course":"net"}'
takes ann PUT /groups/lan/members/fay
takes ann POST /servers '{"id":"six","address":"192.0.2.6","cores":8,"memory":"32GiB","mode":"shared"}'
takes ann POST /servers/six/health '{"health":"away","reason":"new disk"}'
takes ann POST /servers/six/maintenance "{\"window\":$hour,\"reason\":\"new disk\"}"

# What the document allows, the rules may still refuse (times in the wrong order, a role, a slot that is taken): then by one of these.
cat >"$home/st.toml" <<'CONFIG'
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "304", "400", "401", "403", "404", "409", "412", "422", "429"]
CONFIG
# It keeps notes of its own where it runs.
cd "$home"
failed=0
for who in amy tea ann; do
  # What a teacher may do lies between the two: fewer tries.
  examples=${EXAMPLES:-25}; [ $who != tea ] || examples=$(((examples * 3 + 4) / 5))
  token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$home/$who/config/hub.json")
  # The stream of events never ends, and signing out would end the token that asks.
  "$tools/bin/st" --config-file "$home/st.toml" run "$url/api/v1/openapi.json" --header "Authorization: Bearer $token" --checks all \
    --exclude-path /api/v1/events --exclude-path /api/v1/sign-out --phases examples,coverage,fuzzing \
    --max-examples "$examples" --seed 4 --request-timeout 20 --no-color --report har --report-har-path "$home/st-$who.har" >"$home/st-$who.txt" 2>&1 || failed=1
  echo "== as $who"; tail -n "${LINES_SHOWN:-60}" "$home/st-$who.txt"
done
# Reading needs no luck: each of these answered once at least.
python3 - "$home"/st-*.har <<'READS' || failed=1
import json, sys
from urllib.parse import urlparse

answered = set()
for name in sys.argv[1:]:
    for entry in json.load(open(name))["log"]["entries"]:
        if 200 <= entry["response"]["status"] < 300 and entry["request"]["method"] == "GET":
            answered.add(urlparse(entry["request"]["url"]).path)
reads = "me bookings servers courses groups people tokens doctor gate hooks".split()
never = [read for read in reads if f"/api/v1/{read}" not in answered]
if never:
    sys.exit(f"never answered with success: {never}")
READS
if grep 'kct_' "$home/log"; then echo 'a token is in the log'; failed=1; fi
if grep 'status=5[0-9][0-9]' "$home/log"; then echo 'the hub failed in a request'; failed=1; fi
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/healthz")" = 200 ]
exit $failed

#!/usr/bin/env bash
# schemathesis reads the served OpenAPI document and asks what it allows and what it forbids: no 500, only documented
# answers, as each role. Bounded in number; the seed makes a failure come back.
RATE=0
. "$(dirname "$0")/camp.sh"
tools=$root/target/api-tools
SCHEMATHESIS=schemathesis==4.32.5
[ -x "$tools/bin/st" ] || { python3 -m venv "$tools" && fetched "$SCHEMATHESIS" "$tools/bin/pip" install --quiet --disable-pip-version-check "$SCHEMATHESIS"; }
half=$(( $(date +%s) / 1800 * 1800 ))
as amy book new "$(date -u -d "@$((half + 86400))" +%FT%TZ)" --for 1h --server one >/dev/null
# What the document allows, the rules may still refuse (times in the wrong order, a role, a slot that is taken): then by one of these.
cat >"$home/st.toml" <<'CONFIG'
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "304", "400", "401", "403", "404", "409", "412", "422", "429"]
CONFIG
# It keeps notes of its own where it runs.
cd "$home"
failed=0
for who in amy ann; do
  token=$(sed 's/.*"token":"\([^"]*\)".*/\1/' "$home/$who/config/hub.json")
  # The stream of events never ends, and signing out would end the token that asks.
  "$tools/bin/st" --config-file "$home/st.toml" run "$url/api/v1/openapi.json" --header "Authorization: Bearer $token" --checks all \
    --exclude-path /api/v1/events --exclude-path /api/v1/sign-out --phases examples,coverage,fuzzing \
    --max-examples "${EXAMPLES:-25}" --seed 4 --request-timeout 20 --no-color >"$home/st-$who.txt" 2>&1 || failed=1
  echo "== as $who"; tail -n "${LINES_SHOWN:-60}" "$home/st-$who.txt"
done
if grep 'kct_' "$home/log"; then echo 'a token is in the log'; failed=1; fi
if grep 'status=5[0-9][0-9]' "$home/log"; then echo 'the hub failed in a request'; failed=1; fi
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/healthz")" = 200 ]
exit $failed

# Sourced by journeys with a hub, after lib.sh: a hub, its people, and slots of the half hour that runs.
# Who sources it says first, by $at, which command runs others at a computer that reaches hub and server, and by $reach what
# the program needs in its environment to find the hub.
home=$KUBECAMP_HOME hub=

# lab_parts: what a lab is made of, made outside of the server, where there is a network, and before it; it is there when an
# earlier journey ran. Its bundle in $bundle.
lab_parts() {
  local version; version=$(kc bundle build --help | sed -n 's/.*\[default: \(v[0-9.]*\)\].*/\1/p' | head -n 1)
  find_bundle() { bundle=$(ls "$KUBECAMP_CACHE"/bundles/kubecamp-"$version"-*.bundle 2>/dev/null | head -n 1); [ -n "$bundle" ]; }
  find_bundle && ls "$KUBECAMP_CACHE"/images/kubecamp-node-*.tar.zst >/dev/null 2>&1 && return
  ok "bundle and image" kc up --local --yes --plain --layout 1x4c12g --machines container --allow-undersized || die "no bundle"
  ok "the lab that made them is gone" kc down --yes
  kc machine engine stop --yes >/dev/null 2>&1
  find_bundle || die "no bundle"
}

# as WHO ARGUMENTS...: the program as somebody there, away from any terminal; $input is what it reads
as() {
  local who=$1; shift
  $at setsid --wait env KUBECAMP_HOME="$home/$who" "${reach[@]}" "$KUBECAMP" "$@" <"${input:-/dev/null}"
}
on() { as "$1" book ssh --identity "$home/$1/key" -- "$2"; } # on WHO LINE: a login in the slot that runs

# people: ann, amy, bob and the admin, each with a folder and a key
people() {
  local who
  for who in ann amy bob admin; do mkdir "$home/$who"; ssh-keygen -q -t ed25519 -N '' -f "$home/$who/key" </dev/null; done
}
# serve UP BEFORE... -- ARGUMENTS...: the hub, run by what stands before; its process in $hub. UP says that it answers.
serve() {
  local up=$1 before=(); shift
  while [ "$1" != -- ]; do before+=("$1"); shift; done
  shift
  "${before[@]}" env KUBECAMP_HOME="$home/hub" "$KUBECAMP" hub serve --database "sqlite://$home/hub.db" "$@" </dev/null 2>"$home/hub.log" & hub=$!
  wait_for 20 eval "$up" || die "the hub did not come up: $(cat "$home/hub.log")"
}
# camp ADDRESS: ann is its admin; a course, a server `one` at that address, and two people in the course
camp() {
  local who
  KUBECAMP_HOME=$home/hub "$KUBECAMP" hub admin-link ann --database "sqlite://$home/hub.db" >"$home/link" 2>/dev/null
  input=$home/link as ann login --link >/dev/null 2>&1 || die "nobody signs in"
  exits 0 as ann hub course set k8s --title Kubernetes
  exits 0 as ann hub server add one --address "$1" --cores 8 --memory 32GiB --buffer 0
  for who in amy bob; do echo "$who,$who,red,UTC,$(cat "$home/$who/key.pub")"; done >"$home/roster.csv"
  exits 0 as ann hub course import k8s "$home/roster.csv"
  for who in amy bob; do exits 0 as "$who" login --as "$who" --identity "$home/$who/key"; done
}
# take WHO [ARGUMENTS...]: books the half hour that runs, for an hour; its id in $ID
take() {
  local who=$1 start; shift
  start=$(date -u -d "@$(($(date +%s) / 1800 * 1800))" +%Y-%m-%dT%H:%M:%SZ)
  as "$who" book new "$start" --for 1h --server one "$@" -o json >"$home/booked" 2>"$home/refused" || return 1
  ID=$(python3 -c "import json;b=json.load(open('$home/booked'));print((b[0] if isinstance(b,list) else b)['id'])")
}
ready() { on "$1" 'kubectl get nodes --no-headers' 2>/dev/null | grep -q '^cp  *Ready '; } # ready WHO: the lab of the slot that runs
is() { [ "$(as ann book ls --all --past -o json | python3 -c "import json,sys;print([b['state'] for b in json.load(sys.stdin) if b['id']=='$1'][0])")" = "$2" ]; }

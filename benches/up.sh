#!/usr/bin/env bash
# Both sides in one run, on fresh machines each time: kubecamp against raw-kubeadm.sh, on three running SSH hosts and
# locally; the second up; the upload against scp; memory. Prints times and ratios, fails never.
#   benches/up.sh [ROUNDS]      needs root; about 3 minutes a round
set -u
cd "$(dirname "$0")/.." || exit 1
rounds=${1:-3}
kc=${KUBECAMP:-$PWD/target/release/kubecamp}
[ -x "$kc" ] || cargo build --release || exit 1
export KUBECAMP_CACHE=${KUBECAMP_CACHE:-$HOME/.cache/kubecamp} KUBECAMP_HOME=/tmp/kubecamp-bench
work=$KUBECAMP_HOME/work
for p in zstd bc openssh-client time; do dpkg -s $p >/dev/null 2>&1 || apt-get install -yq $p >/dev/null 2>&1; done
trap '"$kc" machine engine stop --yes >/dev/null 2>&1; rm -rf "$KUBECAMP_HOME"' EXIT
"$kc" machine engine stop --yes >/dev/null 2>&1; rm -rf "$KUBECAMP_HOME"; mkdir -p "$work"

seconds() { local t0; t0=$(date +%s.%N); "$@" >"$work/out" 2>&1 || { echo "FAILED: $*" >&2; tail -n 15 "$work/out" >&2; }; echo "$(date +%s.%N) - $t0" | bc; }
ratio() { echo "scale=2; $1 / $2" | bc; }
median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
# fresh NAME: three plain machines of the node image; sets ips, netns and key
fresh() {
  "$kc" --name "$1" down --yes >/dev/null 2>&1; sync
  "$kc" --name "$1" machine make --layout 3x2c4g >/dev/null 2>&1 || { echo "no machines" >&2; exit 1; }
  ips=$("$kc" machine list -o json | python3 -c "import json,sys;print(*[m['address'] for m in sorted(json.load(sys.stdin), key=lambda m: m['node']) if m['lab'] == '$1'])")
  netns=$("$kc" machine list -o json | python3 -c "import json,sys;print([m['netns'] for m in json.load(sys.stdin)][0])")
  key=$KUBECAMP_HOME/data/labs/$1/key
}
hosts_up() { # up on the fresh machines as plain SSH hosts
  local args=(); for ip in $ips; do args+=(--host "root@$ip"); done
  nsenter --net="$netns" "$kc" --name hosts up --plain --accept-new-host-keys --identity "$key" --layout 3x2c4g "${args[@]}"
}

echo "getting bundle and images ready ..."
"$kc" up --local --yes --plain >/dev/null 2>&1 || { echo "up --local failed" >&2; exit 1; }
"$kc" down --yes >/dev/null 2>&1
bundle=$("$kc" bundle build 2>/dev/null)
bash benches/unpack-bundle.sh "$bundle" "$work/unpacked" || exit 1
image=$(sed -n 's/^flannel image //p' "$work/unpacked/roles")
: > "$work/raw"; : > "$work/hosts"; : > "$work/local"; : > "$work/again"; : > "$work/rss"
for round in $(seq "$rounds"); do
  fresh plain; set -- $ips
  sed -e "s|{{ image }}|$image|; s|{{ pod_cidr }}|10.244.0.0/16|; s|{{ backend }}|vxlan|; s|{{ api }}|$1|" -e 's|{% for a in addresses %}.*{% endfor %}||' templates/cni/flannel.yaml.tera > "$work/unpacked/flannel.yaml"
  raw=$(seconds nsenter --net="$netns" bash benches/raw-kubeadm.sh "$work/unpacked" "$key" "$@"); echo "$raw" >> "$work/raw"; sed 's/^/    /' "$work/out"
  fresh plain
  rm -rf "$KUBECAMP_HOME/data/labs/hosts"
  up=$(seconds hosts_up); echo "$up" >> "$work/hosts"
  again=$(seconds hosts_up); echo "$again" >> "$work/again"; grep -o '[0-9]* steps\? changed something' "$work/out"
  rm -rf "$KUBECAMP_HOME/data/labs/hosts"; "$kc" --name plain down --yes >/dev/null 2>&1
  loc=$(seconds "$kc" up --local --yes --plain); echo "$loc" >> "$work/local"
  "$kc" down --yes >/dev/null 2>&1
  printf 'round %s: raw %.1f s; up on hosts %.1f s (ratio %s); up --local %.1f s (ratio %s); second up %.1f s\n' "$round" "$raw" "$up" "$(ratio "$up" "$raw")" "$loc" "$(ratio "$loc" "$raw")" "$again"
done

echo "upload of the bundle to one host, against scp:"
fresh plain; set -- $ips
plainly=(-i "$key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR)
scp_to() { nsenter --net="$netns" scp -q "${plainly[@]}" "$@"; }
ssh_to() { nsenter --net="$netns" ssh "${plainly[@]}" "$@"; }
by_hand() { scp_to "$1" "root@$2:/root/by-hand" && [ "$(sha256sum <"$1")" = "$(ssh_to "root@$2" 'sha256sum </root/by-hand')" ]; }
# Nobody's upload begins while another's file is still being written to the disk.
quiet() { ssh_to "root@$1" 'rm -f /root/by-*; sync'; sync; }
for round in $(seq "$rounds"); do
  quiet "$1"; scp_s=$(seconds scp_to "$bundle" "root@$1:/root/by-scp")
  quiet "$1"; put_s=$(seconds nsenter --net="$netns" /usr/bin/time -f '%M' -o "$work/rss" "$kc" --name plain cp --plain "$bundle" "cp:/root/by-put-$round")
  quiet "$1"; hand_s=$(seconds by_hand "$bundle" "$1")
  printf 'scp %.2f s; scp and sha256sum at both ends %.2f s; kubecamp %.2f s with sha256 (ratios %s, %s); %s MiB of memory\n' \
    "$scp_s" "$hand_s" "$put_s" "$(ratio "$put_s" "$scp_s")" "$(ratio "$put_s" "$hand_s")" "$(($(tail -n1 "$work/rss") / 1024))"
done
r=$(median < "$work/raw") h=$(median < "$work/hosts") l=$(median < "$work/local") a=$(median < "$work/again")
printf 'medians: raw %.1f s, hosts %.1f s = %s of raw (goal 0.80), local %.1f s = %s of raw (goal 0.60), second up %.1f s (goal 5)\n' "$r" "$h" "$(ratio "$h" "$r")" "$l" "$(ratio "$l" "$r")" "$a"

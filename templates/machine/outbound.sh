#!/bin/sh
# Gives the private engine's network namespace a way out: slirp4netns, a NAT in user space, at a device of its own.
# Arguments: DIR (the engine's folder), NETNS (its namespace's name), DEVICE (the device's name).
# The only firewall rule lives in that namespace; the computer's own is not touched.
set -eu
dir=$1 netns=$2 device=$3
started() { read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ t _ <"/proc/$1/stat" && echo "$t"; }

nsenter --net="/run/netns/$netns" nft -f - <<E
table ip kubecamp-outbound
delete table ip kubecamp-outbound
table ip kubecamp-outbound {
  chain way-out { type nat hook postrouting priority srcnat; oifname "$device" masquerade; }
}
E

# What listens on this computer's own loopback is nobody else's business.
ready=$dir/outbound.ready
: >"$ready"
setsid slirp4netns --configure --disable-host-loopback --netns-type=path --ready-fd=3 "/run/netns/$netns" "$device" \
  3>"$ready" >"$dir/outbound.log" 2>&1 </dev/null &
slirp=$!
echo "$slirp $(started "$slirp")" >"$dir/outbound.pid"
tries=0
until [ -s "$ready" ]; do
  kill -0 "$slirp" 2>/dev/null && [ "$tries" -lt 100 ] || { cat "$dir/outbound.log" >&2; rm -f "$ready"; exit 1; }
  tries=$((tries + 1)); sleep 0.05
done
rm -f "$ready"

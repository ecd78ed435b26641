#!/bin/sh
# Gives this computer a way to the private engine's machines: a pair of devices, and a route in a table of its own, which
# nobody looks into without a rule that says so. Harmless when repeated; it goes with the engine's network namespace.
# Arguments: NETNS (the namespace's name), DEVICE (this computer's end), TABLE, NETWORK (the machines').
set -eu
netns=$1 device=$2 table=$3 network=$4
# Both ends are beside the machines: of 10.115.0.0/24 it is 10.115.255.0/30.
inner=kcway0 here=${network%.*.*}.255.1 there=${network%.*.*}.255.2
ip -n "$netns" link show "$inner" >/dev/null 2>&1 || {
  # One whose namespace ended a moment ago may still be there.
  ip link delete "$device" 2>/dev/null || true
  ip link add "$device" type veth peer name "$inner" netns "$netns"
}
ip -n "$netns" addr replace "$there/30" dev "$inner"
ip -n "$netns" link set "$inner" up

# From here to the machines, and never the other way round: root of a machine is none of this computer.
nsenter --net="/run/netns/$netns" nft -f - <<N
table inet kubecamp-way
delete table inet kubecamp-way
table inet kubecamp-way {
  chain forward { type filter hook forward priority filter; oifname "$inner" ct state != { established, related } drop; }
  chain input { type filter hook input priority filter; iifname "$inner" ct state != { established, related } drop; }
}
N
# Only now: before that rule stands, nothing gets through.
ip addr replace "$here/30" dev "$device" noprefixroute
ip link set "$device" up
ip route replace "$network" via "$there" dev "$device" onlink table "$table"

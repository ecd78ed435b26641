#!/bin/sh
# Starts the private engine: a network namespace, a holder process that keeps a mount namespace open, and incusd in both.
# Arguments: DIR (the engine's folder), NETNS (its namespace's name), INCUSD (the daemon's program).
# Standard input: the turn of this folder, which lasts as long as this script; nothing that outlives it may have it too.
# Nothing is mounted where the rest of the computer sees it: all mounts live in the holder's mount namespace.
set -eu
dir=$1 netns=$2 incusd=$3
started() { read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ t _ <"/proc/$1/stat" && echo "$t"; }

ip netns add "$netns" 2>/dev/null || [ -e "/run/netns/$netns" ]
ip -n "$netns" link set lo up
# /proc/sys shows the settings of the network namespace that looks at it, and needs no package.
ip netns exec "$netns" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'

if [ -z "${KC_HOLDER:-}" ]; then
  # The /sys of another network namespace must be mounted anew, and then lacks the cgroups: they are carried over.
  setsid nsenter --net="/run/netns/$netns" unshare --mount --propagation slave sh -euc '
    mkdir -p "$1/sys"
    mount --rbind /sys "$1/sys"
    mount -t sysfs sysfs /sys
    for part in fs/cgroup kernel/security kernel/debug kernel/tracing kernel/config fs/bpf fs/fuse/connections; do
      if mountpoint -q "$1/sys/$part" && [ -d "/sys/$part" ]; then mount --rbind "$1/sys/$part" "/sys/$part"; fi
    done
    umount -l "$1/sys"
    rmdir "$1/sys"
    read -r pid rest </proc/self/stat
    echo ready >"$1/holder.ready"
    exec sleep infinity
  ' holder "$dir" >>"$dir/daemon.log" 2>&1 </dev/null &
  holder=$!
  echo "$holder $(started "$holder")" >"$dir/holder.pid"
  tries=0
  until [ -e "$dir/holder.ready" ]; do
    kill -0 "$holder" 2>/dev/null && [ "$tries" -lt 100 ] || { echo "the holder of the namespaces ended" >&2; exit 1; }
    tries=$((tries + 1)); sleep 0.05
  done
  rm -f "$dir/holder.ready"
else
  holder=$KC_HOLDER
fi

# With lxcfs the machines' /proc shows their own limits, which kubelet and free read; without it, the computer's. One
# that runs already, the computer's own, is seen from here too. Machines look for it in this folder.
if command -v lxcfs >/dev/null && [ -d /var/lib/lxcfs ]; then
  shows() { nsenter --target "$holder" --mount -- test -e /var/lib/lxcfs/proc/meminfo; }
  if ! shows; then
    setsid nsenter --target "$holder" --mount --net -- lxcfs -f /var/lib/lxcfs >"$dir/lxcfs.log" 2>&1 </dev/null &
    lxcfs=$! tries=0
    until shows || [ "$tries" -ge 200 ] || ! kill -0 "$lxcfs" 2>/dev/null; do tries=$((tries + 1)); sleep 0.05; done
  fi
fi

export INCUS_DIR="$dir/incus" LXC_DEVNULL=1
mkdir -p -m 711 "$INCUS_DIR"
setsid nsenter --target "$holder" --mount --net -- "$incusd" --group root >>"$dir/daemon.log" 2>&1 </dev/null &
echo "$! $(started $!)" >"$dir/daemon.pid"

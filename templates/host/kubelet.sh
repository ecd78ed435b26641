# kubelet_runs: whether the kubelet is up to stay; reads only. One that ends within a second and is started again and
# again is active for moments: a kubelet that systemd had to start again counts once it has lived for ten seconds.
kubelet_runs() {
  systemctl is-active -q kubelet || return 1
  n=$(systemctl show -p NRestarts --value kubelet 2>/dev/null); [ "${n:-0}" = 0 ] && return 0
  # Ticks of a hundredth of a second since one and the same boot: /proc/uptime may be a container's own.
  began=$(cut -d' ' -f22 "/proc/$(systemctl show -p MainPID --value kubelet)/stat" 2>/dev/null) || return 1
  [ $(($(cut -d' ' -f22 /proc/self/stat) - ${began:-0})) -gt 1000 ]
}

# fresh: whether containerd and the kubelet, where they run, are of the programs and units on the disk; reads only. An `up`
# with another bundle puts its programs in the place of running ones, which go on as they were.
fresh() {
  shown=$(systemctl show -p MainPID -p NeedDaemonReload kubecamp-containerd kubelet) || return 1
  for line in $shown; do
    case $line in
      NeedDaemonReload=yes) return 1 ;;
      MainPID=0) ;;
      MainPID=*) case $(readlink "/proc/${line#*=}/exe") in *'/containerd (deleted)' | *'/kubelet (deleted)') return 1 ;; esac ;;
    esac
  done
}

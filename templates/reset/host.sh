# Sent before every script of reset. Variables given by the phase: KNOWN PODS SERVICES CONTAINER CONTROL NODES.
KC=/var/lib/kubecamp
SOCKET=/run/kubecamp/containerd.sock
TAB='	'
has() { command -v "$1" >/dev/null 2>&1; }
# had KIND THING: whether the record from before `up` knows it. What was there before is never touched.
had() { grep -qxF "$1$TAB$2" "$KC/before" 2>/dev/null; }
# looked_at VERSION: whether the record was made by that version of the scan or a later one: an earlier one says nothing of what
# that began to list. A lost record is no earlier one.
looked_at() { [ ! -s "$KC/before" ] || { version=$(sed -n "s/^scan$TAB//p" "$KC/before"); [ "${version:-1}" -ge "$1" ]; }; }
# The folder that kubeadm makes on a control plane; on a worker an etcd is somebody else's.
etcd() { [ "$CONTROL" != yes ] || echo /var/lib/etcd; }
# What is left alone although it differs: others changed it meanwhile. `prove_clean` reads it.
spare() { grep -qsxF "$1$TAB$2" "$KC/spared" || printf '%s\t%s\n' "$1" "$2" >> "$KC/spared"; echo "kubecamp: left alone: $1 $2 ($3)"; }
is_link() { [ -e "/sys/class/net/$1" ]; }
is_mount() { awk -v d="$1" '$2 == d { found = 1 } END { exit !found }' /proc/self/mounts; }
# Whether kubecamp's folder is a mount point with nothing of ours in it: whoever mounted it there keeps it.
emptied() {
  for t in "$KC"/* "$KC"/.[!.]*; do
    case $t in */lost+found) ;; *) { [ -e "$t" ] || [ -L "$t" ]; } && return 1 ;; esac
  done
  is_mount "$KC"
}
forgotten() { [ ! -e "$KC.gone" ] && { [ ! -e "$KC" ] || emptied; }; }
# Whether kubecamp works or worked here: any one trace is enough, since a user may have deleted all others.
traces() {
  [ ! -e "$KC" ] || emptied || return 0
  for t in /opt/kubecamp /etc/kubecamp /run/kubecamp /etc/systemd/system/kubecamp-containerd.service \
    /etc/cni/net.d/10-kubecamp.conflist /etc/sysctl.d/99-zz-kubecamp.conf /etc/sysctl.d/90-kubecamp.conf; do [ -e "$t" ] && return 0; done
  grep -qs kubecamp /etc/systemd/system/kubelet.service || grep -qs '^# kubecamp begin' /etc/hosts
}
# KNOWN says that the lab's folder knows this host: then what any cluster leaves is taken for the lab's.
remains() {
  for t in /etc/kubernetes /var/lib/kubelet $(etcd) /run/flannel /run/netns/cni-* /sys/fs/cgroup/kubepods* /sys/fs/cgroup/*/kubepods*; do
    [ -e "$t" ] && return 0
  done
  [ -n "$(in_kernel)" ]
}
ours() { traces || { [ "$KNOWN" = yes ] && remains; }; }
# of_pod RESULT: whether what CNI noted is of a pod of the lab, whatever its network is called: a lab may have another CNI by now.
of_pod() {
  for d in "$KC"/containerd/io.containerd.*/sandboxes/*; do case $1 in *-"${d##*/}"-*) return 0 ;; esac; done
  return 1
}
# Mount points under the given folders that we may unmount, the last made first.
mounts_under() {
  awk '{ line[NR] = $2 } END { for (i = NR; i; i--) print line[i] }' /proc/self/mounts | while IFS= read -r raw; do
    for d in "$@"; do
      case $raw in "$d" | "$d"/*) had mount "$raw" || printf '%b\n' "$(printf %s "$raw" | sed 's/\\\([0-7][0-7][0-7]\)/\\0\1/g')" ;; esac
    done
  done
}
unmount_under() {
  mounts_under "$@" | while IFS= read -r m; do timeout 10 umount "$m" 2>/dev/null || umount -l "$m"; done
}
# remove_tree PATH: with all that is in it, never through a mount (a volume bound from elsewhere) or a symbolic link.
remove_tree() {
  [ -e "$1" ] || [ -L "$1" ] || return 0
  if [ -L "$1" ] || [ ! -d "$1" ]; then rm -f "$1"; return; fi
  unmount_under "$1"
  if awk -v d="$1/" 'index($2 "/", d) == 1 { found = 1 } END { exit !found }' /proc/self/mounts; then
    echo "kubecamp: $1 stays: something is mounted in it"
    return 1
  fi
  rm -rf --one-file-system "$1" 2>&1 | head -n 5
  [ ! -e "$1" ]
}
# stop_unit NAME: at once; what it would still write is deleted anyway.
stop_unit() {
  has systemctl || return 0
  timeout 15 systemctl disable -q "$1" 2>/dev/null
  timeout 15 systemctl --no-block stop "$1" 2>/dev/null || return 0
  timeout 15 systemctl kill -s KILL "$1" 2>/dev/null
  i=0
  while timeout 5 systemctl show -p ActiveState --value "$1" 2>/dev/null | grep -q 'activating\|^active' && [ $i -lt 50 ]; do i=$((i + 1)); sleep 0.1; done
}

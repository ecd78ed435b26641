#!/bin/sh
# Builds the node image: a Debian or Ubuntu that boots in a second and carries all that kubeadm's checks ask for.
# Environment: SUITE, ARCH, WORK (an empty folder of ours), OUT (the file to make), SOURCES (apt source lines),
# VM_DISK (vm-disk.sh when it is to be a virtual machine's image; empty for a container's).
# Standard input: held open by the caller; when it closes, the build ends too.
set -eu
exec 2>&1 3<&0 </dev/null
{ cat >/dev/null <&3; kill -KILL -1; } &
exec 3<&-

root=$WORK/rootfs
say() { printf 'kc-step %s\n' "$1"; }

say packages
set --
# The initrd holds what an Incus machine's disk and network need and nothing else: it is loaded at each boot.
[ -z "$VM_DISK" ] || set -- --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"
  printf "MODULES=list\nCOMPRESS=zstd\n" >"$1/etc/initramfs-tools/conf.d/kubecamp"
  printf "%s\n" virtio_pci virtio_scsi virtio_blk sd_mod nvme ext4 virtio_net dmi_sysfs >"$1/etc/initramfs-tools/modules"'
printf '%s\n' "$SOURCES" | mmdebstrap "$@" --mode=root --format=directory --variant=minbase --architectures="$ARCH" \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --include="$PACKAGES" "$SUITE" "$root" - 2>&1

say settings
# These belong to the computer that built the image, or must differ from machine to machine.
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
# A container mirrors none of these, and each costs start-up time or touches the host's devices.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
  systemd-udevd-kernel.socket systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-random-seed.service \
  systemd-hwdb-update.service systemd-journal-flush.service systemd-firstboot.service systemd-logind.service \
  systemd-journald-audit.socket systemd-pcrphase.service systemd-remount-fs.service sys-kernel-debug.mount \
  sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount dev-hugepages.mount \
  dev-mqueue.mount modprobe@.service console-getty.service getty@.service getty.target systemd-quotacheck.service \
  systemd-tpm2-setup.service systemd-tpm2-setup-early.service e2scrub_reap.service e2scrub_all.timer \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer nftables.service ssh.socket; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# systemd-networkd would wait for udev wherever /sys is writable, so the address is set without it.
cat >"$root/etc/systemd/system/kc-net.service" <<'E'
[Unit]
Description=Set the address of eth0
DefaultDependencies=no
Wants=network.target
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/kc-net

[Install]
WantedBy=multi-user.target
E

cat >"$root/usr/local/sbin/kc-net" <<'E'
#!/bin/sh
# Takes the address from /etc/kubecamp-net (ADDRESS=a.b.c.d/n, GATEWAY=a.b.c.d), or else asks DHCP.
[ -r /etc/kubecamp-net ] && . /etc/kubecamp-net
ip link set lo up
ip link set eth0 up || exit 1
[ -n "$ADDRESS" ] || exec udhcpc -i eth0 -b -R -S -x "hostname:$(cat /etc/hostname)"
ip address replace "$ADDRESS" dev eth0
[ -z "$GATEWAY" ] || ip route replace default via "$GATEWAY"
E

cat >"$root/etc/systemd/system/kc-hostkey.service" <<'E'
[Unit]
Description=Make this machine's SSH host key
DefaultDependencies=no
Before=ssh.service sshd.service
ConditionPathExists=|!/etc/ssh/ssh_host_ed25519_key
ConditionPathExists=|/etc/ssh/kubecamp-fresh

[Service]
Type=oneshot
ExecStart=/bin/rm -f /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key
ExecStart=/bin/rm -f /etc/ssh/kubecamp-fresh
E

cat >"$root/etc/ssh/sshd_config.d/kubecamp.conf" <<'E'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
UseDNS no
MaxSessions 64
E

cat >"$root/etc/systemd/system/kc-node.service" <<'E'
[Unit]
Description=Give this container the cgroups and device nodes that kubelet looks for
DefaultDependencies=no
Before=sysinit.target
ConditionVirtualization=container

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/kc-node

[Install]
WantedBy=sysinit.target
E

cat >"$root/usr/local/sbin/kc-node" <<'E'
#!/bin/sh
# Runs once at boot, before other units.
# cgroup v1: systemd joins cpu and cpuacct into one empty hierarchy; kubelet wants the two that the host has.
if ! grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts && grep -q '^cpu[[:space:]]' /proc/cgroups; then
  mount -o remount,rw /sys/fs/cgroup
  for pair in cpu,cpuacct net_cls,net_prio; do
    a=${pair%,*} b=${pair#*,}
    grep -q "^[0-9]*:$pair:" /proc/self/cgroup && continue
    if [ -d "/sys/fs/cgroup/$pair" ]; then umount "/sys/fs/cgroup/$pair" 2>/dev/null; rmdir "/sys/fs/cgroup/$pair"; fi
    for c in "$a" "$b"; do
      grep -q "^[0-9]*:$c:" /proc/self/cgroup || continue
      [ -L "/sys/fs/cgroup/$c" ] && rm "/sys/fs/cgroup/$c"
      mountpoint -q "/sys/fs/cgroup/$c" && continue
      mkdir -p "/sys/fs/cgroup/$c" && mount -t cgroup -o "$c" cgroup "/sys/fs/cgroup/$c"
    done
  done
fi
# cAdvisor opens the block device under /; a container has no node for it.
disk=$(awk '$2 == "/" { print $1 }' /proc/mounts | tail -n 1)
case $disk in /dev/*)
  number=$(cat "/sys/class/block/${disk#/dev/}/dev" 2>/dev/null)
  [ -e "$disk" ] || [ -z "$number" ] || mknod "$disk" b "${number%:*}" "${number#*:}" ;;
esac
# Pods need shared mounts.
mount --make-rshared /
exit 0
E
chmod 755 "$root/usr/local/sbin/kc-node" "$root/usr/local/sbin/kc-net"

units=$root/etc/systemd/system
mkdir -p "$units/sysinit.target.wants" "$units/multi-user.target.wants" "$units/sockets.target.wants"
ln -sf ../kc-node.service "$units/sysinit.target.wants/kc-node.service"
mkdir -p "$units/ssh.service.d"
printf '[Unit]\nWants=kc-hostkey.service\nAfter=kc-hostkey.service\n' >"$units/ssh.service.d/kc-hostkey.conf"
ln -sf ../kc-net.service "$units/multi-user.target.wants/kc-net.service"
ln -sf /lib/systemd/system/ssh.service "$units/multi-user.target.wants/ssh.service"
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
sed -i 's/^root:[^:]*:/root:*:/' "$root/etc/shadow"
mkdir -p -m 700 "$root/root/.ssh"
printf '%s\n' "$KEY" >"$root/etc/kubecamp-image"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/tmp/*

: >"$root/root/.ssh/authorized_keys"
chmod 600 "$root/root/.ssh/authorized_keys"
if [ -n "$VM_DISK" ]; then eval "$VM_DISK"; exit; fi

say pack
# Incus writes these files before a new machine's first process starts, from the keys of its configuration.
mkdir "$WORK/templates"
cat >"$WORK/metadata.yaml" <<E
architecture: $MACHINE
creation_date: 1700000000
properties:
  description: kubecamp node, $SUITE
  os: kubecamp
  release: $SUITE
templates:
E
template() { # NAME PATH, the text on standard input
  cat >"$WORK/templates/$1.tpl"
  printf '  %s:\n    when: [create, copy]\n    template: %s.tpl\n' "$2" "$1" >>"$WORK/metadata.yaml"
}
template hostname /etc/hostname <<'E'
{{ config_get("user.kubecamp.node", "node") }}
E
template hosts /etc/hosts <<'E'
127.0.0.1 localhost
::1 localhost ip6-localhost
{% if config_get("user.kubecamp.address", "") %}{{ config_get("user.kubecamp.address", "")|split:"/"|first }}{% else %}127.0.1.1{% endif %} {{ config_get("user.kubecamp.node", "node") }}
E
template net /etc/kubecamp-net <<'E'
ADDRESS={{ config_get("user.kubecamp.address", "") }}
GATEWAY={{ config_get("user.kubecamp.gateway", "") }}
E
template resolv /etc/resolv.conf <<'E'
{% if config_get("user.kubecamp.gateway", "") %}nameserver {{ config_get("user.kubecamp.gateway", "") }}{% endif %}
E
template keys /root/.ssh/authorized_keys <<'E'
{{ config_get("user.kubecamp.key", "") }}
E
template machine-id /etc/machine-id </dev/null
echo fresh | template fresh /etc/ssh/kubecamp-fresh
tar -C "$WORK" --numeric-owner --xattrs --xattrs-include='*' -cf - metadata.yaml templates rootfs | zstd -q -3 -T0 -o "$OUT"
say done

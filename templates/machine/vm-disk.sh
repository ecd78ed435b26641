# Turns the node root into a disk that UEFI boots, packed as an Incus image of a virtual machine. Runs inside of
# node-image.sh, with its variables. No loop device, no mount: every tool here writes into plain files.
say kernel
units=$root/etc/systemd/system
# What a container has no use for and a machine with devices of its own needs.
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
  systemd-udevd-kernel.socket systemd-random-seed.service systemd-logind.service systemd-remount-fs.service \
  modprobe@.service sys-kernel-config.mount dev-hugepages.mount dev-mqueue.mount; do
  rm -f "$units/$unit"
done
# The machine id comes from the machine's UUID at each boot, so that a copy of the disk is another machine.
ln -sf /dev/null "$units/systemd-machine-id-commit.service"

cat >"$units/kc-vm.service" <<'E'
[Unit]
Description=Take name, address and key from the machine, and the whole of its disk
DefaultDependencies=no
After=local-fs.target
Before=kc-hostkey.service kc-net.service ssh.service network.target

[Service]
Type=oneshot
RemainAfterExit=yes
LoadCredential=kubecamp.machine
ExecStart=/usr/local/sbin/kc-vm

[Install]
WantedBy=multi-user.target
E

cat >"$root/usr/local/sbin/kc-vm" <<'E'
#!/bin/sh
# Runs once at each boot, before the network and sshd. What this machine is stands in the systemd credential
# kubecamp.machine, which comes through SMBIOS: lines NODE, ADDRESS, GATEWAY, KEY.
told=${CREDENTIALS_DIRECTORY:-/nowhere}/kubecamp.machine
get() { sed -n "s/^$1=//p" "$told" 2>/dev/null; }

# Another UUID: this disk is new, or a copy. Nothing that identifies the former machine may stay.
uuid=$(cat /sys/class/dmi/id/product_uuid)
if [ "$uuid" != "$(cat /etc/kubecamp-machine 2>/dev/null)" ]; then
  node=$(get NODE) address=$(get ADDRESS) gateway=$(get GATEWAY)
  node=${node:-node}
  printf '%s\n' "$node" >/etc/hostname
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n%s %s\n' "${address%/*}" "$node" >/etc/hosts
  [ -n "$address" ] || sed -i "s/^ $node/127.0.1.1 $node/" /etc/hosts
  printf 'ADDRESS=%s\nGATEWAY=%s\n' "$address" "$gateway" >/etc/kubecamp-net
  if [ -n "$gateway" ]; then printf 'nameserver %s\n' "$gateway" >/etc/resolv.conf; else : >/etc/resolv.conf; fi
  : >/root/.ssh/authorized_keys
  rm -f /var/lib/systemd/random-seed
  touch /etc/ssh/kubecamp-fresh
  printf '%s\n' "$uuid" >/etc/kubecamp-machine
  sync
fi
cat /etc/hostname >/proc/sys/kernel/hostname
key=$(get KEY)
if [ -n "$key" ] && ! grep -qxF "$key" /root/.ssh/authorized_keys; then
  (umask 077; printf '%s\n' "$key" >/root/.ssh/authorized_keys)
fi

# The last partition grows to the disk's end, and its file system with it; both can be done while it is in use.
part=$(findmnt -no SOURCE /)
name=${part#/dev/}
disk=$(basename "$(readlink -f "/sys/class/block/$name/..")")
number=$(cat "/sys/class/block/$name/partition")
end=$(($(cat "/sys/class/block/$name/start") + $(cat "/sys/class/block/$name/size")))
if [ $(($(cat "/sys/class/block/$disk/size") - end)) -gt 8192 ]; then
  echo ', +' | sfdisk --quiet --force --no-reread --no-tell-kernel -N "$number" "/dev/$disk" &&
    partx --update --nr "$number" "/dev/$disk" && resize2fs "$part"
fi
exit 0
E
chmod 755 "$root/usr/local/sbin/kc-vm"

# Incus reads the console, so the host key arrives on a way that nobody on the network can touch.
cat >"$units/kc-say-key.service" <<'E'
[Unit]
Description=Write the public SSH host key to the console
DefaultDependencies=no
After=kc-hostkey.service
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'printf "\\r\\nkubecamp-host-key: %%s\\r\\n" "$(cat /etc/ssh/ssh_host_ed25519_key.pub)" >/dev/console'

[Install]
WantedBy=multi-user.target
E
ln -sf ../kc-vm.service "$units/multi-user.target.wants/kc-vm.service"
ln -sf ../kc-say-key.service "$units/multi-user.target.wants/kc-say-key.service"
mkdir -p "$units/kc-net.service.d"
printf '[Unit]\nWants=sys-subsystem-net-devices-eth0.device\nAfter=sys-subsystem-net-devices-eth0.device\n' \
  >"$units/kc-net.service.d/device.conf"

say disk
# Fixed names: equal packages make an equal layout, and machines never share disks.
esp=5B1C0A3E-6B63-4C1D-9E53-6B7563616D70 rootpart=8F1E9D52-4A3B-4D56-8C31-6B7563616D70
printf 'PARTUUID=%s / ext4 noatime,errors=remount-ro 0 0\n' "$rootpart" | tr A-F a-f >"$root/etc/fstab"
case $ARCH in
  arm64) loader=systemd-bootaa64.efi boot=BOOTAA64.EFI console=ttyAMA0 ;;
  *) loader=systemd-bootx64.efi boot=BOOTX64.EFI console=ttyS0 ;;
esac
cat >"$WORK/kubecamp.conf" <<E
title kubecamp node
linux /vmlinuz
initrd /initrd.img
options root=PARTUUID=$(echo $rootpart | tr A-F a-f) ro console=$console quiet loglevel=3 net.ifnames=0 audit=0 nowatchdog random.trust_cpu=on
E
printf 'default kubecamp.conf\ntimeout 0\neditor no\n' >"$WORK/loader.conf"
kernel=$(ls "$root"/boot/vmlinuz-* | sort -V | tail -n 1)
initrd=$root/boot/initrd.img-${kernel##*/vmlinuz-}

# MiB: 1 to 97 the ESP, from there to 3071 the root, which grows at first boot.
disk=$WORK/disk.raw
truncate -s 3072M "$disk"
sfdisk --quiet "$disk" <<E
label: gpt
label-id: 3D0E1C7A-2F4B-4E0B-9A55-6B7563616D70
start=1MiB, size=96MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=$esp, name=esp
start=97MiB, size=2974MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=$rootpart, name=root
E
export MTOOLS_SKIP_CHECK=1
at=$disk@@1M
mformat -i "$at" -F -T 196608 -h 64 -s 32 -H 2048 -N 6B756265 -v KUBECAMP ::
mmd -i "$at" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
mcopy -i "$at" "$root/usr/lib/systemd/boot/efi/$loader" "::/EFI/BOOT/$boot"
mcopy -i "$at" "$WORK/loader.conf" ::/loader/loader.conf
mcopy -i "$at" "$WORK/kubecamp.conf" ::/loader/entries/kubecamp.conf
mcopy -i "$at" "$kernel" ::/vmlinuz
mcopy -i "$at" "$initrd" ::/initrd.img
rm -f "$root"/boot/vmlinuz-* "$root"/boot/initrd.img-*
mke2fs -q -t ext4 -L kubecamp -E offset=$((97 * 1048576)),lazy_itable_init=1,nodiscard -d "$root" "$disk" 2974M

say pack
qemu-img convert -f raw -O qcow2 "$disk" "$WORK/rootfs.img"
cat >"$WORK/metadata.yaml" <<E
architecture: $MACHINE
creation_date: 1700000000
properties:
  description: kubecamp node as a virtual machine, $SUITE
  os: kubecamp
  release: $SUITE
E
tar -C "$WORK" --numeric-owner -cf - metadata.yaml rootfs.img | zstd -q -3 -T0 -o "$OUT"
say done

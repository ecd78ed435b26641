# What a host had before any lab: everything here must survive.
set -e
nft 'add table inet mine; add chain inet mine input { type filter hook input priority 0; policy accept; }; add rule inet mine input tcp dport 22 accept comment "jump KUBE-SERVICES"'
for t in iptables-nft iptables-legacy; do
  $t -t nat -N DOCKER
  $t -t nat -A DOCKER -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
  $t -t nat -A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment 'to KUBE-SERVICES? no' -j DOCKER
  $t -A INPUT -p tcp --dport 80 -j ACCEPT
done
ip6tables-legacy -A INPUT -p tcp --dport 80 -j ACCEPT
ip link add br-mine type bridge; ip link add vethmine type veth peer name vethmine2; ip link set vethmine master br-mine
ip addr add 192.0.2.1/24 dev br-mine; ip link set br-mine up; ip route add 198.51.100.0/24 via 192.0.2.9
ip netns add mine
ipset create mine hash:ip
mkdir -p /etc/cni/net.d; echo podman > /etc/cni/net.d/87-podman.conflist
mkdir -p /usr/local/bin; printf '#!/bin/sh\necho mine\n' > /usr/local/bin/kubectl; chmod 750 /usr/local/bin/kubectl
printf '127.0.0.1 localhost\n192.0.2.7 friend\n\n' > /etc/hosts
echo 'net.ipv4.ip_forward = 0' > /etc/sysctl.d/50-mine.conf
mkdir -p /var/tmp/data && ln -sfn /var/tmp/data /root/data; mkdir -p /var/tmp/data/volume; echo precious > /var/tmp/data/volume/file
# A docker, and a web server that runs.
ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
for t in iptables-nft iptables-legacy; do
  $t -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
  $t -N DOCKER-USER; $t -A FORWARD -j DOCKER-USER; $t -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
done
perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die $!;
  while ($c = $s->accept) { <$c>; print $c "HTTP/1.0 200 OK\r\n\r\nmine\n"; close $c }' </dev/null >/dev/null 2>&1 &
n=0; until ss -Hltn | grep -q ':80 '; do n=$((n + 1)); [ $n -lt 2000 ] || exit 1; done

# Proves from this node that names are answered and Services reach pods. Variables: API and DNS (addresses of Services), MODE, DEADLINE (s).
# Only bash's own sockets: a minimal host has no dig and no curl. What goes to bash goes as an argument, never as a part
# of its program.
# A packet that comes before the node's way to the pods is whole is lost, and nobody says so: while that may be, an attempt
# that will not succeed soon gives way to the next. Later, a slow host gets the time it needs.
patience=2
answer_dns() {
  # A query for kube-dns.kube-system.svc.cluster.local, type A; the reply's answer count must not be 0. No label of
  # ten letters: bash would send two datagrams, since that length byte is a newline.
  timeout $patience bash -c 'exec 3<>"/dev/udp/$1/53" || exit 1
    printf "\x4b\x43\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x08kube-dns\x0bkube-system\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01" >&3
    head -c 8 <&3 | od -An -tx1 | tr -d " \n" | { read -r r; case $r in 4b43*) [ "$(printf %s "$r" | cut -c13-16)" != 0000 ];; *) exit 1;; esac; }' bash "$DNS"
}
answer_http() {
  timeout $patience bash -c 'exec 3<>"/dev/tcp/$1/$2" || exit 1
    printf "GET %s HTTP/1.0\r\nHost: kubecamp\r\n\r\n" "$3" >&3; cat <&3' bash "$1" "$2" "$3" 2>/dev/null
}
answer_tcp() { timeout $patience bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$1" "$2" 2>/dev/null; }
# Asked again and again until CoreDNS runs: a connection that is refused takes a third of the programs of a query.
names_answer() { answer_tcp "$DNS" 53 && answer_dns; }
# By the shell's own words alone, as it is asked again and again while the node's first pods want all of its time.
mode_is() {
  timeout $patience bash -c 'exec 3<>"/dev/tcp/127.0.0.1/10249" || exit 1
    printf "GET /proxyMode HTTP/1.0\r\nHost: kubecamp\r\n\r\n" >&3
    last=; while IFS= read -r line <&3 || [ -n "$line" ]; do last=$line line=; done; [ "$last" = "$1" ]' bash "$MODE" 2>/dev/null
}
now() { IFS=. read -r now _ < /proc/uptime; }
now; hasty=$((now + 10)) end=$((now + DEADLINE))
until_true() {
  patience=0.5
  until "$@" 2>/dev/null; do
    now; [ "$now" -lt "$end" ] || return 1
    [ "$now" -lt "$hasty" ] || patience=2
    sleep 0.2
  done
}

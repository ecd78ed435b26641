# Joins this node. Variables: NODE, its name; ADDRESS; KC_IDENTITIES and KC_CA; LIMIT, the seconds after which a kubeadm join
# is taken for hung. Functions: joined, at_home, conf, which writes the kubelet's kubeconfig.
run=/run/kubecamp; c=$run/join.yaml out=$run/join.out
kube=/etc/kubernetes; pki=/var/lib/kubelet/pki flags=/var/lib/kubelet/kubeadm-flags.env
umask 077
# fill VALUE: copies standard input, VALUE in the place of @@.
fill() {
  while IFS= read -r line; do
    case $line in *@@*) line=${line%@@*}$1 ;; esac
    printf '%s\n' "$line"
  done
}
# Only the shell itself handles a private key: an argument of any other program can be read by every user of the host.
mine() { for one in $KC_IDENTITIES; do case $one in "$NODE="*) printf %s "${one#*=}"; return ;; esac; done; }
# The files that a kubelet writes after a TLS bootstrap, under the same names: it renews them by itself, through the link.
identify() {
  pem=$pki/kubelet-client-$(date +%Y-%m-%d-%H-%M-%S).pem
  (umask 022; mkdir -p $kube $pki) && mine | base64 -d > "$pem" && [ -s "$pem" ] || { echo "kubecamp: no identity for $NODE came" >&2; return 1; }
  ln -sfn "$pem" $pki/kubelet-client-current.pem && conf > $kube/kubelet.conf
}
# A kubelet that cannot use its files ends within a second, and systemd starts it again and again.
kubelet_answers() {
  end=$(($(date +%s) + 20))
  until timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/10248 && printf "GET /healthz HTTP/1.0\r\n\r\n" >&3 && grep -q "^ok" <&3' 2>/dev/null; do
    [ "$(date +%s)" -lt $end ] || return 1
    sleep 0.3
  done
}
start_kubelet() { systemctl reset-failed kubelet 2>/dev/null; systemctl restart kubelet; }
# One that died once, as when containerd was too busy for it, and was started again would count only after a while.
steady() {
  died=$(systemctl show -p NRestarts --value kubelet 2>/dev/null)
  [ "${died:-0}" = 0 ] || { start_kubelet && kubelet_answers; }
}
evidence() { echo "kubecamp: $1" >&2; journalctl -u kubelet -n 10 --no-pager >&2; }
clean() { systemctl stop kubelet; rm -f $kube/kubelet.conf $kube/bootstrap-kubelet.conf $kube/pki/ca.crt $flags; rm -rf $pki; }
try() { : > $out; identify && timeout "$LIMIT" kubeadm join --config $c --skip-phases=preflight >$out 2>&1; code=$?; cat $out; return $code; }
join() {
  if joined; then
    # Where its address changed, the API server would go on asking the old one for logs.
    at_home || sed -i "s/--node-ip=[0-9.]*/--node-ip=$ADDRESS/" $flags || return 1
    start_kubelet && kubelet_answers && steady && rm -f $kube/bootstrap-kubelet.conf && return 0
    evidence 'the kubelet does not run with what an earlier join left, so the node joins anew'
  fi
  # A kubelet that lost its files runs on with what it had read, and would tell the API server once more that it is ready.
  [ ! -e $kube/kubelet.conf ] && [ ! -e $kube/bootstrap-kubelet.conf ] && [ ! -e $pki ] || clean
  end=$(($(date +%s) + 70)); again=once
  until try; do
    # A node whose kubelet was stopped counts as ready until the API server has missed it for most of a minute.
    if grep -q 'already exists in the cluster' $out; then
      [ "$(date +%s)" -lt $end ] || return 1
      sleep 3
    else
      [ $again ] || return 1
      evidence 'the join did not end, cleaning up and trying once more'
      again=
    fi
    clean
  done
  steady
}

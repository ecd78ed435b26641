# Joins this node. Variables: KC_TOKEN and KC_CA; LIMIT, the seconds after which a kubeadm join is taken for hung.
run=/run/kubecamp; c=$run/join.yaml d=$run/discovery.conf out=$run/join.out
kube=/etc/kubernetes; pki=/var/lib/kubelet/pki
umask 077
# fill VALUE: copies standard input, VALUE in the place of @@. Only the shell itself handles the token: an argument of
# any other program can be read by every user of the host.
fill() {
  while IFS= read -r line; do
    case $line in *@@*) line=${line%@@*}$1 ;; esac
    printf '%s\n' "$line"
  done
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
evidence() { echo "kubecamp: $1" >&2; journalctl -u kubelet -n 10 --no-pager >&2; }
clean() { systemctl stop kubelet; rm -f $kube/kubelet.conf $kube/bootstrap-kubelet.conf $kube/pki/ca.crt; rm -rf $pki; }
try() { timeout "$LIMIT" kubeadm join --config $c --skip-phases=preflight >$out 2>&1; code=$?; cat $out; return $code; }
join() {
  if [ -s $kube/kubelet.conf ] && [ -e $pki/kubelet-client-current.pem ]; then
    start_kubelet && kubelet_answers && return 0
    evidence 'the kubelet does not run with what an earlier join left, so the node joins anew'
  fi
  [ ! -e $kube/kubelet.conf ] && [ ! -e $kube/bootstrap-kubelet.conf ] || clean
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
  # Until its certificate comes the kubelet asks for everything as nobody and is refused, and the longer that takes the
  # longer it waits before it asks again. Pods that reach it before its list of Services does fail, and are tried again
  # only after ten to fifteen seconds.
  start_kubelet
}

# kube_proxy: which kube-proxy runs here, as `PID:START,`; reads only. A proof that the lab works names it, and facts
# are compared with that.
kube_proxy() {
  for f in $(grep -lxs kube-proxy /proc/[0-9]*/comm); do cut -d' ' -f1,22 "${f%comm}stat"; done 2>/dev/null | tr ' \n' ':,'
}

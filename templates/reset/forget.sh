# Removes kubecamp's own records of the host, once nothing else is left.

# Renamed first: a run killed in the midst of the removal leaves no half record behind. A mount point cannot be renamed and
# stays: what protects and claims the host goes last there, so that another reset finds as much as it needs.
forget() {
  rm -rf "$KC.gone"
  [ -e "$KC" ] || return 0
  if ! is_mount "$KC"; then mv -T "$KC" "$KC.gone" && rm -rf "$KC.gone"; return; fi
  find "$KC" -xdev -mindepth 1 -maxdepth 1 ! -name lost+found ! -name manifest ! -name lab ! -name before \
    -exec rm -rf --one-file-system {} + && rm -f "$KC/manifest" && rm -f "$KC/lab" && rm -f "$KC/before"
}

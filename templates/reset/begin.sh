# The first words of a reset on the host, where its disk may be full.

# Frees what reset removes anyway and needs nothing of: uploads, and logs of which the record says that they are the lab's.
make_room() {
  set -- "$KC/incoming" /var/tmp/kubecamp.*
  [ ! -s "$KC/before" ] || set -- "$@" /var/log/pods /var/log/containers
  for t in "$@"; do had path "$t" || remove_tree "$t"; done
}
mark_host() { { mkdir -p "$KC" && chmod 700 "$KC" && true > "$KC/resetting"; } 2>/dev/null; }
# Any other trace makes the host ours to the next reset too, so this one goes on without its mark.
begin_reset() {
  mark_host && return
  make_room
  mark_host || echo 'kubecamp: it cannot be noted that the host is being reset, as on a full disk; the reset goes on without'
}
# keep_record: the lab's copy of the record, from standard input. Without one everything would be taken for the lab's.
keep_record() {
  record=$(cat)
  part_of_record || { make_room; part_of_record; } && mv "$KC/before.part" "$KC/before" && return
  echo 'kubecamp: the record of how the host was before up cannot be written: free some space on its disk' >&2
  return 1
}
part_of_record() { printf '%s\n' "$record" | cat > "$KC/before.part"; }

# restarted: whether the host was started anew since its record was made. What others had in its kernel, and had not saved,
# went with that; a scan from before the first removal tells it from what reset takes.
restarted() {
  was=$(sed -n "s/^boot$TAB//p" "$KC/before" 2>/dev/null)
  [ -n "$was" ] && [ "$was" != "$(cat /proc/sys/kernel/random/boot_id)" ]
}
scan_begun() { ! restarted || { ( scan ) > "$KC/begun.part" && mv "$KC/begun.part" "$KC/begun"; } 2>/dev/null; }

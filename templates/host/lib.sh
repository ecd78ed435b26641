# Sent before every change. Records in /var/lib/kubecamp what was there before, so that reset can put it back.
LC_ALL=C; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL PATH
# No part of a cluster lies behind the host's proxy: kubectl would look for the API server there, and kubeadm would write the
# proxy into its pods. What needs one, as the gate's packages, finds it in KC_ and its name.
for kc_v in http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY; do
  eval "[ -z \"\$$kc_v\" ] || KC_$kc_v=\$$kc_v"; unset "$kc_v"
done
umask 022
KC=/var/lib/kubecamp
kc_die() { echo "$*" >&2; exit 1; }
# kc_wait SECONDS COMMAND...: asks again and again until the command goes well, but no longer than that; fails where it did not.
# The command may wait for something itself: the end is among the words of each call, which are its own.
kc_wait() {
  set -- $(($(date +%s) + $1)) "$@"
  until kc_third "$@"; do [ "$(date +%s)" -lt "$1" ] || return 1; sleep 0.5; done
}
# kc_third WORD WORD COMMAND...: the command behind two words.
kc_third() { shift 2; "$@"; }
# A program costs a busy host milliseconds to start, and there are hundreds of these: the shell's own words do it.
# kc_record KIND BEFORE THING: one line, once per thing. What cannot be recorded or kept is not done: the change ends here,
# whoever calls. So what a full disk cut off is of nothing that was done, and goes.
kc_record() {
  [ -d "$KC/kept" ] || { mkdir -p "$KC/kept" && chmod 700 "$KC" "$KC/kept"; }
  kc_known "$1" "$3" && return 0
  { [ -z "$kc_line" ] || { sed '$d' "$KC/manifest" > "$KC/manifest.part" && mv -f "$KC/manifest.part" "$KC/manifest"; }; } &&
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >> "$KC/manifest" || kc_die "cannot record $1 $3"
}
kc_known() {
  kc_line=
  [ -e "$KC/manifest" ] || return 1
  while IFS= read -r kc_line; do
    case $kc_line in "$1	"*"	$2") return 0 ;; esac
  done < "$KC/manifest"
  return 1
}
# kc_keep PATH: remembers a file as it is before it is replaced.
kc_keep() {
  kc_known file "$1" && return 0
  if [ -e "$1" ] || [ -L "$1" ]; then
    n=$(printf %s "$1" | sha256sum | cut -c1-16)
    mkdir -p "$KC/kept" && cp -a "$1" "$KC/kept/$n" || kc_die "cannot keep a copy of $1"
    [ -L "$1" ] || sync "$KC/kept/$n" 2>/dev/null
    kc_record file "kept:$n" "$1"
  else kc_record file absent "$1"; fi
}
# kc_put PATH MODE: writes standard input there, whole or not at all.
kc_put() {
  kc_dirs "${1%/*}" && kc_keep "$1" && cat > "$1.kc-part" && chmod "$2" "$1.kc-part" && mv -f "$1.kc-part" "$1"
}
# kc_dirs PATH: makes a folder and its parents, remembering which were not there; reset removes those if empty.
kc_dirs() {
  [ -d "${1:-/}" ] && return 0
  kc_dirs "${1%/*}" || return 1
  kc_record dir absent "$1"; mkdir "$1"
}
# kc_tree PATH: a folder that is ours from here on if it was not there: reset removes it with all that is in it.
kc_tree() { [ -d "$1" ] || { kc_record tree absent "$1"; mkdir -p "$1"; }; }
# kc_block PATH: remembers a file into which a block of ours will be written in place.
kc_block() {
  kc_known block "$1" && return 0
  n=$(printf %s "$1" | sha256sum | cut -c1-16)
  mkdir -p "$KC/kept" && cp -aL "$1" "$KC/kept/$n" 2>/dev/null || { kc_record block absent "$1"; return 0; }
  sync "$KC/kept/$n" 2>/dev/null
  kc_record block "kept:$n" "$1"
}
# kc_without_block FILE NODES: the file without the lines between our two marks. Where one mark is lost, only lines next
# to the other that are ours by their form go: an address, and a node's name.
kc_without_block() {
  awk -v nodes=" $2 " '
    function ours(line,  w, n) { n = split(line, w, " "); return (n == 2 || n == 3) && w[1] ~ /^[0-9.]+$/ && index(nodes, " " w[2] " ") }
    { line[NR] = $0 }
    END {
      first = "# kubecamp begin"; last = "# kubecamp end"
      for (i = 1; i <= NR; i++) if (line[i] == first) {
        gone[i] = 1; end = 0
        for (j = i + 1; j <= NR && line[j] != first; j++) if (line[j] == last) { end = j; break }
        if (end) for (j = i; j <= end; j++) gone[j] = 1
        else for (j = i + 1; j <= NR && ours(line[j]); j++) gone[j] = 1
      }
      for (i = 1; i <= NR; i++) if (line[i] == last && !(i in gone)) {
        gone[i] = 1
        for (j = i - 1; j > 0 && !(j in gone) && ours(line[j]); j--) gone[j] = 1
      }
      for (i = 1; i <= NR; i++) if (!(i in gone)) print line[i]
    }' "$1" 2>/dev/null
}
# kc_sysctl KEY VALUE: sets it live, remembering the old value.
kc_sysctl() {
  f=/proc/sys/$(echo "$1" | tr . /)
  [ -e "$f" ] || return 0
  old=$(cat "$f"); [ "$old" = "$2" ] && return 0
  kc_record sysctl "$old" "$1"
  echo "$2" > "$f"
}

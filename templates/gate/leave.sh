SUBUID=/etc/subuid
# What runs of an account by any of its user ids, those of its user namespaces too: nobody ends these any more.
processes() { # processes ACCOUNT
  u=$(id -u "$1" 2>/dev/null) || return 0
  { echo "own $u 1"; sed -n -e "s/^$1:\([0-9]*\):\([0-9]*\)$/own \1 \2/p" -e "s/^$u:\([0-9]*\):\([0-9]*\)$/own \1 \2/p" "$SUBUID" 2>/dev/null
    ps -eo pid=,ruid=,euid=,suid= | sed 's/^/runs /'; } |
    awk '$1 == "own" && $2 >= 1000 { first[++n] = $2; after[n] = $2 + $3 }
      $1 == "runs" { for (i = 1; i <= n; i++) for (k = 3; k <= 5; k++) if ($k >= first[i] && $k < after[i]) { print $2; next } }'
}
ROOT=
# What would start processes of an account later: cron, at, linger. A new account of its name would get its crontab.
forget_later() { # forget_later ACCOUNT
  for d in spool/cron/crontabs spool/cron/tabs spool/cron lib/systemd/linger; do rm -f "$ROOT/var/$d/$1" 2>/dev/null; done
  u=$(id -u "$1" 2>/dev/null) || return 0
  for d in cron/atjobs at at/spool atjobs; do
    [ ! -d "$ROOT/var/spool/$d" ] || find "$ROOT/var/spool/$d" -maxdepth 1 -type f -user "$u" -delete
  done
}
# The group whose accounts are closed; of an enrolment that broke off, or an end of it, the one that it made.
enrolled_group() {
  g=$(installed_group)
  [ -n "$g" ] || [ ! -e "$KC/manifest" ] || g=$(while IFS='	' read -r kind _ thing; do [ "$kind" != group ] || echo "$thing"; done < "$KC/manifest" | tail -n 1)
  echo "$g"
}
# Takes the gate off a host. Students' accounts first: without the gate their own authorized_keys would count again.
close_accounts() { # close_accounts GROUP REMOVE
  for f in /etc/kubecamp-gate/principals/*; do [ -f "$f" ] && : > "$f"; done
  students "$1" | while read -r s; do
    [ "$(id -u "$s" 2>/dev/null || echo 0)" -ge 1000 ] || continue
    forget_later "$s"
    i=0; while p=$(processes "$s"); [ -n "$p" ] && [ $i -lt 40 ]; do pkill -KILL -U "$s"; kill -KILL $p 2>/dev/null; i=$((i + 1)); sleep 0.05; done
    # Once more: what ran until now may have left another.
    forget_later "$s"
    if [ "$2" = yes ]; then userdel -r "$s" 2>/dev/null || userdel "$s"
    # Closed accounts stay in their group, so that enrolling again knows them.
    else usermod --expiredate 1 --shell "$(command -v nologin || echo /bin/false)" "$s"; fi
  done
  [ "$2" = no ] || ! getent group "$1" >/dev/null || [ -n "$(students "$1")" ] || groupdel "$1"
}
accounts_left() {
  [ "$2" = no ] || ! getent group "$1" >/dev/null || echo "$1"
  students "$1" | while read -r s; do
    if [ "$2" = yes ] || [ "$(getent shadow "$s" | cut -d: -f8)" != 1 ]; then echo "$s"; fi
  done
}
# Labs of the gate, and their engine: what they have beside their home must go before it.
LABS=$KC/home
labs_left() {
  ls "$LABS"/data/labs/*/lab.yaml "$LABS/data/engine/daemon.pid" 2>/dev/null
}
remove_labs() {
  [ -n "$(labs_left)" ] || return 0
  for lab in "$LABS"/data/labs/*/lab.yaml; do
    [ -e "$lab" ] || continue
    dir=$(dirname "$lab")
    KUBECAMP_HOME=$LABS /usr/local/sbin/kubecamp-agent --name "$(basename "$dir")" --yes --plain down </dev/null && continue
    # Machines of the private engine go with its folder, of which nothing stays.
    grep -q '"incus"' "$dir/state.json" && kc_die "the machines of the lab $(basename "$dir") are not removed"
    rm -f "$lab"
  done
  KUBECAMP_HOME=$LABS /usr/local/sbin/kubecamp-agent --yes --plain machine engine stop </dev/null || return 1
  sha256sum -c --status "$LABS/kubectl.sha256" 2>/dev/null && rm -f /usr/local/bin/kubectl
  true
}
# The rules by which labs were reached.
forget_rules() {
  for family in -4 -6; do
    ip $family rule show 2>/dev/null | sed -n 's/^\(1150[012]\):.*/\1/p' | while read -r p; do ip $family rule del priority "$p"; done
  done
}
gate_back() {
  [ -e "$KC/manifest" ] || return 0
  # A last line that a full disk cut off is of nothing that was done, and may name a folder above what it was about.
  { if [ -z "$(tail -c 1 "$KC/manifest")" ]; then cat "$KC/manifest"; else sed '$d' "$KC/manifest"; fi; } |
    awk '{ line[NR] = $0 } END { for (i = NR; i; i--) print line[i] }' | while IFS='	' read -r kind before thing; do
    # An older kubecamp kept all of sshd's file for its one line: what was changed there since must stay.
    case $before:$thing in kept:*/etc/ssh/sshd_config) kind=line ;; esac
    case $kind in
      line) [ ! -f "$thing" ] || rewrite "$thing" without_include ;;
      file) rm -f "$thing.kc-part"
        case $before in
          kept:*) [ ! -e "$KC/kept/${before#kept:}" ] || { cp -a "$KC/kept/${before#kept:}" "$thing.kc-part" && mv -fT "$thing.kc-part" "$thing"; } ;;
          *) rm -f "$thing" ;;
        esac ;;
      tree) rm -rf --one-file-system "$thing" ;;
      dir) rmdir "$thing" 2>/dev/null ;;
      block)
        [ ! -f "$thing" ] || rewrite "$thing" without_block
        [ "$before" != absent ] || [ -s "$thing" ] || rm -f "$thing" ;;
      group) [ -n "$(students "$thing")" ] || groupdel "$thing" 2>/dev/null ;;
    esac
  done
  true
}

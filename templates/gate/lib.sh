# Sent after host/lib.sh. The gate has a manifest of its own: resetting a lab on the same host must leave it alone.
KC=/var/lib/kubecamp-gate
# The server's proxy, which host/lib.sh puts away: packages are loaded through it, and the agent may find its hub there.
for kc_v in http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY; do
  eval "[ -z \"\$KC_$kc_v\" ] || export $kc_v=\"\$KC_$kc_v\""
done
# as_agent COMMAND...: with the proxies that the agent has. A unit has none of a login's, but those of systemd and its own.
as_agent() (
  if has_systemd; then
    for kc_v in http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY; do unset $kc_v; done
    for kc_v in $({ systemctl show-environment; systemctl show -p Environment --value kubecamp-agent; } 2>/dev/null | tr ' ' '\n' | grep -i '^[a-z]*_proxy='); do export "$kc_v"; done
  fi
  "$@"
)
UNIT=/etc/systemd/system/kubecamp-agent.service
# What starts it with the server.
WANTED=/etc/systemd/system/multi-user.target.wants/kubecamp-agent.service
has() { command -v "$1" >/dev/null 2>&1; }
has_systemd() { [ -d /run/systemd/system ]; }
SSHD=$(command -v sshd || echo /usr/sbin/sshd)
# sshd takes its configuration anew; what is open stays open.
reload_sshd() {
  mkdir -p /run/sshd
  "$SSHD" -t || return 1
  if has_systemd; then
    systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null || systemctl is-active -q ssh.socket && return 0
  fi
  p=$(cat /run/sshd.pid 2>/dev/null) && kill -HUP "$p" 2>/dev/null || p=$(pgrep -o -x sshd) && kill -HUP "$p"
}
agent_pid() { p=$(cat /run/kubecamp-agent.pid 2>/dev/null) && grep -qs kubecamp-agent "/proc/$p/cmdline" && echo "$p"; }
agent_runs() { if has_systemd; then systemctl is-active -q kubecamp-agent; else [ -n "$(agent_pid)" ]; fi; }
# Whether it has ended for good. One that systemd is about to start again, or starts with the server, has not.
agent_ended() {
  has_systemd || { [ -z "$(agent_pid)" ]; return; }
  case $(systemctl show -p ActiveState --value kubecamp-agent) in inactive|failed) ;; *) return 1 ;; esac
  [ ! -L "$WANTED" ] && ! systemctl -q is-enabled kubecamp-agent 2>/dev/null
}
start_agent() {
  if has_systemd; then systemctl daemon-reload && systemctl enable -q kubecamp-agent && systemctl restart kubecamp-agent && return; return 1; fi
  stop_agent
  setsid sh -c 'echo $$ > /run/kubecamp-agent.pid; exec /usr/local/sbin/kubecamp-agent agent --config /etc/kubecamp-gate/agent.yaml' \
    </dev/null >>/var/log/kubecamp-agent.log 2>&1 &
  i=0; while [ -z "$(agent_pid)" ] && [ $i -lt 50 ]; do i=$((i + 1)); sleep 0.1; done; [ -n "$(agent_pid)" ]
}
stop_agent() {
  if has_systemd; then timeout 20 systemctl disable -q --now kubecamp-agent 2>/dev/null; rm -f "$WANTED"; fi
  p=$(agent_pid) && kill -TERM "$p" && { i=0; while kill -0 "$p" 2>/dev/null && [ $i -lt 50 ]; do i=$((i + 1)); sleep 0.1; done; kill -KILL "$p" 2>/dev/null; }
  rm -f /run/kubecamp-agent.pid; true
}
# rewrite FILE COMMAND...: the file becomes what the command makes of it, or stays as it was, as where the disk is full. Its
# owner, its mode and a link to it stay.
rewrite() {
  real=$(readlink -f "$1") && shift || return 1
  cp -a "$real" "$real.kc-part" && "$@" "$real" > "$real.kc-part" && mv -f "$real.kc-part" "$real"
  s=$?; rm -f "$real.kc-part"; return $s
}
# The one line that sshd's own file may get.
INCLUDE='Include /etc/ssh/sshd_config.d/00-kubecamp.conf'
with_include() { echo "$INCLUDE" && cat "$1"; }
without_include() { sed "\|^$INCLUDE\$|d" "$1"; }
# The gate's block in a file of keys. It comes first: of two lines with one key sshd takes the first, and that of a cloud image
# may let nobody in.
with_block() { printf '# kubecamp-gate begin\n%s\n# kubecamp-gate end\n' "$key" && without_block "$1"; }
without_block() { sed '/^# kubecamp-gate begin$/,/^# kubecamp-gate end$/d' "$1"; }
# Whether this key is let in by its file, in the block or by a line of the admin's own, and no other one by the block.
lets_in() { # lets_in FILE KEY
  KEY=$2 awk '
    BEGIN { split(ENVIRON["KEY"], of, " ") }
    $0 == "# kubecamp-gate begin" { inside = 1; next }
    $0 == "# kubecamp-gate end" { inside = 0; next }
    inside { lines++ }
    !/^[ \t]*#/ { for (i = 1; i <= NF; i++) if ($i == of[2]) {
      if (!seen++) plain = i == 2 && $1 == of[1]
      if (inside) own++
      break } }
    END { exit !(plain && lines + 0 == own + 0) }' "$1" 2>/dev/null
}
# Files that have a block of the gate's, as the manifest says, but for this one: those of admins who were named before.
former_blocks() { # former_blocks FILE
  [ -e "$KC/manifest" ] || return 0
  while IFS='	' read -r kind _ thing; do
    [ "$kind" != block ] || [ "$(readlink -f "$thing")" = "$(readlink -f "$1")" ] || ! grep -qs '^# kubecamp-gate begin$' "$thing" || echo "$thing"
  done < "$KC/manifest"
}
# The group that this server is enrolled with.
installed_group() { sed -n 's/^group: "\(.*\)"$/\1/p' /etc/kubecamp-gate/agent.yaml 2>/dev/null | head -n 1; }
# The group that a new account gets, where it gets none of its own.
LOGIN_DEFS=/etc/login.defs
default_group() {
  ! grep -qsi '^[[:space:]]*USERGROUPS_ENAB[[:space:]]\{1,\}yes' "$LOGIN_DEFS" || return 0
  g=$(useradd -D 2>/dev/null | sed -n 's/^GROUP=//p'); [ -z "$g" ] || getent group "$g" | cut -d: -f1
}
students() { getent group "$1" | cut -d: -f4 | tr ',' '\n' | grep -v '^$'; }

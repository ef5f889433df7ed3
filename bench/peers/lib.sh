# shellcheck shell=bash
# What the peers' scripts share. Sourced, never run; PEER names the script that sources it.
#
# A peer is one implementation of the login job. Its script offers these verbs, so that one harness measures all alike:
#
#   install                        downloads and builds what is missing
#   start JOB GUARANTEE [SUFFIX]   starts the job anew; what dies is started again at once
#   consuming                      when it began to read, in milliseconds since 1970
#   pids                           processes whose trees do the work; they outlive a crash
#   base                           CPU-seconds that these trees had spent before the job was submitted
#   state                          the folder of its state
#   crash                          kill -9 for the process that holds the state
#   stop
#
# JOB: a (each login enriched) or b (that, with the findings of new country and unresolved address); further ones are the script's.
# GUARANTEE: eo or alo. Reads topic INPUT (login-events); writes login-events-enriched and login-anomalies, each with SUFFIX, which
# the harness creates. KAFKA_BROKERS, REGISTRY_URL, GEO_CSV: the surroundings. PEER_WORK: where state and logs go.
set -euo pipefail
peers="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/dataflow/peers"
WORK="${PEER_WORK:-$CACHE/work}/$PEER"
INPUT="${INPUT:-login-events}"
SERVICE="$PEER" STACK_HOME="$CACHE" STACK_DATA="$CACHE/stack"
. "$peers/../../compose/stack/lib.sh"

usage() { sed -n '/^#   install/,/^#$/s/^# \{0,1\}//p' "$peers/lib.sh" >&2; exit 2; }

# fresh: an empty folder for a run.
fresh() {
  rm -rf "${WORK:?}"
  mkdir -p "$WORK"
}

# supervise NAME COMMAND...: starts the command, and again at once whenever it dies, until `dismiss NAME`. One that cannot live for a
# second is given half a second of rest.
supervise() {
  local name="$1"
  shift
  setsid bash -c 'name="$1"; shift
    until [ -e "$name.dismissed" ]; do
      began=$SECONDS; "$@" & echo $! >"$name.pid"; wait $! || true
      [ $((SECONDS - began)) -gt 0 ] || sleep 0.5
    done' supervisor "$WORK/$name" "$@" >>"$WORK/$name.log" 2>&1 </dev/null &
  echo $! >"$WORK/$name.supervisor"
  until [ -s "$WORK/$name.pid" ]; do sleep 0.02; done
}

# dismiss NAME: asks the command to end, and after 15 s ends it.
dismiss() {
  local supervisor
  [ -e "$WORK/$1.supervisor" ] || return 0
  supervisor="$(cat "$WORK/$1.supervisor")"
  touch "$WORK/$1.dismissed"
  kill -TERM "$(cat "$WORK/$1.pid")" 2>/dev/null || true
  for _ in $(seq 150); do
    kill -0 "$supervisor" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$supervisor" 2>/dev/null || true
  rm -f "$WORK/$1.supervisor"
}

crash() { kill -KILL "$(cat "$WORK/$1.pid")"; }

# jdk MAJOR...: the home of a JDK, of the first of these versions that there is.
jdk() {
  local major home
  for major in "$@"; do
    for home in ${JAVA_HOME:+"$JAVA_HOME"} /usr/lib/jvm/*; do
      [ -x "$home/bin/javac" ] && "$home/bin/javac" -version 2>&1 | grep -q "^javac $major\b" && { echo "$home"; return; }
    done
  done
  die "needs a JDK of version ${*// / or }, in JAVA_HOME or /usr/lib/jvm; 'scripts/setup bench' says how to get one"
}

# classes NAME JDK CLASSPATH SOURCE...: the jar of these Java files; their text is in its name, so one that is there is the right one.
classes() {
  local jar sources=("${@:4}")
  jar="$CACHE/classes/$1-$(cat "${sources[@]}" | sha256sum | cut -c 1-12).jar"
  once "$jar" compile "$jar" "${@:2}"
  echo "$jar"
}
compile() { # JAR JDK CLASSPATH SOURCE...
  local jar="$1" jdk="$2" classpath="$3" part="$1.part"
  rm -rf "$part"
  mkdir -p "$part"
  "$jdk/bin/javac" -nowarn -parameters --release 17 -classpath "$classpath" -d "$part/classes" "${@:4}" >&2
  "$jdk/bin/jar" --create --file "$part/jar" -C "$part/classes" . >&2
  mv "$part/jar" "$jar"
  rm -rf "$part"
}

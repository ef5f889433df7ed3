# shellcheck shell=bash
# What every script in services/ shares. Sourced, never run.
#
# Owns: downloads under STACK_HOME (shared between checkouts, written under a lock), data, logs and process ids under
# STACK_DATA (one folder a test run). Refuses: ports of its own choice; the caller gives them, so that two runs fit on
# one machine.
set -euo pipefail

STACK_HOME="${STACK_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/dataflow/stack}"
STACK_DATA="${STACK_DATA:-$STACK_HOME/data}"
STACK_RUN="$STACK_DATA/run"
STACK_LOG="$STACK_DATA/log"
mkdir -p "$STACK_HOME" "$STACK_RUN" "$STACK_LOG"

say() { printf '%s: %s\n' "${SERVICE:-stack}" "$*" >&2; }
die() { say "$*"; exit 1; }

# once PATH COMMAND...: runs the command unless PATH exists. A lock beside it keeps two checkouts from downloading the same thing
# into one folder; the one that waited finds PATH there. The lock is held by a file descriptor, so a killed run lets go of it.
once() {
  local path="$1" lock
  shift
  [ -e "$path" ] && return 0
  mkdir -p "$(dirname "$path")"
  exec {lock}>"$path.lock"
  flock "$lock"
  [ -e "$path" ] || "$@"
  exec {lock}>&-
}

# jars DIR [@]GROUP:ARTIFACT:VERSION[:CLASSIFIER]...: the artifacts with everything they run with, as a flat folder of jars. One that begins
# with @ is a bill of materials: it settles the versions of what the others run with.
jars() { once "$1" fetch_jars "$@"; }
fetch_jars() {
  local dir="$1" part="$1.part" coordinate group artifact version classifier place dependencies="" materials=""
  shift
  command -v mvn >/dev/null || die "mvn is missing; 'scripts/setup e2e' installs it"
  say "downloading $* (once, to $dir)"
  for coordinate in "$@"; do
    IFS=: read -r group artifact version classifier <<<"${coordinate#@}"
    place="<groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version>"
    case "$coordinate" in
      @*) materials+="<dependency>$place<type>pom</type><scope>import</scope></dependency>" ;;
      *) dependencies+="<dependency>$place${classifier:+<classifier>$classifier</classifier>}</dependency>" ;;
    esac
  done
  rm -rf "$part"
  mkdir -p "$part"
  cat >"$part/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion><groupId>dataflow</groupId><artifactId>stack</artifactId><version>1</version>
<dependencyManagement><dependencies>$materials</dependencies></dependencyManagement>
<dependencies>$dependencies</dependencies></project>
POM
  mvn -q -B -Dstyle.color=never -f "$part/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$part" >&2
  mv "$part" "$dir"
}

# archive DIR GROUP:ARTIFACT:VERSION:TYPE:CLASSIFIER: one tar.gz artifact, unpacked.
archive() { once "$1" fetch_archive "$@"; }
fetch_archive() {
  local dir="$1" part="$1.part"
  command -v mvn >/dev/null || die "mvn is missing; 'scripts/setup e2e' installs it"
  say "downloading $2 (once, to $dir)"
  rm -rf "$part"
  mkdir -p "$part/download" "$part/content"
  mvn -q -B -Dstyle.color=never dependency:copy -Dartifact="$2" -DoutputDirectory="$part/download" >&2
  tar xzf "$part"/download/*.tar.gz -C "$part/content"
  mv "$part/content" "$dir"
  rm -rf "$part"
}

# java_home MAJOR: the home of a JDK of at least that version: JAVA_HOME, then what the system lists, then the PATH's.
java_home() {
  local home major
  for home in "${JAVA_HOME:-}" /usr/lib/jvm/* "$(dirname "$(dirname "$(readlink -f "$(command -v java || echo /)")")")"; do
    [ -x "$home/bin/java" ] || continue
    major="$("$home/bin/java" -version 2>&1 | sed -n 's/^[^"]*version "\([0-9]*\).*/\1/p' | head -n 1)"
    if [ "${major:-0}" -ge "$1" ]; then
      echo "$home"
      return 0
    fi
  done
  die "needs Java $1 or newer, and none was found in JAVA_HOME, /usr/lib/jvm or PATH; 'scripts/setup e2e' says how to get it"
}

# alive NAME: the process that `launch` started under that name runs (a zombie does not).
alive() {
  [ -e "$STACK_RUN/$1.pid" ] && grep -q '^State:.[^ZX]' "/proc/$(cat "$STACK_RUN/$1.pid")/status" 2>/dev/null
}

# launch NAME COMMAND...: starts a service in a session of its own, so that it outlives the script and dies as a whole.
launch() {
  local name="$1"
  shift
  if alive "$name"; then
    say "already runs as process $(cat "$STACK_RUN/$name.pid")"
    return 0
  fi
  setsid "$@" >>"$STACK_LOG/$name.log" 2>&1 </dev/null &
  echo $! >"$STACK_RUN/$name.pid"
}

# end NAME SIGNAL: signals the service's process group and waits until it is gone; after 30 s it is killed.
end() {
  local pid
  if alive "$1"; then
    pid="$(cat "$STACK_RUN/$1.pid")"
    kill "-$2" -- "-$pid" 2>/dev/null || true
    for _ in $(seq 300); do
      alive "$1" || break
      sleep 0.1
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
  fi
  rm -f "$STACK_RUN/$1.pid"
}

# await SECONDS NAME COMMAND...: until the command succeeds; gives up at once when the service has died.
await() {
  local deadline=$((SECONDS + $1)) name="$2"
  shift 2
  until "$@" >/dev/null 2>&1; do
    alive "$name" || die "'$name' ended before it was ready; see $STACK_LOG/$name.log"
    [ "$SECONDS" -lt "$deadline" ] || die "'$name' was not ready in time; see $STACK_LOG/$name.log"
    sleep 0.2
  done
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

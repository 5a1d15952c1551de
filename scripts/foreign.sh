#!/usr/bin/env bash
# Prints the path of a Python that has ipyparallel, as tests/foreign/requirements.txt pins it. The first time it
# makes a virtual environment for it below target/, which takes a minute; it does nothing the second time.
# COMMWORLD_PYTHON names the Python to begin with, if it is not python3.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'foreign: %s\n' "$*" >&2; }

python=${COMMWORLD_PYTHON:-python3}
requirements=tests/foreign/requirements.txt
if ! command -v "$python" >/dev/null; then
  say "$python was not found: run scripts/setup.sh, or name a Python in COMMWORLD_PYTHON"
  exit 1
fi
# The pinned packages need 3.11. Where the interpreter is belongs to the name, as an environment points there.
if ! identity=$("$python" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit("foreign: %s is Python %d.%d, and ipyparallel needs 3.11 here: name a newer one in COMMWORLD_PYTHON"
             % (sys.executable, sys.version_info[0], sys.version_info[1]))
print(sys.base_prefix, sys.version)'); then
  exit 1
fi

home=$PWD/target/foreign
case ${CARGO_TARGET_DIR:-} in
  '') ;;
  /*) home=$CARGO_TARGET_DIR/foreign ;;
  *) home=$PWD/$CARGO_TARGET_DIR/foreign ;;
esac
mkdir -p "$home"
hash=$({ cat "$requirements"; echo "$identity"; } | sha256sum | cut -c1-12)
environment=$home/venv-$hash
# Written last: an environment without it was interrupted half way.
complete=$environment/complete

# Two test runs at once make one environment; the lock ends with the process that holds it.
exec 9>"$home/lock"
flock 9
if [ ! -e "$complete" ]; then
  say "installing ipyparallel and what it needs into $environment (once, about a minute)"
  rm -rf "$environment"
  log=$home/install.log
  if ! {
    "$python" -m venv "$environment" &&
      # Only what is built already: compiling takes very long, and compilers that nothing else here needs.
      "$environment/bin/python" -m pip install --disable-pip-version-check --no-input --only-binary=:all: \
        --requirement "$requirements"
  } >"$log" 2>&1 9>&-; then
    tail -n 15 "$log" >&2
    say "that failed; its last lines are above, all of them in $log"
    say "it takes the module venv (Debian: python3-venv) and a package index that pip can reach"
    exit 1
  fi
  touch "$complete"
fi
printf '%s\n' "$environment/bin/python"

#!/usr/bin/env bash
# The project at work: builds, starts four MPI engines, runs the psum session as a person would type it, checks
# the answer against a sum computed here from the pulled arrays, and stops everything.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"

echo 'building (the first time takes a few minutes) …' >&2
cargo build --release --quiet --bins
bin=${CARGO_TARGET_DIR:-target}/release

profile=$(mktemp -d "${TMPDIR:-/tmp}/commworld-demo.XXXXXX")
stop() {
  "$bin/cluster" stop --profile-dir "$profile" --quiet || true
  rm -rf "$profile"
}
trap stop EXIT

# Shows a command as it is typed, then runs it.
run() {
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  case $1 in
    cluster | client) "$bin/$1" --profile-dir "$profile" "${@:2}" ;;
  esac
}

run cluster start -n 4 --daemonize
run client <<'SESSION'
px a = rand(100)
px s = psum(a)
pull s
px [rank(), size(), len(a)]
SESSION

sums=$("$bin/client" --profile-dir "$profile" pull s --json)
expected=$("$bin/client" --profile-dir "$profile" pull a --json | tr -d '[] ' | tr ',' '\n' | awk '{ sum += $1 } END { printf "%.12f", sum }')
printf '\nthe four sums:                       %s\n' "$sums"
printf 'sum of the four pulled arrays here:  %s\n' "$expected"
printf '%s\n' "$sums" | tr -d '[] ' | tr ',' '\n' | awk -v expected="$expected" '
  { count += 1; difference = $1 - expected; if (difference < 0) difference = -difference; if (difference > 1e-9) wrong = 1 }
  END { if (wrong || count != 4) { print "they do not agree"; exit 1 } print "they agree" }'

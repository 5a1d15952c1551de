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
  "$bin/cluster" stop --profile-dir "$profile" >/dev/null 2>&1 || true
  rm -rf "$profile"
}
trap stop EXIT

bold= plain=
[ -t 1 ] && bold=$'\033[1m' plain=$'\033[0m'

# Shows a command as a person would type it, then runs it; the profile is the demo's own.
run() {
  printf '\n%s$ %s' "$bold" "$1"
  for word in "${@:2}"; do
    case $word in
      *[!A-Za-z0-9=_-]*) printf " '%s'" "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '%s\n' "$plain"
  case $1 in
    cluster | client) IPP_PROFILE_DIR=$profile "$bin/$1" "${@:2}" ;;
  esac
}

run cluster start -n 4 --daemonize
run client px 'a = rand(100)'
run client px 's = psum(a)'
run client pull s
run client px 'print("rank", rank(), "of", size(), "holds", len(a), "numbers, the first is", a[0])'
run client px 'if rank() == 2 { 1 / 0 } else { "fine" }' || true
run client status

sums=$("$bin/client" --profile-dir "$profile" pull s --json)
expected=$("$bin/client" --profile-dir "$profile" pull a --json | tr -d '[] ' | tr ',' '\n' | awk '{ sum += $1 } END { printf "%.12f", sum }')
printf '\nthe four sums:                       %s\n' "$sums"
printf 'sum of the four pulled arrays here:  %s\n' "$expected"
printf '%s\n' "$sums" | tr -d '[] ' | tr ',' '\n' | awk -v expected="$expected" '
  { count += 1; difference = $1 - expected; if (difference < 0) difference = -difference; if (difference > 1e-9) wrong = 1 }
  END { if (wrong || count != 4) { print "they do not agree"; exit 1 } print "they agree" }'

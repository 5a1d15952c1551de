#!/usr/bin/env bash
# Unpacks the commands of Torque that work over Slurm (Debian's slurm-wlm-torque) below target/, once, and prints where
# they are. They are not installed: they would be this machine's qsub.
set -euo pipefail

cd "$(dirname "$0")/.."
folder=${CARGO_TARGET_DIR:-target}/torque
if [ ! -x "$folder/usr/bin/qsub" ]; then
  rm -rf "$folder.new"
  mkdir -p "$folder.new"
  if ! command -v apt-get >/dev/null; then
    echo "torque: this is not Debian; there is no package slurm-wlm-torque" >&2
    exit 1
  fi
  (
    cd "$folder.new"
    apt-get -q download slurm-wlm-torque || { apt-get -q update && apt-get -q download slurm-wlm-torque; }
    dpkg-deb -x ./*.deb .
  ) >&2
  ln -s "$(command -v sbatch)" "$(command -v salloc)" "$folder.new/usr/bin" # They look for these beside themselves.
  rm -rf "$folder"
  mv "$folder.new" "$folder"
fi
realpath "$folder/usr/bin"

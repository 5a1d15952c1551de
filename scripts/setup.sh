#!/usr/bin/env bash
# Installs what building and running needs and this machine lacks. Says what it does; does nothing the second
# time. Knows Debian and Ubuntu; elsewhere it names what is missing and stops.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

# What each Debian package is for.
packages=(
  gcc             # linker, and the C parts of a few crates
  g++ gfortran    # compile kernels in C++ and Fortran, for tests and examples
  libc6-dev       # headers of the C library
  make            # this project's Makefile
  pkg-config      # finds MPI
  openmpi-bin     # mpiexec
  libopenmpi-dev  # MPI headers and library, for `engine`
  libclang-dev    # reads the MPI headers
  libzmq3-dev     # ZeroMQ with CURVE
  slurm-wlm slurm-wlm-basic-plugins munge libslurm-perl libslurmdb-perl # a private Slurm, for the tests
  iproute2 tcpdump # hosts with addresses of their own, for the tests
  openssh-client openssh-server # tunnels; the server for the tests
  procps          # ps and pgrep, for the tests
)

# The tests run ipyparallel's client and engines (scripts/foreign.sh); a Python from elsewhere is as good.
has_python() { "${COMMWORLD_PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null; }
has_python || packages+=(python3 python3-venv)

# Python engines load the library of the interpreter; the system's own comes in a package of its own.
python=$(command -v "${COMMWORLD_PYTHON:-python3}" || echo /usr/bin/python3)
case $(readlink -f "$python") in
  /usr/bin/python3.*) packages+=("lib$(basename "$(readlink -f "$python")")") ;;
  /usr/bin/*) packages+=(libpython3-dev) ;; # Not installed yet: whichever version comes.
esac

if ! command -v cargo >/dev/null; then
  [ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
fi
if ! command -v cargo >/dev/null; then
  say "cargo was not found: install Rust 1.90 or newer with rustup, then run this again"
  exit 1
fi

if ! command -v dpkg-query >/dev/null; then
  missing=()
  for tool in cc make mpicc mpiexec; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  has_python || missing+=("python3 (3.11 or newer, with venv)")
  [ -e /usr/include/zmq.h ] || [ -e /usr/local/include/zmq.h ] || missing+=("libzmq (headers)")
  if [ "${#missing[@]}" -gt 0 ]; then
    say "missing: ${missing[*]}; this is not Debian, so install them by hand: a C compiler, make, MPI (Open MPI or MPICH), libclang, libzmq, Python"
    exit 1
  fi
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ "${#missing[@]}" -eq 0 ] && exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    say "missing Debian packages: ${missing[*]}; run as root: apt-get install --no-install-recommends ${missing[*]}"
    exit 1
  fi
  sudo=sudo
fi
say "installing Debian packages: ${missing[*]}"
log=$(mktemp)
cleanup=("rm -f $log")
trap 'for line in "${cleanup[@]}"; do $line; done' EXIT

# The tests start a server of their own, in a network of their own: none may begin to listen on this machine because of
# them, neither now nor when it starts again. (Packages ask policy-rc.d before they start what they bring.)
policy=/usr/sbin/policy-rc.d
brings_sshd=no
for package in "${missing[@]}"; do
  [ "$package" = openssh-server ] && brings_sshd=yes
done
if [ "$brings_sshd" = yes ] && [ ! -e "$policy" ]; then
  cleanup+=("$sudo rm -f $policy")
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
  $sudo chmod 755 "$policy"
fi
if ! { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  say "apt-get failed; its last lines are above"
  exit 1
fi
if [ "$brings_sshd" = yes ] && command -v systemctl >/dev/null; then
  $sudo systemctl disable ssh.service ssh.socket >/dev/null 2>&1 || true # Without systemd nothing starts it anyway.
fi

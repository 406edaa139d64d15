#!/bin/bash
# Installs the Debian packages that are missing, by name: those of the build and the tests, and with an argument those
# of `make format`, `make tidy`, `make fuzz` or `make neon`.
set -euo pipefail
packages=(g++ cmake ninja-build python3 python3-pip unzip
  libhwy-dev libcli11-dev libedit-dev libsqlite3-dev nlohmann-json3-dev libfmt-dev libxxhash-dev libgtest-dev libgmock-dev)
case ${1:-build} in
  build) ;;
  format) packages=(clang-format) ;;
  fuzz) packages+=(clang libclang-rt-14-dev) ;;
  neon) packages+=(g++-aarch64-linux-gnu) ;;
  tidy) packages+=(clang-tidy) ;;
  *) echo "usage: setup.sh [build|format|fuzz|neon|tidy]" >&2; exit 2 ;;
esac
missing=()
for p in "${packages[@]}"; do
  case $p in
    python3) command -v python3 > /dev/null && continue ;;
    python3-pip) python3 -m pip --version > /dev/null 2>&1 && continue ;;
  esac
  dpkg-query -W -f='${Status}' "$p" 2> /dev/null | grep -q 'install ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing: ${missing[*]}" >&2
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"

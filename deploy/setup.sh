#!/usr/bin/env bash
# What `make setup` runs: checks for the tools that the build needs, and installs missing ones where it
# may (root on Debian or Ubuntu). Changes nothing, and takes milliseconds, when all are there.
#
# `setup.sh chaos` looks instead for what faults on real processes need. Without it fewer kinds of faults
# are possible, which is no failure: the run names what it skips.
set -euo pipefail

readonly packages=(libclang-dev g++ ccache make pkg-config git)

readonly chaos_packages=(nftables iproute2 faketime xfsprogs e2fsprogs util-linux mount)

chaos_missing() {
  local tool
  for tool in nft ip xfs_io mkfs.ext4 nsenter fallocate losetup; do
    command -v "$tool" >/dev/null || echo "$tool"
  done
  compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null ||
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || echo libfaketime
}

if [[ ${1:-} == chaos ]]; then
  lacking=$(chaos_missing | tr '\n' ' ')
  if [[ -n $lacking ]]; then
    echo "setup: missing for chaos: $lacking" >&2
    if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
      echo "setup: kinds of faults that need them are skipped; on Debian or Ubuntu they are in:" >&2
      echo "  sudo apt-get install --no-install-recommends ${chaos_packages[*]}" >&2
    else
      export DEBIAN_FRONTEND=noninteractive
      apt-get update -q >&2
      apt-get install -y -q --no-install-recommends "${chaos_packages[@]}" >&2
    fi
  fi
  exit 0
fi

# bindgen loads libclang (which is not libclang-cpp) and reads clang's own C headers.
libclang_present() {
  local directory
  for directory in /usr/lib/llvm*/lib ${LIBCLANG_PATH:+"$LIBCLANG_PATH"} /usr/lib /usr/lib64; do
    if compgen -G "$directory/libclang.so*" >/dev/null || compgen -G "$directory/libclang-[0-9]*.so*" >/dev/null; then
      compgen -G "$directory/clang/*/include/stddef.h" >/dev/null && return
    fi
  done
  # Elsewhere, with an installed clang that knows its headers.
  command -v clang >/dev/null && ldconfig -p | grep -qE 'libclang(-[0-9.]+)?\.so'
}

missing() {
  local tool
  for tool in gcc g++ ccache make pkg-config git; do
    command -v "$tool" >/dev/null || echo "$tool"
  done
  libclang_present || echo libclang
}

lacking=$(missing | tr '\n' ' ')
if [[ -n $lacking ]]; then
  echo "setup: missing: $lacking" >&2
  if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "setup: install them, on Debian or Ubuntu with:" >&2
    echo "  sudo apt-get update && sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -y -q --no-install-recommends "${packages[@]}" >&2
  lacking=$(missing | tr '\n' ' ')
  if [[ -n $lacking ]]; then
    echo "setup: still missing after installing: $lacking" >&2
    exit 1
  fi
fi

if ! command -v cargo >/dev/null; then
  echo "setup: cargo is missing; install Rust 1.95 or newer from https://rustup.rs:" >&2
  echo "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" >&2
  exit 1
fi

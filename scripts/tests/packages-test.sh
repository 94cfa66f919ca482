#!/bin/bash
# How packages are installed, and what is found missing.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/../lib/common.sh"
. "$here/../lib/packages.sh"
passed=0 failed=0

expect() {
    if [ "$2" = "$3" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED %s\n  wanted: %s\n  got:    %s\n' "$1" "$2" "$3"
    fi
}

# install_way: APT USER SUDO PASSWORD
expect "root installs" root "$(install_way yes 0 no no)"
expect "root needs no sudo" root "$(install_way yes 0 yes free)"
expect "sudo without a password" sudo "$(install_way yes 1000 yes free)"
expect "sudo where somebody can type the password" sudo "$(install_way yes 1000 yes terminal)"
expect "sudo where nobody can" ask "$(install_way yes 1000 yes no)"
expect "no sudo" ask "$(install_way yes 1000 no no)"
expect "no apt" none "$(install_way no 0 yes free)"

# What is missing, on a system that has nothing but what a stand-in for pkg-config knows.
stand_in=$(mktemp -d)
trap 'rm -rf "$stand_in"' EXIT
known=
pkg-config() { [ "$1" = --exists ] && [[ " $known " == *" $2 "* ]]; }
has_header() { false; }
has_fashion_photographs() { false; }
expect "everything is missing" \
    "libzmq3-dev,libopenblas-dev,libhdf5-dev,libsqlite3-dev,libturbojpeg0-dev libturbojpeg-dev,zlib1g-dev,dataset-fashion-mnist" \
    "$(missing_packages | paste -sd, -)"
known="libzmq openblas hdf5-serial sqlite3 libturbojpeg zlib"
expect "pkg-config knows all" "dataset-fashion-mnist" "$(missing_packages)"
known="libzmq openblas hdf5 sqlite3 libturbojpeg zlib"
expect "HDF5 under its other name" "dataset-fashion-mnist" "$(missing_packages)"
has_fashion_photographs() { true; }
expect "nothing is missing" "" "$(missing_packages)"
known=
has_header() { [ "$1" != zmq.h ]; }
expect "headers do without pkg-config's word" "libzmq3-dev" "$(missing_packages)"

# apt's names: the first that the lists know.
apt-cache() { [ "${*: -1}" = new-name ]; }
expect "the name this release knows" new-name "$(package_name old-name new-name)"
expect "the best name where none is known" a "$(package_name a b)"

expect "versions compare number by number" yes "$(version_at_least 6.10 6.2 && echo yes)"
expect "an older version is older" no "$(version_at_least 6.1.9 6.2 || echo no)"
expect "sizes in words" "191 MB 2.6 GB" "$(spoken_bytes 191000000) $(spoken_bytes 2600000000)"
expect "free space is a number" "" "$(free_bytes /nonexistent/folder | tr -d 0-9)"

printf 'packages: %d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]

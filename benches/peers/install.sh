#!/usr/bin/env bash
#
# Installs what the peers need, where it is missing or has changed, under the build directory:
#
#   target/peers/node         benches/peers/node with its packages
#   target/peers/faststream   benches/peers/faststream, and a virtual environment in venv
#
# A peer that cannot be installed has a file `why` there, which says why. The benchmark says so, too.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
build=${CARGO_TARGET_DIR:-$root/target}
[[ $build == /* ]] || build=$root/$build
peers=$build/peers

say() { echo "peers: $*"; }

# Does nothing where the files are those of the last installation.
install() {
    local peer=$1 needs=$2 there=$peers/$1
    if [ -e "$there/done" ] && diff -q -r "$peer" "$there/from" >/dev/null 2>&1; then
        return
    fi
    rm -rf "$there"
    mkdir -p "$there"
    if ! command -v "$needs" >/dev/null; then
        echo "no $needs here" >"$there/why"
    elif cp -r "$peer" "$there/from" && cp "$peer"/* "$there" && "install_$peer" "$there" >"$there/log" 2>&1; then
        touch "$there/done"
    else
        echo "its packages cannot be installed: $(tail -n 1 "$there/log")" >"$there/why"
    fi
    say "$peer: $(cat "$there/why" 2>/dev/null || echo installed)"
}

install_node() { (cd "$1" && npm ci --no-audit --no-fund); }

install_faststream() {
    python3 -m venv "$1/venv" && "$1/venv/bin/pip" install --quiet --requirement "$1/requirements.txt"
}

install node node
install faststream python3

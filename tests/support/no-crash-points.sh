#!/bin/sh
#
# Fails when a program has the crash points of src/crash.rs. They are only for tests: a program that a
# person could copy to production must not have them.
#
#   no-crash-points.sh PROGRAM
set -eu

if grep --quiet --text -e CRASH_AT -e PANIC_AT "$1"; then
    echo "no-crash-points: $1 has crash points: it was built with the feature crash-points" >&2
    exit 1
fi

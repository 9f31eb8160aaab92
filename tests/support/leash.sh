#!/usr/bin/env bash
#
# For things that must not outlive the program that starts them. However that program ends, even by a
# SIGKILL, this script's standard input is closed then.
#
#   leash.sh run PROGRAM ARG...   runs a program. The first line on standard output
#                                 is the program's pid. This script's exit code is
#                                 the program's exit code. When standard input
#                                 ends, the program is killed.
#   leash.sh directory            makes a temporary directory and prints its path.
#                                 When standard input ends, it is removed.

set -u
# Every background job gets its own process group. A Ctrl-C reaches only the program that started this
# script. That program then stops the others in order.
set -m

run() {
    exec 3<&0
    sh -c 'echo $$ && exec "$@"' sh "$@" </dev/null 3<&- &
    program=$!
    trap 'kill -KILL "$program"' EXIT
    trap 'exit 143' TERM INT HUP
    # Otherwise bash would report the kill here. The program has its own standard error.
    exec 2>/dev/null
    { read -r _ <&3; kill -KILL "$program"; } >/dev/null &
    watching=$!
    # With job control, the wait would end as soon as the program is paused.
    set +m
    wait "$program"
    local code=$?
    trap - EXIT
    kill -KILL "$watching"
    exit "$code"
}

directory() {
    trap '' PIPE
    trap 'rm -rf "$directory"' EXIT
    trap 'exit 143' TERM INT HUP
    directory=$(mktemp -d "${TMPDIR:-/tmp}/esms-otp-XXXXXX") && echo "$directory" && read -r _
}

case ${1:-} in
run) run "${@:2}" ;;
directory) directory ;;
*) echo 'usage: leash.sh run PROGRAM ARG... | directory' >&2 && exit 2 ;;
esac

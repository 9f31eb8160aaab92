#!/usr/bin/env bash
#
# For what must not outlive the program that starts it, however that ends: the
# other end of this script's standard input is closed even by a SIGKILL.
#
#   leash.sh run PROGRAM ARG...   runs a program. Its pid is the first line on
#                                 standard output, its exit code this script's.
#                                 When standard input ends, it is killed.
#   leash.sh directory            makes a temporary directory and says its path.
#                                 When standard input ends, it is removed.

set -u
# Every background job gets its own process group: a Ctrl-C is for the
# program that started this, which then stops the others in order.
set -m

run() {
    exec 3<&0
    sh -c 'echo $$ && exec "$@"' sh "$@" </dev/null 3<&- &
    program=$!
    trap 'kill -KILL "$program"' EXIT
    trap 'exit 143' TERM INT HUP
    # bash would report the kill; the program has its own standard error.
    exec 2>/dev/null
    { read -r _ <&3; kill -KILL "$program"; } >/dev/null &
    watching=$!
    # With job control, a program that is paused would end the waiting.
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

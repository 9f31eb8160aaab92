#!/usr/bin/env bash
#
# One private Redis. It lives as long as the process that started this script. It shares nothing with a
# system's Redis: it has its own directory and its own port on 127.0.0.1. It writes every change to disk
# before it answers, as a ledger needs.
#
#   private-redis.sh PORT    supervise a server on PORT
#   private-redis.sh where   path of the installed redis-server
#
# The supervisor reads one command a line and answers each with one line:
#
#   start -> "ready PORT"   also after a stop or a kill, with the same data
#   stop  -> "stopped"      as an operator would stop it
#   kill  -> "stopped"      SIGKILL, as a crash would
#
# Instead it may answer "error WHY", after the end of the server's log in lines "log ...". When another
# supervisor has PORT, it says "taken" and ends at once.
#
# When standard input ends, or on a signal, the server is killed and its directory is removed. A parent that
# dies in any way closes the pipe, so nothing is left behind.

set -u

readonly START_LIMIT=60 # seconds; a start takes a fraction of one

running() {
    [ -n "${node:-}" ] && kill -0 "$node" 2>/dev/null
}

start() {
    local give_up=$((SECONDS + START_LIMIT))
    if ! running; then
        "$server" --bind 127.0.0.1 --port "$port" --dir "$dir" --daemonize no --save '' \
            --appendonly yes --appendfsync always </dev/null >"$dir/log" 2>&1 &
        node=$!
    fi
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        if ! running || ((SECONDS >= give_up)); then
            tail -n 20 "$dir/log" | sed 's/^/log /'
            echo 'error Redis did not start'
            return
        fi
        sleep 0.02
    done
    echo "ready $port"
}

end() {
    if running; then
        kill "-$1" "$node"
        wait "$node" 2>/dev/null
    fi
    node=
}

clean_up() {
    trap '' TERM INT HUP
    end KILL
    rm -rf "$dir"
}

supervise() {
    local command
    if ! mkdir -m 700 "$dir" 2>/dev/null; then
        echo taken
        exit 1
    fi
    trap clean_up EXIT
    trap 'exit 143' TERM INT HUP
    trap '' PIPE
    while read -r command; do
        case $command in
        start) start ;;
        stop) end TERM && echo stopped ;;
        kill) end KILL && echo stopped ;;
        *) echo "error no such command: $command" ;;
        esac
    done
}

if ! server=$(command -v redis-server || command -v valkey-server); then
    echo 'error Redis is not installed; run: make services'
    exit 1
fi
if [ "${1:-}" = where ]; then
    echo "$server"
    exit
fi
port=${1:?usage: private-redis.sh PORT | where}
dir=${TMPDIR:-/tmp}/esms-otp-redis-$port
supervise

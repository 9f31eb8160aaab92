#!/usr/bin/env bash
#
# One private RabbitMQ node. It lives as long as the process that started this script. It shares nothing
# with a system node: it has its own directory, its own ports on 127.0.0.1, its own Erlang cookie, its own
# epmd, no plugins, and the user guest/guest.
#
#   private-rabbitmq.sh PORT              supervise a node on PORT
#   private-rabbitmq.sh PORT ctl ARG...   rabbitmqctl against that node
#   private-rabbitmq.sh PORT tool NAME ARG...   another of RabbitMQ's programs
#   private-rabbitmq.sh PORT eval CODE    evaluate Erlang in it: milliseconds,
#                                         where rabbitmqctl takes a second
#   private-rabbitmq.sh where             path of the installed rabbitmq-server
#
# PORT serves AMQP, PORT+1 Erlang distribution, PORT+2 epmd.
#
# The supervisor reads one command a line and answers each with one line:
#
#   start -> "ready PORT"   also after a stop or a kill, with the same data
#   stop  -> "stopped"      as an operator would stop it
#   kill  -> "stopped"      SIGKILL, as a crash would
#
# Instead it may answer "error WHY", after the end of the node's log in lines "log ...". When another
# supervisor has PORT, it says "taken" and ends at once.
#
# When standard input ends, or on a signal, everything is killed and removed. A parent that dies in any way
# closes the pipe, so nothing is left behind.
#
# This script needs bash, not sh. bash reaps a child at once, even while it waits for input, so `kill -0`
# tells whether the node still runs.

set -u
# Every background job gets its own process group, so that one kill reaches
# its children too.
set -m

readonly START_LIMIT=120 STOP_LIMIT=30 # seconds; a start takes 7 to 15 on two busy cores

# Debian's wrapper in /usr/sbin is no use here: it switches to the user `rabbitmq`, and it refuses every
# other user except root.
find_server() {
    local server
    for server in /usr/lib/rabbitmq/bin/rabbitmq-server \
        /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server \
        /usr/local/opt/rabbitmq/sbin/rabbitmq-server \
        "$(command -v rabbitmq-server)"; do
        if [ -x "$server" ]; then
            echo "$server"
            return
        fi
    done
    return 1
}

# The whole environment of the node and its tools. The caller's RABBITMQ_* variables and the files in
# /etc/rabbitmq must not reach them. The cookie is written to HOME.
set_node_env() {
    node_env=(env -i "PATH=$PATH" "HOME=$dir" LC_ALL=C.UTF-8
        ERL_EPMD_ADDRESS=127.0.0.1
        "ERL_EPMD_PORT=$((port + 2))"
        # Otherwise Erlang would start its own epmd as a daemon, which would outlive this script.
        'ERL_AFLAGS=-start_epmd false'
        "RABBITMQ_NODENAME=$node_name"
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
        "RABBITMQ_NODE_PORT=$port"
        "RABBITMQ_DIST_PORT=$((port + 1))"
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}"
        "RABBITMQ_MNESIA_BASE=$dir/data"
        "RABBITMQ_LOG_BASE=$dir"
        RABBITMQ_LOGS=-
        RABBITMQ_CONF_ENV_FILE=/dev/null
        "RABBITMQ_CONFIG_FILE=$dir/rabbitmq"
        "RABBITMQ_CONFIG_FILES=$dir/conf.d"
        "RABBITMQ_ADVANCED_CONFIG_FILE=$dir/advanced.config"
        "RABBITMQ_ENABLED_PLUGINS_FILE=$dir/enabled_plugins"
        # With this, the start script becomes the Erlang machine and does not stay as its parent. So the pid
        # we know is the pid of the node itself.
        RUNNING_UNDER_SYSTEMD=true)
}

tool() {
    exec "${node_env[@]}" "$(dirname "$server")/$1" "${@:2}"
}

# erl_call comes with Erlang, but not always on the PATH.
find_erl_call() {
    command -v erl_call ||
        ls "$(erl -noshell -eval 'io:put_chars(code:root_dir()), halt().')"/lib/erl_interface-*/bin/erl_call
}

evaluate() {
    local call
    if call=$(find_erl_call); then
        echo "$1" | "${node_env[@]}" "$call" -n "$node_name" -timeout 10 -e
    else
        tool rabbitmqctl eval "$1"
    fi
}

running() {
    [ -n "${node:-}" ] && kill -0 "$node" 2>/dev/null
}

start_node() {
    if ! running; then
        # Empty the log here and not in the background job, which may be late. The log of the last start
        # also contains the line that is waited for.
        : >"$log"
        "${node_env[@]}" "$server" </dev/null >>"$log" 2>&1 &
        node=$!
    fi
    # In the background, so that the script notices the end of its input meanwhile.
    answer_when_ready &
    answering=$!
}

answer_when_ready() {
    local give_up=$((SECONDS + START_LIMIT)) why="not ready after $START_LIMIT s"
    while ((SECONDS < give_up)); do
        if grep -qs 'Server startup complete' "$log"; then
            echo "ready $port"
            return
        fi
        if ! running; then
            why='the node ended while starting'
            break
        fi
        sleep 0.1
    done
    tail -n 40 "$log" | sed 's/^/log /'
    echo "error $why"
}

stop_node() {
    local give_up=$((SECONDS + STOP_LIMIT))
    if running; then
        kill -TERM "$node"
        while running && ((SECONDS < give_up)); do sleep 0.05; done
    fi
    kill_node
}

kill_node() {
    kill_group "${node:-}"
    node=
}

# Returns when the process is gone. Then its ports and files are free.
kill_group() {
    if [ -n "$1" ]; then
        kill -KILL -- "-$1" 2>/dev/null
        wait "$1" 2>/dev/null
    fi
}

clean_up() {
    trap '' TERM INT HUP
    kill_group "${answering:-}"
    kill_node
    kill_group "${epmd:-}"
    rm -rf "$dir"
}

# The directory is also the claim on the ports. When two supervisors start at once with the same PORT, mkdir
# succeeds for only one.
claim() {
    if [ -e "$dir" ]; then
        echo taken
        exit 1
    fi
    if ! mkdir -m 700 "$dir"; then
        echo "error cannot make $dir"
        exit 1
    fi
    trap clean_up EXIT
    trap 'exit 143' TERM INT HUP
    trap '' PIPE
    mkdir "$dir/conf.d"
    : >"$dir/rabbitmq.conf"
    echo '[].' | tee "$dir/advanced.config" >"$dir/enabled_plugins"
}

start_epmd() {
    "${node_env[@]}" epmd -port $((port + 2)) -address 127.0.0.1 </dev/null >/dev/null 2>&1 &
    epmd=$!
}

supervise() {
    local command
    claim
    start_epmd
    while read -r command; do
        case $command in
        start) start_node ;;
        stop) stop_node && echo stopped ;;
        kill) kill_node && echo stopped ;;
        *) echo "error no such command: $command" ;;
        esac
    done
}

if ! server=$(find_server); then
    echo 'error RabbitMQ is not installed; run: make services'
    exit 1
fi
if [ "${1:-}" = where ]; then
    echo "$server"
    exit
fi

port=${1:?usage: private-rabbitmq.sh PORT | PORT ctl ARG... | PORT tool NAME ARG... | PORT eval CODE | where}
dir=${TMPDIR:-/tmp}/esms-otp-rabbitmq-$port
log=$dir/log
node_name=esms-otp-$port@localhost
set_node_env
case ${2:-supervise} in
supervise) supervise ;;
ctl) tool rabbitmqctl "${@:3}" ;;
tool) tool "${@:3}" ;;
eval) evaluate "$3" ;;
esac

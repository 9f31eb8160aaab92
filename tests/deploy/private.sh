# For live.sh and outage.sh: RabbitMQ, the sandbox, workers and Prometheus with the configuration of deploy/, all private. All
# of it ends with the script that sources this, however that ends.

name=$(basename "$0" .sh)

die() {
    echo "$name: $*" >&2
    for log in prometheus.log sandbox.log redis.log a.log b.log send.log dashboard.txt tiles.txt; do
        if [ -s "$dir/$log" ]; then
            echo "$name: the end of $log:" >&2
            tail -n 10 "$dir/$log" >&2
        fi
    done
    exit 1
}

say() { echo "$name: $*"; }

find_programs() {
    tests/deploy/install-prometheus.sh
    tests/support/install-services.sh rabbitmq
    bin=${OTP_BIN:-}
    if [ -z "$bin" ]; then
        cargo build --release --locked --bins
        bin=${CARGO_TARGET_DIR:-target}/release
    fi
}

# Free ports in a row; nobody else is likely to take them within the second.
free_ports() {
    python3 - "$1" <<'PYTHON'
import random, socket, sys
def free(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) != 0
while True:
    first = random.randrange(20000, 30000, 10)
    if all(free(first + place) for place in range(int(sys.argv[1]))):
        print(first)
        break
PYTHON
}

# Until a command succeeds; the command is asked, time is not guessed.
until_ok() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < limit)) || die "$what: not within the time given"
        sleep 0.5
    done
}

# All that is started ends with this script, however it ends: leash.sh kills it
# when the one writer of this pipe is gone.
prepare() {
    dir=$(mktemp -d)
    mkfifo "$dir/leash"
    exec 7<>"$dir/leash"
    trap clean_up EXIT
    trap 'exit 130' INT TERM HUP
}

clean_up() {
    rm -f "$dir/loading"
    exec 7>&-
    if [ -n "${BROKER_PID:-}" ]; then
        exec {BROKER[1]}>&-
        wait "$BROKER_PID" || true
    fi
    wait
    rm -rf "$dir"
}

# start NAME PROGRAM ARG...; its pid is in the file NAME.pid.
start() {
    local name=$1
    shift
    TMPDIR=$dir tests/support/leash.sh run "$@" <"$dir/leash" >"$dir/$name.pid" 2>>"$dir/$name.log" 7>&- &
}

pid_of() { head -n 1 "$dir/$1.pid"; }

start_broker() {
    local own=$dir/esms-otp-rabbitmq-$broker
    coproc BROKER { TMPDIR=$dir tests/support/private-rabbitmq.sh "$broker" 7>&-; }
    until_ok 20 'the broker has its directory' test -s "$own/enabled_plugins"
    echo '[rabbitmq_prometheus].' >"$own/enabled_plugins"
    printf 'prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = %s\n' "$broker_metrics" >"$own/rabbitmq.conf"
    tell_broker start
}

# tell_broker start|kill
tell_broker() {
    local answer
    echo "$1" >&"${BROKER[1]}"
    while read -r answer <&"${BROKER[0]}"; do
        case $answer in
        ready* | stopped) return ;;
        log*) echo "$answer" >&2 ;;
        *) die "RabbitMQ: $answer" ;;
        esac
    done
    die 'RabbitMQ ended'
}

# With the faults that the script names in `faults`.
start_sandbox() {
    start sandbox "$bin/esms-sandbox" --addr "127.0.0.1:$sandbox" --latency 90ms --jitter 180ms "${faults[@]}"
    until_ok 20 'the sandbox answers' curl -fs "127.0.0.1:$sandbox/_sandbox/stats"
}

# start_worker NAME PORT
start_worker() {
    export AMQP_URL=amqp://guest:guest@127.0.0.1:$broker/%2f LOG_FORMAT=json OTP_CONCURRENCY=64
    export ESMS_URL=http://127.0.0.1:$sandbox/MainService.svc/json/SendMessageAutoGenCode_V5
    export ESMS_API_KEY=sandbox-key ESMS_SECRET_KEY=sandbox-secret ESMS_BALANCE_INTERVAL=2s
    export OTP_PHONE_COOLDOWN=60s OTP_PHONE_LIMIT=5/10m OTP_PREFIX_LIMIT='84:20000/1m,8491:6000/1m,8499:20/1m,*:20/1m'
    HTTP_ADDR=127.0.0.1:$2 start "$1" "$bin/esms-otp-worker" run
    until_ok 60 "worker $1 is ready" curl -fs "127.0.0.1:$2/readyz"
}

# The very configuration of deploy/, but for the addresses.
start_prometheus() {
    cp deploy/prometheus/rules.yaml "$dir/rules.yaml"
    sed -e "s/dns_sd_configs: .*names: \[worker\].*/static_configs: [{targets: [\"127.0.0.1:$a\", \"127.0.0.1:$b\"]}]/" \
        -e "s/rabbitmq:15692/127.0.0.1:$broker_metrics/" deploy/prometheus/prometheus.yaml >"$dir/prometheus.yaml"
    start prometheus "$(command -v prometheus)" --config.file="$dir/prometheus.yaml" --storage.tsdb.path="$dir/data" \
        --web.listen-address="127.0.0.1:$prometheus_port" --log.level=warn
    until_ok 30 'Prometheus is ready' curl -fs "$prometheus/-/ready"
    until_ok 60 'every target is up' all_up
}

# start_all [COMMAND...]: the ports, and all of it but the load; the command runs before the workers start.
start_all() {
    # private-rabbitmq.sh takes three.
    broker=$(free_ports 9)
    broker_metrics=$((broker + 3)) sandbox=$((broker + 4)) a=$((broker + 5)) b=$((broker + 6)) prometheus_port=$((broker + 7)) redis=$((broker + 8))
    prometheus=http://127.0.0.1:$prometheus_port
    start_broker
    start_sandbox
    "$@"
    start_worker a "$a"
    start_worker b "$b"
    start_prometheus
    say "RabbitMQ, the sandbox, two workers and Prometheus ($prometheus) are up"
}

ask() { promtool query instant "$prometheus" "$1"; }
# Two workers, and RabbitMQ's queues and its node.
all_up() { [ "$(ask 'up == 1' | wc -l)" = 4 ]; }

# Names of the alerts that fired since Prometheus was started, with the labels given.
fired() {
    ask "count by (alertname) (max_over_time(ALERTS{alertstate=\"firing\",$1}[1h]))" |
        sed -n 's/.*alertname="\([^"]*\)".*/\1/p' | sort | tr '\n' ' ' | sed 's/ $//'
}

# jobs_for SECONDS FIRST RATE: jobs, now more, now fewer, each to another phone. With FIRST `everywhere` they go to
# eight networks, and every fourth person asks again.
jobs_for() {
    python3 -u -c '
import json, math, sys, time
seconds, first, rate = float(sys.argv[1]), sys.argv[2], float(sys.argv[3])
def phone(job):
    if first != "everywhere":
        return f"09{int(first) + job:08}"
    person = job - 1002 if job % 4 == 3 and job > 1002 else job
    return f"09{person % 8}{5000000 + person:07}"
began, sent = time.monotonic(), 0
while (passed := time.monotonic() - began) < seconds:
    due = rate * (passed + 9 * (1 - math.cos(passed / 18)))
    while sent < due:
        print(json.dumps({"Phone": phone(sent), "MultiChannelTempId": "1234", "TimeAlive": "5"}))
        sent += 1
    time.sleep(0.1)
' "$1" "$2" "${3:-$JOBS_A_SECOND}"
}

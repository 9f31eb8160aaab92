#!/usr/bin/env bash
#
# The rules and the dashboard in a real Prometheus: two workers, the sandbox and
# RabbitMQ, all private, under load.
#
#   live.sh              checks, and leaves nothing
#   live.sh PICTURE      and draws the dashboard into that file
#
# 1. Faults, and a worker killed and started again: every query of every panel
#    has data, and nobody is paged.
# 2. A rush of 200 jobs a second over many prefixes, with the usual repeats:
#    nobody is paged.
# 3. A scripted attack, twenty numbers a second in one prefix that may have
#    twenty a minute: OtpPumping fires within two minutes and a half, and no
#    other page does.
# 4. eSMS says 103 to everything: OtpAccountRefused fires within two minutes,
#    and no other page does while the refusals go on.
#
# The programs are those in $OTP_BIN, else of the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1

readonly LOAD=180 JOBS_A_SECOND=20 REFUSED_FOR=240 FIRES_WITHIN=120
readonly RUSH=90 RUSH_A_SECOND=200 ATTACK=180 ATTACK_SEEN_WITHIN=150
picture=${1:-}

die() {
    echo "live: $*" >&2
    for log in prometheus.log sandbox.log a.log b.log send.log dashboard.txt; do
        if [ -s "$dir/$log" ]; then
            echo "live: the end of $log:" >&2
            tail -n 5 "$dir/$log" >&2
        fi
    done
    exit 1
}

say() { echo "live: $*"; }

find_programs() {
    tests/deploy/install-prometheus.sh
    tests/support/install-services.sh rabbitmq
    bin=${OTP_BIN:-}
    if [ -z "$bin" ]; then
        cargo build --release --locked --bins
        bin=${CARGO_TARGET_DIR:-target}/release
    fi
}

# matplotlib, for the picture only.
find_python() {
    local tools=${CARGO_TARGET_DIR:-target}/picture-tools
    python=$tools/bin/python
    if ! "$python" -c 'import matplotlib' 2>/dev/null; then
        python3 -m venv "$tools"
        "$tools/bin/pip" install --quiet --disable-pip-version-check matplotlib==3.11.2
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
    local own=$dir/esms-otp-rabbitmq-$broker answer
    coproc BROKER { TMPDIR=$dir tests/support/private-rabbitmq.sh "$broker" 7>&-; }
    until_ok 20 'the broker has its directory' test -s "$own/enabled_plugins"
    echo '[rabbitmq_prometheus].' >"$own/enabled_plugins"
    printf 'prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = %s\n' "$broker_metrics" >"$own/rabbitmq.conf"
    echo start >&"${BROKER[1]}"
    while read -r answer <&"${BROKER[0]}"; do
        case $answer in
        ready*) return ;;
        log*) echo "$answer" >&2 ;;
        *) die "RabbitMQ: $answer" ;;
        esac
    done
    die 'RabbitMQ ended'
}

start_sandbox() {
    start sandbox "$bin/esms-sandbox" --addr "127.0.0.1:$sandbox" --latency 90ms --jitter 180ms \
        --fault reset_after=0.01 --fault status:503:1=0.02 --fault latency:2s=0.02 \
        --fault code:99=0.01 --fault code:146=0.004 --fault code:160=0.02
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

ask() { promtool query instant "$prometheus" "$1"; }
all_up() { [ "$(ask 'up == 1' | wc -l)" = 3 ]; }

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

load() { jobs_for "$@" 7>&- | "$bin/esms-otp-worker" send - --wait >"$dir/results.jsonl" 2>"$dir/send.log" 7>&-; }

# Not every job is accepted: `send` says so with its exit code.
loaded() { load "$@" || [ $? = 1 ] || die 'the load failed'; }

results() { [ "$(wc -l <"$dir/results.jsonl")" -ge "$1" ]; }

# A crash, as the picture is to show one.
kill_and_restart_b() {
    kill -KILL "$(pid_of b)"
    start_worker b "$b"
}

check_dashboard() {
    local since=$((SECONDS - began))
    curl -fs "127.0.0.1:$a/metrics" >"$dir/metrics.txt"
    python3 tests/deploy/dashboard.py "$dir/metrics.txt" --prometheus "$prometheus" --since "$since" >"$dir/dashboard.txt" 2>&1
}

under_load() {
    local loading
    began=$SECONDS
    load "$LOAD" 10000000 &
    loading=$!
    until_ok "$LOAD" 'half of the results' results "$((LOAD * JOBS_A_SECOND / 2))"
    kill_and_restart_b
    say "a worker was killed and started again"
    # Not every job is accepted: `send` says so with its exit code.
    wait "$loading" || [ $? = 1 ] || die 'the load failed'
    until_ok 60 'every panel has data' check_dashboard
    say "$(cat "$dir/dashboard.txt")"
    [ -z "$(fired 'severity="page"')" ] || die "somebody was paged: $(fired 'severity="page"')"
    say "nobody was paged; tickets: $(fired 'severity="ticket"' | grep . || echo none)"
}

rush() {
    loaded "$RUSH" everywhere "$RUSH_A_SECOND"
    [ -z "$(fired 'severity="page"')" ] || die "somebody was paged: $(fired 'severity="page"')"
    say "a rush: $(tail -n 1 "$dir/send.log"); nobody was paged"
}

pumping() { fired 'severity="page"' | grep -q OtpPumping; }

attack() {
    local attacking since=$SECONDS
    load "$ATTACK" 90000000 &
    attacking=$!
    until_ok "$ATTACK_SEEN_WITHIN" 'OtpPumping fires' pumping
    say "OtpPumping fired $((SECONDS - since)) s after the attack began"
    what_it_says OtpPumping
    wait "$attacking" || [ $? = 1 ] || die 'the load failed'
    [ "$(fired 'severity="page"')" = OtpPumping ] || die "other pages fired: $(fired 'severity="page"')"
    say "the attack: $(tail -n 1 "$dir/send.log"); no other page fired"
}

draw() {
    find_python
    "$python" tests/deploy/picture.py --prometheus "$prometheus" --since $((SECONDS - began)) "$picture"
    say "drawn: $picture"
}

account_refused() { fired 'severity="page"' | grep -q OtpAccountRefused; }

what_it_says() {
    curl -fs "$prometheus/api/v1/alerts" | python3 -c '
import json, sys
for alert in json.load(sys.stdin)["data"]["alerts"]:
    if alert["labels"]["alertname"] == sys.argv[1]:
        print("live:", alert["annotations"]["summary"], alert["annotations"]["description"])' "$1"
}

empty_account() {
    local loading since=$SECONDS
    curl -fsX PUT -H 'content-type: application/json' -d '{"code": "103", "message": "Not enough balance"}' \
        "127.0.0.1:$sandbox/_sandbox/forced"
    load "$REFUSED_FOR" 20000000 &
    loading=$!
    until_ok "$FIRES_WITHIN" 'OtpAccountRefused fires' account_refused
    say "OtpAccountRefused fired $((SECONDS - since)) s after the account was empty"
    what_it_says OtpAccountRefused
    wait "$loading" || [ $? = 1 ] || die 'the load failed'
    [ "$(fired 'severity="page"')" = 'OtpAccountRefused OtpPumping' ] || die "other pages fired: $(fired 'severity="page"')"
    say "no other page fired in $((SECONDS - since)) s of refusals; tickets: $(fired 'severity="ticket"')"
}

dir=
find_programs
prepare
# private-rabbitmq.sh takes three.
broker=$(free_ports 8)
broker_metrics=$((broker + 3)) sandbox=$((broker + 4)) a=$((broker + 5)) b=$((broker + 6)) prometheus_port=$((broker + 7))
prometheus=http://127.0.0.1:$prometheus_port
start_broker
start_sandbox
start_worker a "$a"
start_worker b "$b"
start_prometheus
say "RabbitMQ, the sandbox, two workers and Prometheus ($prometheus) are up"
under_load
rush
attack
if [ -n "$picture" ]; then draw; fi
empty_account
say 'ok'

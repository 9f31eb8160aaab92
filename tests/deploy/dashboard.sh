#!/usr/bin/env bash
#
# Checks deploy/grafana/dashboard.json without a broker or a Prometheus: it is
# what dashboard.py beside it writes; and dashboard.py beside this, which
# compares it, the rules and the runbook with the /metrics of a worker that is
# started here, with the sandbox to ask for the balance, and finds no broker.
#
# The programs are those in $OTP_BIN, else of the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1

die() {
    echo "dashboard: $*" >&2
    exit 1
}

clean_up() {
    for program in "${started[@]}"; do
        # bash would report each kill.
        { kill -KILL "$program" && wait "$program"; } 2>/dev/null || true
    done
    rm -rf "$own"
}

# Port 0 is any; the programs say which. said NAME PATTERN: what it said, once it has.
said() {
    local give_up=$((SECONDS + 30))
    until sed -n "s|.*$2.*|\1|p" "$own/$1.log" | grep .; do
        ((SECONDS < give_up)) || die "the $1 does not say where it listens: $(cat "$own/$1.log")"
        kill -0 "${started[-1]}" 2>/dev/null || die "the $1 ended: $(cat "$own/$1.log")"
        sleep 0.1
    done
}

start_sandbox() {
    "$bin/esms-sandbox" --addr 127.0.0.1:0 >"$own/sandbox.log" 2>&1 &
    started+=($!)
    esms=$(said sandbox 'eSMS is played at \([^;]*\)')
}

start_worker() {
    AMQP_URL=amqp://127.0.0.1:1/%2f LOG_FORMAT=json HTTP_ADDR=127.0.0.1:0 ESMS_BALANCE_INTERVAL=1s \
        ESMS_URL=$esms ESMS_API_KEY=sandbox-key ESMS_SECRET_KEY=sandbox-secret \
        "$bin/esms-otp-worker" run >"$own/worker.log" 2>&1 &
    started+=($!)
    metrics=http://$(said worker '"addr":"\([0-9.:]*\)"')/metrics
}

# The balance is there as soon as eSMS has said it. Should it never be, the check says so.
fetch_metrics() {
    local give_up=$((SECONDS + 10))
    until curl -fsS "$metrics" >"$own/metrics.txt" && grep -q '^esms_balance_vnd' "$own/metrics.txt"; do
        ((SECONDS < give_up)) || return 0
        sleep 0.1
    done
}

started=()
own=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM
tests/deploy/install-prometheus.sh
bin=${OTP_BIN:-}
if [ -z "$bin" ]; then
    cargo build --quiet --release --locked --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
start_sandbox
start_worker
fetch_metrics
answer=$(python3 deploy/grafana/dashboard.py --check 2>&1) || die "$answer"
echo 'ok    dashboard: dashboard.json is what deploy/grafana/dashboard.py writes'
answer=$(python3 tests/deploy/dashboard.py "$own/metrics.txt" 2>&1) || die "$answer"
echo "ok    dashboard: $answer"
answer=$(python3 tests/deploy/tiles.py recorded 2>&1) || die "$answer"
echo "ok    dashboard: $answer"

#!/usr/bin/env bash
#
# Checks deploy/grafana/dashboard.json without a broker or a Prometheus: it is
# what dashboard.py beside it writes; and dashboard.py beside this, which
# compares it, the rules and the runbook with the /metrics of a worker that is
# started here and finds no broker.
#
# The worker is the one in $OTP_BIN, else that of the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1

die() {
    echo "dashboard: $*" >&2
    exit 1
}

clean_up() {
    if [ -n "${worker:-}" ]; then kill -KILL "$worker" 2>/dev/null || true; fi
    rm -rf "$own"
}

# Port 0 is any; the log says which.
start_worker() {
    AMQP_URL=amqp://127.0.0.1:1/%2f ESMS_API_KEY=none ESMS_SECRET_KEY=none LOG_FORMAT=json HTTP_ADDR=127.0.0.1:0 \
        ESMS_URL=http://127.0.0.1:1/ ESMS_BALANCE_INTERVAL=1h "$1" run 2>"$own/log" &
    worker=$!
    until address=$(sed -n 's/.*"message":"http listening","addr":"\([^"]*\)".*/\1/p' "$own/log") && [ -n "$address" ]; do
        kill -0 "$worker" 2>/dev/null || die "the worker ended: $(cat "$own/log")"
        sleep 0.1
    done
}

own=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM
tests/deploy/install-prometheus.sh
bin=${OTP_BIN:-}
if [ -z "$bin" ]; then
    cargo build --quiet --release --locked --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
start_worker "$bin/esms-otp-worker"
curl -fsS "http://$address/metrics" >"$own/metrics.txt"
said=$(python3 deploy/grafana/dashboard.py --check 2>&1) || die "$said"
echo 'ok    dashboard: dashboard.json is what deploy/grafana/dashboard.py writes'
said=$(python3 tests/deploy/dashboard.py "$own/metrics.txt" 2>&1) || die "$said"
echo "ok    dashboard: $said"

#!/usr/bin/env bash
#
# Outages replayed: real Prometheus, RabbitMQ, Redis and workers, and the sandbox for eSMS, all private, under a steady load.
# RabbitMQ is killed, then eSMS, then Redis; each comes back. Of each it prints what every tile of the dashboard's first row shows,
# and which alerts fired and resolved, and when. It ends with 0 where the first row told each outage, and the right alert fired in time,
# and the pages resolved. About a quarter of an hour.
#
# The programs are those in $OTP_BIN, else of the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
. tests/deploy/private.sh

readonly JOBS_A_SECOND=10
# How long people waited is told of five minutes: what waited for eSMS is in that for longer than the outage lasts.
readonly WELL=('Acceptance rate=green' 'Accepted a minute=green' 'Jobs waiting=green' 'Workers connected=green' 'Held back by limits=green')
readonly ALL_WELL=("${WELL[@]}" 'Request to accepted, p95=green')
faults=() faults_at=() mended_at=()

# Redis keeps what it had when it is killed.
start_redis() {
    start redis "$(command -v redis-server)" --bind 127.0.0.1 --port "$redis" --dir "$dir" --save '' --appendonly yes
    until_ok 20 'Redis answers' redis-cli -p "$redis" ping
}

# Batch by batch, so that the load comes back by itself after the broker was away.
steady_load() {
    local first=10000000
    while [ -e "$dir/loading" ]; do
        jobs_for 10 "$first" 2>/dev/null | "$bin/esms-otp-worker" send - >/dev/null 2>"$dir/send.log" || sleep 1
        first=$((first + 1000))
    done
}

tiles() { python3 tests/deploy/tiles.py "$@"; }
row_is() { tiles show "$prometheus" "$@" >"$dir/tiles.txt" 2>&1; }
firing() { ask "ALERTS{alertname=\"$1\",alertstate=\"firing\"}" | grep -q .; }
resolved() { ! firing "$1"; }
minute_since() { ((SECONDS >= $1 + 60)); }

# say_row WHAT: what the first row showed when it was last asked.
say_row() {
    say "$1, the first row:"
    sed '/^“/d' "$dir/tiles.txt"
}

# replay WHAT ALERT SECONDS NAME=COLOUR...: the alert is to fire within the seconds, and the first row to have these colours.
replay() {
    local what=$1 alert=$2 within=$3 began=$SECONDS mended
    shift 3
    faults_at+=("$(date +%s)")
    "break_$what"
    say "$what is away"
    until_ok "$within" "$alert fires" firing "$alert"
    row_is || true
    say_row "$alert fired, $((SECONDS - began)) s after $what went"
    until_ok 60 'a minute is over' minute_since "$began"
    until_ok 200 "the first row tells that $what is away" row_is "$@"
    say_row "$((SECONDS - began)) s after $what went"
    "mend_$what"
    mended=$SECONDS
    mended_at+=("$(date +%s)")
    say "$what is back, after $((mended - began)) s"
    until_ok 200 'the first row is well again' row_is "${WELL[@]}"
    say_row "$((SECONDS - mended)) s after $what was back"
}

break_broker() { tell_broker kill; }
mend_broker() { tell_broker start; }
break_esms() { kill -KILL "$(pid_of sandbox)"; }
mend_esms() { start_sandbox; }
break_redis() { kill -KILL "$(pid_of redis)"; }
mend_redis() { start_redis; }

loaded() { ask 'sum(otp_jobs_total{outcome="accepted"}) > 1000' | grep -q .; }

healthy() {
    until_ok 180 'a thousand jobs are accepted' loaded
    until_ok 60 'the first row is well' row_is "${ALL_WELL[@]}" 'Alerts (pages)=green' 'Alerts (tickets)=green'
    say_row 'all is well'
}

dir=
find_programs
tests/support/install-services.sh redis
prepare
with_redis() {
    start_redis
    export OTP_LEDGER_URL=redis://127.0.0.1:$redis
}
start_all with_redis
touch "$dir/loading"
steady_load 7>&- &
healthy
replay broker OtpBrokerLost 150 'Acceptance rate=grey' 'Accepted a minute=orange' 'Request to accepted, p95=grey' \
    'Jobs waiting=orange,red' 'Workers connected=red' 'Held back by limits=grey' 'Alerts (pages)=red'
replay esms OtpCircuitOpen 200 'Acceptance rate=red,grey' 'Accepted a minute=orange' 'Request to accepted, p95=grey' \
    'Workers connected=green' 'Alerts (pages)=red'
replay redis OtpLedgerErrors 60 'Acceptance rate=green' 'Workers connected=green' 'Alerts (tickets)=yellow'
# A page is kept for five minutes, so that one that comes and goes is told once.
for page in OtpBrokerLost OtpCircuitOpen; do until_ok 420 "$page resolves" resolved "$page"; done
until_ok 120 'the first row is well at the end' row_is "${ALL_WELL[@]}"
say_row 'at the end'
faults_at+=("$(date +%s)")
for place in 0 1 2; do
    what=(broker esms redis)
    say "alerts while ${what[place]} was away:"
    tiles alerts "$prometheus" "${faults_at[place]}" "${mended_at[place]}" "${faults_at[place + 1]}"
done
say "ok, after $SECONDS s"

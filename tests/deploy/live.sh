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
. tests/deploy/private.sh

readonly LOAD=180 JOBS_A_SECOND=20 REFUSED_FOR=240 FIRES_WITHIN=120
readonly RUSH=90 RUSH_A_SECOND=200 ATTACK=180 ATTACK_SEEN_WITHIN=150
# No code 160 and no Retry-After by chance: a worker slows down for each, and eSMS says it only to those who are too fast.
readonly faults=(--fault reset_after=0.01 --fault status:503=0.02 --fault latency:2s=0.02 --fault code:99=0.01 --fault code:146=0.004)
picture=${1:-}

# matplotlib, for the picture only.
find_python() {
    local tools=${CARGO_TARGET_DIR:-target}/picture-tools
    python=$tools/bin/python
    if ! "$python" -c 'import matplotlib' 2>/dev/null; then
        python3 -m venv "$tools"
        "$tools/bin/pip" install --quiet --disable-pip-version-check matplotlib==3.11.2
    fi
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
start_all
under_load
rush
attack
if [ -n "$picture" ]; then draw; fi
empty_account
say 'ok'

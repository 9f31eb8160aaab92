#!/usr/bin/env bash
#
# Checks deploy/prometheus: the configuration and the rules are what Prometheus
# understands, every alert fires, stays quiet and ends as its tests say, every
# alert has its words and its section in the runbook, and an Alertmanager with
# the example routes it to the pager or the tickets and hides the shadows.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Python would leave its bytecode beside the scripts.
export PYTHONDONTWRITEBYTECODE=1
rules=deploy/prometheus/rules.yaml
alertmanager=deploy/prometheus/alertmanager.yaml

die() {
    echo "prometheus: $*" >&2
    exit 1
}

# check NAME COMMAND...: a line if it succeeds; if not, what it said, and the end.
check() {
    local name=$1 said
    shift
    said=$("$@" 2>&1) || die "$name: failed:"$'\n'"$said"
    echo "ok    prometheus: $name: $(summary "$said")"
}

# The last line, in which each of them says how it went; of the tests, how many there were.
summary() {
    local tests=(deploy/prometheus/tests/*.yaml)
    if [[ $1 == *'Unit Testing'* ]]; then
        echo "$(cat "${tests[@]}" | grep -c eval_time) checks in ${#tests[@]} files"
    else
        sed '/^ *$/d; s/^ *//' <<<"$1" | tail -n 1
    fi
}

# From “SUCCESS: 45 rules found”.
rules_found() { sed -n 's/.*SUCCESS: \([0-9]* rules\) found.*/\1/p' <<<"$1" | tail -n 1; }

# Our reader of the file, which the next check and dashboard.py rely on, must see what promtool sees.
same_number() {
    local ours theirs
    theirs=$(rules_found "$(promtool check rules "$rules")")
    ours=$(cd tests/deploy && python3 -c 'import rules; print(len(rules.read()), "rules")')
    [ "$ours" = "$theirs" ] || echo "promtool finds $theirs, tests/deploy/rules.py reads $ours"
    [ "$ours" = "$theirs" ] && echo "$ours"
}

test_rules() { ls deploy/prometheus/tests/*.yaml | xargs -P 2 -n 1 promtool test rules; }

config() { amtool check-config "$alertmanager" | grep -v '^ - ' | grep -v '^Found'; }

# routed RECEIVER LABEL...: an alert with these labels ends there.
routed() {
    local to=$1 receiver
    shift
    receiver=$(amtool config routes test --config.file="$alertmanager" "$@" 2>/dev/null)
    [ "$receiver" = "$to" ] || { echo "an alert with $* goes to $receiver, not to $to" && return 1; }
}

routes() {
    routed pager service=esms-otp-worker severity=page alertname=OtpWorkersMissing &&
        routed pager service=esms-otp-worker severity=page namespace=rabbitmq alertname=OtpJobsWithoutWorker &&
        routed tickets service=esms-otp-worker severity=ticket namespace=shop alertname=OtpDeadLetters &&
        routed nobody severity=page namespace=shop alertname=SomebodyElses && echo 'by service and severity'
}

# A cause and its shadows in one namespace, and the same shadow in another: only the first are hidden.
inhibitions() {
    local url= give_up=$((SECONDS + 20)) shown program
    program=$(command -v alertmanager || command -v prometheus-alertmanager)
    # Not local: the trap comes after this function.
    own=$(mktemp -d)
    touch "$own/log"
    trap 'kill "$!" 2>/dev/null && wait "$!" 2>/dev/null; rm -rf "$own"' EXIT
    "$program" --config.file="$alertmanager" --storage.path="$own" --cluster.listen-address= \
        --web.listen-address=127.0.0.1:0 >"$own/log" 2>&1 &
    until url=$(sed -n 's/.*msg="Listening on" address=\(127[0-9.:]*\).*/\1/p' "$own/log") && [ -n "$url" ]; do
        ((SECONDS < give_up)) || { cat "$own/log" && return 1; }
        sleep 0.1
    done
    amtool_here() { amtool --alertmanager.url="http://$url" "$@"; }
    add() { amtool_here alert add service=esms-otp-worker "alertname=$1" "namespace=$2" severity=page; }
    add OtpCircuitOpen shop && add OtpResultsStopped shop && add OtpSloBurnFast shop && add OtpResultsStopped bank
    until shown=$(amtool_here alert query --output=simple | awk 'NR > 1 { print $1 }' | sort | xargs) &&
        [ "$shown" = 'OtpCircuitOpen OtpResultsStopped' ]; do
        ((SECONDS < give_up)) || { echo "told: $shown" && return 1; }
        sleep 0.1
    done
    echo 'OtpCircuitOpen hides its shadows in its namespace, and in no other'
}

tests/deploy/install-prometheus.sh || die 'without promtool nothing can be checked'
check 'promtool check config' promtool check config --lint=all --lint-fatal deploy/prometheus/prometheus.yaml
check 'promtool check rules' promtool check rules --lint=all --lint-fatal "$rules"
check 'promtool test rules' test_rules
check 'every rule is read' same_number
check 'words, runbook and tests' python3 tests/deploy/rules.py
check 'amtool check-config' config
check 'routes' routes
check 'inhibitions' inhibitions

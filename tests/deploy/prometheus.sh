#!/usr/bin/env bash
#
# Checks deploy/prometheus: the configuration and the rules are what Prometheus
# understands, every alert fires and stays quiet as its tests say, and every
# alert has its words and its section in the runbook.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Python would leave its bytecode beside the scripts.
export PYTHONDONTWRITEBYTECODE=1
rules=deploy/prometheus/rules.yaml

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

tests/deploy/install-prometheus.sh || die 'without promtool nothing can be checked'
check 'promtool check config' promtool check config --lint=all --lint-fatal deploy/prometheus/prometheus.yaml
check 'promtool check rules' promtool check rules --lint=all --lint-fatal "$rules"
check 'promtool test rules' test_rules
check 'every rule is read' same_number
check 'words, runbook and tests' python3 tests/deploy/rules.py

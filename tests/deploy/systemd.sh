#!/usr/bin/env bash
#
# The systemd unit, by systemd's own tools, without starting it; then what systemd.py beside it asks. Run
# by run.sh, which sees to the tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

unit=deploy/systemd/esms-otp-worker.service
# Systemd's measure of what the service could do to its machine, in tenths: 12 here, 96 without hardening.
threshold=13

need systemd-analyze systemd
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# It looks for the programs; they need not be installed here. It ends with 0 where it only warns.
sed 's|/usr/local/bin/esms-otp-worker|/bin/true|' "$unit" >"$out/esms-otp-worker.service"
verify() {
    local output
    output=$(systemd-analyze verify --recursive-errors=no --man=no "$1" 2>&1) && ! grep -F "${1##*/}" <<<"$output" || {
        echo "$output"
        return 1
    }
}

check 'the systemd unit, by systemd-analyze verify' verify "$out/esms-otp-worker.service"
check "  exposes at most $threshold tenths, by systemd-analyze security" \
    systemd-analyze security --offline=true --threshold="$threshold" "$out/esms-otp-worker.service"
python3 tests/deploy/systemd.py "$unit"

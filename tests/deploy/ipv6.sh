#!/usr/bin/env bash
#
# HTTP_ADDR=[::]:…, which deploy/README.md names for IPv6: the worker serves both kinds of addresses.
# The programs are those in $OTP_BIN, else of the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

bin=${OTP_BIN:-}
if [ -z "$bin" ]; then
    cargo build --quiet --release --locked --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
# Never silently: a machine may have no IPv6 at all, or no address of it.
untried() { echo "----  HTTP_ADDR=[::]:… was not tried on $1: this machine has no IPv6"; }
if [ ! -e /proc/net/if_inet6 ]; then
    untried 'any address'
    exit 0
fi
hosts=(127.0.0.1)
if [ -s /proc/net/if_inet6 ]; then hosts+=('[::1]'); else untried ::1; fi
need curl curl
log=$(mktemp)
trap '{ kill -KILL "$worker" && wait "$worker"; } 2>/dev/null || true; rm -f "$log"' EXIT
AMQP_URL=amqp://127.0.0.1:1/%2f LOG_FORMAT=json HTTP_ADDR=[::]:0 ESMS_API_KEY=sandbox-key ESMS_SECRET_KEY=sandbox-secret \
    "$bin/esms-otp-worker" run >"$log" 2>&1 &
worker=$!
# It takes any free port, and says which.
for _ in {1..100}; do
    port=$(sed -n 's/.*"addr":"\[::\]:\([0-9]*\)".*/\1/p' "$log")
    [ -z "$port" ] || break
    sleep 0.1
done
for host in "${hosts[@]}"; do
    check "HTTP_ADDR=[::]:… is served on $host" curl -fsS --noproxy '*' "http://$host:$port/livez"
done

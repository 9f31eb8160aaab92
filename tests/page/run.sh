#!/usr/bin/env bash
#
# make page-check: the sandbox's page in a real Chromium (page.py, beside this file). Chromium and its driver are
# installed by apt where they are missing. UPDATE_DOCS=1 takes the pictures of docs/sandbox.md. PAGE_FLOOD=900000 sends
# so many messages in the flood, each to another number; the sandbox knows no more than a million.
#
# The programs are those in $OTP_BIN, else of the debug build.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

need python3 python3
need chromium chromium
need chromedriver chromium-driver
bin=${OTP_BIN:-}
if [ -z "$bin" ]; then
    cargo build --locked --bin esms-sandbox
    bin=${CARGO_TARGET_DIR:-target}/debug
fi

dir=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# What was started has its directory in its environment; Chromium leaves the process group of its driver.
clean_up() {
    local process
    for process in /proc/[0-9]*; do
        if [ "${process#/proc/}" != $$ ] && grep -qsaF "PAGE_CHECK=$dir" "$process/environ"; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
    wait
    rm -rf "$dir"
}

# In the background, so that a signal to this script is taken at once. Its HOME is for what Chromium writes.
PAGE_CHECK=$dir TMPDIR=$dir HOME=$dir PYTHONDONTWRITEBYTECODE=1 python3 tests/page/page.py "$bin/esms-sandbox" "$dir" </dev/null &
if ! wait $!; then
    tail -n 5 "$dir/sandbox.log" "$dir/chromedriver.log" >&2 || true
    exit 1
fi
echo 'page-check: ok'

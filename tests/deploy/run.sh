#!/usr/bin/env bash
#
# make deploy-check: everything under deploy/, the image and the workflows, against the schemas and
# the tools that would refuse it, and the dashboard against a worker's metrics. Needs no cluster, no
# registry and no Docker. A line per check, and 0 at the end; the first that fails ends it. The tools
# are kept in target/deploy-tools. The programs are those in $OTP_BIN, else of the release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh
# Python would leave its bytecode beside the scripts.
export PYTHONDONTWRITEBYTECODE=1

tools=${CARGO_TARGET_DIR:-target}/deploy-tools

# Anew when the pins have changed, or when the last time was cut short.
install_tools() {
    cmp -s tests/deploy/requirements.txt "$tools/requirements.txt" && return
    need python3 python3-venv
    # Debian has it apart from Python.
    python3 -c 'import ensurepip' 2>/dev/null || package python3-venv
    rm -rf "$tools"
    echo "installing the tools into $tools; a minute or two"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --requirement tests/deploy/requirements.txt
    cp tests/deploy/requirements.txt "$tools/requirements.txt"
}

install_tools
PATH=$(cd "$tools/bin" && pwd):$PATH
export PATH

tests/deploy/install-prometheus.sh
tests/deploy/kubernetes.sh
tests/deploy/dockerfile.sh
tests/deploy/systemd.sh
tests/deploy/workflows.sh
check 'the pages under deploy: links, and what they name' python3 tests/deploy/pages.py
tests/deploy/ipv6.sh
tests/deploy/prometheus.sh
tests/deploy/dashboard.sh
echo "deploy-check: ok"

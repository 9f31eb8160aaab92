#!/usr/bin/env bash
#
# make docs-check: the schemas by the official validators; every command of the documents, run or parsed (commands.py says how).
# The broker, Redis, worker and sandbox are private. The tools are kept in target/docs-tools. The programs are those in $OTP_BIN,
# else of the debug build.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONDONTWRITEBYTECODE=1
. tests/deploy/private.sh
. tests/deploy/check.sh

readonly faults=()
here=tests/documents
tools=${CARGO_TARGET_DIR:-target}/docs-tools

# Anew when the pins have changed, or when the last time was cut short.
install_tools() {
    need npm npm
    need jq jq
    python3 -c 'import ensurepip' 2>/dev/null || package python3-venv
    diff -q -r "$here/asyncapi" "$tools/from" >/dev/null 2>&1 && cmp -s "$here/requirements.txt" "$tools/requirements.txt" && return
    rm -rf "$tools"
    say "installing the tools into $tools"
    python3 -m venv "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check --requirement "$here/requirements.txt"
    cp -r "$here/asyncapi" "$tools/asyncapi"
    (cd "$tools/asyncapi" && npm ci --silent --ignore-scripts --no-audit --no-fund --cache npm && rm -rf npm)
    cp -r "$here/asyncapi" "$tools/from"
    cp "$here/requirements.txt" "$tools/"
}

# Programs that the documents name, made to work on the private servers.
program() {
    printf '#!/bin/sh\n%s\n' "$2" >"$dir/bin/$1"
    chmod 755 "$dir/bin/$1"
}

dir=
bin=${OTP_BIN:-}
install_tools
tests/support/install-services.sh
if [ -z "$bin" ]; then
    cargo build --locked --bins
    bin=${CARGO_TARGET_DIR:-target}/debug
fi
bin=$(realpath "$bin")
prepare
export TMPDIR=$dir

check 'the schemas, and every example of them' "$tools/venv/bin/python" "$here/schemas.py"
check 'the AsyncAPI document, by the official parser' node "$tools/asyncapi/validate.js" docs/schemas/asyncapi.json

broker=$(free_ports 7)
broker_metrics=$((broker + 3)) sandbox=$((broker + 4)) worker=$((broker + 5)) redis=$((broker + 6))
start_broker
start redis "$(command -v redis-server || command -v valkey-server)" --bind 127.0.0.1 --port "$redis" --dir "$dir" --save '' --appendonly yes --appendfsync always
start_sandbox
echo "redis://127.0.0.1:$redis" >"$dir/ledger-url"
export OTP_LEDGER_URL_FILE=$dir/ledger-url
# Without it `check --strict` warns.
export OTP_TOTAL_LIMIT=100000/24h
start_worker worker "$worker"

mkdir "$dir/bin"
for program in rabbitmqctl rabbitmq-diagnostics rabbitmq-plugins; do
    program "$program" "exec $PWD/tests/support/private-rabbitmq.sh $broker tool $program \"\$@\""
done
program redis-cli "exec $(command -v redis-cli || command -v valkey-cli) -p $redis \"\$@\""
program logs "exec cat $dir/worker.log"
# `make deploy-check` brings one.
if KUBECTL=$(PATH=$PATH:$(realpath -m "${CARGO_TARGET_DIR:-target}/deploy-tools/bin") command -v kubectl); then
    export KUBECTL
    ln -s "$PWD/$here/kubectl.sh" "$dir/bin/kubectl"
fi
ln -s "$bin/esms-otp-worker" "$bin/esms-sandbox" "$dir/bin/"
"$dir/bin/rabbitmqctl" --quiet add_vhost otp
"$dir/bin/rabbitmqctl" --quiet add_user otp-worker password
"$dir/bin/rabbitmqctl" --quiet add_user otp-operator password
export PATH=$dir/bin:$PATH HTTP_ADDR=127.0.0.1:$worker SANDBOX=127.0.0.1:$sandbox
python3 "$here/commands.py"
echo "docs-check: ok, $SECONDS s"

#!/usr/bin/env bash
#
# make demo: builds the programs, finds a broker and runs the demonstration (main.rs, beside this file). The
# broker is the one in AMQP_URL. Without AMQP_URL it is a private RabbitMQ node, and a missing RabbitMQ is
# installed with apt-get. Where apt-get is missing too, it is a broker in Docker.
set -euo pipefail
cd "$(dirname "$0")/../.."

# A separate project: everything else that runs from this file, its broker included, is left alone.
compose() { docker compose --project-name esms-otp-demo -f deploy/compose.yaml "$@"; }
say() { echo "demo: $*"; }

find_broker() {
    if [ -n "${AMQP_URL:-}" ]; then
        say 'the broker is the one in AMQP_URL'
    elif tests/support/private-rabbitmq.sh where >/dev/null; then
        say "RabbitMQ is installed: $(tests/support/private-rabbitmq.sh where)"
    elif ! command -v apt-get >/dev/null && docker compose version >/dev/null 2>&1; then
        say 'RabbitMQ is not installed and there is no apt-get: starting it with Docker Compose'
        trap 'compose down --volumes' EXIT
        compose up --detach --wait rabbitmq
        export AMQP_URL="amqp://guest:guest@127.0.0.1:${RABBITMQ_PORT:-5672}/%2f"
    else
        tests/support/install-services.sh rabbitmq
    fi
}

find_broker
say 'building the programs; the first time takes minutes'
cargo build --profile demo --features demo --locked --bins
built=${CARGO_TARGET_DIR:-target}/demo
tests/support/no-crash-points.sh "$built/esms-otp-worker"
# Not exec, because Docker's broker must be taken down afterwards.
"$built/demo"

#!/usr/bin/env bash
#
# make demo: builds the programs and finds a broker, then runs the demonstration
# (main.rs, beside this). The broker is the one in AMQP_URL; else a private node
# of RabbitMQ, which is installed with apt-get where it is missing; else, where
# there is no apt-get either, one in Docker.
set -euo pipefail
cd "$(dirname "$0")/../.."

# A project of its own: what else is run from this file, broker included, is left alone.
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
# Not exec: Docker's broker is to be taken down afterwards.
"$built/demo"

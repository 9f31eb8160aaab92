#!/usr/bin/env bash
#
# The Dockerfile and the compose file, without building or starting anything. Run by run.sh, which
# sees to the tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

check 'Dockerfile, by hadolint' hadolint --failure-threshold info deploy/Dockerfile
check 'compose.yaml, by the Compose specification' \
    check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
if docker compose version >/dev/null 2>&1; then
    check 'compose.yaml, by docker compose' docker compose -f deploy/compose.yaml config --quiet
fi
python3 tests/deploy/image.py

#!/usr/bin/env bash
#
# The workflows: their form, and what an auditor finds in them. Run by run.sh, which sees to the tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

# A tag of an action can be moved, and its next user runs what it was moved to. Our own are of this commit.
all_pinned() {
    ! grep -nE '^\s*-?\s*uses:' .github/workflows/*.yaml | grep -vE 'uses: ([^@ ]+@[0-9a-f]{40} # v[0-9.]+|\./\S+( #.*)?)$'
}

check 'workflows, by their schema' \
    check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
check 'workflows, by zizmor' zizmor --offline --no-progress --quiet .github/workflows
check 'every action is pinned by its commit' all_pinned
python3 tests/deploy/workflows.py

#!/usr/bin/env bash
#
# make fuzz: runs each target (targets/, which call properties/) for this many seconds, 60 by default. It
# starts from the committed corpus and from the inputs that earlier runs found. A finding is kept and its
# path is printed. A finding that is understood becomes a seed in corpus/, which `cargo test` reads too.
#
#   run.sh [seconds [target ...]]
#
# Needs a C++ compiler. A missing cargo-fuzz is installed under the build directory. Everything else that
# this script leaves behind is there too.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { echo "fuzz: $*"; }

seconds=${1:-60}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    say "not a number of seconds: $seconds" >&2
    exit 2
fi
shift $(($# > 0))
if (($#)); then targets=("$@"); else mapfile -t targets < <(basename -s .rs tests/fuzz/targets/*.rs); fi

version=0.13.2
mkdir -p "${CARGO_TARGET_DIR:-target}"
build=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/fuzz
host=$(rustc --version --verbose | sed -n 's/^host: //p')
export PATH=$build/tools/bin:$PATH

# Coverage and the address sanitizer are unstable. RUSTC_BOOTSTRAP allows them on any toolchain.
build() {
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "installing cargo-fuzz $version, which takes a minute or two"
        cargo install --quiet --locked --root "$build/tools" --target-dir "$build/tools/build" \
            --version "$version" cargo-fuzz
    fi
    say 'building the targets; the first time takes minutes'
    RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir tests/fuzz --target-dir "$build/target" --target "$host"
}

# At the end the log has the runs and the coverage, or the finding.
run() {
    local target=$1 found=$build/found/$1
    mkdir -p "$found/corpus" "$found/failures"
    if "$build/target/$host/release/$target" "$found/corpus" "tests/fuzz/corpus/$target" \
        -max_total_time="$seconds" -timeout=10 -detect_leaks=0 -artifact_prefix="$found/failures/" \
        >"$found/log" 2>&1; then
        summary "$target" "$found/log"
    else
        tail -n 40 "$found/log"
        say "$target: FAILED; see above and $found/log"
        return 1
    fi
}

summary() {
    local last
    last=$(grep -E '^#[0-9]+.*cov: ' "$2" | tail -n 1)
    say "$1: $(sed -E 's/^#([0-9]+).*cov: ([0-9]+) ft: ([0-9]+).*/\1 runs, \2 edges, \3 features/' <<<"$last"), nothing found"
}

build
failed=0
for target in "${targets[@]}"; do
    say "$target: $seconds s"
    run "$target" || failed=1
done
exit $failed

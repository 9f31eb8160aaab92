# For the scripts beside this one: what each check prints, and what ends the run.

# check NAME COMMAND...: a line when it succeeds; when it fails, what it printed, and the end.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok    $name"
    else
        echo "FAIL  $name"
        sed 's/^/      /' <<<"$output"
        exit 1
    fi
}

# need PROGRAM PACKAGE: installs PACKAGE where PROGRAM is missing and there is apt-get.
need() {
    command -v "$1" >/dev/null && return
    if command -v apt-get >/dev/null; then
        local sudo=()
        [ "$(id -u)" = 0 ] || sudo=(sudo)
        "${sudo[@]}" apt-get install --yes --quiet --no-install-recommends "$2" >/dev/null 2>&1 || true
    fi
    command -v "$1" >/dev/null && return
    echo "FAIL  $1 is needed and is not here; install it (Debian: apt-get install $2)" >&2
    exit 1
}

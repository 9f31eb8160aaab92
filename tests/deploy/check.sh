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

# package NAME: installs it where there is apt-get, whose lists a new machine has not read yet.
package() {
    local sudo=()
    command -v apt-get >/dev/null || return 0
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update --quiet >/dev/null 2>&1 || true
    "${sudo[@]}" apt-get install --yes --quiet --no-install-recommends "$1" >/dev/null 2>&1 || true
}

# need PROGRAM PACKAGE: installs PACKAGE where PROGRAM is missing.
need() {
    command -v "$1" >/dev/null && return
    package "$2"
    command -v "$1" >/dev/null && return
    echo "FAIL  $1 is needed and is not here; install it (Debian: apt-get install $2)" >&2
    exit 1
}

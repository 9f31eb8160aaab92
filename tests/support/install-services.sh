#!/bin/sh
#
# Makes sure that RabbitMQ and Redis are installed, or only those of them that are named. The tests, the
# demonstration and the fault campaign start private servers from the installed files (private-rabbitmq.sh,
# private-redis.sh). A server that is already installed is left as it is. The services of newly installed
# packages are not left running.
#
#   install-services.sh [rabbitmq] [redis]     without names, both
set -eu

here=$(dirname "$0")
policy=/usr/sbin/policy-rc.d
own_policy=
log=

say() { echo "install-services: $*" >&2; }

clean_up() {
    if [ -n "$own_policy" ]; then as_root rm -f "$policy"; fi
    if [ -n "$log" ]; then rm -f "$log"; fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

logged() {
    "$@" >>"$log" 2>&1
}

# Debian starts a service as soon as its package is installed. This file forbids that with exit code 101. An
# image may have the file already.
forbid_service_starts() {
    if [ ! -e "$policy" ]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
}

# The packages enable their services for the next boot.
disable_services() {
    if [ -d /run/systemd/system ]; then
        # shellcheck disable=SC2086 # a list of words
        as_root systemctl disable --now $missing
    fi
}

# A failed update is not a failure here. The question is whether the packages can be installed, and one dead
# third-party repository does not change that.
install() {
    as_root apt-get -qq update || true
    # shellcheck disable=SC2086 # a list of words
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends $missing &&
        disable_services
}

# Finds the packages of the servers that are not installed.
find_missing() {
    missing=
    for service in ${wanted:-rabbitmq redis}; do
        if ! "$here/private-$service.sh" where >/dev/null; then
            missing="$missing $service-server"
        fi
    done
    missing=${missing# }
}

wanted=$*
find_missing
if [ -z "$missing" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    say "missing: $missing; and there is no apt-get to install it with."
    say 'Install RabbitMQ 3.10 or later and Redis 6 or later (macOS: brew install rabbitmq redis).'
    say 'The tests and the demonstration need them; the worker itself runs against any: set AMQP_URL and OTP_LEDGER_URL.'
    exit 1
fi
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    say "missing; as root: apt-get install --no-install-recommends $missing"
    exit 1
fi

log=$(mktemp)
trap clean_up EXIT
trap 'exit 130' INT TERM
say "installing with apt-get (no service is started): $missing"
forbid_service_starts
if ! logged install; then
    cat "$log" >&2
    say 'that failed: see above'
    exit 1
fi
find_missing
if [ -n "$missing" ]; then
    say "the package is installed, but its server is not where it should be: $missing"
    exit 1
fi

#!/bin/sh
#
# Makes sure that RabbitMQ is installed, for the tests and the demonstration:
# they start a private node from its files (private-rabbitmq.sh). Does nothing
# where it is there already. The package's own service is not left running.
set -eu

here=$(dirname "$0")
policy=/usr/sbin/policy-rc.d
own_policy=
log=

say() { echo "install-broker: $*" >&2; }

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

# Debian starts a service as soon as its package is installed, unless this
# file, which an image may have already, says no with exit code 101.
forbid_service_starts() {
    if [ ! -e "$policy" ]; then
        own_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
}

# The package enables its service for the next boot.
disable_service() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now rabbitmq-server
    fi
}

# A failed update is no failure: what matters is whether the package can be
# had, and one dead third-party repository does not change that.
install() {
    as_root apt-get -qq update || true
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends rabbitmq-server &&
        disable_service
}

if "$here/private-rabbitmq.sh" where >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    say 'RabbitMQ is missing, and there is no apt-get to install it with.'
    say 'Install version 3.10 or later (macOS: brew install rabbitmq; others: https://www.rabbitmq.com/docs/download).'
    say 'The tests and the demonstration need it; the worker itself runs against any broker: set AMQP_URL.'
    exit 1
fi
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    say 'RabbitMQ is missing; as root: apt-get install --no-install-recommends rabbitmq-server'
    exit 1
fi

log=$(mktemp)
trap clean_up EXIT
trap 'exit 130' INT TERM
say 'installing the package rabbitmq-server with apt-get (its service is not started)'
forbid_service_starts
if ! logged install; then
    cat "$log" >&2
    say 'that failed: see above'
    exit 1
fi
if ! "$here/private-rabbitmq.sh" where >/dev/null; then
    say 'the package is installed, but rabbitmq-server is not where it should be'
    exit 1
fi

#!/usr/bin/env bash
#
# Makes sure that prometheus, promtool, alertmanager and amtool are here. The
# packages' own services are neither started nor left enabled.
set -euo pipefail

policy=/usr/sbin/policy-rc.d

die() {
    echo "install-prometheus: $*" >&2
    exit 1
}

# Debian calls Alertmanager prometheus-alertmanager, everybody else alertmanager.
here() {
    command -v promtool >/dev/null && command -v prometheus >/dev/null && command -v amtool >/dev/null &&
        { command -v alertmanager || command -v prometheus-alertmanager; } >/dev/null
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a service as soon as its package is installed, unless this file
# says no with exit code 101.
forbid_service_starts() {
    if [ ! -e "$policy" ]; then
        trap 'as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
}

install() {
    # What matters is whether the package can be had, not whether every source answers.
    as_root apt-get -qq update || true
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends prometheus prometheus-alertmanager
    if [ -d /run/systemd/system ]; then as_root systemctl disable --now prometheus prometheus-alertmanager; fi
}

if here; then exit 0; fi
command -v apt-get >/dev/null ||
    die 'promtool, prometheus, amtool or alertmanager is missing, and there is no apt-get: see https://prometheus.io/download'
if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    die 'promtool or amtool is missing; as root: apt-get install --no-install-recommends prometheus prometheus-alertmanager'
fi
echo 'install-prometheus: installing prometheus and prometheus-alertmanager with apt-get (their services are not started)' >&2
forbid_service_starts
install >&2 || die 'that failed: see above'
here || die 'the packages are installed, but one of their programs is not on the PATH'

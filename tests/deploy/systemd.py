"""What must hold in the systemd unit beyond systemd's own tools; a line per check."""

import sys

from settings import DEFAULTS, SECRETS, run, seconds

# A name comes as often as it likes.
LINES = [line.strip().split("=", 1) for line in open(sys.argv[1]) if "=" in line and not line.startswith("#")]


def all_of(name):
    return [value for key, value in LINES if key == name]


def the(name):
    [value] = all_of(name)
    return value


ENVIRONMENT = dict(value.split("=", 1) for value in all_of("Environment"))


def secrets_are_credentials():
    """  every secret is a credential, none is in the environment."""
    unknown = ENVIRONMENT.keys() - DEFAULTS.keys()
    assert not unknown, f"{sorted(unknown)}, which `--help` does not have"
    assert not SECRETS & ENVIRONMENT.keys(), f"{sorted(SECRETS & ENVIRONMENT.keys())} in the environment"
    loaded = dict(value.split(":", 1) for value in all_of("LoadCredential"))
    for name in SECRETS:
        folder, _, credential = ENVIRONMENT[f"{name}_FILE"].rpartition("/")
        assert folder == "/run/credentials/%n" and credential in loaded, f"{name}_FILE is no credential"
        assert loaded[credential] == f"/etc/esms-otp-worker/secrets/{credential}", loaded[credential]


def it_starts_and_stops_as_the_worker_does():
    """  `check` comes first and may take its minute; it is not killed before OTP_SHUTDOWN_GRACE is over."""
    assert all_of("ExecStartPre") == ["/usr/local/bin/esms-otp-worker check"], str(all_of("ExecStartPre"))
    assert the("ExecStart") == "/usr/local/bin/esms-otp-worker run", the("ExecStart")
    grace = ENVIRONMENT.get("OTP_SHUTDOWN_GRACE", DEFAULTS["OTP_SHUTDOWN_GRACE"])
    assert int(the("TimeoutStopSec")) >= seconds(grace) + 5 and int(the("TimeoutStartSec")) > 60, "the timeouts"
    # Systemd gives up after five starts in ten seconds otherwise, and nobody is there to start it again.
    assert the("Restart") == "always" and the("StartLimitIntervalSec") == "0", "it is given up"


run([secrets_are_credentials, it_starts_and_stops_as_the_worker_does])

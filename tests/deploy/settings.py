"""What this project says of itself, for the checks beside this file: settings, metrics, version."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETTINGS = (ROOT / "docs/settings.md").read_text()
WATCHING = (ROOT / "docs/watching.md").read_text()

# The table between the markers, which a test of the worker compares with its `--help`.
_ROWS = SETTINGS.partition("<!-- settings: begin -->")[2].partition("<!-- settings: end -->")[0]

# Every setting and its default.
DEFAULTS = dict(re.findall(r"^\| `([A-Z_]+)` \| `--[a-z-]+` \| `?([^|`]*)`? \|", _ROWS, re.MULTILINE))

# Those that may be read from a file instead, because they are or hold secrets.
SECRETS = {name for name in DEFAULTS if f"{name}_FILE" in DEFAULTS}

VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]

# The metrics in docs/watching.md; it names some two in a row.
METRICS = set(re.findall(r"`((?:otp|esms)_[a-z_]+)`", WATCHING))


def seconds(duration):
    """25s, 2m or 250ms, as a number."""
    number, unit = re.fullmatch(r"([0-9]+)(ms|s|m)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def run(checks):
    """Runs each check, says so, and ends with the first that fails."""
    for check in checks:
        name = check.__doc__.rstrip(".")
        try:
            check()
        except AssertionError as error:
            print(f"FAIL  {name}\n      {error}")
            raise SystemExit(1) from None
        print(f"ok    {name}")

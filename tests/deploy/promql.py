"""Which metrics and labels a PromQL expression names. No parser: promtool is that. This only reads."""

import re
from dataclasses import dataclass, field

LABEL_REPLACE = re.compile(r',\s*"(\w+)",\s*"[^"]*",\s*"(\w+)",\s*"[^"]*"\s*\)')
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|\d[\w.]*|[a-zA-Z_:][\w:]*|=~|!~|!=|\S')
SUMMING = {"by", "without"}
GROUPING = {*SUMMING, "on", "ignoring", "group_left", "group_right"}
WORDS = {"and", "or", "unless", "bool", "offset", "Inf", "NaN", *GROUPING}


@dataclass
class Selector:
    """A metric, and what is asked of its labels: (label, operator, value)."""

    metric: str
    matchers: list = field(default_factory=list)


@dataclass
class Named:
    """All that an expression names."""

    selectors: list = field(default_factory=list)
    # Labels that something is summed by.
    by: set = field(default_factory=set)
    # Labels that two sides are matched on.
    on: set = field(default_factory=set)
    # Labels that label_replace makes, with those that it makes them of.
    made: dict = field(default_factory=dict)


def named(expr):
    """Reads the names out of an expression that promtool understands."""
    tokens = TOKEN.findall(expr)
    found, place = Named(), 0
    for label, source in LABEL_REPLACE.findall(expr):
        found.made.setdefault(label, set()).add(source)
    while place < len(tokens):
        token, following = tokens[place], tokens[place + 1] if place + 1 < len(tokens) else ""
        place += 1
        if token in GROUPING and following == "(":
            end = tokens.index(")", place)
            labels = found.by if token in SUMMING else found.on
            labels.update(label for label in tokens[place + 1 : end] if label != ",")
            place = end + 1
        elif is_name(token) and token not in WORDS and following not in {"(", *SUMMING}:
            selector = Selector(token)
            if following == "{":
                end = tokens.index("}", place)
                selector.matchers = matchers(tokens[place + 1 : end])
                place = end + 1
            found.selectors.append(selector)
    return found


def is_name(token):
    return re.fullmatch(r"[a-zA-Z_:][\w:]*", token) is not None


def matchers(tokens):
    """Triples, between commas."""
    plain = [token for token in tokens if token != ","]
    return [(label, operator, value[1:-1]) for label, operator, value in zip(plain[::3], plain[1::3], plain[2::3])]

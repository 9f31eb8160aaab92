"""The messages of the examples, byte for byte.

golden.py tap               from now on the broker's tracer copies what is published to a queue
golden.py compare NAME...   what was published for the examples is what the files of golden/ say, and is valid by the
                            schemas of docs/schemas

A file NAME.txt has the job of an example, and result-….txt the results that the worker publishes, the same for all of them.
What differs from run to run stands there as a word. With UPDATE_GOLDEN=1 the files are written. An example without a file
is not compared: it has not run where the files were written.
"""

import difflib
import json
import os
import pathlib
import re
import sys
import time

import jsonschema
import pika

GOLDEN = pathlib.Path("tests/examples/golden")
TAP = "golden"
# What run.sh has each example press, by the first word of the id, and the outcome.
OUTCOMES = {"first": "accepted", "soon": "limited", "refused": "rejected"}
SCHEMAS = {what: json.loads(pathlib.Path(f"docs/schemas/{what}.json").read_text()) for what in ("job", "result")}
DIRECT = re.compile(r"amq\.rabbitmq\.reply-to\.\S+")


def once(pairs):
    """An object in which no name stands twice."""
    assert len(dict(pairs)) == len(pairs), f"a name stands twice: {pairs}"
    return dict(pairs)


def wrong_with(body, what):
    """Why the body is not JSON in UTF-8 as the schema has it; None when it is."""
    try:
        value = json.loads(body.decode("utf-8", errors="strict"), object_pairs_hook=once)
        jsonschema.Draft202012Validator(SCHEMAS[what]).validate(value)
    except (ValueError, AssertionError, jsonschema.ValidationError) as error:
        return str(error).splitlines()[0]


def shown(key, value, job_id):
    """A property, with a word for what differs from run to run, if it is as it must be."""
    if key == "timestamp" and isinstance(value, int) and abs(value - time.time()) < 600:
        return "SECONDS"
    if isinstance(value, str):
        value = DIRECT.sub("REPLY_TO", value)
        value = re.sub(rf"^{job_id}(:result)?$", r"ID\1", value)
    return repr(value)


def message_as_text(headers, body, job_id, what):
    properties = headers["properties"]
    lines = [("exchange", repr(headers["exchange_name"]))]
    lines += [("routing key", repr(DIRECT.sub("REPLY_TO", key))) for key in headers["routing_keys"]]
    lines += [(key, shown(key, properties[key], job_id)) for key in sorted(properties)]
    if what == "job":
        body = re.sub(rb'"09[0-9]{8}"', b'"PHONE"', body)
    for pattern, word in [
        (rf'("JobId":"){job_id}(")', r"\1ID\2"),
        (r'("SMSID":")[0-9a-f]{31,32}(")', r"\1SMSID\2"),
        (r'("RetryAfter":)[0-9]{1,2}([,}])', r"\1SECONDS\2"),
        (r'("CompletedAt":")\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z(")', r"\1TIME\2"),
    ]:
        if what == "result":
            body = re.sub(pattern.encode(), word.encode(), body)
    # One character is one byte.
    return "".join(f"{key}: {text}\n" for key, text in lines) + f"body: {repr(body)[1:]}\n"


def collect(channel, names):
    """What was published for each id, when there is a job, a result on the exchange and a reply for every one of them."""
    wanted = {(f"{press}-{name}", where) for name in names for press in OUTCOMES for where in ("job", "otp.results", "reply")}
    found, give_up = {}, time.monotonic() + 15
    while missing := wanted - found.keys():
        method, properties, body = channel.basic_get(TAP, auto_ack=True)
        if method is None and time.monotonic() > give_up:
            sys.exit(f"not published: {sorted(missing)}")
        if method is None:
            time.sleep(0.2)
            continue
        headers = properties.headers
        job_id, result, _ = f"{headers['properties'].get('message_id')}:".partition(":")
        exchange = headers["exchange_name"] or ("job" if headers["routing_keys"] == ["otp.jobs"] else "reply")
        found.setdefault((job_id, exchange), []).append((headers, body))
    return found


def compare(path, texts, who):
    """The texts are one, and the file's."""
    texts = sorted(set(texts))
    if len(texts) > 1:
        return [f"{who}: not every press sends the same:\n" + "".join(texts)]
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(texts[0])
    if not path.exists():
        print(f"----  {who}: {path} is not there to compare with")
        return []
    is_there = path.read_text()
    if texts[0] == is_there:
        return []
    lines = [text.splitlines(keepends=True) for text in (is_there, texts[0])]
    return [f"{who}: not what {path} says (UPDATE_GOLDEN=1 make examples-check writes it):\n" + "".join(difflib.unified_diff(*lines, "is to be", "is"))]


def main():
    command, *names = sys.argv[1:]
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
    if command == "tap":
        channel.queue_declare(TAP, durable=True)
        channel.queue_bind(TAP, "amq.rabbitmq.trace", "publish.#")
        return 0
    found, wrong = collect(channel, names), []
    for (job_id, where), messages in sorted(found.items()):
        what = "job" if where == "job" else "result"
        wrong += [f"{job_id}: no valid {what}: {why}: {body}" for _, body in messages if (why := wrong_with(body, what))]
    for name in names:
        texts = {}
        for press, outcome in OUTCOMES.items():
            for where, file in [("job", name), ("otp.results", f"result-{outcome}"), ("reply", f"reply-{outcome}")]:
                what = "job" if where == "job" else "result"
                for headers, body in found[f"{press}-{name}", where]:
                    texts.setdefault(file, []).append(message_as_text(headers, body, f"{press}-{name}", what))
        for file, all_of_it in texts.items():
            wrong += compare(GOLDEN / f"{file}.txt", all_of_it, name)
    number = sum(map(len, found.values()))
    print("\n".join(f"WRONG {line}" for line in wrong) or f"ok    {number} jobs and results: byte for byte those of {GOLDEN}, valid by the schemas")
    return bool(wrong)


sys.exit(main())

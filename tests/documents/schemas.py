"""docs/schemas: each is a schema by the meta-schema that it names, and every example in them and in the pages is valid."""

import json
import pathlib
import re
import sys

import jsonschema

FOLDER = pathlib.Path("docs/schemas")
PAGES = ["README.md", "CONTRIBUTING.md", *pathlib.Path("docs").glob("*.md"), *pathlib.Path("examples").glob("*.md"), *pathlib.Path("deploy").rglob("*.md")]
looked_at, wrong = 0, []
job, result, document = (json.loads((FOLDER / f"{what}.json").read_text()) for what in ("job", "result", "asyncapi"))


def valid(where, schema, value):
    global looked_at
    looked_at += 1
    wrong.extend(f"{where}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(value))


for name, schema in [("job.json", job), ("result.json", result)]:
    if schema["$schema"] != jsonschema.Draft202012Validator.META_SCHEMA["$id"]:
        wrong.append(f"{name}: is of {schema['$schema']}")
    valid(name, jsonschema.Draft202012Validator.META_SCHEMA, schema)
    if wrong:  # it cannot be used
        sys.exit("\n".join(wrong))
    if not schema.get("examples"):
        wrong.append(f"{name}: has no example")
    for number, example in enumerate(schema.get("examples", [])):
        valid(f"{name}, example {number}", schema, example)

# AsyncAPI's own schemas are of draft 7, which both dialects agree with here.
for name, message in document["components"]["messages"].items():
    schema = document["components"]["schemas"][message["payload"]["$ref"].rpartition("/")[2]]
    for where, draft in [("payload", schema), ("headers", message["headers"])]:
        wrong.extend(f"asyncapi.json, {where} of {name}: {error.message}"
                     for error in jsonschema.Draft7Validator(jsonschema.Draft7Validator.META_SCHEMA).iter_errors(draft))
    for example in message["examples"]:
        valid(f"asyncapi.json, example {example['name']} of {name}", schema, example["payload"])
        valid(f"asyncapi.json, headers of example {example['name']} of {name}", message["headers"], example.get("headers", {}))

for page in map(pathlib.Path, PAGES):
    for block in re.findall(r"^```json\n(.*?)^```", page.read_text(), re.M | re.S):
        value = json.loads(block)
        valid(f"{page}: {block}", result if "Outcome" in value else job, value)

print("\n".join(wrong) or f"{looked_at} schemas and examples")
sys.exit(bool(wrong))

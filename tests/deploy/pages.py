"""The pages under deploy: every link leads somewhere, and the way to production names what there is."""

import os
import pathlib
import re
import subprocess
import tempfile

import yaml

from settings import DEFAULTS, ROOT

PAGE = ROOT / "deploy/README.md"
wrong = []


def anchors(text):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


for page in sorted((ROOT / "deploy").rglob("*.md")):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (page.parent / file).resolve() if file else page
        if not found.exists():
            wrong.append(f"{page.relative_to(ROOT)}: {target} is not there")
        elif anchor and anchor not in anchors(found.read_text()):
            wrong.append(f"{page.relative_to(ROOT)}: {target} has no such heading")

text = PAGE.read_text()
code = " ".join(re.findall(r"```.*?```", text, re.DOTALL) + re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
for component in (ROOT / "deploy/kubernetes/components").iterdir():
    if f"components/{component.name}" not in text:
        wrong.append(f"{PAGE.name} does not name the component {component.name}")
for name in set(re.findall(r"\b(?:OTP|ESMS|AMQP|HTTP|OTEL)_[A-Z_]+\b", code)) - DEFAULTS.keys() - {"OTP_BIN", "HTTP_PROXY"}:
    wrong.append(f"{PAGE.name}: no setting {name}")
# Ten steps, one after the other, and one table of what to change.
steps = re.findall(r"^(\d+)\. ", text.partition("## ")[2].partition("\n## ")[0], re.MULTILINE)
if steps != [str(n) for n in range(1, 11)]:
    wrong.append(f"{PAGE.name}: the steps are {steps}")
for way in ("plain", "kube-prometheus-stack", "OpenShift", "without Kubernetes"):
    if way not in re.search(r"^\| what .*", text, re.MULTILINE)[0]:
        wrong.append(f"{PAGE.name}: the table has no column for {way}")
# A command that builds an overlay must build one that is there.
for folder in set(re.findall(r"(?:-k|kustomize) (deploy/\S+)", code)):
    if subprocess.run(["kubectl", "kustomize", ROOT / folder.strip("`")], capture_output=True).returncode:
        wrong.append(f"{PAGE.name}: {folder} does not build")

# What is to be copied builds, and gives the user what docs/flow.md says.
for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
    if block.startswith("patches:"):
        with tempfile.TemporaryDirectory() as folder:
            production = os.path.relpath(ROOT / "deploy/kubernetes/overlays/production", os.path.realpath(folder))
            pathlib.Path(folder, "kustomization.yaml").write_text(f"resources: [{production}]\n{block}")
            built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
        if built.returncode or built.stdout.count("name: rabbit-default-user") != 2:
            wrong.append(f"{PAGE.name}: the patches do not build, or name the secret not twice: {built.stderr}")
    else:
        [permission] = [o["spec"]["permissions"] for o in yaml.safe_load_all(block) if o["kind"] == "Permission"]
        right = re.search(r"set_permissions --vhost otp otp-worker \\\n  '(.*)' \\\n  '(.*)' \\\n  '(.*)'\n", (ROOT / "docs/flow.md").read_text())
        if tuple(permission[what] for what in ("configure", "write", "read")) != right.groups():
            wrong.append(f"{PAGE.name}: the Permission is not what docs/flow.md says")

if wrong:
    raise SystemExit("\n".join(wrong))

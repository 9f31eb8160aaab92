"""Every command of the documents works as it stands there.

A command is a line of a fenced block of shell, or stands in the text between backticks and begins with a program of PROGRAMS or a
command of esms-otp-worker. The first of RULES that knows it says how it is tried; one that no rule knows is a failure, and so is a rule that no
command needs any more.

run.sh beside this starts what the commands run against.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

PAGES = ["README.md", "CONTRIBUTING.md", "examples/README.md", *sorted(map(str, pathlib.Path("docs").glob("*.md"))),
         *sorted(map(str, pathlib.Path("deploy").rglob("*.md")))]
PROGRAMS = set("""cargo composer cosign curl docker dotnet esms-otp-worker esms-sandbox go install journalctl jq kubectl logs make mvn node npm php
    pip python rabbitmq-diagnostics rabbitmq-plugins rabbitmqctl redis-cli systemctl""".split())
# Blocks of these languages hold no commands.
OTHER_LANGUAGES = {"json", "mermaid", "promql", "text", "yaml"}
OWN = os.environ["TMPDIR"]
ROOT = f"{OWN}/root"
FILES = {"jobs.jsonl": '{"Phone": "0902000001", "MultiChannelTempId": "1234"}\n', "people.csv": "Phone,MultiChannelTempId\n0902000002,1234\n"}


@dataclasses.dataclass
class Run:
    """It is run, after some of its words have been replaced, and says what the pattern says."""

    replace: dict = dataclasses.field(default_factory=dict)
    stdin: str = ""
    says: str = ""

    def tried(self, command):
        for old, new in self.replace.items():
            command = command.replace(old, new)
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], input=self.stdin, capture_output=True, text=True, timeout=60)
        if done.returncode or not re.search(self.says, done.stdout):
            return f"exit code {done.returncode}\n{done.stdout[-600:]}{done.stderr[-600:]}"


class Stub(Run):
    """It is run; what has no cluster or account behind it here is only parsed (kubectl.sh)."""


class Parsed(Run):
    """The program reads its words, and does nothing."""

    def tried(self, command):
        harmless = "--dry-run" if "make" in command.split()[:2] else "--help"
        return super().tried(re.sub(r"(esms-otp-worker|esms-sandbox|make)\b [^|<>;&]*", rf"\g<0> {harmless} ", command))


@dataclasses.dataclass
class Elsewhere:
    """Another file runs it, or as much of it as can be run here: it has this text, or else the command."""

    file: str
    text: str = ""
    why: str = ""

    def tried(self, command):
        text = self.text or command
        if text not in pathlib.Path(self.file).read_text():
            return f"{self.file} has no {text}"


@dataclasses.dataclass
class Not:
    """It is not run."""

    why: str

    def tried(self, command):
        return None


EXAMPLES, CI = "tests/examples/run.sh", ".ci/run"
RULES = {
    # What is in front comes first: the others need the jobs that it sends. A number gets one in a minute.
    r"esms-otp-worker send --phone 0901888484 .*--wait": Run({"0901888484": "0901$((RANDOM + 100000))"}, says="accepted"),
    r"esms-otp-worker send (jobs.jsonl|people.csv) .*--wait": Run({" jobs": f" {OWN}/jobs", " people": f" {OWN}/people"}, says="accepted"),
    r"esms-otp-worker (man|completions bash|schema \w+|health( --ready)?|check( --strict)?|topology (apply|diff)|send --help)": Run(),
    r"esms-otp-worker limits( reset)?": Run(stdin="0901888484\n"),
    r"esms-otp-worker dead-letters (list|requeue --all --dry-run|purge --older-than \w+ --yes)": Run(),
    r"esms-otp-worker job 5f0c…": Run({"5f0c…": "$(redis-cli --scan --pattern '*:job:*' | sed 's/.*:job://' | head -n 1)"}, says="state +ended"),
    # Interrupted, as by a person.
    r"esms-otp-worker watch.*": Run({"esms-otp-worker": "timeout --preserve-status --signal INT 2 esms-otp-worker"}),
    r"esms-otp-worker topology \| .*": Run(),
    r"(AMQP_URL=\S+ )?esms-otp-worker topology .* \| kubectl .*": Stub(),
    r"(ESMS_\w+=\S+ )*esms-(otp-worker|sandbox) .*": Parsed(),
    r"make help": Run(says="examples-check"),
    r"make test": Elsewhere(CI, "readme_command test"),
    r"make demo": Elsewhere(CI, "readme_command demo"),
    r"make (lint|deploy-check|examples-check|docs-check|page-check)": Elsewhere(CI),
    r"((KEEP|UPDATE_DOCS)=1 )?make [a-z-]+( [A-Z]+=\S+)*": Parsed(),
    r"cargo test .* slots::how -- --ignored --nocapture": Elsewhere("tests/it/slots.rs", "async fn how", "a measurement"),
    r"export [A-Z_]+=.*": Run(),
    r"(pip|npm) install.*": Elsewhere(EXAMPLES, "install"),
    r"python send_otp(_async)?.py .*": Elsewhere(EXAMPLES, "python send_otp_async.py"),
    r"(node|php) send-otp.*": Elsewhere(EXAMPLES, "php send-otp.php"),
    r"mvn -q .*": Elsewhere(EXAMPLES, "mvn -q -B", "Maven Central is not always to be reached: then javac compiles it"),
    r"go (mod tidy|run .*)": Elsewhere(EXAMPLES, "quietly go mod tidy && quietly go build", "the module is not always to be had"),
    r"composer install": Elsewhere(EXAMPLES, why="where there is Composer"),
    r"dotnet (restore|run .*)": Elsewhere(EXAMPLES, "dotnet build", "where there is .NET"),
    r"cargo (build|run -- .*)": Elsewhere(EXAMPLES, "cargo build"),
    r"rabbitmqctl set_policy": Run({"set_policy": "help set_policy"}),
    r"rabbitmq(ctl|-diagnostics|-plugins) .*": Run(),
    r"redis-cli .* ping": Run(says="PONG"),
    r"curl http://\S+/_sandbox/phones/0901888484": Run({"127.0.0.1:8081": os.environ["SANDBOX"], "0901888484": "0902000001"}, says="accepted"),
    r"cargo run --bin esms-sandbox": Not("it would build it; what it builds is run here"),
    r"curl .*(WORKER:9090|127\.0\.0\.1:8081)/.*": Run({"curl": "curl --fail", "WORKER:9090": os.environ["HTTP_ADDR"], "127.0.0.1:8081": os.environ["SANDBOX"]}),
    r"curl -sv https://rest.esms.vn/": Not("the real endpoint"),
    r"logs \| jq .*": Run(),
    r"kubectl logs .* \| grep .*": Stub({"5f0c": ""}),
    r"kubectl .*": Stub({"$NAMESPACE": "default"}),
    r"docker compose .*": Elsewhere("tests/deploy/dockerfile.sh", "docker compose -f deploy/compose.yaml config", "needs Docker"),
    r"docker run .*": Not("needs Docker, and an image"),
    r"cosign verify": Elsewhere(".github/workflows/image.yaml", why="needs the registry"),
    r"install -.*": Run({"0755 esms-otp-worker": "0755 $(command -v esms-otp-worker)", " /usr/": f" {ROOT}/usr/", " /etc/": f" {ROOT}/etc/"}),
    r"(systemctl|journalctl) .*": Elsewhere("tests/deploy/systemd.sh", "systemd-analyze verify", "needs systemd as root"),
}


def subcommands():
    shown = subprocess.run(["esms-otp-worker", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  ([a-z-]+)  ", shown, re.M)) - {"help"}


def first_word(command):
    return next((word for word in command.split() if not re.match(r"[A-Z_]+=", word)), "")


def commands_of(text, own):
    """The commands of a page, in order."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.M | re.S):
        if language in ("sh", "bash"):
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            without_comments = [re.sub(r"(^|\s+)# .*", "", line).strip() for line in lines]
            # A function is what it calls.
            yield from (re.sub(r"^\w+\(\) \{ (.*); \}$", r"\1", line) for line in without_comments if line)
        elif language == "console":  # commands after a prompt, and what they print
            yield from re.findall(r"^\$ (.*)", block, re.M)
        elif language not in OTHER_LANGUAGES:
            yield f"a block of the language {language!r}, which is not known here"
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)):
        if " " not in span:  # a name
            continue
        if first_word(span) in PROGRAMS:
            yield span.replace("\\|", "|")
        elif first_word(span) in own:
            yield f"esms-otp-worker {span}"


def rule_of(command):
    return next((pattern for pattern in RULES if re.fullmatch(pattern, command)), None)


def main():
    own, found, wrong = subcommands(), {}, 0
    for page in PAGES:
        for command in commands_of(pathlib.Path(page).read_text(), own):
            found.setdefault(command, page)
    for folder in ("usr/local/bin", "etc/systemd/system"):
        pathlib.Path(ROOT, folder).mkdir(parents=True)
    for name, text in FILES.items():
        pathlib.Path(OWN, name).write_text(text)
    order = list(RULES)
    for command in sorted(found, key=lambda command: order.index(rule_of(command)) if rule_of(command) else -1):
        pattern = rule_of(command)
        how = RULES.get(pattern)
        if isinstance(how, Stub) and not shutil.which("kubectl"):
            how = Not("kubectl is not here; make deploy-check brings it")
        why = how.tried(command) if how else f"no rule of {sys.argv[0]} knows it"
        named = {Run: "run", Stub: "run without a cluster", Parsed: "parsed", Elsewhere: f"in {getattr(how, 'file', '')}", Not: "not run"}.get(type(how), "")
        reason = f" ({how.why})" if getattr(how, "why", "") else ""
        print(f"{'WRONG' if why else 'ok   '} {named}{reason}: {command}" + (f"\n      {found[command]}: {why}" if why else ""))
        wrong += bool(why)
    for pattern in order:
        if not any(rule_of(command) == pattern for command in found):
            print(f"WRONG no command needs the rule {pattern}")
            wrong += 1
    logged = set(re.findall(r'\.message == "([^"]+)"', pathlib.Path("deploy/runbook.md").read_text()))
    sources = "".join(path.read_text() for path in pathlib.Path("src").rglob("*.rs"))
    for message in sorted(message for message in logged if message not in sources):
        print(f"WRONG deploy/runbook.md: no worker logs: {message}")
        wrong += 1
    print(f"{len(found)} commands, {len(logged)} messages of the log")
    return wrong > 0


sys.exit(main())

"""What must hold in the Dockerfile and the compose file beyond their schemas; a line per check."""

import re

import yaml

from settings import DEFAULTS, ROOT, VERSION, run, seconds

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
# Each stage by its name; the last one is what is built without a target.
STAGES = {s.split("\n")[0].rpartition(" ")[2]: s for s in DOCKERFILE.split("\nFROM ")[1:]}
PROGRAMS = {"sandbox": "esms-sandbox", "worker": "esms-otp-worker"}
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def the_images_have_no_shell():
    """  the images: no shell, no root, one program each, the stages on one Debian, the worker by default."""
    runtime = re.search(r"^ARG RUNTIME=(.*)", DOCKERFILE, re.MULTILINE)[1]
    builder = re.search(r"^ARG BUILDER=(.*)", DOCKERFILE, re.MULTILINE)[1]
    assert re.fullmatch(r"gcr\.io/distroless/cc-debian13:nonroot", runtime) and builder.endswith("-trixie"), \
        f"{runtime} and {builder}"
    assert list(STAGES) == ["builder", "sandbox", "worker"], str(list(STAGES))
    for stage, program in PROGRAMS.items():
        text = STAGES[stage]
        assert text.startswith("${RUNTIME} ") and "\nRUN " not in text, f"{stage}: a command, and there is no shell"
        assert re.search(r"^USER 65532:65532$", text, re.MULTILINE), f"{stage}: another user"
        assert re.findall(r"^COPY (.*)", text, re.MULTILINE) == [f"--from=builder /out/{program} /usr/local/bin/"], f"{stage} holds more, or less"
        assert f'ENTRYPOINT ["/usr/local/bin/{program}"]\n' in text, f"{stage}: another command"
        assert f"target/release/{program}" in STAGES["builder"], f"no {program}"
    assert STAGES["worker"].endswith('\nCMD ["run"]\n'), "another command"
    # Each is built on a machine of its kind: nothing may name an architecture.
    assert not re.search(r"x86_64|amd64:|aarch64|--platform", DOCKERFILE), "an architecture is named"


def the_revision_is_built_in():
    """  the images: the revision is in the program and on the images, the dependencies are as locked."""
    assert 'OTP_BUILD_REVISION="${REVISION}" cargo build' in DOCKERFILE, "not in the program"
    for stage in PROGRAMS:
        assert 'org.opencontainers.image.revision="${REVISION}"' in STAGES[stage], f"not on the image {stage}"
    builds = re.findall(r"cargo (?:build|fetch).*", DOCKERFILE)
    assert len(builds) == 3 and all("--locked" in build for build in builds), builds
    # An argument above a layer is part of what that layer is cached by.
    order = ["COPY Cargo.toml", "COPY src", "ARG REVISION", "OTP_BUILD_REVISION", "ARG SOURCE_DATE_EPOCH"]
    places = [DOCKERFILE.index(part) for part in order]
    assert places == sorted(places), f"not in the order {order}"


def the_context_is_what_is_copied():
    """  .dockerignore lets through what the Dockerfile copies, and nothing else."""
    lines = [l for l in (ROOT / ".dockerignore").read_text().splitlines() if l and not l.startswith("#")]
    copied = {word for l in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for word in l.split()}
    assert lines[0] == "*" and {l.removeprefix("!") for l in lines[1:]} == copied, f"{lines}, but {copied}"
    assert f":{VERSION} " in DOCKERFILE, "its first lines name another version"


def all_of_it_is_there():
    """  compose.yaml: all seven services, and every file they mount."""
    assert SERVICES.keys() == {"rabbitmq", "redis", "sandbox", "page", "worker", "prometheus", "grafana"}, str(SERVICES.keys())
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = ROOT / "deploy" / volume.split(":")[0]
            assert source.exists(), f"{name} mounts {source}, which is not there"


def each_image_is_its_own():
    """  compose.yaml: worker and sandbox are built each from its stage."""
    for name in PROGRAMS:
        service = SERVICES[name]
        assert service["build"]["target"] == name and service["image"] == f"esms-otp-{name}", f"{name}: {service}"
        assert "entrypoint" not in service, f"{name}: the image says what is run"


def no_more_workers_are_promised():
    """  compose.yaml: where the worker shares the sandbox's network, nothing promises several."""
    assert SERVICES["worker"]["network_mode"] == "service:sandbox", "then several may be possible: say so"
    for file in [ROOT / "README.md", *(ROOT / "deploy").rglob("*.yaml"), *(ROOT / "deploy").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        assert not re.search(r"--scale\s+worker", file.read_text()), f"{file.relative_to(ROOT)} promises --scale worker"


def nobody_outside_reaches_it():
    """  compose.yaml: every port is for this machine alone."""
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"


def the_page_is_led_to_the_sandbox():
    """  compose.yaml: the port of the sandbox's page is passed on to where the sandbox listens."""
    page = SERVICES["page"]
    assert page["network_mode"] == "service:sandbox", "the sandbox listens on loopback alone"
    listens, leads = (re.fullmatch(form, part) for form, part in
                      zip([r"TCP-LISTEN:(\d+),fork,reuseaddr", r"TCP:(127\.0\.0\.1:\d+)"], page["command"], strict=True))
    assert any(port.endswith(f":{listens[1]}") for port in SERVICES["sandbox"]["ports"]), f"nothing leads to {listens[1]}"
    program = (ROOT / "src/bin/esms-sandbox.rs").read_text()
    assert f'default_value = "{leads[1]}"' in program and "--addr" not in str(SERVICES["sandbox"]["command"]), f"the sandbox is not at {leads[1]}"


def the_worker_is_well_set():
    """  compose.yaml: every variable of the worker is a setting, it has time to stop, and its health is asked."""
    worker = SERVICES["worker"]
    unknown = worker["environment"].keys() - DEFAULTS.keys()
    assert not unknown, f"{sorted(unknown)}, which `--help` does not have"
    grace = worker["environment"].get("OTP_SHUTDOWN_GRACE", DEFAULTS["OTP_SHUTDOWN_GRACE"])
    assert worker["healthcheck"]["test"] == ["CMD", "/usr/local/bin/esms-otp-worker", "health"], "there is no shell that could ask /livez"
    assert seconds(worker["stop_grace_period"]) >= seconds(grace) + 5, f"{worker['stop_grace_period']} for a worker that takes up to {grace}"


def prometheus_finds_the_worker():
    """  compose.yaml: Prometheus's targets are names in it, and its settings and the dashboard lie where they are looked for."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    # A service in another's network has no name of its own, and the other may have several.
    names = {name for name, service in SERVICES.items() if "network_mode" not in service}
    names |= set(SERVICES["sandbox"]["networks"]["default"]["aliases"])
    for job in config["scrape_configs"]:
        hosts = [t.split(":")[0] for c in job.get("static_configs", []) for t in c["targets"]]
        hosts += [n for c in job.get("dns_sd_configs", []) for n in c["names"]]
        assert hosts and set(hosts) <= names | {"localhost"}, f"{job['job_name']}: {hosts}"
    mounted = {v.split(":")[1] for v in SERVICES["grafana"]["volumes"]}
    for file in (ROOT / "deploy/grafana/provisioning/dashboards").glob("*.yaml"):
        for provider in yaml.safe_load(file.read_text())["providers"]:
            path = provider["options"]["path"]
            assert any(m == path or m.startswith(f"{path}/") for m in mounted), f"no dashboard in {path}"
    for file in (ROOT / "deploy/grafana/provisioning/datasources").glob("*.yaml"):
        for source in yaml.safe_load(file.read_text())["datasources"]:
            assert source["url"] == "http://prometheus:9090", source["url"]


def the_demonstration_finds_its_broker():
    """  compose.yaml: what tests/demo/run.sh starts from it is there."""
    script = (ROOT / "tests/demo/run.sh").read_text()
    service = re.search(r"compose up --detach --wait (\w+)\n", script)
    assert service, "it would start everything"
    broker = SERVICES[service[1]]
    assert "127.0.0.1:${RABBITMQ_PORT:-5672}:5672" in broker["ports"] and "healthcheck" in broker and "depends_on" not in broker, str(broker)


run([the_images_have_no_shell, the_revision_is_built_in, the_context_is_what_is_copied, all_of_it_is_there,
     each_image_is_its_own, no_more_workers_are_promised, nobody_outside_reaches_it, the_page_is_led_to_the_sandbox, the_worker_is_well_set,
     prometheus_finds_the_worker, the_demonstration_finds_its_broker])

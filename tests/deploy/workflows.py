"""What must hold in the workflows beyond their schema; a line per check."""

import yaml

from settings import ROOT, run

CI, IMAGE = (yaml.safe_load((ROOT / f".github/workflows/{name}.yaml").read_text()) for name in ("ci", "image"))


def needs(job):
    """A job and all that must succeed before it."""
    first = IMAGE["jobs"][job].get("needs", [])
    return {job}.union(*(needs(other) for other in ([first] if isinstance(first, str) else first)))


def the_tests_come_first():
    """every image is built, named and signed only after all of ci.yaml has passed."""
    assert IMAGE["jobs"]["tests"] == {"uses": "./.github/workflows/ci.yaml"}, str(IMAGE["jobs"]["tests"])
    # YAML takes the key `on` for a truth value.
    assert "workflow_call" in CI[True], "ci.yaml cannot be called"
    assert "make deploy-check" in (ROOT / ".ci/run").read_text(), ".ci/run does not run deploy-check"
    assert any(s.get("run") == ".ci/run" for s in CI["jobs"]["tests"]["steps"]), "ci.yaml does not run .ci/run"
    for job in IMAGE["jobs"]:
        assert job == "tests" or "tests" in needs(job), f"{job} does not wait for the tests"


def the_images_are_whole():
    """every image is there for both architectures, with provenance, SBOM and signature."""
    matrix = IMAGE["jobs"]["build"]["strategy"]["matrix"]
    machines = {i["arch"]: i["machine"] for i in matrix["include"] if "arch" in i}
    assert machines == {"amd64": "ubuntu-24.04", "arm64": "ubuntu-24.04-arm"} and set(matrix["arch"]) == set(machines), str(machines)
    names = {i["target"]: i["name"] for i in matrix["include"] if "target" in i}
    assert set(matrix["target"]) == set(names) == {"worker", "sandbox"}, str(names)
    [built] = [s["with"] for s in IMAGE["jobs"]["build"]["steps"] if s.get("uses", "").startswith("docker/build-push-action@")]
    assert (built["platforms"], built["target"]) == ("linux/${{ matrix.arch }}", "${{ matrix.target }}"), str(built)
    assert built["provenance"] == "mode=max" and built["sbom"] is True, str(built)
    publish = IMAGE["jobs"]["publish"]
    assert set(publish["strategy"]["matrix"]["name"]) == set(names.values()), "not every image is published"
    script = publish["steps"][-1]["run"]
    for part in ['"$image-amd64" "$image-arm64"', 'cosign sign --yes --recursive "${image%:*}@$digest"']:
        assert part in script, f"no {part}"
    assert publish["permissions"] == {"packages": "write", "id-token": "write"}, str(publish["permissions"])


run([the_tests_come_first, the_images_are_whole])

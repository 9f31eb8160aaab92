#!/usr/bin/env bash
#
# The manifests: built as `kubectl apply -k` builds them, then checked object by object. Run by
# run.sh, which sees to the tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

# The oldest and the newest Kubernetes they are for.
versions=(1.32 1.37)
overlays=(try-out production)

# What checkov would have otherwise, and why not:
#   CKV_K8S_15  images are always pulled: then no worker starts while the registry is away, and a
#               version's tag is not moved.
#   CKV_K8S_43  images by digest: a digest is known only once you have built yours; the production
#               overlay says where it goes.
# One more is skipped where it applies, by annotation.
skipped=CKV_K8S_15,CKV_K8S_43

need kubectl kubernetes-client
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# The objects that Kubernetes knows, in one file; the others in a file each, by their kind.
split() {
    python3 - "$1" "$2" <<'PYTHON'
import pathlib, sys, yaml

custom = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1"}
documents = [d for d in yaml.safe_load_all(open(sys.argv[1])) if d]
out = pathlib.Path(sys.argv[2])
out.mkdir()
known = [d for d in documents if d["apiVersion"] not in custom]
(out / "known.yaml").write_text(yaml.safe_dump_all(known))
for number, document in enumerate(d for d in documents if d["apiVersion"] in custom):
    (out / f"{number}.{document['kind'].lower()}.yaml").write_text(yaml.safe_dump(document))
PYTHON
}

# It only warns of what it has no schema for.
validate() {
    local output
    output=$(kubernetes-validate -k "$1" --strict "$2" 2>&1) && ! grep -q '^WARN' <<<"$output" || {
        grep -v '^INFO' <<<"$output"
        return 1
    }
}

custom_resources() {
    local file kind
    for file in "$1"/*.*.yaml; do
        [ -e "$file" ] || continue
        kind=$(basename "$file" .yaml)
        kind=${kind#*.}
        check "  ${file##*/} is a $kind by our schema" \
            check-jsonschema --schemafile "tests/deploy/schemas/$kind.json" "$file"
    done
}

security() {
    checkov --skip-download --compact --quiet --framework kubernetes --skip-check "$skipped" --file "$1"
}

for overlay in "${overlays[@]}"; do
    rendered=$out/$overlay.yaml
    check "overlay $overlay builds" kubectl kustomize "deploy/kubernetes/overlays/$overlay" --output "$rendered"
    split "$rendered" "$out/$overlay"
    for version in "${versions[@]}"; do
        check "  valid in Kubernetes $version" validate "$version" "$out/$overlay/known.yaml"
    done
    custom_resources "$out/$overlay"
    check '  secure, by checkov' security "$rendered"
    python3 tests/deploy/kubernetes.py "$rendered"
done

if [ -e deploy/prometheus/rules.yaml ]; then
    deploy/kubernetes/prometheus-rule.sh >"$out/rule.yaml"
    check 'prometheus-rule.sh prints a PrometheusRule' \
        check-jsonschema --schemafile tests/deploy/schemas/prometheusrule.json "$out/rule.yaml"
fi

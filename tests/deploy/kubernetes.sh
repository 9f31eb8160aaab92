#!/usr/bin/env bash
#
# The manifests: built as `kubectl apply -k` builds them, then checked object by object. Run by
# run.sh, which sees to the tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/deploy/check.sh

# The oldest and the newest Kubernetes they are for.
versions=(1.32 1.37)
overlays=(try-out production example)
# Of these `alerts` and the dashboard are part of the production overlay.
components=(in-cluster-broker memory-ledger openshift otlp private-ca)

# What checkov would have otherwise, and why not:
#   CKV_K8S_15  images are always pulled: then no worker starts while the registry is away, and a
#               version's tag is not moved.
#   CKV_K8S_43  images by digest: a digest is known only once you have built yours; the production
#               overlay says where it goes.
# One more is skipped where it applies, by annotation.
skipped=CKV_K8S_15,CKV_K8S_43

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

# It leaves a file of a parser of its own in the folder for temporary ones.
security() {
    TMPDIR=$out checkov --skip-download --compact --quiet --framework kubernetes --skip-check "$skipped" --file "$1"
}

# with_components RENDERED COMPONENT...: upon the production overlay, in another namespace.
with_components() {
    local rendered=$1 folder root
    shift
    folder=$(mktemp -d -p "$out")
    root=$(realpath --relative-to="$folder" deploy/kubernetes)
    cat >"$folder/kustomization.yaml" <<YAML
namespace: elsewhere
resources: [$root/overlays/production]
components: [$(printf "$root/components/%s, " "$@")]
transformers: [$root/names]
configMapGenerator: [{name: esms-otp-worker-ca, literals: [ca.crt=made-up, tls=enable]}]
YAML
    kubectl kustomize "$folder" --output "$rendered"
}

# all_of RENDERED NAME: every check of what was built.
all_of() {
    local rendered=$1 name=$2 version
    split "$rendered" "$out/$name"
    for version in "${versions[@]}"; do
        check "  valid in Kubernetes $version" validate "$version" "$out/$name/known.yaml"
    done
    custom_resources "$out/$name"
    check '  secure, by checkov' security "$rendered"
    python3 tests/deploy/kubernetes.py "$rendered" "$name"
}

every_component() {
    local folder
    for folder in deploy/kubernetes/components/*/; do
        folder=$(basename "$folder")
        [[ " ${components[*]} alerts " == *" $folder "* ]] || { echo "nothing checks $folder"; return 1; }
    done
}

check 'the rules as an object are what prometheus-rule.sh prints' \
    diff <(deploy/kubernetes/prometheus-rule.sh) deploy/kubernetes/components/alerts/prometheusrule.yaml
check 'every component is checked' every_component
for overlay in "${overlays[@]}"; do
    check "overlay $overlay builds" kubectl kustomize "deploy/kubernetes/overlays/$overlay" --output "$out/$overlay.yaml"
    all_of "$out/$overlay.yaml" "$overlay"
done
for component in "${components[@]}"; do
    check "component $component builds upon production" with_components "$out/$component.yaml" "$component"
    all_of "$out/$component.yaml" "$component"
done
check 'all components build together' with_components "$out/all.yaml" "${components[@]}"
split "$out/all.yaml" "$out/all"
check '  valid' validate "${versions[-1]}" "$out/all/known.yaml"

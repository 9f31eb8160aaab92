#!/bin/sh
#
# The alerts of deploy/prometheus/rules.yaml as an object for Prometheus's operator. It is kept in
# components/alerts, since kustomize cannot make it; `make deploy-check` says when that is out of date.
set -eu
cat <<'OBJECT'
# Made by deploy/kubernetes/prometheus-rule.sh from deploy/prometheus/rules.yaml: change that file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: esms-otp-worker
  labels:
    app.kubernetes.io/name: esms-otp-worker
spec:
OBJECT
sed -e 's/^/  /' -e 's/ *$//' "$(dirname "$0")/../prometheus/rules.yaml"

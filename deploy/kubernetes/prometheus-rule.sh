#!/bin/sh
#
# The alerts as an object for Prometheus's operator. Not among the manifests, so that the rules are
# kept once, in deploy/prometheus/rules.yaml:
#
#   deploy/kubernetes/prometheus-rule.sh | kubectl apply -f -
set -eu
cat <<'OBJECT'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: esms-otp-worker
  namespace: esms-otp
  labels:
    app.kubernetes.io/name: esms-otp-worker
spec:
OBJECT
sed 's/^/  /' "$(dirname "$0")/../prometheus/rules.yaml"

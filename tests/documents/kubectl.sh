#!/usr/bin/env bash
#
# Stands in for kubectl where there is no cluster: the real one (KUBECTL) parses the flags, a program in the pod (after --) parses its
# own, and `logs` gives the worker's log. What needs no cluster is done.
set -euo pipefail

arguments=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do arguments+=("$1") && shift; done
[ "${arguments[0]}" = kustomize ] && [ ${#arguments[@]} -gt 1 ] && exec "$KUBECTL" "${arguments[@]}"
# The folder is left to the reader.
[ "${arguments[-1]}" != -k ] || arguments+=(.)
"$KUBECTL" "${arguments[@]}" --help >/dev/null
[ $# = 0 ] || "${2##*/}" "${@:3}" --help >/dev/null
case " ${arguments[*]} " in
*' logs '*) logs ;;
*' -f - '*) grep -q . ;;
esac

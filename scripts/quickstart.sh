#!/usr/bin/env bash
# Sets everything up in .venv and runs the main job on the example structures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

prepare_venv ""
status=0
.venv/bin/python -m mlipcluster quickstart --output runs/quickstart "$@" || status=$?
printf '\nFirst, so that these commands are found:\n  source .venv/bin/activate\n'
exit "$status"

#!/usr/bin/env bash
# Sets everything up in .venv and runs the main job on the example structures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

prepare_venv ""
exec .venv/bin/python -m mlipcluster quickstart --output runs/quickstart "$@"

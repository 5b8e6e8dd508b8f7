#!/usr/bin/env bash
# Sets everything up and runs every check: lint, format, types, floors, tests. Arguments go to pytest.
#   bash scripts/test.sh                      everything
#   bash scripts/test.sh tests/protocols -x   some of the tests
#   bash scripts/test.sh --oldest [...]       the tests with the oldest dependencies that pyproject.toml allows
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh

CHGNET=.envs/chgnet
CHGNET_REQUIREMENTS="chgnet==0.4.2 torch==2.13.0"

# An environment of CHGNet's own, with PyTorch for the CPU where such a wheel is to be had.
prepare_chgnet() {
    local uv=.venv/bin/uv wanted
    wanted=$(fingerprint "$CHGNET_REQUIREMENTS")
    if ! grep -qxF -- "$wanted" "$CHGNET/prepared" 2>/dev/null; then
        heading "building $CHGNET"
        rm -rf "$CHGNET"
        "$uv" venv --quiet --python .venv/bin/python "$CHGNET"
        local links=${PIP_FIND_LINKS:-}
        # shellcheck disable=SC2086 # the requirements are words
        UV_FIND_LINKS=${UV_FIND_LINKS:-${links// /,}} \
            "$uv" pip install --quiet --python "$CHGNET/bin/python" ${CHGNET_REQUIREMENTS}+cpu 2>/dev/null ||
            "$uv" pip install --quiet --python "$CHGNET/bin/python" $CHGNET_REQUIREMENTS ||
            { echo "could not build $CHGNET: the tests with CHGNet will not run"; return; }
        "$CHGNET/bin/python" -W ignore -c 'import chgnet.model'
        echo "$wanted" >"$CHGNET/prepared"
    fi
    export MLIPCLUSTER_TEST_CHGNET_PYTHON="$PWD/$CHGNET/bin/python"
}

# The oldest direct dependencies allowed, with the oldest Python allowed where this machine has it.
prepare_oldest() {
    local wanted
    wanted=$(fingerprint oldest)
    grep -qxF -- "$wanted" .envs/oldest/prepared 2>/dev/null && return
    heading "building .envs/oldest"
    .venv/bin/uv venv --quiet --clear --no-python-downloads --python 3.10 .envs/oldest 2>/dev/null ||
        .venv/bin/uv venv --quiet --clear --python .venv/bin/python .envs/oldest
    .venv/bin/uv pip install --quiet --python .envs/oldest/bin/python --resolution lowest-direct --editable ".[dev]"
    echo "$wanted" >.envs/oldest/prepared
}

prepare_venv dev
export PATH="$PWD/.venv/bin:$PATH"
if [ -z "${MLIPCLUSTER_TEST_CHGNET_PYTHON:-}" ]; then
    prepare_chgnet
fi
if [ "${1:-}" = --oldest ]; then
    shift
    prepare_oldest
    heading "pytest, oldest dependencies"
    exec .envs/oldest/bin/python -m pytest "$@"
fi

heading "ruff"
ruff check .
ruff format --check .
heading "mypy"
mypy
heading "import-linter"
lint-imports
heading "pytest"
exec python -m pytest "$@"

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

# Socket workers also serve models that live in Python 3.9; tested where this machine has one.
prepare_python39() {
    local folder=.envs/python39 python wanted
    python=$(find_version 3.9)
    [ -n "$python" ] || return 0
    wanted=$(fingerprint "$python")
    if ! grep -qxF -- "$wanted" "$folder/prepared" 2>/dev/null; then
        heading "building $folder"
        rm -rf "$folder"
        .venv/bin/uv venv --quiet --python "$python" "$folder"
        .venv/bin/uv pip install --quiet --python "$folder/bin/python" ase numpy || return 0
        echo "$wanted" >"$folder/prepared"
    fi
    export MLIPCLUSTER_TEST_PYTHON39="$PWD/$folder/bin/python"
}

# Workers of another Python are refused; tested with a real one where this machine has it.
find_other_python() {
    local version own
    own=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for version in 3.12 3.13 3.11 3.10 3.14; do
        [ "$version" = "$own" ] || [ -n "${MLIPCLUSTER_TEST_OTHER_PYTHON:-}" ] ||
            MLIPCLUSTER_TEST_OTHER_PYTHON=$(find_version "$version")
    done
    export MLIPCLUSTER_TEST_OTHER_PYTHON
}

# The oldest direct dependencies allowed, with the oldest Python allowed where this machine has it.
prepare_oldest() {
    local folder=.envs/oldest python wanted
    python=$(find_version 3.10)
    wanted=$(fingerprint "oldest ${python:=.venv/bin/python}")
    grep -qxF -- "$wanted" "$folder/prepared" 2>/dev/null && return
    heading "building $folder"
    rm -rf "$folder"
    .venv/bin/uv venv --quiet --python "$python" "$folder"
    .venv/bin/uv pip install --quiet --python "$folder/bin/python" --resolution lowest-direct --editable ".[dev]"
    echo "$wanted" >"$folder/prepared"
}

prepare_venv dev
export PATH="$PWD/.venv/bin:$PATH"
if [ -z "${MLIPCLUSTER_TEST_CHGNET_PYTHON:-}" ]; then
    prepare_chgnet
fi
if [ -z "${MLIPCLUSTER_TEST_PYTHON39:-}" ]; then
    prepare_python39
fi
prepare_slurm
prepare_network_tools
find_other_python
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
lint-imports --no-logo
heading "pytest"
# All of them, two files at a time: much of a test is waiting for processes to start and end.
[ $# -gt 0 ] || set -- -n 2 --dist loadfile --no-loadscope-reorder --durations=40
exec python -m pytest "$@"

# Sourced by the other scripts: a Python, a virtual environment in .venv, mlipcluster in it.
# PYTHON=… chooses the interpreter. Needs Python >= 3.10 and git, nothing else.

heading() { printf '\n== %s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The first Python that is new enough.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "no Python >= 3.10 found; install one, or name it: PYTHON=/path/to/python3 bash $0"
}

# find_version 3.9: a Python of that version, from the PATH or among pyenv's; nothing when there is none.
find_version() {
    local version path='import sys; print(sys.executable)'
    "python$1" -c "$path" 2>/dev/null && return
    for version in $(pyenv versions --bare 2>/dev/null | grep "^$1\\.[0-9]*$" | sort -rV); do
        PYENV_VERSION=$version "python$1" -c "$path" 2>/dev/null && return
    done
    return 0
}

# make_environment FOLDER: an empty environment with uv in it. pip brings uv: it knows this machine's settings.
make_environment() {
    local folder=$1 python
    python=$(find_python) || exit 1
    rm -rf "$folder"
    "$python" -m venv "$folder" >/dev/null 2>&1 || "$python" -m virtualenv --quiet "$folder" 2>/dev/null || fail \
        "$python cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)," \
        "or name another Python: PYTHON=/path/to/python3 bash $0"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.5' ||
        fail "pip could not install uv into $folder; see above"
}

# install_into FOLDER REQUIREMENT…: with uv, or with pip where uv cannot reach what pip's settings name.
install_into() {
    local python=$1/bin/python
    shift
    if ! "$python" -m uv pip install --quiet --python "$python" "$@"; then
        echo "uv could not; trying pip"
        "$python" -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

# fingerprint TEXT…: changes when the requirements, the place or the Python do.
fingerprint() { printf '%s %s %s\n' "$*" "$PWD" "$(git hash-object pyproject.toml)"; }

# prepare_venv EXTRAS: .venv with mlipcluster, editable; done again only when something changed.
prepare_venv() {
    local extras=$1 wanted
    wanted=$(fingerprint "$extras")
    if [ -x .venv/bin/python ] && grep -qxF -- "$wanted" .venv/prepared 2>/dev/null; then
        return
    fi
    heading "installing mlipcluster${extras:+ with extras $extras} into .venv"
    [ -x .venv/bin/uv ] && .venv/bin/python -c '' 2>/dev/null || make_environment .venv
    install_into .venv --editable ".${extras:+[$extras]}"
    # What has the development tools also has everything else.
    { echo "$wanted"; [ -z "$extras" ] || fingerprint ""; } >.venv/prepared
}

SLURM_PROGRAMS="munged mungekey slurmctld slurmd sbatch squeue"
SLURM_PACKAGES="slurm-wlm munge"

slurm_lacks() {
    local program
    for program in $SLURM_PROGRAMS; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || echo "$program"
    done
}

# A SLURM to test with: installed where nobody else is meant to do it, as root in CI.
prepare_slurm() {
    if [ -n "$(slurm_lacks)" ] && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; then
        heading "installing $SLURM_PACKAGES" >&2
        # shellcheck disable=SC2086 # the packages are words
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes $SLURM_PACKAGES; } >&2
    fi
}

# An SSH server to test with, and what shows the packages of a run; as for SLURM.
prepare_network_tools() {
    local packages="openssh-server openssh-client tcpdump iproute2"
    if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] &&
        ! (PATH="$PATH:/usr/sbin:/sbin" && type sshd ssh-keygen tcpdump ip >/dev/null 2>&1); then
        heading "installing $packages" >&2
        # shellcheck disable=SC2086 # the packages are words
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes $packages; } >&2
    fi
}

# Ends with the remedy where this machine cannot have a SLURM.
check_slurm() {
    local lacking
    lacking=$(slurm_lacks)
    [ -z "$lacking" ] || fail "a SLURM needs ${lacking//$'\n'/, }; as root: apt-get install $SLURM_PACKAGES"
    [ "$(id -u)" = 0 ] || fail "SLURM's daemons start jobs for their users, which takes root; run this as root"
}

# runs PIDFILE: whether that daemon does; one that nobody has reaped yet does not.
runs() {
    local state
    [ -s "$1" ] && state=$(sed 's/.*) //; s/ .*//' "/proc/$(cat "$1" 2>/dev/null)/stat" 2>/dev/null) && [ -n "$state" ] && [ "$state" != Z ]
}

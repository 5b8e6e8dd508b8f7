#!/usr/bin/env bash
# Ends the SLURM that `scripts/slurm_up.sh FOLDER` started, its jobs too, and removes FOLDER.
#   bash scripts/slurm_down.sh [FOLDER]    default: the one that SLURM_CONF names
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

WAIT=8 # seconds for jobs, and for each daemon, to end

folder=${1:-$(dirname "${SLURM_CONF:-}")}
[ -e "$folder" ] || exit 0
[ -e "$folder/slurm.conf" ] || fail "$folder holds no SLURM of slurm_up.sh: it has no slurm.conf"
folder=$(cd "$folder" && pwd)
export SLURM_CONF=$folder/slurm.conf PATH="$PATH:/usr/sbin:/sbin"

# Steps outlive their slurmd: they are asked to end while there is somebody to do it, and ended where there is not.
end_jobs() {
    local second
    runs "$folder/run/slurmctld.pid" && timeout "$WAIT" scancel --user="$(id -un)" 2>/dev/null || return 0
    for ((second = 0; second < 5 * WAIT; second++)); do
        [ -n "$(timeout "$WAIT" squeue --noheader 2>/dev/null)" ] || return 0
        sleep 0.2
    done
}

# Steps that were left without their slurmd (they work in its log folder), and what jobs were started with this SLURM.
leftovers() {
    local pid
    for pid in $(cd /proc && echo [0-9]*); do
        [ "$pid" != $$ ] || continue
        if [ "$(readlink "/proc/$pid/cwd")" = "$folder/log" ] ||
            { tr '\0' '\n' <"/proc/$pid/environ" | sort -u | grep -cxE "SLURM_CONF=$folder/slurm.conf|SLURM_JOB_ID=.*" |
                grep -qx 2; }; then
            echo "$pid"
        fi
    done 2>/dev/null
}

end_jobs
for daemon in slurmd-n1 slurmd-n2 slurmctld munged; do
    pidfile=$folder/run/$daemon.pid
    runs "$pidfile" || continue
    pid=$(cat "$pidfile")
    kill "$pid" 2>/dev/null || true
    for ((tenth = 0; tenth < 10 * WAIT; tenth++)); do
        runs "$pidfile" || continue 2
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
done
for pid in $(leftovers); do
    kill -KILL "$pid" 2>/dev/null || true
done
rm -rf "$folder"

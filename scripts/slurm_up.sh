#!/usr/bin/env bash
# Starts a real SLURM of two nodes, n1 and n2, on this machine: munge, slurmctld, two slurmd, from Debian's packages.
#   bash scripts/slurm_up.sh [FOLDER]    all its state is in FOLDER (default: a new temporary one, whose path is printed)
# Then do what it prints, `export SLURM_CONF=…`, and sbatch, squeue and the like talk to it. Several may run at a time.
# Partitions: main (both nodes, the default), gpu (n1, two GPUs that are only names), cpu (n2).
# Run again on the same FOLDER it starts what is not running. `bash scripts/slurm_down.sh FOLDER` ends it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

WAIT=60 # seconds for a daemon to answer
export PATH="$PATH:/usr/sbin:/sbin"

# free_ports N: so many that nobody listens on, drawn at random so that two of these do not draw the same.
free_ports() {
    "$(find_python)" - "$1" <<'PYTHON'
import random, socket, sys

ports = []
while len(ports) < int(sys.argv[1]):
    port = random.SystemRandom().randrange(20000, 32000)
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            continue
    if port not in ports:
        ports.append(port)
print(*ports)
PYTHON
}

write_configuration() {
    local folder=$1 host control first second node
    host=$(hostname -s)
    read -r control first second < <(free_ports 3)
    mkdir -p "$folder"/{state,log,run,n1,n2}
    chmod 755 "$folder" "$folder"/*
    mungekey --create --keyfile="$folder/munge.key"
    for node in 0 1; do
        [ -e "$folder/gpu$node" ] || mknod "$folder/gpu$node" c 1 3 # as /dev/null
    done
    cat >"$folder/gres.conf" <<END
NodeName=n1 Name=gpu File=$folder/gpu[0-1]
END
    cat >"$folder/cgroup.conf" <<END
CgroupAutomount=no
IgnoreSystemd=yes
END
    cat >"$folder/slurm.conf.part" <<END
ClusterName=mlipcluster
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,default_queue_depth=200
SlurmdParameters=config_overrides
ReturnToService=2
InactiveLimit=0
KillWait=5
UnkillableStepTimeout=20
MinJobAge=60
MessageTimeout=10
SlurmctldTimeout=30
SlurmdTimeout=15
TCPTimeout=5
Waittime=0
RebootProgram=/bin/false
GresTypes=gpu
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$first CPUs=16 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$second CPUs=16 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE DefMemPerCPU=100 OverTimeLimit=0 State=UP
PartitionName=gpu Nodes=n1 MaxTime=INFINITE DefMemPerCPU=100 OverTimeLimit=0 State=UP
PartitionName=cpu Nodes=n2 MaxTime=INFINITE DefMemPerCPU=100 OverTimeLimit=0 State=UP
END
    mv "$folder/slurm.conf.part" "$folder/slurm.conf"
}

start_daemons() {
    local folder=$1 node
    runs "$folder/run/munged.pid" || munged --force --socket="$folder/run/munge.socket" \
        --key-file="$folder/munge.key" --pid-file="$folder/run/munged.pid" --log-file="$folder/log/munged.log" \
        --seed-file="$folder/run/munged.seed" || fail "munged did not start; see above and $folder/log/munged.log"
    runs "$folder/run/slurmctld.pid" || slurmctld -i || fail "slurmctld did not start; see $folder/log/slurmctld.log"
    for node in n1 n2; do
        runs "$folder/run/slurmd-$node.pid" || slurmd -N "$node" ||
            fail "slurmd of $node did not start; see $folder/log/slurmd-$node.log"
    done
}

wait_for_nodes() {
    local folder=$1 second
    for ((second = 0; second < 5 * WAIT; second++)); do
        if [ "$(sinfo --noheader --Node --partition=main --format=%t 2>/dev/null | grep -cE '^(idle|mix|alloc)$')" = 2 ]; then
            return
        fi
        sleep 0.2
    done
    sinfo --Node --long >&2 || true
    fail "the nodes were not there within $WAIT s; see the logs in $folder/log"
}

prepare_slurm
check_slurm
folder=${1:-$(mktemp -d "${TMPDIR:-/tmp}/mlipcluster-slurm-XXXXXX")}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export SLURM_CONF=$folder/slurm.conf
[ -e "$SLURM_CONF" ] || write_configuration "$folder"
start_daemons "$folder" >&2
wait_for_nodes "$folder"
echo "export SLURM_CONF=$SLURM_CONF"

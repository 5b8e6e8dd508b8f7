"""What seven commands or so of each batch system document; whatever else they are asked for is an error.

The pages are those that the deployments' modules name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from pathlib import Path

import fake_batch as engine

QUEUES = ("batch", "gpu")
CLOCK = r"\d+:\d\d:\d\d"
USER = engine.USER


def face(system, command):
    """Do what *command* of *system* does, with this process's arguments."""
    arguments = sys.argv[1:]
    return FACES[system][command](arguments)


def parser(program, *options, **more):
    made = argparse.ArgumentParser(program, allow_abbrev=False, add_help=False)
    for option in options:
        made.add_argument(option)
    for option, how in more.items():
        made.add_argument(f"-{option}" if len(option) == 1 else f"--{option}", **how)
    return made


def fail(text, status=1):
    print(text, file=sys.stderr)
    return status


def directives(script, prefix):
    """The words of the directives at the head of a script; after the first command there are none."""
    words = []
    for line in script.splitlines():
        if line.startswith(prefix + " "):
            words += shlex.split(line[len(prefix) :])
        elif line.strip() and not line.startswith("#"):
            break
    return words


def seconds(clock):
    if not re.fullmatch(CLOCK, clock):
        raise SystemExit(f"illegal time specification: {clock}")
    hours, minutes, rest = map(int, clock.split(":"))
    return hours * 3600 + minutes * 60 + rest


def resources(texts, allowed):
    """``a=1,b=2`` of several options, names and values looked at."""
    found = {}
    for part in ",".join(texts).split(","):
        name, _, value = part.partition("=")
        if name not in allowed or not re.fullmatch(allowed[name], value):
            raise SystemExit(f"illegal resource: {part}")
        found[name] = value
    return found


def write(script):
    """The script as the system keeps it."""
    engine.FOLDER.mkdir(parents=True, exist_ok=True)
    file = engine.FOLDER / f"script-{os.getpid()}"
    file.write_text(script)
    return str(file)


def known(words):
    numbers = {str(job["number"]): job for job in engine.jobs()}
    return [(word, numbers.get(word.split(".")[0])) for word in words]


# --- PBS, Moab -------------------------------------------------------------------------------------------------------

SELECT = r"1:ncpus=\d+(:mem=\d+mb)?(:ngpus=\d+)?"
NODES = r"1:ppn=\d+(:gpus=\d+)?"


def _torque_like(program, script, allowed):
    options = parser(program, "-N", "-q", "-A", "-S", "-o", j={"choices": ["oe"]}, r={"choices": ["n"]})
    options.add_argument("-l", action="append", required=True)
    if program == "msub":
        options.add_argument("-E", action="store_true")
    asked = options.parse_args(directives(script, "#PBS"))
    if asked.q not in (None, *QUEUES):
        raise SystemExit(fail(f"{program}: Unknown queue", 170))
    return asked, resources(asked.l, allowed)


def _qsub_pbs(arguments):
    assert not arguments
    script = sys.stdin.read()
    asked, wanted = _torque_like("qsub", script, {"select": SELECT, "walltime": CLOCK})
    return _submitted(script, asked, wanted, "PBS_JOBID", "{}.server")


def _msub(arguments):
    assert not arguments
    script = sys.stdin.read()
    asked, wanted = _torque_like("msub", script, {"nodes": NODES, "mem": r"\d+mb", "walltime": CLOCK})
    assert asked.E, "without -E the job has no MOAB_JOBID"
    return _submitted(script, asked, wanted, "MOAB_JOBID", "{}")


def _submitted(script, asked, wanted, variable, form):
    number = engine.submit(
        lambda number: {
            "name": asked.N,
            "queue": asked.q or "batch",
            "command": [asked.S or "/bin/sh", write(script)],
            "cwd": os.environ["HOME"],
            "walltime": seconds(wanted["walltime"]),
            "output": asked.o,
            "variables": {
                variable: form.format(number),
                "PBS_JOBID": f"{number}.server",
                "PBS_O_WORKDIR": os.getcwd(),
                "PBS_QUEUE": asked.q or "batch",
            },
        }
    )
    print(("\n" if variable == "MOAB_JOBID" else "") + form.format(number))
    return 0


PBS_STATES = {"pending": "Q", "running": "R", "ended": "F"}


def _qstat_pbs(arguments):
    assert arguments[:2] == ["-x", "-f"]
    status = 0
    for word, job in known(arguments[2:]):
        if job is None:
            status = fail(f"qstat: Unknown Job Id {word}", 153)
            continue
        print(f"Job Id: {job['number']}.server\n    Job_Name = {job['name']}\n    Job_Owner = {job['owner']}@login")
        print(f"    job_state = {PBS_STATES[job['state']]}\n    queue = {job['queue']}")
        if job["state"] == "pending":
            print("    comment = Not Running: Insufficient amount of resource: ncpus (R: 8 A: 0 \n\tT: 8)")
        else:
            print(f"    exec_host = {engine.NODE}/0*1")
        if job["state"] == "ended" and job["how"] != "cancelled":
            kind, _, rest = job["how"].partition(" ")
            code = {"timeout": -29, "signal": 256}.get(kind, 0) + int(rest.split()[0] if rest else 0)
            print(f"    Exit_status = {code}")
        print("    Variable_List = PBS_O_HOME=/home/ada,PBS_O_LANG=C,\n\tPBS_O_PATH=/usr/bin = x\n")
    return status


def _qdel_pbs(arguments):
    status = 0
    for word, job in known(arguments):
        if job is None:
            status = fail(f"qdel: Unknown Job Id {word}", 170)
        elif not engine.cancel(job["number"]):
            status = fail(f"qdel: Job has finished {word}", 170)
    return status


def _qselect(arguments):
    asked = parser("qselect", "-u", "-N").parse_args(arguments)
    assert asked.u == USER
    for job in engine.jobs():
        if job["name"] == asked.N and job["state"] != "ended":
            print(f"{job['number']}.server")
    return 0


def _showq(arguments):
    completed = arguments[:1] == ["-c"]
    assert arguments[completed:] == ["--xml", "-w", f"user={USER}"]
    print("<Data><Object>queue</Object>", end="")
    states = {"running": "active", "pending": "eligible"} if not completed else {"ended": "completed"}
    for state, option in states.items():
        print(f'<queue count="1" option="{option}">', end="")
        for job in engine.jobs():
            if job["state"] == state:
                kind, _, rest = job["how"].partition(" ")
                code = {"cancelled": "CNCLD", "timeout": "-11"}.get(kind, rest.split()[0] if rest else "")
                ended = f' CompletionCode="{code}"' if completed else ""
                said = {"running": "Running", "pending": "Idle"}.get(state, "Completed")
                said = "Removed" if kind == "cancelled" else said
                node = "" if state == "pending" else f' MasterHost="{engine.NODE}"'
                print(
                    f'<job JobID="{job["number"]}" JobName="{job["name"]}" State="{said}"{node}{ended}></job>', end=""
                )
        print("</queue>", end="")
    print("</Data>")
    return 0


def _canceljob(arguments):
    (word,) = arguments
    ((_, job),) = known([word])
    if job is None or not engine.cancel(job["number"]):
        return fail(f"ERROR:  cannot locate job '{word}'")
    print(f"job '{word}' cancelled")
    return 0


# --- Grid Engine -----------------------------------------------------------------------------------------------------


def _qsub_sge(arguments):
    assert arguments == ["-terse"]
    script = sys.stdin.read()
    options = parser("qsub", "-N", "-q", "-P", "-S", "-o", j={"choices": ["y"]}, r={"choices": ["n"]})
    options.add_argument("-l", action="append", default=[])
    options.add_argument("-cwd", action="store_true")
    options.add_argument("-pe", nargs=2)
    asked = options.parse_args(directives(script, "#$"))
    wanted = resources(asked.l, {"h_rt": CLOCK, "mem_free": r"\d+M", "gpu": r"\d+"})
    if asked.q not in (None, *QUEUES):
        return fail(f'Unable to run job: Job was rejected because job requests unknown queue "{asked.q}".\nExiting.')
    assert asked.pe is None or asked.pe[0] == "smp"
    assert asked.cwd
    number = engine.submit(
        lambda number: {
            "name": asked.N,
            "queue": asked.q or "batch",
            "command": [asked.S, write(script)],  # without -S it would be the queue's shell, such as csh
            "cwd": os.getcwd(),
            "walltime": seconds(wanted["h_rt"]),
            "output": asked.o.replace("$JOB_ID", str(number)),
            "variables": {"JOB_ID": str(number), "QUEUE": "batch", "SGE_TASK_ID": "undefined", "JOB_NAME": asked.N},
        }
    )
    print(number)
    return 0


def _qstat_sge(arguments):
    assert arguments == ["-u", USER, "-xml"]
    rows = {"running": "", "pending": ""}
    for job in engine.jobs():
        if job["state"] in rows:
            state = {"running": "r", "pending": "qw"}[job["state"]]
            queue = f"batch@{engine.NODE}" if job["state"] == "running" else ""
            rows[job["state"]] += (
                f'<job_list state="{job["state"]}"><JB_job_number>{job["number"]}</JB_job_number>'
                f"<JB_name>{job['name']}</JB_name><JB_owner>{USER}</JB_owner><state>{state}</state>"
                f"<queue_name>{queue}</queue_name><slots>1</slots></job_list>"
            )
    print("<?xml version='1.0'?>\n<job_info  xmlns:xsd=\"http://example.org/qstat.xsd\">")
    print(f"<queue_info>{rows['running']}</queue_info><job_info>{rows['pending']}</job_info></job_info>")
    return 0


def _qacct(arguments):
    assert arguments[0] == "-j"
    ((word, job),) = known(arguments[1:])
    if job is None or job["state"] != "ended":
        return fail(f"error: job id {word} not found")
    kind, _, rest = job["how"].partition(" ")
    failed = "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit" if kind == "timeout" else "0"
    status = {"exit": 0, "signal": 128}.get(kind, 137) + int(rest.split()[0] if rest else 0)
    print("=" * 62 + f"\nqname        batch\nhostname     {engine.NODE}\njobnumber    {word}")
    print(f"failed       {failed}\nexit_status  {status}\ndeleted_by   {USER if kind == 'cancelled' else 'NONE'}")
    return 0


def _qdel_sge(arguments):
    status = 0
    for word, job in known(arguments):
        if job is None or not engine.cancel(job["number"]):
            print(f'denied: job "{word}" does not exist')
            status = 1
    return status


# --- LSF -------------------------------------------------------------------------------------------------------------


def _bsub(arguments):
    assert not arguments
    script = sys.stdin.read()
    options = parser("bsub", "-J", "-q", "-P", "-n", "-R", "-M", "-W", "-o", "-gpu")
    options.add_argument("-rn", action="store_true")
    asked = options.parse_args(directives(script, "#BSUB"))
    if asked.q not in (None, *QUEUES):
        return fail(f"{asked.q}: No such queue. Job not submitted.", 255)
    assert re.fullmatch(r"\d+:\d\d", asked.W)
    assert asked.gpu is None or re.fullmatch(r"num=\d+", asked.gpu)
    hours, minutes = map(int, asked.W.split(":"))
    number = engine.submit(
        lambda number: {
            "name": asked.J,
            "queue": asked.q or "batch",
            "command": ["/bin/sh", write(script)],
            "cwd": os.getcwd(),
            "walltime": 3600 * hours + 60 * minutes,
            "output": asked.o.replace("%J", str(number)),
            "variables": {
                "LSB_JOBID": str(number),
                "LSB_JOBINDEX": "0",
                "LSB_HOSTS": engine.NODE,
                "LSB_QUEUE": "batch",
            },
        }
    )
    print(f"Job <{number}> is submitted to queue <{asked.q or 'batch'}>.")
    return 0


LSF_STATES = {"pending": "PEND", "running": "RUN"}
LSF_REASONS = {
    "timeout": "TERM_RUNLIMIT: job killed after reaching LSF run time limit",
    "cancelled": "TERM_OWNER: job killed by owner",
}


def _bjobs(arguments):
    options = parser("bjobs", "-o", "-J")
    options.add_argument("-a", action="store_true")
    options.add_argument("-noheader", action="store_true")
    options.add_argument("ids", nargs="*")
    asked = options.parse_args(arguments)
    *fields, last = asked.o.split()
    delimiter = re.fullmatch(r"delimiter='(.)'", last)
    fields = fields if delimiter else [*fields, last]
    found = known(asked.ids) if asked.ids else [("", job) for job in engine.jobs() if job["name"] == asked.J]
    found = [(word, job) for word, job in found if job is None or asked.a or job["state"] != "ended"]
    if not found:
        return fail("No unfinished job found", 255)
    status = 0
    for word, job in found:
        if job is None:
            status = fail(f"Job <{word}> is not found", 255)
            continue
        kind, _, rest = job["how"].partition(" ")
        code = {"exit": 0, "signal": 128}.get(kind, 130) + int(rest.split()[0] if rest else 0)
        values = {
            "jobid": job["number"],
            "stat": LSF_STATES.get(job["state"], "DONE" if kind == "exit" and not code else "EXIT"),
            "first_host": "-" if job["state"] == "pending" else engine.NODE,
            "exit_code": code if job["state"] == "ended" and code else "-",
            "exit_reason": LSF_REASONS.get(kind, "-"),
            "pend_reason": "Job slot limit reached: 1 host" if job["state"] == "pending" else "-",
        }
        print((delimiter[1] if delimiter else " ").join(str(values[field]) for field in fields))
    return status


def _bkill(arguments):
    status = 0
    for word, job in known(arguments):
        if job is None:
            status = fail(f"Job <{word}>: No matching job found", 255)
        elif not engine.cancel(job["number"]):
            status = fail(f"Job <{word}>: Job has already finished", 255)
    return status


# --- HTCondor --------------------------------------------------------------------------------------------------------

CONDOR_KEYS = {
    *("output", "error", "executable", "arguments", "batch_name", "stream_output", "stream_error"),
    *("requestcpus", "requestmemory", "requestdisk", "request_gpus", "accounting_group", "transfer_executable"),
    *("periodic_remove", "job_max_vacate_time", "my.daskworkername", "my.jobid", "my.daskworkercores"),
    *("my.daskworkermemory", "my.daskworkerdisk", "my.periodicremovereason"),
}


def condor_expanded(text):
    """Macros: ``$(name)``, ``$F(name)``, ``$$(name)``; none that jobs use is defined but ``$(DOLLAR)``."""
    return re.sub(r"\$\$?\w*\((\w*)[^)]*\)", lambda m: "$" if m[1] == "DOLLAR" else "", text)


def condor_arguments(text):
    """The manual's "new syntax": the whole in double quotes, single quotes group, either is doubled to be itself."""
    assert text[0] == text[-1] == '"'
    text = text[1:-1].replace('""', "\0")
    assert '"' not in text
    words = re.findall(r"(?:[^\s']|'(?:[^']|'')*')+", text)
    return [re.sub(r"'((?:[^']|'')*)'", lambda m: m[1].replace("''", "'"), word).replace("\0", '"') for word in words]


def _condor_submit(arguments):
    assert arguments == ["-terse", "-"]
    *lines, queue = [line.strip() for line in sys.stdin.read().splitlines() if line.strip() and line[0] != "#"]
    assert queue == "Queue"
    told = {}
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip().lower() not in CONDOR_KEYS or not value.strip():
            return fail(f"ERROR: on Line 1 of submit file: unknown command {line!r}")
        told[key.strip().lower()] = value.strip()
    lasts = re.search(r"EnteredCurrentStatus > (\d+)", told["periodic_remove"])
    number = engine.submit(
        lambda number: {
            "name": told["batch_name"],
            "command": [told["executable"], *condor_arguments(condor_expanded(told["arguments"]))],
            "cwd": os.getcwd(),
            "walltime": int(lasts[1]),
            "output": told["output"].replace("$(ClusterId).$(ProcId)", f"{number}.0"),
            "error": told["error"].replace("$(ClusterId).$(ProcId)", f"{number}.0"),
            "variables": {"_CONDOR_SLOT": "slot1", "_CONDOR_JOB_AD": write(f"ClusterId = {number}\nProcId = 0\n")},
        }
    )
    print(f"{number}.0 - {number}.0")
    return 0


def _condor(ended):
    def show(arguments):
        options = parser("condor_q", "-attributes", "-constraint", "-limit")
        options.add_argument("-json", action="store_true")
        options.add_argument("ids", nargs="*")
        asked = options.parse_args(arguments)
        assert asked.json
        assert (asked.limit is None) != ended
        found = [job for _, job in known(asked.ids)] if asked.ids else engine.jobs()
        if asked.constraint:
            name = re.fullmatch(r'JobBatchName == "([^"]*)"', asked.constraint)[1]
            found = [job for job in found if job["name"] == name]
        ads = [_ad(job) for job in found if job is not None and (job["state"] == "ended") == ended]
        if ads:
            wanted = asked.attributes.split(",")
            print(json.dumps([{key: ad[key] for key in wanted if key in ad} for ad in ads]))
        return 0

    return show


def _ad(job):
    kind, _, rest = job["how"].partition(" ")
    ad = {"ClusterId": job["number"], "ProcId": 0, "JobStatus": {"pending": 1, "running": 2}.get(job["state"], 4)}
    if job["state"] != "pending":
        ad["RemoteHost" if job["state"] == "running" else "LastRemoteHost"] = f"slot1@{engine.NODE}"
    if kind in {"timeout", "cancelled"}:
        ad |= {"JobStatus": 3, "RemoveReason": "TIMEOUT" if kind == "timeout" else f"via condor_rm (by user {USER})"}
    if kind in {"exit", "signal"}:
        ad |= {"ExitBySignal": kind == "signal", "ExitCode" if kind == "exit" else "ExitSignal": int(rest.split()[0])}
    return ad


def _condor_rm(arguments):
    status = 0
    for word, job in known(arguments):
        if job is None or not engine.cancel(job["number"]):
            status = fail(f"Couldn't find/remove all jobs matching constraint (ClusterId == {word})")
    return status


# --- OAR -------------------------------------------------------------------------------------------------------------


def _oarsub(arguments):
    options = parser("oarsub", "-n", "-q", "--project", "-l", "-O", "-E", "--checkpoint", "--signal", "-p")
    options.add_argument("inline")
    asked = options.parse_args(arguments)
    if asked.q not in (None, *QUEUES):
        return fail(f"# ERROR: queue {asked.q} does not exist", 8)
    wanted = re.fullmatch(rf"/nodes=1/(?:core|gpu)=\d+,walltime=({CLOCK})", asked.l)
    assert wanted, asked.l
    number = engine.submit(
        lambda number: {
            "name": asked.n,
            "queue": asked.q or "batch",
            "command": ["/bin/bash", "-c", asked.inline],
            "cwd": os.getcwd(),
            "walltime": seconds(wanted[1]),
            "output": asked.O.replace("%jobid%", str(number)),
            "error": asked.E.replace("%jobid%", str(number)),
            "warn": int(asked.checkpoint or 0) if asked.signal == "15" else 0,
            "variables": {
                "OAR_JOB_ID": str(number),
                "OAR_JOB_NAME": asked.n,
                "OAR_NODEFILE": write(engine.NODE + "\n"),
            },
        }
    )
    print(f"OAR_JOB_ID={number}")
    return 0


OAR_EVENTS = {"timeout": ("FRAG_JOB_REQUEST", "WALLTIME"), "cancelled": ("FRAG_JOB_REQUEST",)}
OAR_STATES = {"pending": "Waiting", "running": "Running"}


def _oarstat(arguments):
    assert arguments[:2] == ["-f", "-J"]
    if arguments[2:] == ["-u"]:
        found = [job for job in engine.jobs() if job["state"] != "ended"]
    else:
        assert arguments[2] == "-j"
        found = [job for _, job in known(arguments[3:]) if job is not None]
    if not found:
        return 0
    print(json.dumps({str(job["number"]): _oar(job) for job in found}, indent=3))
    return 0


def _oar(job):
    kind, _, rest = job["how"].partition(" ")
    code = int(rest.split()[0]) if rest else 0
    return {
        "Job_Id": job["number"],
        "name": job["name"],
        "owner": job["owner"],
        "state": OAR_STATES.get(job["state"], "Error" if kind in {"timeout", "cancelled"} else "Terminated"),
        "message": f"R=1,W=2:0:0,J=B,N={job['name']} (Karma=0.1,quota_ok)",
        "events": [{"type": event, "job_id": job["number"]} for event in OAR_EVENTS.get(kind, ())],
        "assigned_network_address": [] if job["state"] == "pending" else [engine.NODE],
        "exit_code": {"exit": code << 8, "signal": code}.get(kind),
    }


def _oardel(arguments):
    for word, job in known(arguments):
        if job is None:
            return fail(f"ERROR: could not delete the job {word}: it does not exist", 1)
        print(f"Deleting the job = {word} ...")
        if not engine.cancel(job["number"]):
            return fail(f"Job {word} was already killed", 1)
    return 0


FACES = {
    "pbs": {"qsub": _qsub_pbs, "qstat": _qstat_pbs, "qdel": _qdel_pbs, "qselect": _qselect},
    "moab": {"msub": _msub, "showq": _showq, "canceljob": _canceljob},
    "sge": {"qsub": _qsub_sge, "qstat": _qstat_sge, "qdel": _qdel_sge, "qacct": _qacct},
    "lsf": {"bsub": _bsub, "bjobs": _bjobs, "bkill": _bkill},
    "htcondor": {
        "condor_submit": _condor_submit,
        "condor_q": _condor(ended=False),
        "condor_history": _condor(ended=True),
        "condor_rm": _condor_rm,
    },
    "oar": {"oarsub": _oarsub, "oarstat": _oarstat, "oardel": _oardel},
}


def install(system, folder: Path, state: Path):
    """Write the commands of *system* into *folder*, as programs."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in FACES[system]:
        program = folder / command
        program.write_text(
            f"#!/bin/sh\nFAKE_BATCH={shlex.quote(str(state))} exec {shlex.quote(sys.executable)} -c "
            f"{shlex.quote(f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})')}"
            '"\nimport fake_batch_faces\n'
            f"sys.exit(fake_batch_faces.face('{system}', '{command}'))\" \"$@\"\n"
        )
        program.chmod(0o755)


if __name__ == "__main__":
    install(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

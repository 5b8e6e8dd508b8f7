"""Which GPUs each worker of a job sees."""

from __future__ import annotations

from collections.abc import Mapping

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
"""Environment variables by which drivers of GPUs are told what a process may use."""


def handed_out(gpus: int, processes: int, environment: Mapping[str, str]) -> list[tuple[dict[str, str], int]]:
    """For each worker, the variables that show it its own GPUs, and how many these are.

    Parameters
    ----------
    gpus : int
        GPUs that the job asked for.
    processes : int
        Workers. Where there are more of them than GPUs, several share one; each GPU gets its equal part.
    environment : mapping of str to str
        The job's: what the batch system has said already is divided, names such as ``GPU-…`` and ``MIG-…`` as well.
    """
    if not gpus:
        return [({}, 0)] * processes
    said = {name: environment[name].split(",") for name in VISIBLE if environment.get(name)}
    said = said or {VISIBLE[0]: [str(number) for number in range(gpus)]}
    workers = []
    for worker in range(processes):
        shares = {name: _share(devices, worker, processes) for name, devices in said.items()}
        variables = {name: ",".join(share) for name, share in shares.items()}
        workers.append((variables, max(len(share) for share in shares.values())))
    return workers


def _share(devices: list[str], worker: int, processes: int) -> list[str]:
    """Of the worker of that number: neighbours stay together."""
    count = len(devices)
    if processes >= count:
        return [devices[worker * count // processes]]
    return devices[worker * count // processes : (worker + 1) * count // processes]

"""The values that cross between the driver and the workers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.checkpoint import Part, Saved
from mlipcluster.outputs.frame import Frame


@dataclass(frozen=True)
class TaskInfo:
    """Who am I: what a protocol learns of its call by asking for ``task``.

    Attributes
    ----------
    key : str
        Identity of the task's structure and keyword arguments, 32 hexadecimal digits.
    source : str
        Where the structure came from, e.g. ``"Cu.cif#0"``.
    replicate : int
        Number of the repeat (``nstruct``), from 0.
    step : int
        Number of the protocol in its sequence, from 0.
    lineage : tuple of int
        Which output of each earlier protocol led here.
    protocol : str
        Name of the protocol.
    calculator : str
        Name of the calculator, where there are several.
    attempt : int
        Number of the try, from 1.
    """

    key: str
    source: str
    replicate: int
    step: int
    lineage: tuple[int, ...]
    protocol: str
    calculator: str = ""
    attempt: int = 1


@dataclass(frozen=True)
class Job:
    """What all calls of one protocol in one run share.

    Attributes
    ----------
    run : str
        Identity of the run on the driver's side: a worker introduces itself once to each.
    protocol : bytes
        The protocol and the filter of its outputs (or None), cloudpickled together.
    protocol_digest : str
        SHA-256 of ``protocol``.
    calculators : mapping of str to CalculatorSpec
        By name; a single calculator has the name ``""``.
    seed : int
        Root seed of the run.
    timeout : float, optional
        Seconds that a call may take.
    memory : int, optional
        Bytes that a call, its calculators among it, may use.
    scratch_dir : str, optional
        Where scratch folders are made.
    drop_empty : bool
        Whether outputs without atoms are dropped.
    last : bool
        Whether it is the run's last protocol: nothing else works on its outputs.
    formats : tuple of str
        Formats in which its outputs are saved; the workers write their text.
    """

    run: str
    protocol: bytes
    protocol_digest: str
    calculators: Mapping[str, CalculatorSpec]
    seed: int
    timeout: float | None = None
    memory: int | None = None
    scratch_dir: str | None = None
    drop_empty: bool = True
    last: bool = True
    formats: tuple[str, ...] = ()

    @classmethod
    def asking(cls, calculators: Mapping[str, CalculatorSpec], scratch_dir: str | None = None) -> Job:
        """A job without calls: to ask a worker what it and the calculators are."""
        return cls(f"asking-{uuid.uuid4().hex[:12]}", b"", "", dict(calculators), 0, scratch_dir=scratch_dir)


@dataclass(frozen=True)
class Call:
    """One call of a protocol.

    Attributes
    ----------
    task : TaskInfo
    structure : bytes or None
        The structure, a pickled ``Atoms``: the driver hands it on without looking into it.
    kwargs : dict
        Keyword arguments of the task, with the updates of earlier protocols.
    seed : int, optional
        The seed, where it is pinned; otherwise it is drawn from the run's root seed and the place of the call.
    slot : str
        Its place in the run: no other call has it.
    needs : float
        Seconds that its worker must still be there; with less left it is handed back.
    checkpoint : Saved, optional
        Where it goes on from.
    """

    task: TaskInfo
    structure: bytes | None
    kwargs: dict[str, Any]
    seed: int | None = None
    slot: str = ""
    needs: float = 0.0
    checkpoint: Saved | None = None


@dataclass(frozen=True)
class Failure:
    """An exception, as it travels.

    Attributes
    ----------
    type_name : str
        Qualified name of its class.
    message : str
    traceback : str
    pickled : bytes, optional
        The exception itself, cloudpickled, where that was possible.
    """

    type_name: str
    message: str
    traceback: str
    pickled: bytes | None = None


@dataclass(frozen=True)
class Product:
    """One structure that a protocol gave, made ready on the worker for all that the driver does with it.

    Attributes
    ----------
    formula : str
    index : int
        Its number among all that the protocol gave, those that a filter dropped among them.
    packed : dict
        The structure with its calculator's results as JSON, bit for bit (`mlipcluster.records.packing`).
    digest : str
        SHA-256 of the same without compression, so that it does not depend on the compressor's version.
    scores : dict
    structure : bytes
        The same, pickled, for the next protocol; empty after the last.
    frames : mapping of str to Frame
        Its text in each format in which it is saved.
    parent : dict, optional
        Name and digest of the record of the output that the task's structure was read from.
    natoms : int
    """

    formula: str
    index: int
    packed: dict[str, Any]
    digest: str
    scores: dict[str, Any]
    structure: bytes = b""
    frames: Mapping[str, Frame] = field(default_factory=dict)
    parent: dict[str, str] | None = None
    natoms: int = 0


@dataclass(frozen=True)
class CallResult:
    """What came of one call.

    Attributes
    ----------
    products : tuple of Product
        Its outputs, in order.
    updates : dict
        Updates of the keyword arguments for the next protocol.
    seed : int
        The seed that was used.
    started : float
        Start, as seconds since 1970 (UTC).
    seconds : float
        Wall time; of a call that was interrupted, of all its parts together.
    introduction : str
        Which `Introduction` tells of the process that made it.
    failure : Failure, optional
    printed : str
        The end of what was printed meanwhile.
    parts : tuple of Part
        Where it was interrupted: when and how long each worker ran it.
    interrupted : bool
        The worker has to end; the call goes on from its checkpoint elsewhere.
    checkpoint : Saved, optional
        What an interrupted call saved last.
    stride : float
        Seconds between two of its saves; 0 where there was none.
    """

    seed: int
    started: float
    seconds: float
    introduction: str
    products: tuple[Product, ...] = ()
    updates: dict[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    printed: str = ""
    parts: tuple[Part, ...] = ()
    interrupted: bool = False
    checkpoint: Saved | None = None
    stride: float = 0.0


@dataclass(frozen=True)
class Introduction:
    """What a worker's protocol process says of itself, once a run and again when something in it changes.

    Attributes
    ----------
    name : str
        Digest of all the rest.
    machine : dict
        As of `mlipcluster.records.machine.describe_machine`.
    environment : dict
        The worker's environment, as JSON (`mlipcluster.environments.environment.Environment`).
    calculators : dict
        For each calculator used so far: ``{"provenance": …, "environment": …}``, both as JSON.
    """

    name: str
    machine: dict[str, Any]
    environment: dict[str, Any]
    calculators: dict[str, dict[str, Any]]

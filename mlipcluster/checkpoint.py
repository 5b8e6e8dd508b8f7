"""How a long protocol saves itself, so that it goes on elsewhere when its worker has to end.

What is saved is plain data as JSON, never a pickle. A save brings the random generators and the calculators to a state
that is the same whether the protocol then goes on here or, after :meth:`Checkpoint.load`, on another node: a run that
is interrupted at saves ends bit for bit as one that is not.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mlipcluster.deploy import ending
from mlipcluster.errors import InputError, ProtocolError
from mlipcluster.records.packing import decode, encode

HOME_SECONDS = 1.5
"""What it takes to bring the data of a call home."""
SLACK = 1.5
"""The way to the next save is taken to be so many times the longest of the last ones."""
REMEMBERED = 8


class CallInterrupted(BaseException):
    """The worker has to end; what was saved last goes on elsewhere. No error, and nothing for a protocol to catch."""


class CalculatorForgot(BaseException):
    """A calculator was started anew since the last save and has forgotten what it knew; the call goes on from there."""


@dataclass(frozen=True)
class Part:
    """A part of a call, as one worker ran it.

    Attributes
    ----------
    started : float
        Start, as seconds since 1970 (UTC).
    seconds : float
        Wall time.
    """

    started: float
    seconds: float


@dataclass(frozen=True)
class Saved:
    """What a call saved.

    Attributes
    ----------
    number : int
        Of the save in its call, from 1.
    stride : float
        Seconds from one save, or question whether to stop, to the next: the longest of the last ones.
    parts : tuple of Part
        When and how long the call ran until then.
    body : str
        Structure, state and generators as JSON text.
    """

    number: int
    stride: float
    parts: tuple[Part, ...]
    body: str


def got_on(before: Saved | None, now: Saved | None) -> bool:
    """Whether a call stands elsewhere than *before*: one that saves again what it has just loaded does not."""
    return now is not None and (before is None or now.body != before.body)


def needed(stride: float) -> float:
    """Seconds that a worker needs to be there for a call to reach its next save and for the data to get home."""
    return SLACK * stride + HOME_SECONDS


class Rhythm:
    """Learns how often a protocol saves, or asks whether to stop."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._strides: deque[float] = deque(maxlen=REMEMBERED)

    def beat(self) -> None:
        """It does now."""
        now = time.perf_counter()
        self._strides.append(now - self._last)
        self._last = now

    @property
    def stride(self) -> float:
        """The longest of the last ways, s."""
        return max(self._strides, default=0.0)


class Checkpoint:
    """What a protocol that asks for ``checkpoint`` is handed.

    It is made for each call; protocols need nothing but `save`, `load` and `should_stop`.

    Parameters
    ----------
    rng : numpy.random.Generator
        The call's own generator.
    calculators : mapping of str to SocketCalculator
        Those that were lent to the call.
    seed : int
        Of the call.
    saved : Saved, optional
        What the call saved on an earlier worker.
    keep : callable
        Takes each `Saved`.

    Attributes
    ----------
    saved : Saved or None
        The newest.
    stopped : bool
        Whether the call was interrupted: what the protocol gives after that does not count.
    gave : bool
        Whether it has given outputs already.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        calculators: Mapping[str, Any],
        seed: int,
        saved: Saved | None = None,
        keep: Callable[[Saved], None] = lambda _: None,
    ) -> None:
        self._rng = rng
        self._calculators = calculators
        self._seed = seed
        self._keep = keep
        self.saved = saved
        self.stopped = self.gave = False
        self._ignored = saved is not None
        self._earlier = saved.parts if saved is not None else ()
        self._started, self._begun = time.time(), time.perf_counter()
        self._rhythm = Rhythm()

    def save(self, atoms: Atoms, state: Any = None) -> None:
        """Keep where the protocol stands; it does not return when the worker has to end.

        The random generators go on from here; the calculators are brought to their defined state and forget their
        results, as they will have after `load` elsewhere.

        Parameters
        ----------
        atoms : Atoms
            The structure, without what a calculator found for it.
        state : object
            What else `load` is to give back: numbers, text, lists, dicts, NumPy arrays, `Atoms`.

        Raises
        ------
        ProtocolError
            Structure or state are no plain data, the protocol has given outputs already, or it goes on from an
            earlier save and did not load it.
        """
        if self.gave:
            raise ProtocolError(
                "checkpoint.save() after an output: what was given would be given again after an interruption. Give "
                "all outputs after the last save; keep them in the state until then."
            )
        if self._ignored:
            raise ProtocolError(
                "checkpoint.save() of a call that goes on from an earlier save and has not asked for it: it would "
                "begin anew each time. Call checkpoint.load() first, and go on from what it gives."
            )
        if any(getattr(calculator, "interrupted", False) for calculator in self._calculators.values()):
            raise CalculatorForgot
        body = self._packed(atoms, state)
        self._rhythm.beat()
        number = 1 if self.saved is None else self.saved.number + 1
        self.saved = Saved(number, self._rhythm.stride, self.parts(), body)
        self._keep(self.saved)
        self._define()
        if self._is_ending():
            self.stopped = True
            raise CallInterrupted

    def load(self) -> tuple[Atoms, Any] | None:
        """Go back to where the call was saved last, here or on an earlier worker.

        Returns
        -------
        (Atoms, object) or None
            Structure (without a calculator) and state; None if nothing was saved.
        """
        if self.saved is None:
            return None
        self._ignored = False
        found = decode(json.loads(self.saved.body))
        _set_generators(self._rng, found["generators"])
        self._define()
        return found["atoms"], found["state"]

    def should_stop(self) -> bool:
        """Whether the worker will end before the protocol asks again and its data are home: save now.

        Looked after in the protocol's own rhythm, so ask regularly. A protocol that is to give the same bits however
        often it is interrupted saves at fixed places instead: `save` stops by itself.
        """
        self._rhythm.beat()
        return self._is_ending()

    def parts(self) -> tuple[Part, ...]:
        """When and how long the call has run, the parts on earlier workers among it."""
        return (*self._earlier, Part(self._started, time.perf_counter() - self._begun))

    @property
    def stride(self) -> float:
        """As `Saved.stride`, by now; 0 while nothing was saved."""
        return self._rhythm.stride

    def _is_ending(self) -> bool:
        return ending.remaining() < needed(self._rhythm.stride)

    def _packed(self, atoms: Any, state: Any) -> str:
        if not isinstance(atoms, Atoms):
            raise ProtocolError(f"checkpoint.save({type(atoms).__name__}): give Atoms first, then the state.")
        try:
            packed = {
                "atoms": encode(atoms.copy(), pickles=False),
                "state": encode(state, pickles=False),
                "generators": encode(_generators(self._rng), pickles=False),
            }
        except InputError as error:
            raise ProtocolError(
                f"checkpoint.save(): {error}. It keeps plain data: what is more than that has to be made again from "
                "it after load()."
            ) from error
        return json.dumps(packed, separators=(",", ":"))

    def _define(self) -> None:
        """Bring what remembers to the state that belongs to the newest save."""
        assert self.saved is not None
        seed = int(np.random.SeedSequence(self._seed, spawn_key=(self.saved.number,)).generate_state(1)[0])
        for calculator in self._calculators.values():
            if getattr(calculator, "prepared", None) != seed:
                calculator.prepare(seed)
        torch = sys.modules.get("torch")
        if hasattr(torch, "manual_seed"):
            torch.manual_seed(seed)  # type: ignore[union-attr]


def _generators(rng: np.random.Generator) -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, key, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002 - what protocols may use
    return {
        "rng": rng.bit_generator.state,
        "spawned": getattr(rng.bit_generator.seed_seq, "n_children_spawned", 0),
        "random": [version, np.array(words, np.uint32), gauss],
        "numpy": [name, key, position, has_gauss, cached],
    }


def _set_generators(rng: np.random.Generator, states: Mapping[str, Any]) -> None:
    rng.bit_generator.state = states["rng"]
    seeds: Any = rng.bit_generator.seed_seq
    if (missing := states["spawned"] - getattr(seeds, "n_children_spawned", math.inf)) > 0:
        seeds.spawn(int(missing))
    version, words, gauss = states["random"]
    random.setstate((version, tuple(words.tolist()), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002 - as above

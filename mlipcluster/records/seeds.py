"""One root seed a run, and from it the seed of each protocol call.

Independent of order, chunks and which worker runs what: the seed of a call depends on where it stands alone, by
NumPy's :class:`~numpy.random.SeedSequence` (https://numpy.org/doc/stable/reference/random/parallel.html), whose
values NumPy promises to keep.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import struct
import sys
from functools import lru_cache

import numpy as np

from mlipcluster.errors import InputError

ROOT_BITS = 53  # every JSON reader keeps integers of 53 bits


def new_root() -> int:
    """Draw a root seed: 53 bits from the operating system."""
    return secrets.randbits(ROOT_BITS)


def call_seed(root: int, key: str, replicate: int, step: int, lineage: tuple[int, ...]) -> int:
    """Seed of one protocol call: an integer of 63 bits.

    Parameters
    ----------
    root : int
        The run's root seed, not negative.
    key : str
        The task's key (:func:`mlipcluster.records.identity.task_key`).
    replicate, step : int
        Which repetition of the task, and which protocol of the sequence.
    lineage : tuple of int
        Output index of each earlier step.
    """
    # The four words of the key and the length of the lineage keep different places from meeting in the same words.
    spawn_key = (*_words(key), replicate, step, len(lineage), *lineage)
    try:
        state = np.random.SeedSequence(root, spawn_key=spawn_key).generate_state(1, np.uint64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"seed {root!r} cannot be used ({error}); take an integer that is not negative") from error
    return int(state[0]) >> 1


def seed_everything(seed: int) -> np.random.Generator:
    """Seed ``random``, NumPy's old global generator and, if it is already imported, torch.

    Returns
    -------
    numpy.random.Generator
        A generator of its own, seeded alike: what a protocol gets as ``rng``.
    """
    random.seed(seed)
    words = np.random.SeedSequence(seed)
    np.random.seed(words.generate_state(4))  # noqa: NPY002 - ASE's own modules draw from it
    torch = sys.modules.get("torch")
    if hasattr(torch, "manual_seed"):
        torch.manual_seed(seed)  # type: ignore[union-attr]
    return np.random.Generator(np.random.PCG64(words))


@lru_cache(maxsize=1024)
def _words(key: str) -> tuple[int, int, int, int]:
    a, b, c, d = struct.unpack("<4I", hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16])
    return a, b, c, d

"""What a user holds — structures, files, dictionaries, generators — becomes tasks, one by one, as they are needed."""

from __future__ import annotations

import copy
import glob
import itertools
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread

from mlipcluster.errors import InputError, StructureError
from mlipcluster.outputs.frame import RECORD_KEY
from mlipcluster.outputs.parent import forget_record
from mlipcluster.records.identity import task_key

SMALLEST_VOLUME = 1e-6
"""Å³; a periodic cell of less is a mistake."""
MISSING_STRUCTURE = "no file matches {!r}; give the name of an existing structure file, or a pattern that matches some."


@dataclass(frozen=True)
class Task:
    """One structure with its keyword arguments, as the user handed it in.

    Attributes
    ----------
    key : str
        Identity of structure and keyword arguments, 32 hexadecimal digits; seeds depend on it, so that several
        calculators meet the same random numbers.
    source : str
        Where it came from, for people.
    structure : bytes or None
        The structure, pickled at once: whatever the user does with it afterwards, this is what was handed in.
    kwargs : dict
    replicate : int
        Number of the repeat.
    calculator : str
        Name of the calculator where there are several; otherwise ``""``.
    error : Exception, optional
        Why it cannot be run: recorded as its failure.
    natoms : int
        Size of the structure; 0 if there is none.
    """

    key: str
    source: str
    structure: bytes | None
    kwargs: dict[str, Any] = field(default_factory=dict)
    replicate: int = 0
    calculator: str = ""
    error: Exception | None = None
    natoms: int = 0

    @property
    def place(self) -> str:
        """Key, and the calculator's name where there are several: what no other task of the run has."""
        return f"{self.key}:{self.calculator}" if self.calculator else self.key

    @property
    def atoms(self) -> Atoms | None:
        """The structure."""
        return pickle.loads(self.structure) if self.structure else None  # noqa: S301 - pickled here


class TaskSource:
    """Reads the user's tasks lazily and repeats each ``nstruct`` times for each calculator.

    Parameters
    ----------
    tasks : Atoms, str, path, mapping, iterable or callable
        As `MLIPCluster` takes them.
    input_atoms : Atoms, optional
        The structure of tasks that bring none.
    nstruct : int
        Repeats of each task.
    calculators : sequence of str
        Names of the calculators that each task is run with.
    replicate : int, optional
        Run only this repeat.
    """

    def __init__(
        self,
        tasks: Any,
        *,
        input_atoms: Atoms | None = None,
        nstruct: int = 1,
        calculators: Iterable[str] = ("",),
        replicate: int | None = None,
    ) -> None:
        self._tasks = tasks
        self._input = input_atoms
        self._nstruct = nstruct
        self._calculators = tuple(calculators) or ("",)
        self._replicate = replicate
        self._spent = False
        self.duplicates: list[str] = []

    @cached_property
    def known_length(self) -> int | None:
        """Number of tasks, as far as it can be told without reading them; a file counts as one structure at least."""
        tasks = self._tasks
        if isinstance(tasks, (list, tuple)):
            count = sum(len(_matches(task)) if isinstance(task, (str, os.PathLike)) else 1 for task in tasks)
        elif isinstance(tasks, (str, os.PathLike)):
            count = len(_matches(tasks))
        elif tasks is None or isinstance(tasks, (Atoms, Mapping)):
            count = 1
        else:
            return None
        return count * (self._nstruct if self._replicate is None else 1) * len(self._calculators)

    def peek(self) -> Task | None:
        """The first task, without taking it; None if there is none."""
        if isinstance(self._tasks, Iterator) and not self._spent:
            first = list(itertools.islice(self._tasks, 1))
            self._tasks = itertools.chain(first, self._tasks)
            return next(iter(TaskSource(first, input_atoms=self._input, calculators=self._calculators)), None)
        return next(iter(self), None)

    def __iter__(self) -> Iterator[Task]:
        if isinstance(self._tasks, Iterator):
            if self._spent:
                raise InputError(
                    "the generator of tasks is spent; give a list, or a function that returns a generator."
                )
            self._spent = True
        return self._all()

    def _all(self) -> Iterator[Task]:
        self.duplicates.clear()
        seen: Counter[str] = Counter()
        for source, given in _items(self._tasks, "task"):
            task = self._read(source, given)
            # A task handed in twice is another repeat of the first: its own seed, its own outputs.
            first = seen[task.key] * self._nstruct
            seen[task.key] += 1
            if seen[task.key] == 2:
                self.duplicates.append(task.source)
            for replicate in self._replicates(task, first):
                for calculator in self._calculators:
                    yield replace(task, replicate=replicate, calculator=calculator)

    def _replicates(self, task: Task, first: int) -> Sequence[int]:
        if self._replicate is not None:
            return (self._replicate,)
        return (first,) if task.error is not None else range(first, first + self._nstruct)

    def _read(self, source: str, given: Any) -> Task:
        atoms: Atoms | None = None
        kwargs: dict[str, Any] = {}
        try:
            if isinstance(given, Exception):
                raise given
            atoms, kwargs = _split(given)
            atoms = self._input if atoms is None else atoms
            if atoms is not None:
                atoms = _normalised(atoms)
                check_structure(atoms, source)
            structure = None if atoms is None else pickle.dumps(atoms)
            return Task(task_key(atoms, kwargs), source, structure, kwargs, natoms=0 if atoms is None else len(atoms))
        except Exception as error:  # noqa: BLE001 - recorded as the failure of this task; the others go on
            # Keyed by what went wrong too: the same file, mended, is another task.
            key = task_key(None, {"source": source, "error": f"{type(error).__name__}: {error}"})
            return Task(key, source, None, error=error)


def check_structure(atoms: Atoms, source: str) -> None:
    """Refuse a structure that no calculator can take.

    Raises
    ------
    StructureError
        It has no atoms, positions or cell vectors that are not finite, or a periodic cell without volume.
    """
    if not len(atoms):
        raise StructureError(f"{source} has no atoms; leave it out or mend the file.")
    if not np.isfinite(atoms.positions).all():
        bad = int(np.argmax(~np.isfinite(atoms.positions).all(axis=1)))
        raise StructureError(
            f"{source}: the position of atom {bad} ({atoms.symbols[bad]}) is not finite; mend the structure."
        )
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise StructureError(f"{source}: the cell is not finite; mend the structure.")
    if atoms.pbc.any() and not _spans(cell[atoms.pbc]):
        raise StructureError(
            f"{source} is periodic (pbc={atoms.pbc.tolist()}), but its cell vectors there are zero or dependent; "
            "set the cell, or pbc=False."
        )


def _spans(vectors: np.ndarray) -> bool:
    """Whether cell vectors are independent."""
    if len(vectors) == 3:
        (a, b, c), (d, e, f), (g, h, i) = vectors.tolist()
        return bool(abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) > SMALLEST_VOLUME)
    return bool(np.linalg.matrix_rank(vectors) == len(vectors))


def _items(tasks: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Flatten what was handed in to (source, Atoms | mapping | exception)."""
    if isinstance(tasks, Mapping) and isinstance(name := tasks.get("atoms"), (str, os.PathLike)):
        for frame, atoms in _files(os.fspath(name)):
            yield frame, atoms if isinstance(atoms, Exception) else {**tasks, "atoms": atoms}
    elif tasks is None or isinstance(tasks, (Atoms, Mapping, Exception)):
        yield _named(tasks, source), tasks
    elif isinstance(tasks, (str, os.PathLike)):
        yield from _files(os.fspath(tasks))
    elif callable(tasks):
        yield from _items(tasks(), source)
    elif isinstance(tasks, Iterable):
        iterator = iter(tasks)
        number = 0
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                return
            # A list of lists is not meant; a list of file names and dictionaries is.
            if isinstance(item, (Atoms, Mapping, str, os.PathLike)) or item is None:
                yield from _items(item, f"{source} {number}")
            else:
                yield f"{source} {number}", InputError(_NOT_A_TASK.format(f"{source} {number}", type(item).__name__))
            number += 1
    else:
        raise InputError(_NOT_A_TASK.format("tasks", type(tasks).__name__))


_NOT_A_TASK = (
    "{}: a {} is not a task; give Atoms, a file name or pattern, a dictionary of keyword arguments, "
    "a list or generator of these, or a function that returns one."
)


def _named(given: Any, source: str) -> str:
    atoms = given.get("atoms") if isinstance(given, Mapping) else given
    return os.fspath(atoms) if isinstance(atoms, (str, os.PathLike)) else source


def _matches(pattern: str | os.PathLike[str]) -> list[str]:
    """Files that a name or pattern stands for, in the order of their names; the name itself if there is none."""
    path = os.path.expanduser(os.fspath(pattern))
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    return sorted(glob.glob(path, recursive=True))


def _files(pattern: str) -> Iterator[tuple[str, Any]]:
    """Each frame of each file that a name or pattern stands for."""
    names = _matches(pattern)
    if not names or not os.path.exists(names[0]):
        yield pattern, StructureError(MISSING_STRUCTURE.format(pattern))
        return
    for name in names:
        if os.path.isfile(name):
            yield from _frames(name)
        elif len(names) == 1:
            yield name, StructureError(f"{name} is a folder; give a pattern such as {os.path.join(name, '*.cif')!r}.")


def _frames(name: str) -> Iterator[tuple[str, Any]]:
    frame = -1
    try:
        for frame, atoms in enumerate(iread(name, index=":")):
            yield f"{Path(name).name}#{frame}", atoms
        if frame < 0:
            raise StructureError("it holds no structure")
    except Exception as error:  # noqa: BLE001 - ASE's readers raise whatever they stumble over
        text = f"{name} cannot be read as a structure: {type(error).__name__}: {error}. Mend the file or leave it out."
        failure = StructureError(text)
        failure.__cause__ = error
        yield f"{Path(name).name}#{frame + 1}", failure


def _split(given: Any) -> tuple[Atoms | None, dict[str, Any]]:
    if isinstance(given, Atoms):
        return given, {}
    kwargs = dict(given or {})
    if not all(isinstance(key, str) for key in kwargs):
        raise InputError(f"keyword arguments {list(kwargs)} are not all strings.")
    atoms = kwargs.pop("atoms", None)
    if atoms is not None and not isinstance(atoms, Atoms):
        raise InputError(f"atoms={type(atoms).__name__}: give ase.Atoms or a file name.")
    # Copied for the same reason as the structure is pickled: a generator may hand in one dictionary again and again.
    return atoms, copy.deepcopy(kwargs)


def _normalised(atoms: Atoms) -> Atoms:
    """A structure without calculator, and with ASE's space group object as the symbol it stands for."""
    group = atoms.info.get("spacegroup")
    symbol = getattr(group, "symbol", None)
    if atoms.calc is None and symbol is None and RECORD_KEY not in atoms.info:
        return atoms
    plain: Atoms = forget_record(atoms).copy()
    if symbol is not None:
        plain.info["spacegroup"] = str(symbol)
    return plain


Tasks = Atoms | str | os.PathLike[str] | Mapping[str, Any] | Iterable[Any] | Callable[[], Any]
"""What `MLIPCluster` takes as ``tasks``."""

"""Every calculator that could be served, and the source that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlipcluster.calculators.spawn import SpawnConfig
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.store.sites import PathLike, known_root

if TYPE_CHECKING:
    from pathlib import Path

BUILT_IN = "built in"


@dataclass(frozen=True)
class Known:
    """A calculator that has a name.

    Attributes
    ----------
    name : str
    source : str
        Who named it: ``"built in"``, a table, an entry point, a root.
    spec : CalculatorSpec or None
        What is started; None where a command does that.
    command : SpawnConfig or None
        The command that starts its worker.
    why : str
        What else is to be known of it.
    """

    name: str
    source: str
    spec: CalculatorSpec | None
    command: SpawnConfig | None = None
    why: str = ""


class Catalogue(dict[str, Known]):
    """Calculators by name; who comes first has the name.

    Attributes
    ----------
    complaints : list of str
        One for each source, or part of one, that could not be read; the others are there all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.complaints: list[str] = []

    def take(self, found: Iterable[Known]) -> None:
        """Add those whose names are free."""
        for one in found:
            self.setdefault(one.name, one)


Complain = Callable[[str], None]


def built_in() -> dict[str, CalculatorSpec]:
    """The calculators that everybody has a short name for."""
    return {
        "emt": CalculatorSpec("ase.calculators.emt:EMT", name="emt"),
        "lj": CalculatorSpec("ase.calculators.lj:LennardJones", name="lj"),
        # Loading the model takes seconds; its calculator keeps nothing but the last results between calls.
        "chgnet": CalculatorSpec("chgnet.model.dynamics:CHGNetCalculator", state="reset", name="chgnet"),
    }


def known(
    *,
    root: PathLike | None = None,
    cluster: str | None = None,
    tables: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Catalogue:
    """Every calculator that could be served; of several with one name the first of this order.

    Tables that are handed in; the models of a root; what is built in; entry points (:mod:`.entry_points`).

    Parameters
    ----------
    root, cluster : path or str, optional
        A root of environments, or the name of a cluster that has one; default: the one that is set.
    tables : sequence of str
        ``FILE.py:NAME`` or ``package.module:NAME``; see :mod:`.tables`.
    names : sequence of str
        Model strings of the root that are to be among them although nobody lists them (``"mace-/path/to/weights"``).

    Raises
    ------
    InputError
        A table or the root cannot be used. What else cannot be read is among the complaints.
    """
    from mlipcluster.calculators.tables import read_table

    found = Catalogue()
    for table in tables:
        found.take(read_table(table))
    place = known_root(root, cluster)
    models = None if place is None else Models(place, root or cluster, cluster)
    if models is not None:
        found.take(models.listed(found.complaints.append))
        found.take(one for name in names if name not in found and (one := models.find(name)) is not None)
    for source in SOURCES.values():
        for one in source(found.complaints.append):
            if one.name not in found:
                found.take(_of_root_or(one, models, found.complaints.append))
    return found


def by_name(name: str) -> Known | None:
    """The calculator that the first source calls so, without a look at tables, roots, or the sources after it."""
    return next((one for source in SOURCES.values() for one in source(lambda _: None) if one.name == name), None)


class Models:
    """The models of a root.

    Parameters
    ----------
    place : path
        The root.
    said : object
        Who said so; nothing where it is set.
    cluster : str, optional
        Whose environments come first.
    """

    def __init__(self, place: Path, said: object, cluster: str | None) -> None:
        from mlipcluster.calculators.stored import opened

        self._store = opened(place, said)
        self._cluster = cluster
        self._source = f"root {place}"

    def listed(self, complain: Complain) -> Iterator[Known]:
        """Those that it lists."""
        from mlipcluster.calculators.stored import catalogue

        for name in catalogue(self._store, complain):
            try:
                found = self.find(name)
            except InputError as error:
                complain(f"{self._source}: {error}")
                continue
            if found is not None:
                yield found

    def find(self, name: str) -> Known | None:
        """The one that a model string means; None where none is meant. Raises as `mlipcluster.calculators.stored`."""
        from mlipcluster.calculators.stored import find

        found = find(name, self._store, self._cluster)
        return None if found is None else Known(name, self._source, found.spec.replace(name=name))


def _of_root_or(one: Known, models: Models | None, complain: Complain) -> list[Known]:
    """What a root means by the name, if it means anything; nothing, if that cannot be served."""
    try:
        return [(None if models is None else models.find(one.name)) or one]
    except InputError as error:
        complain(f"{one.name!r} is not that of {one.source}: {error}")
        return []


def _built_in(_: Complain) -> Iterator[Known]:
    return (Known(name, BUILT_IN, spec) for name, spec in built_in().items())


def _of_entry_points(complain: Complain) -> Iterator[Known]:
    from mlipcluster.calculators.entry_points import read_entry_points

    return read_entry_points(complain)


#: Where names come from, besides tables and roots; a later source may not take a name from an earlier one.
SOURCES: dict[str, Callable[[Complain], Iterable[Known]]] = {BUILT_IN: _built_in, "entry points": _of_entry_points}

"""Calculators that installed packages offer, aserpc's among them.

An entry point leads to a function without arguments, or to a mapping::

    [project.entry-points."mlipcluster.calculators"]
    mypackage = "mypackage.calculators:get_calculators"

which gives ``{"name": {"factory": "module:callable", "args": […], "kwargs": {…}}}``, with further fields of a spec if
need be; or, of a command that starts a worker, ``{"name": {"command": […]}}``. Functions are called, factories are not
imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.module_folders import folder_of
from mlipcluster.calculators.offered import Place, offered
from mlipcluster.errors import InputError
from mlipcluster.socket_worker.factory import table_of

GROUPS = ("mlipcluster.calculators", "aserpc.calculators", "mlipcluster.spawn", "aserpc.spawn")


def read_entry_points(complain: Callable[[str], None]) -> Iterator[Known]:
    """What the installed packages offer, group by group; *complain* hears of those that cannot be read."""
    for group in GROUPS:
        for point in sorted(entry_points(group=group), key=lambda one: (one.name, one.value)):
            yield from _read(group, point, complain)


def _read(group: str, point: EntryPoint, complain: Callable[[str], None]) -> Iterator[Known]:
    package = point.dist.name if point.dist is not None else ""
    source = f"entry point {group}: {point.name}" + (f" ({package})" if package else "")
    try:
        table: Mapping[Any, Any] = table_of(point.load())
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a package's own code; the others are not to suffer
        complain(
            f"{source} cannot be read: {type(error).__name__}: {error}; correct or uninstall {package or point.value}"
        )
        return
    place = Place(source, point.module, point.attr, folder_of(point.module))
    for key, value in table.items():
        try:
            yield offered(key, value, place)
        except InputError as error:
            complain(str(error))

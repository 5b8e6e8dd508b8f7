"""What a calculator answered for structures that it has turned away from."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from ase import Atoms

from mlipcluster.calculators.snapshot import Snapshot


class Recollection:
    """Results of earlier structures, each kept as long as the user's own `Atoms` object lives."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def keep(self, atoms: Atoms, snapshot: Snapshot, results: dict[str, Any]) -> None:
        """Keep the *results* of *atoms* as they were in *snapshot*, which is copied."""
        key, owner = id(atoms), weakref.ref(self)

        def gone(_: weakref.ref[Atoms]) -> None:
            if (here := owner()) is not None:
                here.forget(key)

        self._kept[key] = _Kept(weakref.ref(atoms, gone), snapshot.copy(), results)

    def recall(self, atoms: Atoms) -> dict[str, Any] | None:
        """The results of this very object, if it is now as it was then, but for its tags."""
        kept = self._kept.get(id(atoms))
        if kept is None or kept.atoms() is not atoms or set(kept.snapshot.changes(atoms)) - {"tags"}:
            return None
        return kept.results

    def forget(self, key: int) -> None:
        """Forget the object of that `id`."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


class _Kept(NamedTuple):
    atoms: weakref.ref[Atoms]
    snapshot: Snapshot
    results: dict[str, Any]

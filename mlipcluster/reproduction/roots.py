"""A recorded calculator of a root of environments: the same model in a root that is here."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlipcluster.calculators.model_strings import choose
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.stored import Stored, find, known_models
from mlipcluster.errors import InputError
from mlipcluster.reproduction.permission import is_fixed
from mlipcluster.socket_worker.weights import SUFFIXES
from mlipcluster.store.sites import PathLike, cluster_roots, find_root, known_root
from mlipcluster.store.store import Store

_WORD = re.compile(r"[\w.+-]*")
_HARMLESS = ("device", "threads", "info_keys", "startup_timeout", "call_timeout")


@dataclass(frozen=True)
class Roots:
    """Which roots count.

    Attributes
    ----------
    root, cluster : path or str, optional
        As the caller names one; only that counts then.
    """

    root: PathLike | None = None
    cluster: str | None = None

    @property
    def asked(self) -> bool:
        """Whether the caller names one."""
        return self.root is not None or self.cluster is not None

    def resolve(self, calculator: object) -> CalculatorSpec:
        """A calculator that the caller gives, in these roots."""
        return resolve(calculator, root=self.root, cluster=self.cluster)  # type: ignore[arg-type]

    def located(self, name: str, spec: CalculatorSpec, *, trust: bool) -> CalculatorSpec:
        """A recorded calculator of a root, as it is in one that counts here.

        It is found by its model string, in the recorded build where the root has that still, else in the current one.
        Nothing else of the record is believed, but device, threads, timeouts and the like, and with *trust* further
        arguments. Whether it is the calculator that was recorded is told by their identities.

        Raises
        ------
        InputError
            No root that counts has it, or its weights are such as a record may not name without *trust*.
        """
        assert spec.build is not None
        label, reasons = name or spec.label, []
        for root in self._candidates(spec.build[0], trust=trust):
            try:
                store = Store(root)
                found = _as_recorded(spec, store) or find(spec.name, store, self.cluster)
            except InputError as error:
                reasons.append(str(error))
                continue
            if found is not None:
                if not trust:
                    _check_plain(label, found, store)
                names = (*_HARMLESS, *(("kwargs",) if trust else ()))
                return found.spec.replace(**{name: getattr(spec, name) for name in names})
            reasons.append(f"nothing in {str(root)!r} serves it")
        if trust and spec.interpreter.exists():
            return spec
        raise InputError(
            f"calculator {label!r} of the record is {spec.name!r} of the root {spec.build[0]!r}, which is not here now"
            f" ({'; '.join(reasons) or 'no root that counts'}). Build it and name its root,"
            " instance_kwargs={'root': …} (--root or --cluster on the command line), or give a calculator yourself."
        )

    def _candidates(self, recorded: str, *, trust: bool) -> Iterator[Path]:
        """The root that the caller names, alone; or this machine's, and the recorded one.

        That counts where it belongs to the user or to root, is a known cluster's, or the record is trusted. A relative
        path, and one by way of ``/proc``, could be that of a root that came along with the record.
        """
        if self.asked:
            yield find_root(self.root, self.cluster)
            return
        here = known_root()
        if here is not None:
            yield here
        known = [one.value for one in cluster_roots().values()]
        with contextlib.suppress(OSError):
            if trust or recorded in known or (is_fixed(recorded) and _owner(recorded) in (0, os.getuid())):
                yield Path(recorded)


def _owner(path: str) -> int:
    return os.stat(path).st_uid


def _check_plain(label: str, found: Stored, store: Store) -> None:
    """See that the model is one that its environment knows, and no file or address: weights can hold any code.

    Known are a checkpoint that the source lists, a model that was fetched into the root, and a plain word.
    """
    argument, source = found.choice.argument, found.choice.source
    word = _WORD.fullmatch(argument) is not None and not argument.endswith(SUFFIXES) and not os.path.exists(argument)
    if word or argument in source.checkpoints or found.model in known_models(store, source.name):
        return
    raise InputError(
        f"calculator {label!r} of the record reads its weights from {argument!r:.200}, which environment"
        f" {source.name!r} does not list and nobody has fetched. Give it yourself, instance_kwargs={{'calculator': …}}"
        " (--calculator), or, if you trust whoever wrote this file, trust=True (--trust)."
    )


def _as_recorded(spec: CalculatorSpec, store: Store) -> Stored | None:
    """The recorded model in the recorded build, if the root has that still; what it serves is its own source's word."""
    build = store.build(spec.build[1]) if spec.build is not None else None
    if build is None:
        return None
    choice = choose(spec.name, {build.source.name: build.source}, next(iter(build.source.clusters), None))
    return None if choice is None else Stored(choice, build, store.layout)

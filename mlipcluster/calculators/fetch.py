"""Weights, fetched ahead into a root's cache: the only moment at which the calculators of a root use the network.

What was fetched is in ``<root>/weights/<name>.json``::

    {
        "schema": 1,
        "models": {
            "mace-medium": {
                "build": "<digest>",
                "when": "2026-11-28T09:00:00+00:00",
                "weights": [{"path": "cache/mace/….model", "size": 1, "sha256": "…"}],
            }
        },
    }

Paths are relative to the root where they lie in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlipcluster.calculators import notes
from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.provenance import Provenance, Weight
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.stored import Stored, known_models, model_of, online
from mlipcluster.errors import CalculatorError, CalculatorStartError, InputError
from mlipcluster.store.layout import owner
from mlipcluster.store.store import Store

#: Seconds that a download may take.
PATIENCE = 24 * 3600.0
#: Nobody listens there: whoever asks for anything over HTTP is refused at once, as on a node without a network.
NOWHERE = "http://127.0.0.1:9"
CUT_OFF = {**dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), NOWHERE), "no_proxy": ""}
CUT_OFF |= {name.upper(): text for name, text in CUT_OFF.items()}


@dataclass(frozen=True)
class Fetched:
    """A model whose weights are in the root.

    Attributes
    ----------
    model : str
        Its model string.
    weights : tuple of Weight
        Files that it read, with paths relative to the root where they lie in it.
    """

    model: str
    weights: tuple[Weight, ...]


def fetch(store: Store, name: str, models: Iterable[str]) -> list[Fetched]:
    """Fetch the weights of *models* of the environment *name*, and see that each starts without a network then.

    Parameters
    ----------
    store : Store
        The root; its cache must be writable.
    name : str
        A built environment.
    models : iterable of str
        Model strings, or what follows the environment's name in them: ``["small", "medium"]``.

    Returns
    -------
    list of Fetched
        In the order of *models*; what was fetched before is read again.

    Raises
    ------
    InputError
        There is no such environment, it is not built or not of that model, or the cache cannot be written.
    CalculatorStartError
        A model does not start: with a network, or without one afterwards.
    """
    chosen = [model_of(store, name, model) for model in models]
    store.cache.mkdir(parents=True, exist_ok=True)
    if not os.access(store.cache, os.W_OK | os.X_OK):
        raise InputError(f"{str(store.cache)!r} cannot be written by you; ask its owner, {owner(store.cache)}")
    done = []
    for one in chosen:
        fetched = Fetched(one.model, tuple(_in_root(weight, store.root) for weight in _start_twice(one).weights))
        share(store.cache)
        _keep(store, one, fetched)
        done.append(fetched)
    return done


def share(cache: Path) -> None:
    """Let all who may read the cache read what is in it: downloads are often made for their owner alone."""
    mode = cache.stat().st_mode
    for folder, folders, files in os.walk(cache):
        for names, bits in ((folders, mode & 0o2077), (files, mode & 0o066)):
            for path in (os.path.join(folder, name) for name in names):
                status = os.lstat(path)
                if status.st_uid == os.getuid() and not os.path.islink(path) and status.st_mode & bits != bits:
                    os.chmod(path, status.st_mode & 0o7777 | bits)


def _start_twice(one: Stored) -> Provenance:
    """What the calculator says of itself when it has started with a network; it must start without one as well."""
    spec = one.test_spec.replace(startup_timeout=PATIENCE)
    with WorkerHost(online(spec)) as host:
        provenance = host.provenance()
    try:
        with WorkerHost(_with(spec, CUT_OFF)):
            pass
    except CalculatorError as error:
        raise CalculatorStartError(
            f"the weights of {one.model!r} were fetched, but without a network it does not start: it looks for them"
            f" elsewhere than in {one.layout.cache}, or wants more. See what its setup does:\n{error}"
        ) from error
    return provenance


def _with(spec: CalculatorSpec, variables: Mapping[str, str]) -> CalculatorSpec:
    return spec.replace(environment=[*map(list, spec.environment), *map(list, variables.items())])


def _in_root(weight: Weight, root: Path) -> Weight:
    path, top = os.path.realpath(weight.path), os.path.realpath(root)
    return replace(weight, path=os.path.relpath(path, top)) if path.startswith(os.path.join(top, "")) else weight


def _keep(store: Store, one: Stored, fetched: Fetched) -> None:
    path = store.weights_file(one.environment)
    entry = {"build": one.build.digest, "when": notes.now(), "weights": [asdict(weight) for weight in fetched.weights]}
    with notes.alone(path):
        notes.write(store.layout, path, {"models": {**known_models(store, one.environment), one.model: entry}})

"""Calculators of a root that a group shares: from a model string to a spec that runs in what was built there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlipcluster.calculators import notes
from mlipcluster.calculators.model_strings import Choice, choose, family, fits, unknown
from mlipcluster.calculators.places import OFFLINE, variables
from mlipcluster.calculators.spec import FRESH, CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.settings.values import setting
from mlipcluster.store.layout import Layout
from mlipcluster.store.source import Source
from mlipcluster.store.store import Build, Store


@dataclass(frozen=True)
class Stored:
    """A model of a root, in the build that is current for its environment.

    Attributes
    ----------
    choice : Choice
        What its model string means.
    build : Build
        Where it runs.
    layout : Layout
        The root's paths.
    """

    choice: Choice
    build: Build
    layout: Layout

    @property
    def model(self) -> str:
        """Its model string."""
        return self.choice.model

    @property
    def environment(self) -> str:
        """Name of its environment."""
        return self.choice.source.name

    @property
    def spec(self) -> CalculatorSpec:
        """The calculator: offline, with its weights from the root's cache."""
        source, folder = self.choice.source, self.layout.link(self.build.digest)  # in a record, the link tells more
        return CalculatorSpec(
            f"{source.module}:{self.choice.function}",
            args=(self.choice.argument,),
            python=str(folder / self.build.python.relative_to(self.build.folder)),
            paths=(str(folder),),
            state=source.state or FRESH,
            environment=variables(self.layout.cache),
            name=self.model,
        )

    @property
    def test_spec(self) -> CalculatorSpec:
        """The calculator with the arguments that its source gives for tests alone (``VERIFY_KWARGS``)."""
        return self.spec.replace(kwargs=dict(self.choice.source.verify_kwargs.get(self.choice.argument) or {}))


def stored(model: str, root: str | os.PathLike[str], cluster: str | None = None) -> CalculatorSpec:
    """The calculator that *model* names in a root.

    Parameters
    ----------
    model : str
        A model string; see `mlipcluster.calculators.model_strings`.
    root : path
        The root; see `mlipcluster.store.store`.
    cluster : str, optional
        Where several environments serve a model, the one for this cluster (``CLUSTERS`` of its source).

    Raises
    ------
    InputError
        There is no such root, no environment in it serves the model, or that environment is not built.
    """
    store = Store(root)
    found = find(model, store, cluster)
    if found is None:
        raise InputError(f"in root {str(store.root)!r} {unknown(model, serving(store))}")
    return found.spec


def find(model: str, store: Store, cluster: str | None = None) -> Stored | None:
    """The model that *model* names; None where no environment serves it. Raises as :func:`stored`."""
    choice = choose(model, serving(store), cluster)
    _refuse_broken(model, store, choice)
    return None if choice is None else Stored(choice, store.built(choice.source.name), store.layout)


def opened(place: Path, said: object = None) -> Store:
    """The root there; where a variable or a file named it (*said* is nothing), an error says which."""
    try:
        return Store(place)
    except InputError as error:
        if said:
            raise
        origin = setting("root").origin
        raise InputError(f"{error} ({origin} names it: correct that, or take it away to do without a root)") from error


def catalogue(store: Store, complain: Callable[[str], None]) -> Iterator[str]:
    """The model strings that a root lists; *complain* hears of the environments that it cannot serve."""
    broken = store.broken()
    for name in sorted(store.names()):
        try:
            yield from (one.model for one in models_of(store, name))
        except InputError as error:
            complain(f"root {store.root}: {broken.get(name) or error}")


def _refuse_broken(model: str, store: Store, choice: Choice | None) -> None:
    """See that *model* does not mean an environment whose source cannot be read: nothing else is to serve it then."""
    taken = "" if choice is None else choice.source.name
    if choice is not None and choice.argument in choice.source.checkpoints:
        return
    for name, why in store.broken().items():
        if fits(model, name) and len(family(name)) > len(family(taken)) and store.current(name) is None:
            raise InputError(f"environment {name!r} is not built, and its source cannot be read: {why}")


def models_of(store: Store, name: str) -> list[Stored]:
    """The models of a built environment: those that were fetched; else those that it lists; else its own name's."""
    source = store.built(name).source
    known = list(known_models(store, name)) or [one for one, upstream in source.checkpoints.items() if upstream]
    return [model_of(store, name, model) for model in known or [""]]


def model_of(store: Store, name: str, model: str) -> Stored:
    """A model of a built environment: by its model string, or by what follows the environment's name in that.

    Raises
    ------
    InputError
        There is no such environment, it is not built, or not of that model.
    """
    build = store.built(name)
    its, cluster = {name: build.source}, next(iter(build.source.clusters), None)
    word = family(name)
    choice = choose(model, its, cluster) or choose(f"{word}-{model}" if model else word, its, cluster)
    assert choice is not None  # its own name fits
    return Stored(choice, build, store.layout)


def known_models(store: Store, name: str) -> dict[str, Any]:
    """What was fetched for an environment, by model string, as its file has it (`mlipcluster.calculators.fetch`)."""
    return dict(notes.read(store.weights_file(name)).get("models", {}))


def serving(store: Store) -> dict[str, Source]:
    """The source of each environment, by name: the one that its build was made of, for that is what runs."""
    builds = {name: build for name in sorted(store.names()) if (build := store.current(name)) is not None}
    return {**store.sources(), **{name: build.source for name, build in builds.items()}}


def online(spec: CalculatorSpec) -> CalculatorSpec:
    """The same calculator, allowed to fetch its weights."""
    return spec.replace(environment=[[name, text] for name, text in spec.environment if name not in OFFLINE])

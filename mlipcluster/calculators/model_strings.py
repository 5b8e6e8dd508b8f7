"""Model strings: which environment of a root a name means, and what its ``setup`` is told.

=============================  =================  =========================================================
model string                   environment        called
=============================  =================  =========================================================
``"mace-medium"``              ``mace_env``       ``setup("medium")``
``"chgnet"``                   ``chgnet_env``     ``setup("")``
``"mace-/path/weights.pt"``    ``mace_env``       ``setup_from_path("/path/weights.pt")`` if there is one, else
                                                  ``setup("/path/weights.pt")``
``"mace-mp-0-medium"``         ``mace``           ``setup("mace-mp-0-medium")``: a key of its ``CHECKPOINTS``
=============================  =================  =========================================================

The first three are Rootstock's, the last is that of Rootstock 1.6, where an environment lists what it serves. The name
of an environment counts with ``_env`` at its end and without, and with ``-`` for ``_``; the longest that fits is meant.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlipcluster.errors import InputError
from mlipcluster.socket_worker.weights import SUFFIXES
from mlipcluster.store.source import Source

SETUP, FROM_PATH = "setup", "setup_from_path"
PATH_STARTS = ("/", "./", "../", "~")


@dataclass(frozen=True)
class Choice:
    """What a model string means.

    Attributes
    ----------
    model : str
        The string; a path in it is a full one.
    source : Source
        The environment's source.
    argument : str
        What the function is told.
    function : str
        ``"setup"`` or ``"setup_from_path"``.
    """

    model: str
    source: Source
    argument: str
    function: str = SETUP


def family(name: str) -> str:
    """The word that model strings of an environment begin with: ``"mace"`` for ``"mace_env"``."""
    return name.removesuffix("_env").replace("_", "-")


def fits(model: str, name: str) -> bool:
    """Whether *model* begins with the name of the environment *name*."""
    return any(_fits(model, word) for word in (name, family(name)))


def choose(model: str, sources: Mapping[str, Source], cluster: str | None = None) -> Choice | None:
    """What *model* means among *sources*; None when no environment's name fits.

    Parameters
    ----------
    cluster : str, optional
        Of sources that say which clusters they are for (``CLUSTERS``), those for this one count, and come first.

    Raises
    ------
    InputError
        Several environments fit equally well, weights are not there, or the environment does not know the checkpoint.
    """
    ours = {name: source for name, source in sources.items() if not source.clusters or cluster in source.clusters}
    listed = _one(model, [source for source in ours.values() if source.checkpoints.get(model) is not None])
    if listed is not None:
        return Choice(model, listed, model)
    fits = [(word, source) for name, source in ours.items() for word in {name, family(name)} if _fits(model, word)]
    longest = max((len(word) for word, _ in fits), default=0)
    best = [(word, source) for word, source in fits if len(word) == longest]
    source = _one(model, [source for _, source in best])
    return None if source is None else _told(model, source, model[longest + 1 :])


def unknown(model: str, sources: Mapping[str, Source]) -> str:
    """Why *model* means nothing among *sources*, and what does."""
    words = sorted({word for name, source in sources.items() for word in (*examples(source), family(name))})
    close = difflib.get_close_matches(model, words, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(f"{name} ({', '.join(examples(source))})" for name, source in sorted(sources.items()))
    return f"no environment serves {model!r:.200}{meant}; its environments are {listed or 'none'}"


def examples(source: Source) -> list[str]:
    """Model strings of an environment: those that it lists, or the form that they have."""
    named = [name for name, upstream in source.checkpoints.items() if upstream is not None]
    paths = [f"{family(source.name)}-/path/of/weights"] if FROM_PATH in source.functions else []
    return [*named, *paths] or [family(source.name), f"{family(source.name)}-…"]


def _one(model: str, sources: Sequence[Source]) -> Source | None:
    """The only one; where several serve a model, the only one that is for this cluster."""
    here = [source for source in sources if source.clusters] or list(sources)
    if len({source.name for source in here}) > 1:
        names = sorted(source.name for source in here)
        raise InputError(
            f"{model!r:.200} may mean the environments {' and '.join(names)}; say which: '{names[-1]}-…', with what its"
            " setup is to be told"
        )
    return here[0] if here else None


def _fits(model: str, word: str) -> bool:
    return model == word or model.startswith(f"{word}-")


def _told(model: str, source: Source, argument: str) -> Choice:
    if _is_path(argument):
        path = os.path.abspath(os.path.expanduser(argument))
        if not os.path.exists(path):
            raise InputError(f"there are no weights {path!r} for environment {source.name!r}; correct the path")
        function = FROM_PATH if FROM_PATH in source.functions else SETUP
        return Choice(model.removesuffix(argument) + path, source, path, function)
    known = [name for name, upstream in source.checkpoints.items() if upstream is not None]
    if known and argument not in known:
        if argument or len(known) > 1:
            asked = f"no checkpoint {argument!r:.200}" if argument else "several checkpoints"
            raise InputError(f"environment {source.name!r} has {asked}; name one of {', '.join(known)}")
        argument = known[0]
    return Choice(model, source, argument)


def _is_path(argument: str) -> bool:
    """Whether weights in a file are meant: names on a hub have slashes, too, and few files' endings."""
    if "://" in argument:
        return False
    is_file = argument.endswith(SUFFIXES) and ("/" in argument or os.path.exists(argument))
    return argument.startswith(PATH_STARTS) or is_file

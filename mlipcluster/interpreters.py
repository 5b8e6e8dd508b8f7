"""What the workers' environment is, without starting any: where their interpreter is a file that is seen from here.

A worker may see more than its interpreter alone, such as folders on its ``PYTHONPATH``. So what workers told is kept
beside what was measured from here at the time; as long as the same is measured, the same is told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlipcluster.environments.measure import measure
from mlipcluster.errors import MeasureError
from mlipcluster.files import write_atomic


def environment_here(interpreters: Sequence[str | None], cache: Path, asked: int = 0) -> str | None:
    """Digest of the environment of the workers that were asked; None where they have to be asked.

    Parameters
    ----------
    interpreters : sequence of str or None
        Of each cluster's workers, where that is known.
    cache : pathlib.Path
        What `remember_environment` kept.
    asked : int
        Number of the cluster whose workers are asked.
    """
    known = _read(cache)
    told = known.get("told", {}).get(str(interpreters[asked]))
    if told is None or _measured(interpreters) != known.get("measured"):
        return None
    return str(told)


def remember_environment(told: str, interpreters: Sequence[str | None], cache: Path, asked: int = 0) -> None:
    """Keep what a worker told of its environment, for `environment_here`."""
    python, measured = interpreters[asked], _measured(interpreters)
    if python is not None and measured is not None:
        write_atomic(cache, json.dumps({"measured": measured, "told": {python: told}}, indent=1) + "\n")
    else:
        cache.unlink(missing_ok=True)


def _measured(interpreters: Sequence[str | None]) -> dict[str, str] | None:
    """Digest of each interpreter's environment as it is measured from here; None where one cannot be."""
    if any(python is None or not os.path.isfile(python) for python in interpreters):
        return None
    try:
        return {str(python): measure(python, lock=False).digest for python in sorted(set(map(str, interpreters)))}
    except MeasureError:
        return None


def _read(cache: Path) -> dict[str, Any]:
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}

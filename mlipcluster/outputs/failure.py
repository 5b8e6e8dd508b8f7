"""A failure on disk: what was asked, what went wrong, and all that is needed to see it again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlipcluster.errors import RecordError
from mlipcluster.files import write_atomic

_KIND = "mlipcluster failure"


def write_failure(folder: Path, name: str, payload: Mapping[str, Any]) -> Path:
    """Write ``<folder>/<name>.json``.

    Parameters
    ----------
    folder
        The run's folder of failures; made if need be.
    name
        Name of the failed call; characters that file names cannot hold everywhere become ``_``.
    payload
        JSON-able (values that are not: as `mlipcluster.records.packing.encode` packs them). Usual keys: ``error``
        (``type``, ``message``, ``traceback``), ``printed``, ``attempts``, ``input`` (packed ``structure`` and
        ``kwargs``), ``record`` (as far as it was known).

    Returns
    -------
    Path
        The file.
    """
    path = folder / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', name)[:200] or '_'}.json"
    text = json.dumps({"kind": _KIND, "schema": 1, "name": name, **payload}, indent=1, default=_packed)
    return write_atomic(path, text + "\n")


def read_failure(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `write_failure` wrote; packed values stay packed.

    Raises
    ------
    RecordError
        The file is not there, or is not a failure.
    """
    try:
        payload = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as a failure: {error}; run the task again") from error
    if not isinstance(payload, dict) or payload.get("kind") != _KIND:
        raise RecordError(f"{path} is not a failure that mlipcluster wrote; look into the run's 'failures' folder")
    return payload


def _packed(value: Any) -> Any:
    from mlipcluster.records.packing import encode

    return encode(value)

"""Dask's own housekeeping, slowed down: it looks at each process up to a hundred times a second.

Measured on idle processes: 5 % of a core for a worker and 2.5 % for its nanny, with these settings 0.4 % and 0.1 %
(`benchmarks/idle.py`). What is lost are Dask's statistical profile and the finest grain of its dashboard's curves.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import dask

SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


def as_variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Dask's configuration as environment variables."""
    return {"DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(v) for name, v in settings.items()}


VARIABLES = as_variables(SETTINGS)
"""The same as environment variables, for processes that are started; the user's own go before them."""


def calmly() -> AbstractContextManager[object]:
    """What is made inside, such as a scheduler, keeps to these settings."""
    return dask.config.set(SETTINGS)

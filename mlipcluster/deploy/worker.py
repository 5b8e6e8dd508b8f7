"""One Dask worker in a process of its own; its arguments are ``LIFELINE ADDRESS --spec SPEC``.

As ``dask spec``, but it ends when the driver does, however that ends. Dask's own nanny waits for ever for a scheduler
that is gone before it was reached.
"""

from __future__ import annotations

import sys

from mlipcluster.socket_worker.lifeline import die_with_parent


def main() -> None:
    """Run it, started by `python_command`; LIFELINE is the reading end of a pipe that the driver holds open."""
    die_with_parent(int(sys.argv.pop(1)))
    from distributed.cli.dask_spec import main as dask_spec

    dask_spec()

"""Entry point: ``python -s <folder> <listening socket> <lifeline pipe>``, both inherited file descriptors."""

from __future__ import annotations

import importlib.util
import os
import sys

PACKAGE = "_mlipcluster_socket_worker"


def _load_folder_as_package() -> None:
    """Load this folder under a private name and take it off the path: ``wire`` or ``serve`` may be a user's module."""
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != folder]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def _run() -> int:
    listener, lifeline = int(sys.argv[1]), int(sys.argv[2])
    _load_folder_as_package()
    importlib.import_module(PACKAGE + ".lifeline").die_with_parent(lifeline)
    try:
        serve = importlib.import_module(PACKAGE + ".serve")
    except ImportError as error:
        sys.stderr.write(f"{sys.executable} cannot host a calculator: {error}; install numpy and ase in it\n")
        return 3
    serve.serve(listener)
    return 0


if __name__ == "__main__":
    sys.exit(_run())

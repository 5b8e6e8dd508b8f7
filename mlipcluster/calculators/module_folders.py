"""Which folder a module is imported from, where a worker would not find it by itself."""

from __future__ import annotations

import os
import sys
import sysconfig


def folder_of(module: str) -> str:
    """The folder to be on a worker's path for *module*; empty where any Python of this environment finds it.

    A worker sees neither ``PYTHONPATH`` nor the working folder.
    """
    top = sys.modules.get(module.partition(".")[0])
    file = getattr(top, "__file__", None)
    if top is None or file is None:
        return ""
    folder = os.path.dirname(os.path.abspath(file))
    if hasattr(top, "__path__"):
        folder = os.path.dirname(folder)
    usual = {os.path.realpath(path) for name, path in sysconfig.get_paths().items() if name.endswith("lib")}
    real = os.path.realpath(folder)
    return "" if any(real == path or real.startswith(path + os.sep) for path in usual) else folder

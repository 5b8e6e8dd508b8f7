"""Ready-made protocols: plain functions of a structure and a calculator, as a user would write them.

Each takes ``atoms`` and ``calc``, works on the structure that it is given, and returns it with the results of
its last calculation attached and its scores in ``atoms.info``.
"""

from __future__ import annotations

from mlipcluster.protocols.eos import eos
from mlipcluster.protocols.md import md
from mlipcluster.protocols.relax import relax
from mlipcluster.protocols.single_point import single_point

__all__ = ["eos", "md", "relax", "single_point"]

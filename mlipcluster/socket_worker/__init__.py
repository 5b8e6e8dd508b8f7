"""The process that hosts a calculator, run inside the model's own Python.

Started as ``python -s <this folder>``, without Python's environment variables: it needs Python 3.9, NumPy and ASE, and
imports nothing else of mlipcluster. The other side, :mod:`mlipcluster.calculators`, shares :mod:`.wire` and
:mod:`.lifeline` with it.
"""

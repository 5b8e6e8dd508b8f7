from __future__ import annotations

import pytest

from mlipcluster.store.failures import meaning

# as uv 0.13 wrote it, with its own breaks of lines; the last as conda and pixi document
NOT_THERE = """error: No solution found when resolving dependencies
  cause: Because no-such-thing was not found in the package registry and you require no-such-thing, we can conclude that
         your requirements are unsatisfiable."""
NO_VERSION = """error: No solution found when resolving dependencies
  cause: Because only six<=1.17.0 is available and you require six>99, we can conclude that your requirements are
         unsatisfiable."""
NO_LOCAL = """  cause: Because there is no version of torch==2.13.0+cpu and you require torch==2.13.0+cpu, we can
         conclude that your requirements are unsatisfiable."""
CONTRADICTION = """error: No solution found when resolving dependencies
  cause: Because you require numpy<2 and numpy>2, we can conclude that your requirements are unsatisfiable."""
SWITCHED_OFF = """  cause: Because six was not found in the cache and you require six, we can conclude that …
  hint: Packages were unavailable because the network was disabled. When the network is disabled, registry packages"""
CONDA = "PackagesNotFoundError: The following packages are not available from current channels:\n\n  - no-such-thing\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            NOT_THERE,
            "there is no 'no-such-thing', for this Python and platform, in the index; correct that requirement",
        ),
        (NO_VERSION, "there is no version of 'six' as it is required; correct that requirement in the source"),
        (NO_LOCAL, "there is no 'torch==2.13.0+cpu', for this Python"),
        (CONTRADICTION, "the requirements contradict each other; relax one in the source"),
        (SWITCHED_OFF, "there is no way to the package index from here, or it is switched off"),
        (CONDA, "there is no 'no-such-thing', for this Python"),
        ("error: Failed to install: x\n  cause: No space left on device (os error 28)", "the disk is full; make room"),
        ("all is well", ""),
        ("", ""),
    ],
)
def test_meanings(words, says):
    assert meaning(words).startswith(says)
    assert bool(meaning(words)) is bool(says)

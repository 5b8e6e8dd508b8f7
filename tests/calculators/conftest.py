"""Calculators that misbehave, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlipcluster.calculators.spec import CalculatorSpec

TRIAL = str(Path(__file__).parent / "trial")


@pytest.fixture
def trial():
    """Specification of a calculator in ``trial/trial.py``."""

    def specify(name: str, **fields: object) -> CalculatorSpec:
        return CalculatorSpec(f"trial:{name}", paths=(TRIAL,), **{"startup_timeout": 120.0, **fields})

    return specify

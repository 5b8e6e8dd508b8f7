"""CHGNet in an environment of its own, called from Dask workers of another one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mlipcluster import CalculatorSpec, MLIPCluster, reproduce
from mlipcluster.outputs.output import problems
from mlipcluster.protocols import relax

pytestmark = [pytest.mark.chgnet, pytest.mark.slow, pytest.mark.timeout(900)]

CRYSTALS = ("Cu.cif", "NaCl.cif", "MgO.vasp", "Si.cif", "SrTiO3.json")


def test_five_crystals_are_relaxed_by_chgnet_and_one_is_identical_again(chgnet_python, examples, tmp_path):
    spec = CalculatorSpec("chgnet.model.dynamics:CHGNetCalculator", python=chgnet_python, state="reset", device="cpu")
    tasks = [{"atoms": os.fspath(examples / name), "fmax": 0.2, "steps": 3, "cell": True} for name in CRYSTALS]
    results = MLIPCluster(
        tasks, spec, output_path=tmp_path / "run", seed=1, max_workers=2, progress=False, timeout=600
    ).distribute(relax)
    assert not results.failures, results.failures[0].traceback
    assert len(results) == len(CRYSTALS)
    for output in results:
        assert not problems(output.path)
        assert -12 < output.scores["energy"] / output.scores["natoms"] < 0  # eV an atom

    output = results.outputs[-1]
    metadata = output.record["metadata"]
    model = metadata["calculators"][""]
    weights = model["provenance"]["weights"]
    assert weights
    for weight in weights:
        assert "chgnet" in weight["path"].lower()
        assert weight["sha256"] == hashlib.sha256(Path(weight["path"]).read_bytes()).hexdigest()
        assert weight["size"] == Path(weight["path"]).stat().st_size > 100_000
    packages = {package["name"]: package["version"] for package in model["environment"]["packages"]}
    assert packages["torch"] == model["provenance"]["versions"]["torch"]
    assert packages["chgnet"]
    assert "torch" not in {package["name"] for package in metadata["environment"]["packages"]}
    assert "mlipcluster" not in packages
    assert model["environment_digest"] == model["environment"]["digest"]
    assert model["environment_digest"] != output.record["instance"]["environment_digest"]
    made_by_uv = "\nuv = " in (Path(chgnet_python).parents[1] / "pyvenv.cfg").read_text()
    assert model["environment"]["manager"] == ("uv" if made_by_uv else "pip")
    assert f"torch=={packages['torch']}" in model["environment"]["lock"]

    audit = reproduce(output.path)
    assert audit.verdict == "identical", audit.text()
    assert not audit.differences
    assert "weights" in audit.checked
    assert "environment, code, weights, seeds as recorded" in audit.headline

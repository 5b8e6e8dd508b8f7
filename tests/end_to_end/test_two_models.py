"""Two models whose requirements exclude each other, built in one root, in one run, in one table."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ase.build import bulk

from mlipcluster import MLIPCluster, SocketCalculator, reproduce
from mlipcluster.protocols import relax

pytestmark = [pytest.mark.chgnet, pytest.mark.slow, pytest.mark.timeout(1800)]

# Today's NumPy and ASE, as CHGNet asks for them.
CHGNET = '''
# /// script
# requires-python = ">=3.10"
# dependencies = ["chgnet==0.4.2", "torch=={torch}", "numpy>=2", "ase>=3.26"]
# ///
"""CHGNet, whose weights come with its package."""

STATE = "reset"


def setup(model, device="cuda"):
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device=device)
'''
# An ASE from before NumPy 2, as a model that nobody keeps up any more would want it.
OLD = '''
# /// script
# requires-python = ">=3.9,<3.12"
# dependencies = ["ase==3.22.1", "numpy<2"]
# ///
"""Effective medium theory, as it was in 2021."""


def setup(model, device="cpu"):
    from ase.calculators.emt import EMT

    return EMT(asap_cutoff=model == "asap")
'''


@pytest.fixture(scope="module")
def torch_version(chgnet_python):
    """The build of PyTorch that this machine can have, ``"2.13.0+cpu"`` for example."""
    program = "from importlib.metadata import version; print(version('torch'))"
    return subprocess.run([chgnet_python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory, torch_version):
    """A root with both, built by the command line."""
    folder = tmp_path_factory.mktemp("two models")
    (folder / "chgnet_env.py").write_text(CHGNET.format(torch=torch_version).lstrip())
    (folder / "old_env.py").write_text(OLD.lstrip())
    root = folder / "the root"
    env("init", "--root", root)
    env("register", folder / "chgnet_env.py", folder / "old_env.py", "--root", root)
    env("build", "old_env", "chgnet_env", "--root", root)
    return root


def env(*arguments) -> str:
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "").replace(" ", ",")
    command = [sys.executable, "-m", "mlipcluster", "env", *map(str, arguments)]
    variables = {**os.environ, **({"UV_FIND_LINKS": links} if links else {})}
    ran = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_two_models_that_exclude_each_other_in_one_run_and_one_table(root, tmp_path):
    tasks = [{"atoms": bulk(metal, cubic=True), "fmax": 0.2, "steps": 3} for metal in ("Cu", "Ag")]
    for task in tasks:
        task["atoms"].rattle(0.1, seed=1)
    results = MLIPCluster(
        tasks,
        calculators={"chgnet": "chgnet", "old": "old-asap"},
        root=root,
        output_path=tmp_path / "run",
        seed=1,
        max_workers=1,
        progress=False,
    ).distribute(relax)
    assert not results.failures, results.failures[0].traceback

    table = results.compare("energy")
    assert list(table.columns) == ["chgnet", "old"]
    assert table.shape == (2, 2)
    assert not table.isna().any(axis=None)
    assert (abs(table["chgnet"] - table["old"]) > 1).all()  # two models indeed

    by_calculator = {output.record["instance"]["calculator"]: output for output in results}
    facts = {name: output.record["metadata"]["calculators"][name] for name, output in by_calculator.items()}
    versions = {name: fact["provenance"]["versions"] for name, fact in facts.items()}
    assert versions["old"]["ase"] == "3.22.1" != versions["chgnet"]["ase"]
    assert [versions[name]["numpy"].split(".")[0] for name in ("old", "chgnet")] == ["1", "2"]
    digests = {name: fact["environment_digest"] for name, fact in facts.items()}
    own = by_calculator["old"].record["instance"]["environment_digest"]
    assert len({own, *digests.values()}) == 3
    for name, package in (("old", "ase==3.22.1"), ("chgnet", "chgnet==0.4.2")):
        lock = facts[name]["environment"]["lock"]
        assert package in lock
        assert "--hash=sha256:" in lock
        assert f"builds/{facts[name]['environment_digest']}" not in lock
    assert facts["chgnet"]["provenance"]["devices"][0] in ("cpu", "cuda", "cuda:0")

    for output in by_calculator.values():
        audit = reproduce(output.path)
        assert audit.verdict == "identical", audit.text()
        assert not audit.differences


def test_both_are_listed_fetched_and_smoke_tested(root):
    assert "chgnet_env" in env("list", "--root", root)
    for _ in range(2):
        told = env("smoke-test", "--root", root, "--device", "cpu")
    assert told.count("identical to the known answer, bit for bit") == 2
    assert "fetched chgnet: 1 file" in env("build", "chgnet_env", "--models", "chgnet", "--root", root)
    assert "chgnet" in env("status", "--root", root)


def test_it_is_an_ordinary_calculator_too(root):
    atoms = bulk("Cu", cubic=True)
    with SocketCalculator("chgnet", root=root, device="cpu") as atoms.calc:
        assert -5 < atoms.get_potential_energy() / len(atoms) < -3

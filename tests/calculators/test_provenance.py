from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.build import bulk

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.provenance import Provenance, Weight
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.socket_worker.serve import _files_named_in


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "my weights.pt"
    path.write_bytes(b"w" * 1000)
    return path


def test_what_a_worker_says_of_itself(emt):
    with WorkerHost(emt) as host:
        provenance = host.provenance()
    assert provenance.executable == sys.executable
    assert provenance.prefix == sys.prefix
    assert provenance.python == ".".join(map(str, sys.version_info[:3]))
    assert provenance.versions["ase"] == ase.__version__
    assert provenance.versions["numpy"] == np.__version__
    assert provenance.implemented_properties[0] == "energy"
    assert provenance.threads["OMP_NUM_THREADS"] == "1"
    assert provenance.build_seconds > 0
    assert provenance.weights == ()
    assert Provenance.from_json(json.loads(json.dumps(provenance.to_json()))) == provenance


def test_weights_that_the_factory_opens(trial, weights):
    with WorkerHost(trial("ReadsWeights", args=[str(weights)])) as host:
        (weight,) = host.start().weights
    assert weight.path == str(weights)
    assert weight.size == 1000
    assert weight.sha256 == hashlib.sha256(b"w" * 1000).hexdigest()


def test_weights_that_are_opened_later(trial, tmp_path):
    path = tmp_path / "late"
    with SocketCalculator(trial("ReadsWeights", args=[str(path), True])) as calculator:
        calculator.host.start()
        assert calculator.provenance().weights == ()
        path.write_bytes(b"late")
        calculator.get_property("energy", bulk("Cu"))
        (weight,) = calculator.provenance().weights
    assert weight.sha256 == hashlib.sha256(b"late").hexdigest()


def test_one_changed_byte_is_another_hash(trial, weights):
    hashes = set()
    for content in (b"w" * 1000, b"w" * 999 + b"v"):
        weights.write_bytes(content)
        with WorkerHost(trial("ReadsWeights", args=[str(weights)])) as host:
            hashes.add(host.start().weights[0].sha256)
    assert len(hashes) == 2


def test_weights_that_were_replaced_are_told_as_they_are_now(tmp_path):
    module = tmp_path / "rereads.py"
    weights = tmp_path / "w.npy"
    np.save(weights, np.array(1.0))
    module.write_text(
        "import numpy as np\nfrom ase.calculators.lj import LennardJones\n"
        f"def build():\n    return LennardJones(epsilon=float(np.load({str(weights)!r})))\n"
    )
    spec = CalculatorSpec("rereads:build", paths=(str(tmp_path),))
    with SocketCalculator(spec) as calculator:
        atoms = bulk("Ar", cubic=True)
        atoms.calc = calculator
        calculator.prepare(1)
        first = atoms.get_potential_energy()
        before = calculator.provenance()
        np.save(weights, np.array([2.0, 3.0])[0])
        os.utime(weights, ns=(1, 1))
        calculator.prepare(1)
        after = calculator.provenance()
        atoms.positions[0] += 1e-12
        assert atoms.get_potential_energy() == pytest.approx(2 * first)
    assert [w.path for w in before.weights] == [w.path for w in after.weights] == [str(weights)]
    assert before.weights[0].sha256 != after.weights[0].sha256
    assert [c.path for c in after.code] == [str(module)]
    assert after.code[0].sha256 == hashlib.sha256(module.read_bytes()).hexdigest()


def test_arguments_that_name_a_file_are_looked_at_again_when_the_factory_runs_again(tmp_path):
    (tmp_path / "unseen.py").write_text(
        "import subprocess\nfrom ase.calculators.lj import LennardJones\n"
        "def build(path):\n"  # another process reads it: no hook sees that here
        "    return LennardJones(epsilon=float(subprocess.check_output(['cat', path])))\n"
    )
    parameters = tmp_path / "parameters"
    spec = CalculatorSpec("unseen:build", args=(str(parameters),), paths=(str(tmp_path),))
    parameters.write_text("1.0")
    hashes = []
    with SocketCalculator(spec) as calculator:
        for content in ("1.0", "2.00"):
            parameters.write_text(content)
            calculator.prepare(1)
            calculator.get_property("energy", bulk("Ar", cubic=True))
            hashes.append(calculator.provenance().weights[0].sha256)
    assert hashes == [hashlib.sha256(content).hexdigest() for content in (b"1.0", b"2.00")]


def test_a_file_that_the_calculator_writes_and_reads_is_no_weight(trial, tmp_path, cu):
    path = tmp_path / "job.out"
    with SocketCalculator(trial("WritesAndReads", args=[str(path)])) as calculator:
        told = []
        for _ in range(3):
            cu.positions += 0.1
            calculator.get_property("energy", cu)
            told.append(calculator.provenance())
    assert [weight.path for weight in told[0].weights] == [str(path)]  # one could take it for a download
    assert [provenance.weights for provenance in told[1:]] == [(), ()]
    assert [provenance.scratch for provenance in told] == [(), (str(path),), (str(path),)]
    assert Provenance.from_json(json.loads(json.dumps(told[2].to_json()))) == told[2]


def test_a_file_that_an_argument_names_by_the_users_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").write_text("weights")
    assert _files_named_in([("~/model",), {"also": "~/nothing"}]) == [str(tmp_path / "model")]


def test_the_code_of_a_calculator_under_paths(trial):
    with WorkerHost(trial("Trial")) as host:
        (module,) = host.start().code
    path = Path(__file__).parent / "trial" / "trial.py"
    content = path.read_bytes()
    assert module == Weight(str(path), len(content), hashlib.sha256(content).hexdigest())


def test_an_installed_calculator_has_no_code_of_its_own(emt):
    with WorkerHost(emt) as host:
        assert host.start().code == ()


def test_the_time_of_building_tells_no_two_apart():
    one = Provenance("3.11", "python", "prefix", code=(Weight("m.py", 1, "ab"),), build_seconds=1.0)
    other = replace(one, build_seconds=2.0)
    assert one == other
    assert one.to_json() != other.to_json()
    assert one.to_json(timing=False) == other.to_json(timing=False)
    assert Provenance.from_json(json.loads(json.dumps(one.to_json(timing=False)))) == one
    assert one != replace(one, code=(Weight("m.py", 1, "cd"),))


def test_a_provenance_from_before_code_and_scratch_were_told():
    stated = Provenance("3.11", "python", "prefix").to_json()
    del stated["code"], stated["scratch"]
    assert Provenance.from_json(stated).code == Provenance.from_json(stated).scratch == ()

from __future__ import annotations

import hashlib
import json
import os
import sys

import ase
import numpy as np
import pytest
from ase.build import bulk

from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.provenance import Provenance
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec


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

"""Scripts of other people, as they are, whose calculators are served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

NEB = """
import sys
from ase.build import add_adsorbate, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from mlipcluster import RemoteCalculator

address, kind = sys.argv[1:]

def calculator():
    return RemoteCalculator("emt", address) if kind == "served" else EMT()

slab = fcc100("Al", size=(2, 2, 3))
add_adsorbate(slab, "Au", 1.7, "hollow")
slab.center(axis=2, vacuum=4.0)
slab.set_constraint(FixAtoms(mask=[atom.tag > 1 for atom in slab]))
slab.calc = calculator()
BFGS(slab, logfile=None).run(fmax=0.05, steps=30)
initial = slab.copy()
final = slab.copy()
final[-1].x += slab.get_cell()[0, 0] / 2
images = [initial] + [initial.copy() for _ in range(5)] + [final]
for image in images:
    image.calc = calculator()
neb = NEB(images, parallel=False)
neb.interpolate()
FIRE(neb, logfile=None).run(fmax=0.1, steps=15)
print([round(float(image.get_potential_energy()), 6) for image in images])
"""

STAGE = """
import json
import sys
from ase.build import bulk
from mlipcluster import get_calculator

atoms = bulk("Cu", cubic=True)
atoms.rattle(0.1, seed=1)
with get_calculator("emt") as atoms.calc:
    json.dump({"energy": atoms.get_potential_energy(), "with": type(atoms.calc).__name__}, open(sys.argv[1], "w"))
"""


@pytest.fixture
def serve(tmp_path):
    """Run ``mlipcluster serve`` with some arguments; its process and the address."""
    running = []

    def start(*arguments):
        address = str(tmp_path / "own" / "s")
        command = [sys.executable, "-m", "mlipcluster", "serve", *arguments, "--address", address]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        running.append(process)
        begun = time.monotonic()
        while not os.path.exists(address):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() - begun < 60
            time.sleep(0.05)
        return process, address

    yield start
    for process in running:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert not (tmp_path / "own").exists()


def run(script, *arguments, **variables):
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_an_elastic_band_with_a_served_calculator_for_each_image(serve):
    _, address = serve("emt", "--max-workers", "2")
    served, _ = run(NEB, address, "served")
    here, _ = run(NEB, address, "here")
    assert json.loads(served) == pytest.approx(json.loads(here), abs=2e-6)


def test_stages_of_a_pipeline_change_by_a_variable_alone(serve, tmp_path):
    _, address = serve("emt")
    found = {}
    for use in ("true", "false"):
        run(STAGE, tmp_path / use, MLIPCLUSTER_USE_SERVE=use, MLIPCLUSTER_SERVE_ADDRESS=address)
        found[use] = json.loads((tmp_path / use).read_text())
    assert found["true"] == {**found["false"], "with": "RemoteCalculator"}
    assert found["false"]["with"] == "SocketCalculator"


def test_a_stage_that_finds_no_server_says_so_and_goes_on(tmp_path):
    nowhere = str(tmp_path / "nowhere" / "s")
    _, said = run(STAGE, tmp_path / "out", MLIPCLUSTER_SERVE_ADDRESS=nowhere)
    assert "is not served" in said
    assert nowhere in said
    assert json.loads((tmp_path / "out").read_text())["with"] == "SocketCalculator"


def test_a_stage_that_must_be_served_fails_without_a_server(tmp_path):
    nowhere = str(tmp_path / "nowhere" / "s")
    with pytest.raises(AssertionError, match="ServerGoneError"):
        run(STAGE, tmp_path / "out", MLIPCLUSTER_SERVE_ADDRESS=nowhere, MLIPCLUSTER_USE_SERVE="true")

"""One thing is changed, and `reproduce` names exactly that: nothing else, and nothing less."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mlipcluster import reproduce
from mlipcluster.errors import RecordError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILES = {
    "protocols_here.py": """
        from helpers_here import amplitude

        def shake(atoms, calc, rng):
            atoms.positions += amplitude() * rng.normal(size=atoms.positions.shape)
            atoms.calc = calc
            atoms.get_forces()
            return atoms
    """,
    "helpers_here.py": """
        def amplitude():
            return 0.01
    """,
    "springs.py": """
        import numpy as np
        from ase.calculators.calculator import Calculator, all_changes

        class Springs(Calculator):
            implemented_properties = ["energy", "forces"]

            def __init__(self, weights):
                super().__init__()
                self.k = np.fromfile(weights)

            def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
                super().calculate(atoms, properties, system_changes)
                energy = float((self.k * atoms.positions**2).sum())
                self.results = {"energy": energy, "forces": -2 * self.k * atoms.positions}
    """,
    "run.py": """
        import os
        from ase.build import bulk
        from mlipcluster import CalculatorSpec, MLIPCluster
        from protocols_here import shake

        here = os.path.dirname(os.path.abspath(__file__))
        spec = CalculatorSpec(
            "springs:Springs", args=(os.path.join(here, "springs.weights"),), paths=(here,), python=os.environ["MODEL"]
        )
        cluster = MLIPCluster(bulk("Cu", cubic=True), spec, output_path="run", seed=5, max_workers=1, progress=False)
        results = cluster.distribute(shake)
        assert not results.failures, results.failures[0].traceback
        print(results.outputs[0].path)
    """,
    "again.py": """
        import json
        import sys
        import protocols_here
        from mlipcluster import reproduce
        from mlipcluster.errors import MismatchError, RecordError

        try:
            audit = reproduce(sys.argv[1], trust=True)  # for springs:Springs, which has no short name
            told = {"verdict": audit.verdict, "differences": [str(one) for one in audit.differences]}
        except MismatchError as error:
            told = {"raised": "MismatchError", "message": str(error), "differences": error.differences}
        except RecordError as error:
            told = {"raised": "RecordError", "message": str(error), "differences": [str(error)]}
        print(json.dumps(told))
    """,
}


def environment(folder: Path) -> Path:
    """An environment that has all of this one's packages, and room for one more; its Python."""
    subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    # A .pth file may also run the ones of the other folder, which editable packages need.
    ours = sysconfig.get_path("purelib")
    (site / "packages_of_the_tests.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python


def install(python: Path, folder: Path, version: str) -> None:
    """Install a package into an environment, as a user upgrades one."""
    name = f"leaven-{version}"
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-py3-none-any.whl"
    files = {
        "leaven.py": f"VERSION = {version!r}\n",
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: leaven\nVersion: {version}\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(text)}")
        archive.writestr(f"{name}.dist-info/RECORD", "\n".join([*rows, f"{name}.dist-info/RECORD,,"]) + "\n")
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--offline", "--no-deps", "--no-index"]
    subprocess.run([*command, "--find-links", folder, "--python", python, f"leaven=={version}"], check=True)


@dataclass
class Scene:
    """An output, all that it was made with, and the way to make it again."""

    folder: Path
    python: Path
    model: Path
    output: Path

    def again(self) -> dict:
        command = [os.fspath(self.python), "-W", "error", "again.py", os.fspath(self.output)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def flip(self, path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    for name, text in FILES.items():
        (folder / name).write_text(textwrap.dedent(text))
    np.array([1.5, 2.5, 3.5]).tofile(folder / "springs.weights")
    python, model = environment(folder / "env"), environment(folder / "model env")
    for one in (python, model):
        install(one, folder / "wheels", "1.0")
    done = subprocess.run(
        [python, "-W", "error", "run.py"],
        cwd=folder,
        env={**os.environ, "MODEL": os.fspath(model)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Scene(folder, python, model, Path(done.stdout.strip()))


@pytest.fixture
def scene(made) -> Iterator[Scene]:
    """As made; whatever a test changes in it is put back."""
    before = {path: path.read_bytes() for path in [*made.folder.glob("*.*"), made.output] if path.is_file()}
    yield made
    for path, data in before.items():
        path.write_bytes(data)


def only(told: dict) -> str:
    assert told["raised"] == "MismatchError"
    (difference,) = told["differences"]
    assert "1 thing is not as recorded:" in told["message"]
    return difference


def test_nothing_changed_is_identical(scene):
    assert scene.again() == {"verdict": "identical", "differences": []}


def test_one_line_of_the_protocol(scene):
    scene.edit("protocols_here.py", "atoms.get_forces()", "atoms.get_potential_energy()")
    told = only(scene.again())
    assert told.startswith("code: protocol protocols_here:shake changed\n")
    assert [line.strip() for line in told.splitlines() if line.strip().startswith(("-  ", "+  "))] == [
        "-    atoms.get_forces()",
        "+    atoms.get_potential_energy()",
    ]
    assert "helpers_here" not in told


def test_one_line_of_a_helper_that_it_calls(scene):
    scene.edit("helpers_here.py", "0.01", "0.02")
    told = only(scene.again())
    assert told.startswith("code: what protocol protocols_here:shake uses changed\n")
    assert "helpers_here.amplitude, which it uses, changed" in told
    assert "protocols_here:shake changed" not in told


def test_one_byte_of_the_weights(scene):
    weights = scene.folder / "springs.weights"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    scene.flip(weights, 0)
    after = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert only(scene.again()) == f"weights: the calculator: springs.weights: sha256 {before} -> {after} ({weights})"


@pytest.mark.parametrize("which", ["the run", "the calculator"])
def test_one_package_of_another_version(scene, which):
    python = scene.python if which == "the run" else scene.model
    install(python, scene.folder / "wheels", "1.1")
    try:
        told = only(scene.again())
    finally:
        install(python, scene.folder / "wheels", "1.0")
    assert told.startswith(f"environment: that of {which} differs in 1 thing")
    assert told.splitlines()[1:] == ["    leaven 1.0 -> 1.1"]


def test_one_byte_of_the_output(scene):
    data = scene.output.read_bytes()
    frame = data.index(b"\nCu ")
    places = {
        "structure text": data.index(b".", frame) + 3,
        "metadata.protocols": data.index(b"helpers_here") + 1,
        "instance.seed": data.index(b'seed\\":5') + len(b'seed\\":'),
        "scores": data.index(b'natoms\\":4') + len(b'natoms\\":'),
    }
    for part, at in places.items():
        scene.flip(scene.output, at)
        with pytest.raises(RecordError) as caught:
            reproduce(scene.output)
        scene.output.write_bytes(data)
        assert part in str(caught.value)
        assert scene.output.name in str(caught.value)
        assert not [other for other in places if other != part and other in str(caught.value)]

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from ase.calculators import emt as in_process

from mlipcluster import MLIPCluster
from mlipcluster.calculators.host import WorkerHost
from mlipcluster.calculators.places import CACHES, OFFLINE, PLACES, WRITTEN
from mlipcluster.calculators.registry import resolve
from mlipcluster.calculators.socket_calculator import SocketCalculator
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.calculators.stored import online, stored
from mlipcluster.errors import CalculatorStartError, InputError

EMT = """
def setup(model, device="cuda"):
    from ase.calculators.emt import EMT

    calculator = EMT()
    calculator.device = device
    return calculator
"""
HOSTILE = 'it\'s "the"\nroot'


@pytest.fixture
def store(make_root):
    return make_root(HOSTILE, metal_env=EMT, other=EMT.replace("def setup", "STATE = 'reset'\n\n\ndef setup"))


def test_the_spec_of_a_model(store):
    spec = stored("metal-medium", store.root)
    folder = store.root / "builds" / store.current("metal_env").digest
    assert (spec.factory, spec.args, spec.state, spec.name) == ("metal_env:setup", ("medium",), "fresh", "metal-medium")
    assert (spec.python, spec.paths) == (str(folder / "env" / "bin" / "python"), (str(folder),))
    assert spec.device is None
    assert stored("other", store.root).state == "reset"
    assert CalculatorSpec.from_json(spec.to_json()) == spec


def test_the_module_of_a_short_name_hides_no_package(store):
    assert stored("other", store.root).factory == "other_env:setup"  # `import other` within it is the package


def test_variables_redirect_caches_and_forbid_the_network(store, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", "/local/triton")
    told = dict(stored("metal", store.root).environment)
    assert OFFLINE.items() <= told.items()
    assert {told[name] for name in CACHES} == {str(store.cache / folder) for folder in CACHES.values()}
    assert told["TRITON_CACHE_DIR"] == "/local/triton"
    home = os.environ["HOME"]
    assert all(told[name].startswith(f"{home}/.cache/mlipcluster/") for name in WRITTEN.keys() - {"TRITON_CACHE_DIR"})
    assert not OFFLINE.keys() & dict(online(stored("metal", store.root)).environment).keys()
    assert CACHES.keys() | WRITTEN.keys() == PLACES


def test_where_a_root_lies_is_no_part_of_identity(store, make_root, monkeypatch):
    here = stored("metal-medium", store.root)
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    there = stored("metal-medium", make_root("moved", metal_env=EMT).root)
    assert here != there
    assert here.identity() == there.identity()
    assert here.identity() != stored("metal-large", store.root).identity()


def test_it_calculates_in_its_own_environment(store, cu):
    with SocketCalculator("metal-medium", root=store.root) as calculator:
        cu.calc = calculator
        energy = cu.get_potential_energy()
        provenance = calculator.provenance()
    cu.calc = in_process.EMT()
    assert energy == cu.get_potential_energy()
    assert provenance.prefix == str(store.current("metal_env").folder / "env")
    assert "metal_env.py" in {Path(module.path).name for module in provenance.code}
    assert not list(store.current("metal_env").folder.rglob("__pycache__"))


def test_without_a_gpu_a_setup_that_wants_one_is_told_cpu(store, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for device, expected in ((None, "cpu"), ("cuda:1", "cuda:1")):
        with WorkerHost(stored("metal", store.root).replace(device=device)) as host:
            assert host.provenance().devices[0] == expected
    with WorkerHost(stored("metal", store.root).replace(kwargs={"device": "cuda"})) as host:
        assert host.provenance().devices[0] == "cuda"


TORCH = """
__version__ = "0"

class cuda:
    is_available = staticmethod(lambda: True)
"""


def test_with_a_gpu_setup_takes_its_own_default(store):
    (store.current("metal_env").folder / "torch.py").write_text(TORCH)
    with WorkerHost(stored("metal", store.root)) as host:
        assert host.provenance().devices[0] == "cuda"


def test_libraries_of_wheels_are_found(make_root):
    told = "import os\n\n\n" + EMT.replace("= device", "= os.environ.get('LD_LIBRARY_PATH', 'unset')")
    store = make_root(xpu_env=told)
    lib = store.current("xpu_env").folder / "env" / "lib"
    before = os.environ.get("LD_LIBRARY_PATH", "")
    with WorkerHost(stored("xpu", store.root)) as host:
        assert host.provenance().devices[0] == (before or "unset")
        (lib / "libsycl.so.8").touch()
        host.restart()
        assert host.provenance().devices[0].split(os.pathsep)[0] == str(lib)


def test_names_of_the_root_come_first_then_those_built_in(make_root):
    root = make_root(emt_env=EMT, lj_env=EMT).root
    assert resolve("emt", root=root).factory == "emt_env:setup"
    assert resolve("emt-x", root=str(root), threads=3).threads == 3
    assert resolve({"calculator": "emt", "root": str(root)}) == resolve("emt", root=root)
    assert resolve({"calculator": "emt", "threads": 2}, root=root) == resolve("emt", root=root, threads=2)
    assert resolve("chgnet", root=root) == resolve("chgnet")
    assert resolve("ase.calculators.emt:EMT", root=root) == CalculatorSpec("ase.calculators.emt:EMT")
    assert resolve(resolve("emt"), root=root) == resolve("emt")


def test_what_cannot_be_read_is_served_from_its_build_and_by_nothing_else(make_root):
    store = make_root(metal=EMT, metal_pd_env=EMT, chgnet_env=EMT)
    (store.root / "sources" / "metal.py").write_text("def (")
    assert resolve("metal", root=store.root) == stored("metal", store.root)
    for name in ("metal_pd_env", "chgnet_env"):
        (store.root / "sources" / f"{name}.py").write_text("def (")
        (store.root / "current" / f"{name}.json").unlink()
    for model in ("chgnet", "metal-pd-medium"):  # neither the one built in, nor setup("pd-medium") of another
        with pytest.raises(InputError, match=r"is not built, and its source cannot be read: .*line 1: invalid syntax"):
            resolve(model, root=store.root)
    assert stored("metal-medium", store.root).args == ("medium",)
    assert resolve("emt", root=store.root).name == "emt"


def test_the_root_may_be_named_by_variable_or_cluster(make_root, monkeypatch, tmp_path):
    root = make_root(emt_env=EMT).root
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(root))
    assert resolve("emt").factory == "emt_env:setup"
    monkeypatch.delenv("MLIPCLUSTER_ROOT")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "mlipcluster").mkdir(parents=True)
    (tmp_path / "config" / "mlipcluster" / "config.toml").write_text(f'[clusters.ours]\nroot = "{root}"')
    assert resolve("emt", cluster="ours").factory == "emt_env:setup"
    assert resolve("emt").factory == "ase.calculators.emt:EMT"
    with pytest.raises(InputError, match="no cluster 'theirs'"):
        resolve("emt", cluster="theirs")


def test_an_unknown_name_lists_what_there_is_everywhere(store, tmp_path):
    with pytest.raises(InputError) as told:
        resolve("mace-medium", root=store.root)
    for part in (
        "known: chgnet, emt, lj",
        "no environment serves 'mace-medium'",
        "metal_env (metal, metal-…)",
        "other (",
    ):
        assert part in str(told.value)
    with pytest.raises(InputError, match=r"no environment serves 'mace'"):
        stored("mace", store.root)
    with pytest.raises(InputError, match=r"or the root= \(--root\) whose environments serve it"):
        resolve("mace-medium")
    with pytest.raises(InputError, match=r"does not exist; make one with `mlipcluster env init"):
        resolve("emt", root=tmp_path / "nothing")


def test_what_is_not_built_says_how_to_build_it(store, tmp_path):
    store.layout.current_file("metal_env").unlink()
    with pytest.raises(
        InputError, match=r"'metal_env' is not built .*built: other.*`mlipcluster env build metal_env --root"
    ):
        resolve("metal-medium", root=store.root)


def test_weights_that_are_not_there_are_told_before_anything_starts(store):
    with pytest.raises(InputError, match=r"there are no weights '/no/weights\.pt'"):
        MLIPCluster(calculator="metal-/no/weights.pt", root=store.root)


def test_an_environment_that_was_deleted_says_how_to_build_it(store):
    for name, model in (("metal_env", "metal"), ("other", "other")):
        spec = stored(model, store.root)
        shutil.rmtree(store.current(name).folder)
        with pytest.raises(
            CalculatorStartError, match=rf"its environment is gone, .*; run `mlipcluster env build {name} --root"
        ):
            WorkerHost(spec).start()


def test_an_environment_whose_module_was_deleted_says_so_too(store):
    folder = store.current("metal_env").folder
    spec = stored("metal", store.root)
    shutil.move(folder / "env", folder.with_name("kept"))
    spec = spec.replace(python=str(folder.with_name("kept") / "bin" / "python"))
    shutil.rmtree(folder)
    with pytest.raises(
        CalculatorStartError, match=r"No module named 'metal_env'. its environment is gone, .*; run `mlip"
    ):
        WorkerHost(spec).start()


def test_a_running_worker_stays_in_the_build_that_it_started_in(store, cu, build_by_hand):
    with SocketCalculator("metal", root=store.root) as calculator:
        before = calculator.provenance()
        build_by_hand(store, "metal_env", "b")
        calculator.prepare()
        cu.calc = calculator
        cu.get_potential_energy()
        assert calculator.provenance() == before
        calculator.host.restart()
        assert calculator.provenance().prefix == before.prefix.replace("metal_env-a", "metal_env-b")


def test_a_task_whose_environment_was_deleted_fails_and_the_others_go_on(make_root, cu, run):
    store = make_root(gone_env=EMT, here_env=EMT)
    folder = str(store.current("gone_env").folder)

    def delete_it(atoms, calc):
        if calc.spec.name == "gone":
            shutil.rmtree(folder)
            calc.host.kill()
        atoms.calc = calc
        atoms.get_potential_energy()
        return atoms

    results = run(cu, delete_it, calculators={"one": "gone", "two": "here"}, root=store.root)
    (failure,) = results.failures
    assert "CalculatorStartError" in failure.traceback
    assert "run `mlipcluster env build gone_env --root" in failure.traceback
    assert [output.record["instance"]["calculator"] for output in results] == ["two"]

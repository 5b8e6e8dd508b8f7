from __future__ import annotations

from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.environments.environment import Environment, Package
from mlipcluster.files import sha256_file
from mlipcluster.records.source import describe
from mlipcluster.reproduction import checks

PACKAGES = (Package("ase", "3.29.0"), Package("numpy", "2.4.6"))


def environment(*packages: Package) -> Environment:
    return Environment("uv", "/env", "3.11.7", "linux_x86_64", packages or PACKAGES)


def test_environments_of_the_same_packages_are_the_same_wherever_they_lie():
    there = environment().to_json() | {"prefix": "/elsewhere", "manager": "pip"}
    assert checks.check_environment("the run", there, environment()) == []


def test_every_package_that_differs_has_a_line():
    here = environment(Package("ase", "3.29.0"), Package("numpy", "2.4.5"), Package("blosc", "1.11.4"))
    (found,) = checks.check_environment("calculator 'mace'", environment().to_json(), here)
    assert "calculator 'mace' differs in 2 things" in found.text
    assert found.details == ("only here: blosc 1.11.4", "numpy 2.4.6 -> 2.4.5")
    assert str(found).splitlines()[0].startswith("environment: ")


def test_a_long_list_is_cut_and_says_so():
    here = environment(*(Package(f"package-{number:03}", "1") for number in range(100)))
    (found,) = checks.check_environment("the run", environment().to_json(), here)
    assert len(found.details) == checks.LOCK_SHOWN + 1
    assert found.details[-1] == "… and 62 more lines"


def test_a_calculator_is_its_arguments_not_its_place():
    spec = CalculatorSpec("models:load", kwargs={"size": "small"}, python="/old/bin/python", name="mace")
    assert checks.check_calculator("mace", spec, spec.replace(python="/new", name="other", call_timeout=3.0)) == []
    (found,) = checks.check_calculator("mace", spec, spec.replace(kwargs={"size": "large"}, threads=4))
    assert found.details == ("kwargs: {'size': 'small'} -> {'size': 'large'}", "threads: 1 -> 4")


def weight(path, sha256=None):
    return {"path": str(path), "size": 1, "sha256": sha256 or sha256_file(path)}


def test_weights_are_their_bytes_not_their_path(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"weights")
    recorded = weight(file)
    assert checks.check_files("mace", [recorded]) == []
    assert checks.check_files_read("mace", [recorded], [recorded | {"path": "/elsewhere/other-name.pt"}]) == []
    file.write_bytes(b"Weights")
    (before,) = checks.check_files("mace", [recorded])
    (after,) = checks.check_files_read("mace", [recorded], [weight(file)])
    assert before == after
    assert "mace: model.pt: sha256 " in before.text
    file.unlink()
    assert checks.check_files("mace", [recorded]) == []  # moved, perhaps: the run will tell


def test_weights_that_were_read_only_once_are_told():
    one, other = {"path": "/m/a.pt", "size": 1, "sha256": "a"}, {"path": "/m/b.pt", "size": 1, "sha256": "b"}
    assert "a.pt" in checks.check_files_read("mace", [one, other], [other])[0].text
    assert "no such file was read" in checks.check_files_read("mace", [one], [])[0].text
    assert "not then" in checks.check_files_read("mace", [], [one])[0].text
    unknown = {"path": "/m/c.pt", "size": 1, "sha256": ""}  # changed while it was read
    assert checks.check_files_read("mace", [unknown], []) == checks.check_files("mace", [unknown]) == []


def test_a_calculators_own_code_is_held_against_the_record_as_code(tmp_path):
    module = tmp_path / "mycalc.py"
    module.write_text("SHIFT = 0.0\n")
    recorded = weight(module)
    module.write_text("SHIFT = 1.0\n")
    (before,) = checks.check_files("the calculator", [recorded], checks.CODE)
    (after,) = checks.check_files_read("the calculator", [recorded], [weight(module)], checks.CODE)
    assert before == after
    assert str(before).startswith("code: the calculator: mycalc.py: sha256 ")


def test_of_files_of_one_name_each_is_told():
    def package(*hashes):
        return [{"path": f"/code/{sha256}/__init__.py", "size": 1, "sha256": sha256} for sha256 in hashes]

    found = checks.check_files_read("toy", package("a", "b"), package("b", "c", "d"), checks.CODE)
    assert [one.text for one in found] == [
        "toy: __init__.py was read here (sha256 d), but not then",
        "toy: __init__.py: sha256 a -> c (/code/c/__init__.py)",
    ]
    found = checks.check_files_read("toy", package("a", "b"), package("c"), checks.CODE)
    assert [one.text.rpartition("-> ")[2] for one in found] == ["c (/code/c/__init__.py)", "no such file was read"]


def test_another_machine_is_noted_key_by_key():
    old = {"hostname": "a", "cpu": "EPYC", "cores": {"usable": 2, "total": 4}, "gpus": [], "threads": {}}
    assert checks.machine_notes(old, old | {"hostname": "b", "slurm": {"SLURM_JOB_ID": "7"}}) == []
    new = old | {"cpu": "Xeon", "cores": {"usable": 8, "total": 8}, "gpus": [{"name": "H200"}]}
    assert checks.machine_notes(old, new) == [
        "machine: cpu: EPYC -> Xeon",
        "machine: cores: usable=2, total=4 -> usable=8, total=8",
        "machine: gpus: none -> H200",
    ]


def protocol(atoms):
    return atoms


def recorded(**changes):
    source = describe(protocol).to_json() | changes
    return {"metadata": {"protocols": [source], "git": None}}


def test_a_source_is_compared_by_its_digest():
    assert checks.check_sources(recorded(file="/elsewhere.py"), [protocol]) == []
    (found,) = checks.check_sources(recorded(digest="0", text="def protocol(atoms):\n    return None\n"), [protocol])
    assert found.text.startswith("protocol ")
    assert "-    return None" in found.details
    assert "+    return atoms" in found.details


def test_what_a_protocol_uses_now_and_used_then_is_named():
    dependencies = {**describe(protocol).dependencies, "helpers.old": "1"}
    (found,) = checks.check_sources(recorded(digest="0", dependencies=dependencies), [protocol])
    assert found.text.startswith("what protocol ")
    assert found.details == ("helpers.old, which it used, is not used any more",)


def test_values_that_no_digest_covers_are_noted():
    notes = checks.source_notes(recorded(dependencies={"user.table": "unhashable", "user.f": "1"}))
    assert len(notes) == 1
    assert "user.table" in notes[0]


def test_a_protocol_that_left_its_repository_is_told(tmp_path):
    record = recorded()
    record["metadata"]["git"] = {"sha1": "a" * 40, "remote": "https://example.org/r.git", "diff": ""}

    def nowhere(atoms):
        return atoms

    nowhere.__code__ = compile("def f(atoms): return atoms", "<nowhere>", "exec").co_consts[0]
    (found,) = checks.check_git(record, [nowhere])
    assert "a" * 40 in found.text
    assert "https://example.org/r.git" in found.text

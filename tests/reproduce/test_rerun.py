from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import mlipcluster
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.environments.environment import Package
from mlipcluster.errors import InputError, MismatchError, ProtocolError, RecordError
from mlipcluster.outputs.output import Output, write_output
from mlipcluster.protocols import md, relax, single_point
from mlipcluster.records.packing import encode
from mlipcluster.reproduction import attempt
from mlipcluster.reproduction.rerun import reproduce

TOY = """
    from pathlib import Path
    import numpy as np
    from ase.calculators.calculator import Calculator, all_changes

    class Toy(Calculator):
        implemented_properties = ["energy", "forces"]

        def __init__(self, weights):
            super().__init__()
            self.k = float(np.load(weights)["k"])

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            energy = float(self.k * (atoms.positions**2).sum())
            self.results = {"energy": energy, "forces": -2 * self.k * atoms.positions}
"""


def only(results):
    assert len(results) == 1
    return results.outputs[0]


# --- finding it and making it again ----------------------------------------------------------------------------------


def test_the_public_name_is_the_function_whatever_was_imported_before():
    assert mlipcluster.reproduce is reproduce


def test_a_relaxation_is_identical_on_a_worker_of_its_own(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    output = only(run(relax))
    audit = reproduce(output.path)
    assert audit.verdict == "identical"
    assert audit.exit_status == 0
    assert audit.headline == (
        "identical: energy, forces, stress, positions, cell (bit for bit); environment, code, seeds as recorded"
    )
    assert not list(tmp_path.glob("mlipcluster-*"))  # nothing is left behind
    assert audit.new.atoms.positions.tobytes() == output.atoms.positions.tobytes()
    assert audit.new.record["metadata"]["times"]["started"] > output.record["metadata"]["times"]["started"]


@pytest.mark.parametrize(("form", "compression"), [("extxyz", "xz"), ("json", "")])
def test_every_format_and_compression_can_be_made_again(run, client, form, compression):
    output = only(run(single_point, output_types=form, compression=compression))
    assert reproduce(output.path, client=client).verdict == "identical"


def test_an_output_is_found_by_its_run_and_name(run, client, run_folder):
    name = only(run(single_point, simulation_records_in_scorefile=True, output_types=())).name
    for arguments in ({"output_name": name}, {"decoy_name": name}):
        assert reproduce(scorefile=run_folder, client=client, **arguments).original.name == name
    assert reproduce(scorefile=run_folder / "ledger.jsonl", output_name=name, client=client).exit_status == 0
    with pytest.raises(InputError, match=f"no output 'Cu4-0'.*{name}"):
        reproduce(scorefile=run_folder, output_name="Cu4-0")
    with pytest.raises(InputError, match="output_name= must say"):
        reproduce(scorefile=run_folder)


def test_exactly_one_way_to_name_the_output(tmp_path):
    with pytest.raises(InputError, match="either input_file=, or scorefile="):
        reproduce()
    with pytest.raises(InputError, match="either"):
        reproduce(tmp_path / "a", scorefile=tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        reproduce(tmp_path / "a.extxyz")
    (tmp_path / "plain.xyz").write_text("1\n\nH 0 0 0\n")
    with pytest.raises(RecordError):
        reproduce(tmp_path / "plain.xyz")


def test_dynamics_of_any_repeat_and_worker_are_identical(run, client):
    results = run(md, nstruct=3)
    energies = {output.scores["energy"] for output in results}
    assert len(energies) == 3
    for output in results:
        audit = reproduce(output.path, client=client)
        assert audit.verdict == "identical"
        assert audit.checked


def test_one_branch_of_several_is_followed(run, client, code):
    branches = code.write(
        "branches",
        """
        def rattle(atoms, rng, count=3):
            for _ in range(count):
                child = atoms.copy()
                child.positions += rng.normal(0, 0.05, child.positions.shape)
                yield child
            yield {"steps": 2}

        def push(atoms, calc, rng, steps):
            atoms.calc = calc
            for _ in range(steps):
                atoms.positions += 0.01 * atoms.get_forces() * rng.random()
            atoms.get_potential_energy()
            yield atoms.copy()
            yield atoms
        """,
    )
    results = run(branches.rattle, branches.push)
    assert len(results) == 6
    last = results.outputs[5]
    audit = reproduce(last.path, client=client)
    assert audit.verdict == "identical"
    assert audit.new.record["instance"]["output_ids"] == last.record["instance"]["output_ids"] == [2, 1]


def test_an_intermediate_output_is_made_again_from_its_part_of_the_path(run, client):
    results = run(relax, single_point, save_all=True)
    intermediate = next(o for o in results.outputs if o.record["metadata"]["step"] == 0)
    assert reproduce(intermediate.path, client=client).verdict == "identical"


def test_with_every_output_kept_the_right_one_is_compared(run, client):
    (output,) = run(relax, single_point)
    audit = reproduce(output.path, client=client, instance_kwargs={"save_all": True})
    assert audit.verdict == "identical"
    assert audit.new.record["metadata"]["step"] == 1
    assert audit.new.record["instance"]["output_ids"] == output.record["instance"]["output_ids"] == [0, 0]


def test_of_several_calculators_only_the_recorded_one_is_run(run, client):
    soft = CalculatorSpec("ase.calculators.emt:EMT", kwargs={"asap_cutoff": True})
    results = run(single_point, calculators={"emt": "emt", "soft": soft})
    output = next(o for o in results if o.record["instance"]["calculator"] == "soft")
    audit = reproduce(output.path, client=client, instance_kwargs={"calculators": {"soft": soft}})
    assert audit.verdict == "identical"
    assert list(audit.new.record["instance"]["calculators"]) == ["soft"]


def test_the_new_output_can_be_kept_and_is_never_taken_from_an_earlier_run(run, client, tmp_path):
    output = only(run(single_point))
    kept = tmp_path / "again"
    audit = reproduce(output.path, client=client, instance_kwargs={"output_path": kept, "author": "Ada"})
    assert audit.new.path.is_relative_to(kept)
    assert audit.new.path.is_file()
    assert audit.new.record["instance"]["author"] == "Ada"
    with pytest.raises(mlipcluster.MLIPClusterError, match="again"):
        reproduce(output.path, client=client, instance_kwargs={"output_path": kept})
    with pytest.raises(InputError, match="authr"):
        reproduce(output.path, client=client, instance_kwargs={"authr": "Ada"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": [1]}, "tasks cannot be chosen: the record says it; leave it out"),
        ({"seed": 3}, "seed cannot be chosen"),
        ({"replicate": 0}, "replicate cannot be chosen"),
        ({"client": None}, "client cannot be chosen: give it to reproduce itself"),
        ({"dry_run": True}, "dry_run cannot be chosen: the output would not be there to compare"),
        ({"filter_results": len}, "filter_results cannot be chosen"),
        ({"ignore_errors": True}, "ignore_errors cannot be chosen"),
        ({"resume": True}, "resume cannot be chosen"),
        ({"output_types": ()}, "without output_types the output would not be there to compare"),
    ],
)
def test_an_option_that_would_miss_the_output_is_refused(tmp_path, options, words):
    with pytest.raises(InputError) as caught:
        reproduce(tmp_path / "any", instance_kwargs=options)
    assert words in str(caught.value)


def test_a_record_in_the_scorefile_is_enough_to_compare(run, client):
    options = {"output_types": (), "simulation_records_in_scorefile": True}
    audit = reproduce(only(run(single_point)).path, client=client, instance_kwargs=options)
    assert (audit.verdict, audit.new.path) == ("identical", None)


def test_an_output_without_atoms_is_an_output(run, client, code):
    module = code.write(
        "vacant",
        """
        def vacant(atoms, calc):
            yield atoms
            yield atoms[:0]
        """,
    )
    empty = next(output for output in run(module.vacant, filter_results=False) if not len(output.atoms))
    assert reproduce(empty.path, client=client).verdict == "identical"


# --- what is not as recorded -----------------------------------------------------------------------------------------

PROTOCOL = """
    from helper_NUMBER import amplitude

    def shake(atoms, calc, rng):
        # moves every atom
        atoms.positions += amplitude() * rng.normal(size=atoms.positions.shape)
        atoms.calc = calc
        atoms.get_forces()
        return atoms
"""
HELPER = """
    FACTOR = 2

    def amplitude():
        return 0.01 * FACTOR
"""


@pytest.fixture
def shaken(run, code):
    """An output of a protocol that uses a helper, committed to git."""
    code.write("helper", HELPER)
    module = code.write("shaker", PROTOCOL)
    code.commit("first")
    return only(run(module.shake))


def refused(path, client, **arguments) -> str:
    with pytest.raises(MismatchError) as caught:
        reproduce(path, client=client, **arguments)
    assert caught.value.differences
    return str(caught.value)


def test_code_as_committed_is_no_difference(shaken, client):
    audit = reproduce(shaken.path, client=client)
    assert audit.verdict == "identical"
    assert not audit.differences


def test_a_changed_line_of_the_protocol_is_named_with_a_diff(shaken, client, code):
    code.write("shaker", PROTOCOL.replace("atoms.get_forces()", "atoms.get_stress()"))
    text = refused(shaken.path, client)
    assert f"protocol {code.name('shaker')}:shake changed" in text
    assert "-    atoms.get_forces()" in text
    assert "+    atoms.get_stress()" in text
    assert f"uncommitted changes in {code.name('shaker')}.py" in text


def test_a_changed_helper_is_named(shaken, client, code):
    code.write("helper", HELPER.replace("FACTOR = 2", "FACTOR = 3"))
    code.write("shaker", PROTOCOL)
    text = refused(shaken.path, client)
    assert f"what protocol {code.name('shaker')}:shake uses changed" in text
    assert f"{code.name('helper')}.FACTOR, which it uses, changed" in text
    assert f"{code.name('shaker')}.shake, which it uses" not in text


def test_another_commit_is_named_with_the_command_to_go_back(shaken, client, code):
    (code.folder / "README").write_text("a later thought")
    code.commit("second")
    recorded = shaken.record["metadata"]["git"]["sha1"]
    text = refused(shaken.path, client)
    assert f"git checkout {recorded}" in text
    assert "shake changed" not in text
    audit = reproduce(shaken.path, client=client, strict=False)
    assert audit.verdict == "identical"
    assert [difference.kind for difference in audit.differences] == ["code"]
    assert "NOT as recorded: code" in audit.headline
    assert "Not as recorded" in audit.text()


def test_a_comment_outside_git_is_no_difference(run, client, code):
    code.write("helper", HELPER)
    module = code.write("shaker", PROTOCOL)
    output = only(run(module.shake))
    code.write("shaker", PROTOCOL.replace("# moves every atom", "# moves them all, a little"))
    assert reproduce(output.path, client=client).verdict == "identical"


def test_a_lenient_audit_reports_what_changed_and_what_came_of_it(shaken, client, code):
    code.write("helper", HELPER.replace("FACTOR = 2", "FACTOR = 3"))
    code.write("shaker", PROTOCOL)
    audit = reproduce(shaken.path, client=client, strict=False)
    assert audit.verdict == "different"
    assert audit.exit_status == 4
    assert "energy (" in audit.headline
    assert f"{code.name('helper')}.FACTOR" in audit.text()


def test_one_package_of_another_version_is_named(run, monkeypatch):
    output = only(run(single_point))
    real = attempt.measure

    def measure(python=None):
        from dataclasses import replace

        found = real(python)
        packages = [Package("numpy", "1.0") if p.name == "numpy" else p for p in found.packages]
        return replace(found, packages=tuple(packages))

    monkeypatch.setattr(attempt, "measure", measure)
    with pytest.raises(MismatchError) as caught:
        reproduce(output.path)
    (difference,) = caught.value.differences  # the calculator runs in the same environment: told once
    assert f"numpy {np.__version__} -> 1.0" in difference


def forged(output, folder, **metadata):
    """A file of an output whose record was changed, and sealed again by whoever changed it."""
    record = {**output.record, "metadata": {**output.record["metadata"], **metadata}}
    return write_output(folder, output.atoms, {k: v for k, v in record.items() if k not in {"digest", "digests"}})


def test_an_environment_that_is_not_recorded_is_no_environment_as_recorded(run, client, tmp_path):
    path = forged(only(run(single_point)), tmp_path / "forged", environment={}, calculators={})
    text = refused(path, client)
    assert "environment: that of the run is not in the record" in text
    assert "environment: that of the calculator is not in the record" in text
    audit = reproduce(path, client=client, strict=False)
    assert audit.verdict == "identical"
    assert "environment" not in audit.checked
    assert "code, seeds as recorded; NOT as recorded: environment" in audit.headline


@pytest.mark.parametrize("part", ["environment", "calculators", "machine"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_record_that_lacks_a_part_is_damaged(run, client, tmp_path, part, strict):
    path = forged(only(run(single_point)), tmp_path / "forged", **{part: None})
    with pytest.raises(RecordError, match=rf"is damaged: .*metadata\.{part}"):
        reproduce(path, client=client, strict=strict)


@pytest.fixture
def weighed(run, code, tmp_path):
    code.write("toy", TOY)
    np.savez(tmp_path / "weights.npz", k=1.0)
    spec = CalculatorSpec(
        f"{code.name('toy')}:Toy", kwargs={"weights": str(tmp_path / "weights.npz")}, paths=(str(code.folder),)
    )
    return only(run(single_point, calculator=spec)), tmp_path / "weights.npz"


def test_weights_as_they_were_are_told(weighed, client):
    output, _ = weighed
    audit = reproduce(output.path, client=client, trust=True)
    assert audit.verdict == "identical"
    assert "environment, code, weights, seeds as recorded" in audit.headline


def test_one_byte_of_the_weights_is_named(weighed, client):
    output, weights = weighed
    recorded = output.record["metadata"]["calculators"][""]["provenance"]["weights"][0]["sha256"]
    np.savez(weights, k=2.0)
    text = refused(output.path, client, trust=True)
    assert "weights.npz" in text
    assert recorded in text
    audit = reproduce(output.path, client=client, trust=True, strict=False)
    assert audit.verdict == "different"
    assert {difference.kind for difference in audit.differences} == {"weights"}


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "elsewhere"])
def test_an_edited_calculator_is_named_before_and_after_the_run(weighed, client, code, tmp_path, moved):
    output, _ = weighed
    module = code.folder / f"{code.name('toy')}.py"
    edited = module.read_text().replace("(atoms.positions**2).sum()", "(atoms.positions**2).sum() + 1e-30")
    assert edited != module.read_text()
    module.write_text(edited)
    given = {}
    if moved:  # only what the calculator itself says in the end can tell
        module = module.rename(tmp_path / module.name)
        spec = CalculatorSpec.from_json(output.record["instance"]["calculators"][""])
        given = {"instance_kwargs": {"calculator": spec.replace(paths=(str(tmp_path),))}}
    text = refused(output.path, client, trust=True, **given)
    assert f"code: the calculator: {module.name}: sha256 " in text
    assert ("seen when it was run again" in text) == moved
    audit = reproduce(output.path, client=client, trust=True, strict=False, **given)
    assert audit.verdict == "identical"
    assert {difference.kind for difference in audit.differences} == {"code"}
    assert "NOT as recorded: code" in audit.headline
    assert f"{module}, " in audit.text()


def test_weights_that_moved_are_looked_at_again_after_the_run(weighed, client, tmp_path):
    output, weights = weighed
    spec = CalculatorSpec.from_json(output.record["instance"]["calculators"][""])
    elsewhere = tmp_path / "elsewhere.npz"
    elsewhere.write_bytes(weights.read_bytes())
    weights.unlink()
    moved = {"calculator": spec.replace(kwargs={"weights": str(elsewhere)})}
    audit = reproduce(output.path, client=client, strict=False, instance_kwargs=moved)
    assert audit.verdict == "identical"
    # Another argument, but the same bytes.
    assert [difference.kind for difference in audit.differences] == ["calculator"]
    np.savez(elsewhere, k=2.0)
    audit = reproduce(output.path, strict=False, instance_kwargs=moved)
    assert {difference.kind for difference in audit.differences} == {"calculator", "weights"}


def test_a_changed_byte_of_the_output_is_named(run, client, tmp_path):
    output = only(run(single_point, compression="gz"))
    plain = gzip.decompress(output.path.read_bytes())
    at = plain.index(b"energy=") + len(b"energy=") + 3
    changed = tmp_path / "changed.extxyz"
    changed.write_bytes(plain[:at] + bytes([48 + (plain[at] - 47) % 10]) + plain[at + 1 :])
    with pytest.raises(RecordError, match=r"changed\.extxyz is damaged: .*changed after it was written"):
        reproduce(changed, client=client)
    audit = reproduce(changed, client=client, strict=False)
    assert audit.verdict == "identical"  # the record inside is whole
    assert {difference.kind for difference in audit.differences} == {"file"}


def test_another_input_structure_is_a_difference(run, client, cu):
    output = only(run(single_point))
    assert reproduce(output.path, client=client, input_atoms=cu).verdict == "identical"
    cu.positions[0, 0] += 0.1
    assert "input" in refused(output.path, client, input_atoms=cu)
    assert reproduce(output.path, client=client, input_atoms=cu, strict=False).verdict == "different"


def test_an_interpreter_that_is_not_here_is_named_and_another_is_taken(run, client, tmp_path):
    model = tmp_path / "model"
    (model / "bin").mkdir(parents=True)
    link = model / "bin" / "python"
    link.symlink_to(sys.executable)
    if (settings := Path(sys.prefix) / "pyvenv.cfg").is_file():  # a virtual environment, seen through another door
        (model / "pyvenv.cfg").symlink_to(settings)
        (model / "lib").symlink_to(Path(sys.prefix) / "lib")
    spec = CalculatorSpec("ase.calculators.emt:EMT", python=str(model))
    output = only(run(single_point, calculator=spec))
    link.unlink()
    with pytest.raises(InputError, match=r"model/bin/python, which is not here.*--python"):
        reproduce(output.path)
    here = {"calculator": spec.replace(python=sys.executable)}
    assert reproduce(output.path, instance_kwargs=here).verdict == "identical"


# --- verdicts other than identical -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "verdict", "status"), [(1e-10, "within tolerance", 3), (1e-1, "different", 4)], ids=["small", "large"]
)
def test_a_protocol_that_ignores_its_seed_is_found_out(run, client, code, noise, verdict, status):
    module = code.write(
        "moody",
        f"""
        import secrets

        def moody(atoms, calc):
            atoms.positions[0, 0] += {noise} * (1 + secrets.randbelow(1000) / 1000)
            atoms.calc = calc
            atoms.get_forces()
            return atoms
        """,
    )
    audit = reproduce(only(run(module.moody)).path, client=client)
    assert (audit.verdict, audit.exit_status) == (verdict, status)
    named = {quantity.name: quantity for quantity in audit.quantities}
    assert named["positions"].verdict == verdict
    assert named["cell"].verdict == "identical"
    assert audit.headline.startswith(verdict)
    assert "cell (bit for bit)" in audit.headline


def test_fewer_outputs_than_before_are_a_verdict(run, client, code, tmp_path):
    count = tmp_path / "count"
    count.write_text("2")
    module = code.write(
        "counting",
        f"""
        from pathlib import Path

        def counting(atoms, calc):
            for _ in range(int(Path({str(count)!r}).read_text())):
                yield atoms.copy()
        """,
    )
    results = run(module.counting)
    count.write_text("1")
    second = next(o for o in results if o.record["instance"]["output_ids"] == [1])
    audit = reproduce(second.path, client=client)
    assert (audit.verdict, audit.new) == ("different", None)
    assert "no such output" in audit.text()


def test_a_failure_of_the_protocol_is_raised_as_it_is(run, client, code, tmp_path):
    flag = tmp_path / "flag"
    module = code.write(
        "failing",
        f"""
        from pathlib import Path

        def failing(atoms, calc):
            if Path({str(flag)!r}).exists():
                raise KeyError("now it fails")
            return atoms
        """,
    )
    output = only(run(module.failing))
    flag.touch()
    with pytest.raises(KeyError, match="now it fails"):
        reproduce(output.path, client=client)


# --- what a record may start -----------------------------------------------------------------------------------------


def recorded_with(output, folder, spec):
    """A file of an output whose writer says that another calculator made it."""
    instance = {**output.record["instance"], "calculators": {"": spec.to_json()}}
    record = {**output.record, "instance": instance}
    return write_output(folder, output.atoms, {k: v for k, v in record.items() if k not in {"digest", "digests"}})


@pytest.mark.parametrize("strict", [True, False])
def test_a_record_cannot_run_a_command_as_its_calculator(run, client, tmp_path, strict):
    written = tmp_path / "written"
    spec = CalculatorSpec("os:system", args=(f"touch {written}",))
    path = recorded_with(only(run(single_point)), tmp_path / "forged", spec)
    with pytest.raises(InputError, match=r"calls os:system\('touch.*instance_kwargs.*--calculator.*trust=True"):
        reproduce(path, client=client, strict=strict)
    with pytest.raises(InputError, match="os:system"):
        reproduce(path, strict=strict)
    assert not written.exists()
    # The caller's own word on the calculator, and the record's is not asked for.
    audit = reproduce(path, client=client, strict=False, instance_kwargs={"calculator": "emt"})
    assert audit.verdict == "identical"
    assert "calculator" in {difference.kind for difference in audit.differences}
    assert not written.exists()


@pytest.mark.parametrize("strict", [True, False])
def test_a_record_cannot_run_a_function_of_pythons_as_its_protocol(run, client, tmp_path, strict):
    written = tmp_path / "written"
    output = only(run(single_point))
    protocol = {**output.record["metadata"]["protocols"][0], "module": "subprocess", "name": "getoutput"}
    tasks = {"structure": None, "kwargs": encode({"cmd": f"touch {written}"}), "source": ""}
    record = {**output.record, "instance": {**output.record["instance"], "tasks": tasks}}
    path = forged(Output("x", output.atoms, {}, record), tmp_path / "forged", protocols=[protocol])
    with pytest.raises(ProtocolError, match="standard library"):
        reproduce(path, client=client, strict=strict)
    assert not written.exists()


# --- protocols that cannot be imported -------------------------------------------------------------------------------


def test_a_lambda_must_be_given_or_trusted(run, client, code):
    protocol = code.write("anonymous", "protocol = lambda atoms, calc: atoms.copy()").protocol
    output = only(run(protocol))
    with pytest.raises(ProtocolError, match=r"protocols=\[…\].*trust=True"):
        reproduce(output.path, client=client)
    assert reproduce(output.path, client=client, protocols=protocol).verdict == "identical"
    assert reproduce(output.path, client=client, protocols=[protocol]).verdict == "identical"
    assert reproduce(output.path, client=client, trust=True).verdict == "identical"


def test_the_number_of_protocols_is_checked(run, client):
    output = only(run(single_point))
    with pytest.raises(ProtocolError, match=r"2 protocols were given, the record has 1: mlipcluster\.protocols"):
        reproduce(output.path, client=client, protocols=[relax, single_point])


class Opaque:
    """An argument that JSON cannot hold."""

    value = 0.25


def test_pickled_arguments_are_loaded_only_when_trusted(run, client, cu, code):
    module = code.write(
        "taking",
        """
        def taking(atoms, calc, thing):
            atoms.info["value"] = thing.value
            return atoms
        """,
    )
    output = only(run(module.taking, tasks={"atoms": cu, "thing": Opaque()}))
    with pytest.raises(RecordError, match="trust"):
        reproduce(output.path, client=client)
    assert reproduce(output.path, client=client, trust=True).verdict == "identical"


def test_a_record_survives_json(run, client):
    record = only(run(single_point)).record
    assert json.loads(json.dumps(record)) == record
    assert Path(record["metadata"]["protocols"][0]["file"]).name == "single_point.py"

from __future__ import annotations

import contextlib
import inspect
import json
import os
import random
import types
from dataclasses import dataclass

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from mlipcluster import MLIPCluster, Results, front
from mlipcluster.errors import InputError, MismatchError, ProtocolError, RunFolderError
from mlipcluster.files import RunFolder
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.protocols import single_point
from mlipcluster.schedule import TARGET_SECONDS

pytestmark = pytest.mark.filterwarnings("ignore:.*uncommitted changes:UserWarning")

METALS = [bulk(name) for name in ("Cu", "Ag", "Au")]
CU = METALS[0]


def same(atoms):
    return atoms


def shaken(atoms, rng, amplitude=0.05, number=2):
    for count in range(number):
        child = atoms.copy()
        child.positions += rng.normal(0, amplitude, child.positions.shape)
        child.info["count"] = count
        yield child
    yield {"temperature": 600}


def heated(atoms, rng, temperature):
    atoms.info["drawn"] = rng.random()
    atoms.info["temperature"] = temperature
    return atoms


def by_identity(results):
    return {entry["slot"]: (entry["identity"], entry["result_digest"]) for entry in results.entries}


# --- protocols in sequence -------------------------------------------------------------------------------------------


def test_each_output_is_a_task_of_the_next_protocol(run):
    results = run(METALS, shaken, heated)
    assert len(results) == 6
    assert results.failures == []
    assert all(output.scores["temperature"] == 600 for output in results)
    assert sorted(o.record["instance"]["output_ids"] for o in results) == [[0, 0]] * 3 + [[1, 0]] * 3
    assert len({output.scores["drawn"] for output in results}) == 6
    output = next(iter(results))
    assert [name.rpartition(":")[2] for name in output.record["instance"]["protocols"]] == ["shaken", "heated"]
    assert len(output.record["instance"]["seeds"]) == 2
    assert output.record["instance"]["seed"] == 7


def test_outputs_are_files_that_ase_reads(run, emt):
    results = run(METALS, single_point, calculator=emt)
    for output in results:
        atoms = read(output.path)
        assert atoms.get_potential_energy() == output.scores["energy"]
        assert np.allclose(atoms.get_forces(), output.atoms.get_forces(), atol=1e-7)
        assert atoms.info["mlipcluster"]["metadata"]["output_name"] == output.name


def nothing_for_silver(atoms):
    return None if "Ag" in atoms.symbols else atoms


def test_a_protocol_may_give_nothing(run):
    results = run(METALS, nothing_for_silver, same)
    assert results.counts == {"output": 2, "failed": 0, "empty": 1}
    assert [entry["source"] for entry in results.entries if entry["status"] == "empty"] == ["task 1"]
    again = run(METALS, nothing_for_silver, same)
    assert by_identity_all(again) == by_identity_all(results)


def by_identity_all(results):
    return sorted((e["slot"], e["status"], e["identity"], e["finished"]) for e in results.entries)


def needs_more(atoms, pressure):
    return atoms


def test_a_later_protocol_that_gets_less_than_it_needs_fails_by_name(run):
    (failure,) = run([CU], same, needs_more).failures
    assert failure.type == "TypeError"
    assert "pressure" in failure.message


def build(x):
    return Atoms("H", positions=[[x, 0, 0]])


def test_tasks_need_no_structure(run):
    assert [o.atoms.positions[0, 0] for o in run([{"x": 1}, {"x": 2}], build)] == [1, 2]


@dataclass
class Settings:
    steps: int


def with_settings(atoms, settings):
    atoms.info["steps"] = settings.steps
    yield atoms
    yield {"settings": Settings(settings.steps + 1)}


def test_objects_of_the_users_own_classes_may_be_handed_in_and_on(run):
    (output,) = run([{"atoms": CU, "settings": Settings(3)}], with_settings, with_settings)
    assert output.scores["steps"] == 4


def test_keyword_arguments_are_checked_before_anything_starts(run, tmp_path):
    with pytest.raises(ProtocolError, match="did you mean 'amplitude'"):
        run([{"atoms": CU, "amplitud": 1}], shaken)
    with pytest.raises(InputError, match="a protocol asks for calc, but the run has no calculator"):
        run([CU], single_point)
    with pytest.raises(InputError, match="there are no tasks"):
        run([], same)
    assert list(tmp_path.iterdir()) == []


def test_a_later_task_with_a_wrong_keyword_is_a_failure_of_its_own(run):
    results = run([CU, {"atoms": CU, "amplitud": 1}], shaken)
    assert results.counts == {"output": 2, "failed": 1, "empty": 0}
    assert "did you mean 'amplitude'" in results.failures[0].message


# --- several calculators ---------------------------------------------------------------------------------------------


def test_each_task_is_run_with_each_calculator(run, emt):
    results = run(METALS[:2], shaken, single_point, calculators={"a": emt, "b": emt.replace(threads=2)})
    assert len(results) == 8
    table = results.compare("energy")
    assert sorted(table.columns) == ["a", "b"]
    assert (table["a"] == table["b"]).all()  # the same random numbers: the same structures


def both(atoms, calculators):
    atoms.info["names"] = sorted(calculators)
    atoms.info["energies"] = []
    for name in sorted(calculators):
        atoms.calc = calculators[name]
        atoms.info["energies"].append(atoms.get_potential_energy())
    return atoms


def test_a_protocol_may_ask_for_all_calculators(run, emt):
    results = run([CU], both, calculators={"a": emt, "b": emt.replace(threads=2)})
    assert all(o.scores["names"] == ["a", "b"] and len(set(o.scores["energies"])) == 1 for o in results)


# --- repeats and seeds -----------------------------------------------------------------------------------------------


def test_repeats_have_seeds_of_their_own_and_more_can_be_added_later(run):
    first = run([CU], heated_at_300, nstruct=2)
    assert len({o.scores["drawn"] for o in first}) == 2
    more = run([CU], heated_at_300, nstruct=5)
    assert len({o.scores["drawn"] for o in more}) == 5
    finished = {e["slot"]: e["finished"] for e in more.entries}
    assert all(finished[e["slot"]] == e["finished"] for e in first.entries)  # those were not made again
    assert len(list(Ledger(more.root / "ledger.jsonl").entries())) == 5


def heated_at_300(atoms, rng):
    return heated(atoms, rng, 300)


@pytest.mark.filterwarnings("ignore:.*handed in more than once")
def test_a_duplicate_is_a_further_repeat(run):
    results = run([CU, CU.copy()], heated_at_300)
    assert len({o.scores["drawn"] for o in results}) == 2
    assert sorted(e["replicate"] for e in results.entries) == [0, 1]


def test_duplicates_are_told_of(run):
    with pytest.warns(UserWarning, match=r"1 tasks were handed in more than once \(task 1"):
        run([CU, CU.copy()], same)


def test_a_seed_is_drawn_recorded_and_kept(run):
    first = run([CU], heated_at_300, seed=None)
    second = run([CU, METALS[1]], heated_at_300, seed=None)
    seeds = {o.record["instance"]["seed"] for o in [*first, *second]}
    assert len(seeds) == 1


def test_a_pinned_path_gives_what_the_full_run_gave_bit_for_bit(run, tmp_path):
    full = run([{"atoms": CU, "number": 3}], shaken, heated, nstruct=2, output_path=tmp_path / "full")
    for output in full:
        told = output.record["instance"]
        one = run(
            [{"atoms": CU, "number": 3}],
            *(shaken, heated),
            seeds=told["seeds"],
            output_ids=told["output_ids"],
            replicate=told["replicate"],
            output_path=tmp_path / output.name,
        )
        (entry,) = one.entries
        assert entry["result_digest"] == output.record["metadata"]["result"]["digest"]
        (again,) = one
        assert again.record["instance"]["output_ids"] == told["output_ids"]
        assert again.record["instance"]["seeds"] == told["seeds"]


def test_a_pinned_path_goes_through_a_filter_unharmed(run, tmp_path):
    (second,) = run(
        [CU], shaken, heated, filter_results=lambda a: a.info["count"] == 1, output_path=tmp_path / "filtered"
    )
    told = second.record["instance"]
    assert told["output_ids"] == [1, 0]
    (again,) = run([CU], shaken, heated, seeds=told["seeds"], output_ids=told["output_ids"], replicate=0)
    assert again.record["metadata"]["result"]["digest"] == second.record["metadata"]["result"]["digest"]


def test_pinned_lists_must_fit_the_protocols(run):
    with pytest.raises(InputError, match="seeds has 1 entries for 2 protocols"):
        run([CU], shaken, heated, seeds=[1])
    with pytest.raises(InputError, match="output_ids has 3 entries for 2 protocols"):
        run([CU], shaken, heated, output_ids=[1, 2, 3])


def annealed(atoms, calc, rng):
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    atoms.calc = calc
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=rng)
    Langevin(atoms, 5 * units.fs, temperature_K=600, friction=0.02 / units.fs, rng=rng).run(15)
    return atoms


def test_outputs_depend_on_neither_order_nor_chunks_nor_workers(run, client, tmp_path, emt, monkeypatch):
    tasks = [bulk(name, cubic=True) for name in ("Cu", "Ag", "Au", "Ni")]
    kwargs = {"calculator": emt, "nstruct": 2}
    whole = run(tasks, shaken, annealed, output_path=tmp_path / "a", **kwargs)
    shuffled = random.Random(1).sample(tasks, 4)
    backwards = run(shuffled, shaken, annealed, output_path=tmp_path / "b", **kwargs)
    monkeypatch.setattr("mlipcluster.schedule.Schedule._mean", lambda *_: TARGET_SECONDS / 3)
    chunked = run(tasks, shaken, annealed, output_path=tmp_path / "c", **kwargs)
    assert len(whole) == 16
    assert by_identity(whole) == by_identity(backwards) == by_identity(chunked)


# --- going on --------------------------------------------------------------------------------------------------------


def finished(results):
    return {e["slot"]: e["finished"] for e in results.entries}


def test_what_is_finished_is_not_done_again(run, capsys):
    first = run(METALS, shaken, heated)
    lines = (first.root / "ledger.jsonl").read_bytes()
    again = run(METALS, shaken, heated, progress=True)
    assert finished(again) == finished(first)
    assert (first.root / "ledger.jsonl").read_bytes() == lines
    assert "9/9 done (9 earlier)" in capsys.readouterr().err


def test_a_file_that_is_gone_is_made_again_bit_for_bit(run):
    first = run(METALS, shaken, heated)
    victim = next(iter(first))
    content = victim.record["metadata"]["result"]["digest"]
    victim.path.unlink()
    again = run(METALS, shaken, heated)
    assert [o.record["metadata"]["result"]["digest"] for o in again if o.name == victim.name] == [content]
    changed = [slot for slot, time in finished(again).items() if finished(first)[slot] != time]
    assert len(changed) == 1


def test_another_run_is_refused(run, emt):
    run([CU], same)
    with pytest.raises(RunFolderError, match=r"holds another run \(protocols: there .*same.* here .*heated_at_300"):
        run([CU], heated_at_300)
    with pytest.raises(RunFolderError, match="seed: there 7, here 8"):
        run([CU], same, seed=8)
    with pytest.raises(RunFolderError, match="calculators: there"):
        run([CU], same, calculator=emt)
    with pytest.raises(RunFolderError, match="already holds a run and resume=False"):
        run([CU], same, resume=False)


def test_two_drivers_do_not_write_one_folder(run, client, tmp_path):
    cluster = MLIPCluster(METALS, client=client, output_path=tmp_path / "run", seed=7, progress=False)
    outputs = cluster.generate(same)
    next(outputs)
    with pytest.raises(RunFolderError, match="is being written by"):
        run(METALS, same)
    outputs.close()
    assert len(run(METALS, same)) == 3


def failing_for_silver(atoms, path):
    if "Ag" in atoms.symbols and os.path.exists(path):
        raise ValueError("silver")
    return atoms


def test_failures_are_done_again_on_request(run, tmp_path):
    path = tmp_path / "here"
    path.touch()
    tasks = [{"atoms": a, "path": str(path)} for a in METALS]
    first = run(tasks, failing_for_silver)
    assert first.counts == {"output": 2, "failed": 1, "empty": 0}
    path.unlink()
    assert run(tasks, failing_for_silver).counts == {"output": 2, "failed": 1, "empty": 0}
    mended = run(tasks, failing_for_silver, retry_failed=True)
    assert mended.counts == {"output": 3, "failed": 0, "empty": 0}
    assert {s: t for s, t in finished(mended).items() if finished(first)[s] == t}.keys() == {
        e["slot"] for e in first.entries if e["status"] == "output"
    }
    assert Results.open(mended.root).counts == mended.counts


# --- a protocol that was edited --------------------------------------------------------------------------------------


def module_of(text, name):
    """A module as a notebook's cell or an editor leaves it."""
    import linecache

    module = types.ModuleType(name)
    file = f"/nowhere/{name}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    exec(compile(text, file, "exec"), module.__dict__)
    return module


FIRST = "def first(atoms):\n    # a comment\n    atoms.info['first'] = {}\n    yield atoms\n    yield {{'t': {}}}\n"
SECOND = """
HELP = {}
def helper(x):
    return x + HELP
def second(atoms, t=0):
    atoms.info['second'] = helper(t)
    return atoms
"""


def test_an_edit_does_only_its_own_protocols_work_again_and_says_why(run, capsys):
    tasks = METALS[:2]
    one, two = module_of(FIRST.format(1, 1), "one").first, module_of(SECOND.format(1), "two").second
    run(tasks, one, two, progress=True)
    capsys.readouterr()

    comment = module_of(FIRST.format(1, 1).replace("a comment", "another"), "one").first
    run(tasks, comment, two, progress=True)
    assert "made again" not in capsys.readouterr().err

    helped = module_of(SECOND.format(2), "two").second
    results = run(tasks, comment, helped, progress=True)
    said = capsys.readouterr().err
    assert "2 finished calls were made again: protocol 'second' changed" in said
    assert "HELP" in said
    assert [o.scores["second"] for o in results] == [3, 3]

    changed = module_of(FIRST.format(1, 1) + "    return\n", "one").first
    results = run(tasks, changed, helped, progress=True)
    said = capsys.readouterr().err
    assert "2 finished calls were made again: protocol 'first' changed" in said
    assert "'second'" not in said.replace("first → second", "")  # it was given the same as before

    passing_on = module_of(FIRST.format(1, 5), "one").first
    results = run(tasks, passing_on, helped, progress=True)
    said = capsys.readouterr().err
    assert "2 finished calls were made again: protocol 'first' changed" in said
    assert "2 finished calls were made again: an earlier protocol gave something else" in said
    assert [o.scores["second"] for o in results] == [7, 7]


def test_an_edit_may_be_accepted(run, capsys):
    run([CU], module_of(FIRST.format(1, 1), "one").first)
    results = run([CU], module_of(FIRST.format(2, 1), "one").first, accept_changes="protocol", progress=True)
    assert "made again" not in capsys.readouterr().err
    assert [o.scores["first"] for o in results] == [1]


SCORED = "def scored(atoms):\n    atoms.calc = Fixed(atoms, energy={})\n    return atoms\n"


def reading(atoms):
    atoms.info["read"] = atoms.calc.results["energy"]
    return atoms


def test_a_changed_energy_is_noticed_by_the_next_protocol(run):
    """Same structure, other results: what was made of the old ones no longer holds."""
    for energy in (1.0, 2.0):
        module = module_of(SCORED.format(energy), "one")
        module.Fixed = SinglePointCalculator
        (output,) = run([CU], module.scored, reading)
        assert output.scores["read"] == energy


MANY = "def many(atoms):\n    for n in range({}):\n        atoms.info['n'] = n\n        yield atoms\n"


def test_fewer_outputs_than_before_leave_none_of_the_old(run):
    counts = []
    for number in (3, 2):
        results = run([CU], module_of(MANY.format(number), "one").many, same)
        counts.append((len(results), len(Results.open(results.root))))
    assert counts == [(3, 3), (2, 2)]


def test_a_changed_filter_is_noticed(run, capsys):
    assert len(run([CU], shaken, filter_results=lambda atoms: False)) == 0
    results = run([CU], shaken, filter_results=lambda atoms: atoms.info["count"] == 1, progress=True)
    assert [o.scores["count"] for o in results] == [1]
    assert "1 finished call was made again: protocol 'shaken' changed (its filter)" in capsys.readouterr().err


def test_another_number_of_threads_is_another_calculator(run, emt, tmp_path):
    run([CU], single_point, calculator=emt)
    with pytest.raises(RunFolderError, match="calculators"):
        run([CU], single_point, calculator=emt.replace(threads=2))


# --- what is written -------------------------------------------------------------------------------------------------


def half_empty(atoms):
    yield Atoms()
    yield atoms


@pytest.mark.parametrize(("filter_results", "count"), [(True, 1), (False, 2), (lambda a: len(a) == 0, 1)])
def test_filter_results(run, filter_results, count):
    results = run([CU], half_empty, filter_results=filter_results)
    assert len(results) == count - (1 if callable(filter_results) else 0)


def test_save_all_saves_every_protocols_outputs(run):
    results = run([CU], shaken, heated, save_all=True)
    steps = sorted(entry["step"] for entry in results.entries)
    assert steps == [0, 0, 1, 1]
    assert all((results.root / entry["file"]).exists() for entry in results.entries)


def test_a_dry_run_counts_and_writes_nothing(tmp_path, capsys, run):
    results = run([*METALS, Atoms()], shaken, heated, dry_run=True, client=None)
    assert len(results) == 0
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().out
    assert "dry run: 4 tasks × shaken → heated; nothing was started or written" in said
    assert "cannot be run: task 3: task 3 has no atoms" in said


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("kind", ["extxyz", "json"])
def test_formats_and_compressions(run, kind, compression):
    (output,) = run([CU], heated_at_300, output_types=(kind,), compression=compression)
    assert output.path.name.endswith(f".{kind}.{compression}".rstrip("."))
    assert output.atoms.info["temperature"] == 300


def test_a_ledger_alone(run):
    results = run([CU], heated_at_300, output_types=(), simulation_records_in_scorefile=True)
    assert not (results.root / "outputs").exists()
    (output,) = results.outputs
    assert output.atoms.info["temperature"] == 300
    assert finished(run([CU], heated_at_300, output_types=(), simulation_records_in_scorefile=True)) == finished(
        results
    )


def test_names_in_the_folder_may_be_chosen(run):
    results = run(
        [CU],
        same,
        output_dir_name="out",
        logs_dir_name="log",
        scorefile_name="scores.jsonl",
        simulation_name="first light",
        author="A",
    )
    assert sorted(p.name for p in results.root.iterdir() if p.is_dir() and p.name in ("out", "log")) == ["log", "out"]
    (line,) = (results.root / "scores.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "output"
    (output,) = results
    assert output.record["instance"]["simulation_name"] == "first light"


def test_the_table(run, emt):
    frame = run([*METALS, Atoms()], single_point, calculator=emt).to_dataframe()
    assert list(frame["status"]) == ["output"] * 3 + ["failed"]
    assert frame["energy"][:3].notna().all()
    assert (frame["seconds"] >= 0).all()


def test_reduce(run):
    assert run(METALS, same).reduce(len) == 3


# --- streaming -------------------------------------------------------------------------------------------------------


def test_generate_gives_what_it_saves_and_what_was_there(client, tmp_path):
    def cluster(tasks):
        return MLIPCluster(tasks, client=client, output_path=tmp_path / "run", seed=7, progress=False)

    first = [(output.name, output.path.exists()) for output in cluster(METALS[:2]).generate(same)]
    assert [exists for _, exists in first] == [True, True]
    more = [output.name for output in cluster(METALS).generate(same)]
    assert len(more) == 3
    assert {name for name, _ in first} < set(more)


def test_a_client_of_ones_own_stays_open_and_its_workers_clean(client, tmp_path):
    def children():
        return [c.pid for pid in client.run(os.getpid).values() for c in psutil.Process(pid).children(recursive=True)]

    with MLIPCluster(METALS * 4, "emt", client=client, output_path=tmp_path / "run", progress=False) as cluster:
        outputs = cluster.generate(slow_single_point)
        next(outputs)
        assert children() != []
        outputs.close()
    assert client.status == "running"
    for pid in children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
            psutil.Process(pid).wait(10)
    assert client.submit(int, "3").result() == 3
    assert client.processing() == dict.fromkeys(client.nthreads(), ())


def slow_single_point(atoms, calc):
    import time

    time.sleep(0.2)
    return single_point(atoms, calc)


def test_one_object_runs_again_after_it_was_broken_off(client, tmp_path):
    with MLIPCluster(METALS * 3, client=client, output_path=tmp_path / "run", seed=7, progress=False) as cluster:
        outputs = cluster.generate(same)
        next(outputs)
        outputs.close()
        with pytest.warns(UserWarning, match="handed in more than once"):
            assert cluster.distribute(same).counts == {"output": 9, "failed": 0, "empty": 0}


def test_an_error_in_the_tasks_keeps_what_is_done(client, tmp_path):
    def tasks():
        yield from METALS
        raise LookupError("no more")

    cluster = MLIPCluster(tasks, client=client, output_path=tmp_path / "run", seed=7, progress=False)
    got = []
    with pytest.raises(LookupError, match="no more"):
        got.extend(cluster.generate(same))
    assert MLIPCluster(METALS, client=client, output_path=tmp_path / "run", seed=7, progress=False).distribute(same)


# --- failures that end the run ---------------------------------------------------------------------------------------


class TooHotError(Exception):
    def __init__(self, kelvin, unit):
        super().__init__(f"{kelvin} {unit}")
        self.kelvin = kelvin


def hot_for_gold(atoms):
    if "Au" in atoms.symbols:
        raise TooHotError(2000, "K")
    return atoms


def test_the_first_failure_is_raised_as_it_was_after_saving(run, tmp_path):
    with pytest.raises(TooHotError, match="2000 K") as caught:
        run(METALS, hot_for_gold, ignore_errors=False)
    assert caught.value.kelvin == 2000
    assert "hot_for_gold" in str(caught.value.__cause__)
    counts = Results.open(tmp_path / "run").counts
    assert counts["failed"] == 1
    assert run(METALS, hot_for_gold).counts == {"output": 2, "failed": 1, "empty": 0}


def test_a_task_that_cannot_be_run_is_raised_too(run, tmp_path):
    with pytest.raises(ValueError, match="task 1 has no atoms"):
        run([CU, Atoms()], same, ignore_errors=False)
    assert Results.open(tmp_path / "run").counts["failed"] == 1


def leaving(atoms):
    raise SystemExit(0)


def test_leaving_a_protocol_does_not_end_the_script_as_if_all_were_well(run):
    with pytest.raises(RuntimeError, match="SystemExit: 0"):
        run([CU], leaving, ignore_errors=False)


def counting(atoms, task, succeed_at):
    if task.attempt < succeed_at:
        raise ValueError(f"attempt {task.attempt}")
    atoms.info["attempt"] = task.attempt
    return atoms


def test_retries_count_attempts(run):
    tasks = [{"atoms": CU, "succeed_at": n} for n in (1, 3, 9)]
    results = run(tasks, counting, retries=2)
    assert sorted(o.scores["attempt"] for o in results) == [1, 3]
    (failure,) = results.failures
    assert (failure.attempts, failure.message) == (3, "attempt 3")
    assert failure.traceback.strip().endswith("ValueError: attempt 3")


def test_a_failure_has_its_input_and_what_it_printed(run):
    def protocol(atoms, x):
        print("so far so good")
        return 1 / x

    (failure,) = run([{"atoms": CU, "x": 0}], protocol).failures
    assert failure.type == "ZeroDivisionError"
    assert "so far so good" in failure.printed
    from mlipcluster.records.packing import decode

    assert decode(failure.details["input"]["structure"]) == CU
    assert decode(failure.details["input"]["kwargs"]) == {"x": 0}


# --- what is checked first -------------------------------------------------------------------------------------------


def test_the_environment_may_be_asked_for(run, tmp_path):
    (output,) = run([CU], same)
    digest = output.record["instance"]["environment_digest"]
    assert len(run([CU], same, environment=digest[:12])) == 1
    with pytest.raises(MismatchError, match="not '0123' as asked"):
        run([CU], same, environment="0123", output_path=tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"outputpath": "x"}, "did you mean 'output_path'"),
        ({"nstruct": 0}, "nstruct=0"),
        ({"nstruct": 1.5}, "nstruct=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"seeds": 5}, "seeds=5: give a list with a whole number for each protocol"),
        ({"seeds": [0.5]}, "seeds=0.5: give a whole number, 0 or more"),
        ({"output_ids": np.eye(2)}, "output_ids=array([1., 0.])"),
        ({"replicate": -1}, "replicate=-1"),
        ({"calculator": "emmt"}, "emt"),
        ({"calculator": "emt", "calculators": {"a": "emt"}}, "calculator and calculators are both given"),
        ({"calculators": {}}, "calculators: give a dictionary of names"),
        ({"calculators": ["emt"]}, "calculators: give a dictionary of names"),
        ({"client": "tcp://127.0.0.1:1"}, "give a distributed.Client"),
        ({"memory": "lots"}, "memory='lots' is not an amount"),
    ],
)
def test_mistakes_are_told_at_once(options, words):
    with pytest.raises(InputError) as caught:
        MLIPCluster(CU, **options)
    assert words in str(caught.value)


def test_client_and_clients_are_one_too_many(client):
    with pytest.raises(InputError, match="client and clients are both given"):
        MLIPCluster(CU, client=client, clients=[client])


def test_resources_that_no_worker_has_are_refused(run, tmp_path):
    for options in ({}, {"client": None}):
        with pytest.raises(InputError, match="no worker has them"):
            run([CU], same, resources={"GPU": 1}, **options)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_every_option():
    parameters = inspect.signature(MLIPCluster).parameters
    assert {"tasks", "calculator", "nstruct", "output_path", "timeout", "max_workers"} < set(parameters)


def test_whole_numbers_of_numpy_are_numbers(run):
    assert len(run([CU], same, nstruct=np.int64(2), seed=np.int32(7))) == 2


@pytest.mark.parametrize("kind", [np.array, lambda values: [np.int64(value) for value in values]])
def test_a_path_may_be_pinned_with_numbers_of_numpy(run, kind):
    (output,) = run([CU], shaken, heated, seeds=kind([5, 6]), output_ids=kind([1, 0]), replicate=np.int64(2))
    told = output.record["instance"]
    assert (told["seeds"], told["output_ids"], told["replicate"]) == ([5, 6], [1, 0], 2)


def test_a_log_that_cannot_be_kept_leaves_no_handler(tmp_path):
    before = list(front.log.handlers)
    with pytest.raises(ValueError, match="Unknown level"), front._logging(RunFolder(tmp_path), "foo"):
        pass
    assert front.log.handlers == before

"""One run folder, written call by call with results made here: no workers."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
from dataclasses import replace

import cloudpickle
import pytest
from ase import Atoms
from ase.build import bulk

from mlipcluster.calls import Call, Failure, TaskInfo
from mlipcluster.distribute import job_for
from mlipcluster.environments.environment import Environment, Package
from mlipcluster.errors import RunFolderError
from mlipcluster.execute import Executor
from mlipcluster.files import RunFolder
from mlipcluster.options import Options
from mlipcluster.outputs.ledger import Ledger
from mlipcluster.outputs.output import problems
from mlipcluster.outputs.results import Results
from mlipcluster.plan import ProtocolOptions, plan_protocols
from mlipcluster.recorder import Live, Told, Trail
from mlipcluster.records.identity import Parts
from mlipcluster.runbook import RunBook
from mlipcluster.tasks import TaskSource


def children(atoms, rng, number=3):
    for count in range(number):
        child = atoms.copy()
        child.rattle(0.1, rng=rng)
        child.info["count"] = count
        yield child
    yield {"temperature": 300.0}


def failing(atoms):
    raise ValueError("no good")


def nothing(atoms):
    return None


def portable_only(atoms):
    atoms.info["thing"] = {1, 2, 3}
    return atoms


def unportable(atoms):
    atoms.info["thing"] = Thing()
    return atoms


class Thing:
    """Nothing that JSON knows."""


class Folder:
    """A run folder, opened again and again as scripts are run again and again."""

    def __init__(self, path, *protocols, **options):
        self.folder = RunFolder(path)
        self.options = Options.from_names({"output_path": path, **options})
        self.planned = plan_protocols(protocols, ProtocolOptions(), None, 1)
        self.executor = Executor(None)

    @contextlib.contextmanager
    def open(self, seed=7):
        with RunBook(self.folder, self.options.saving) as book:
            book.begin(Told(self.planned, {}, 1, seed, self.options.about, None, "0"))
            yield book

    def live(self, atoms, step=0, lineage=(), structure="s", **kwargs):
        (task,) = TaskSource({"atoms": atoms, **kwargs})
        info = TaskInfo(task.key, task.source, 0, step, lineage, self.planned[step].short_name)
        slot = f"{task.key}/0/{'.'.join(map(str, lineage))}/{step}"
        parts = Parts(structure=structure, protocol=self.planned[step].digest, seed=slot)
        return Live(task, Call(info, task.structure, task.kwargs), parts, slot, Trail())

    def make(self, book, live):
        from mlipcluster.distribute import Pinned, Work
        from mlipcluster.facts import CalculatorFacts

        step = live.call.task.step
        work = Work(TaskSource(None), self.planned, {}, CalculatorFacts("e"), 7, Pinned())
        job = job_for("run", self.planned[step], work, self.options, last=step == len(self.planned) - 1)
        result = self.executor.run(job, live.call)
        book.meet(self.executor.introduce(job))
        return pickle.loads(pickle.dumps(result))

    def lines(self, name="ledger.jsonl"):
        return [entry for entry in Ledger(self.folder.root / name).entries() if entry["status"] != "introduction"]


@pytest.fixture
def folder(run_folder):
    return lambda *protocols, **options: Folder(run_folder, *protocols, **options)


CU = bulk("Cu")


def test_outputs_are_written_and_found_again(folder):
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        assert book.find(live) is None
        with book.together():
            saved = book.save_outputs(live, it.make(book, live))
        assert [s.output().atoms.info["count"] for s in saved] == [0, 1, 2]
        assert all(problems(s.path) == [] for s in saved)
    with it.open() as book:
        found = book.find(it.live(CU))
        assert found.status == "output"
        assert [earlier.output().atoms.info["count"] for earlier in found.outputs] == [0, 1, 2]
        assert book.find(it.live(bulk("Ag"))) is None


def test_lines_wait_for_the_end_of_the_block_and_survive_an_error_in_it(folder):
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        result = it.make(book, live)

        def interrupted():
            with book.together():
                book.save_outputs(live, result)
                assert it.lines() == []
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert len(it.lines()) == 3


@pytest.mark.parametrize(("protocol", "status"), [(failing, "failed"), (nothing, "empty")])
def test_failures_and_nothing_are_finished_too(folder, protocol, status):
    it = folder(protocol)
    with it.open() as book:
        live = it.live(CU)
        result = it.make(book, live)
        with book.together():
            if status == "failed":
                book.save_failure(live, result, attempts=2)
            else:
                book.save_outputs(live, result)
    with it.open() as book:
        assert book.find(it.live(CU)).status == status
        book.retry_failed = True
        assert (book.find(it.live(CU)) is None) == (status == "failed")
    counts = Results.open(it.folder.root).counts
    assert counts[status] == 1
    if status == "failed":
        (failure,) = Results.open(it.folder.root).failures
        assert (failure.attempts, failure.message) == (2, "no good")


def test_children_survive_bit_for_bit_with_updates(folder):
    it = folder(children, portable_only)
    with it.open() as book:
        live = it.live(CU)
        made = it.make(book, live)
        with book.together():
            book.save_children(live, made)
    with it.open() as book:
        found = book.find(it.live(CU)).result
        assert found.updates == {"temperature": 300.0}
        assert [p.digest for p in found.products] == [p.digest for p in made.products]
        assert [p.index for p in found.products] == [0, 1, 2]
        for one, other in zip(found.products, made.products, strict=True):
            a, b = pickle.loads(one.structure), pickle.loads(other.structure)
            assert a.positions.tobytes() == b.positions.tobytes()
            assert a.info == b.info


def test_children_that_hold_pickles_are_made_again(folder):
    """A pickle in a file could be anybody's."""
    it = folder(unportable, portable_only)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_children(live, it.make(book, live))
        assert "__pickle__" in json.dumps(it.lines("intermediate.jsonl"))
    with it.open() as book:
        assert book.find(it.live(CU)) is None


def test_a_changed_part_is_told_and_the_call_made_again(folder):
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_outputs(live, it.make(book, live))
    for change, reason in (
        ({"calculator": "other"}, "the calculator, its weights or its environment changed"),
        ({"environment": "other"}, "the environment changed"),
        ({"seed": "other"}, "the seed changed"),
        ({"structure": "other"}, "an earlier protocol gave something else"),
        ({"protocol": "f" * 64}, "protocol 'children' changed"),
    ):
        with it.open() as book:
            live = it.live(CU)
            assert book.find(replace(live, parts=replace(live.parts, **change))) is None
            assert list(book.again) == [reason]
        if set(change) <= {"protocol", "calculator", "environment"}:
            accepting = folder(children, accept_changes=tuple(change))
            with accepting.open() as book:
                live = accepting.live(CU)
                assert book.find(replace(live, parts=replace(live.parts, **change))).status == "output"


def test_one_folder_has_one_writer(folder):
    it = folder(children)
    with it.open(), pytest.raises(RunFolderError, match="is being written"), it.open():
        pass
    with it.open():
        pass


def test_a_pinned_output_is_saved_alone(folder):
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_outputs(live, it.make(book, live), only=1)
    (line,) = it.lines()
    assert line["output"] == [1, 3]


def test_what_a_run_was_told_is_kept(folder):
    it = folder(children, author="A", simulation_name="S")
    with it.open() as book:
        assert book.root_seed() == 7
    told = json.loads(it.folder.run_file.read_text())
    assert (told["seed"], told["author"], told["simulation_name"]) == (7, "A", "S")
    assert told["protocols"][0].endswith(":children")


def test_a_newer_folder_is_refused(folder):
    it = folder(children)
    with it.open():
        pass
    told = json.loads(it.folder.run_file.read_text())
    it.folder.run_file.write_text(json.dumps({**told, "schema": told["schema"] + 1}))
    with pytest.raises(RunFolderError, match="written by a newer mlipcluster"), it.open():
        pass


def test_environments_are_kept_by_digest(folder):
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_outputs(live, it.make(book, live))
    (line,) = {entry["environment_digest"] for entry in it.lines()}
    kept = it.folder.environments / line
    assert (kept / "environment.json").exists()
    assert any("numpy" in path.read_text() for path in kept.iterdir() if path.suffix in (".txt", ".lock"))


UV = Environment(
    "uv",
    "/p/.venv",
    "3.11.7",
    "linux-x86_64",
    (Package("ase", "3.25"),),
    "version = 1\n",
    "uv.lock",
    "[project]\n",
    "pyproject.toml",
    ("ase 3.25 is installed, uv.lock says 3.24",),
    (("requirements.txt", "ase==3.25\n"),),
)


def test_every_file_of_each_environment_is_in_the_record_and_in_the_folder(folder, monkeypatch):
    """The workers' under the promised keys, and each calculator's under the same names in one object."""
    pixi = replace(UV, manager="pixi", lock="version: 6\n", lock_name="pixi.lock", packages=(), more_files=())
    it = folder(children)
    monkeypatch.setattr("mlipcluster.execute.measure", lambda python=None: UV)
    introduce = it.executor.introduce
    said = {"c": {"environment": pixi.to_json()}}
    monkeypatch.setattr(it.executor, "introduce", lambda job: replace(introduce(job), calculators=said))
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            (saved, *_) = book.save_outputs(live, it.make(book, live))
    record = saved.output().record
    instance, metadata = record["instance"], record["metadata"]
    assert (instance["environment"], instance["environment_digest"]) == (UV.lock, UV.digest)
    assert (metadata["toml"], metadata["toml_format"]) == (UV.toml, UV.toml_format)
    packed = {**metadata["environment"], "lock": instance["environment"], "toml": metadata["toml"]}
    assert Environment.from_json(packed) == UV
    assert Environment.from_json(metadata["calculators"]["c"]["environment"]) == pixi
    for environment in (UV, pixi):
        kept = it.folder.environments / environment.digest
        files = {path.name: path.read_text() for path in kept.iterdir() if path.name != "environment.json"}
        assert files == environment.files()


def dies_between_the_appends(monkeypatch, book, save):
    """Whoever appends to the second of the two files is killed before that."""
    appended = []

    def append(self, entries):
        if entries and appended not in ([], [self.path]):
            raise InterruptedError
        if entries:
            appended.append(self.path)
        return plainly(self, entries)

    plainly = Ledger.append
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", append)
        with pytest.raises(InterruptedError), book.together():
            save()


def test_no_line_of_an_output_on_the_way_is_lost_between_the_appends(folder, monkeypatch):
    it = folder(children, portable_only, save_all=True)
    with it.open() as book:
        live = it.live(CU)
        result = it.make(book, live)
        dies_between_the_appends(monkeypatch, book, lambda: book.save_children(live, result))
    with it.open() as book:
        assert book.find(live) is None
        with book.together():
            book.save_children(live, it.make(book, live))
    assert sorted(line["output"] for line in it.lines()) == [[0, 3], [1, 3], [2, 3]]
    assert len(list(it.folder.outputs.rglob("*.extxyz"))) == 3
    with it.open() as book:
        assert book.find(it.live(CU)).status == "children"


def test_success_after_failure_is_not_lost_between_the_appends(folder, monkeypatch):
    it = folder(children, portable_only, retry_failed=True)
    with it.open() as book:
        live = it.live(CU)
        result = it.make(book, live)
        failed = replace(result, products=(), failure=Failure("ValueError", "no good", "", None))
        with book.together():
            book.save_failure(live, failed, attempts=1)
    with it.open() as book:
        assert book.find(live) is None
        dies_between_the_appends(monkeypatch, book, lambda: book.save_children(live, result))
    with folder(children, portable_only).open() as book:
        found = book.find(it.live(CU))
        assert found is None or found.status == "children"


def test_outputs_on_the_way_are_saved_when_that_is_asked_for_later(folder):
    it = folder(children, portable_only)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_children(live, it.make(book, live))
    saving = folder(children, portable_only, save_all=True)
    with saving.open() as book:
        assert book.find(saving.live(CU)) is None
        assert list(book.again) == ["files of its outputs are not there"]


def test_outputs_that_are_there_are_given_beside_those_made_again(folder):
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            gone = book.save_outputs(live, it.make(book, live))[1]
    gone.path.unlink()
    with it.open() as book:
        assert book.find(live) is None
        with book.together():
            given = book.save_outputs(live, it.make(book, live))
        assert [one.output().atoms.info["count"] for one in given] == [0, 1, 2]
    assert len(it.lines()) == 4


def test_every_format_has_to_be_there(folder):
    it = folder(children, output_types=("extxyz", "json"))
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_outputs(live, it.make(book, live))
    (one, _, _) = sorted(it.folder.outputs.rglob("*.json"))
    one.unlink()
    with it.open() as book:
        assert book.find(live) is None
        with book.together():
            book.save_outputs(live, it.make(book, live))
    assert one.is_file()
    with it.open() as book:
        assert book.find(live).status == "output"
    assert len(list(it.folder.outputs.rglob("*.*"))) == 6


@pytest.mark.parametrize("before", [(), ("json",)])
def test_a_format_that_is_asked_for_later_is_written(folder, before):
    it = folder(children, output_types=before)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_outputs(live, it.make(book, live))
    later = folder(children, compression="gz")
    with later.open() as book:
        assert book.find(live) is None
        with book.together():
            later_saved = book.save_outputs(live, later.make(book, live))
    assert all(saved.path.name.endswith(".extxyz.gz") for saved in later_saved)
    with folder(children).open() as book:  # compressed or not
        assert book.find(live).status == "output"


def test_a_run_that_came_to_nothing_makes_room(folder):
    with folder(nothing).open():
        pass
    it = folder(children)
    with it.open() as book:
        live = it.live(CU)
        with book.together():
            book.save_outputs(live, it.make(book, live))
    with pytest.raises(RunFolderError, match="holds another run"), folder(nothing).open():
        pass


def test_no_warnings_on_the_way(folder):
    it = folder(children)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with it.open() as book:
            live = it.live(Atoms("H", cell=[5, 5, 5]))
            with book.together():
                book.save_outputs(live, it.make(book, live))
    assert cloudpickle.loads(it.planned[0].pickled) is not None

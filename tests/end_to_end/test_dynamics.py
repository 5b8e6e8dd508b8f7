"""Langevin dynamics amplify the last bit of a force: the same bits come out whoever ran them, with what, and when."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
import textwrap

import pytest
from ase.build import bulk
from distributed import Client, LocalCluster

from mlipcluster import MLIPCluster, protocols, reproduce, schedule
from mlipcluster.workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPEATS = 2
STEPS = 80
TASKS = [
    {"atoms": bulk(metal, cubic=True) * (1, 1, 1 + number % 2), "temperature": 200.0 + 100 * number}
    for number, metal in enumerate(["Cu", "Ag", "Au", "Ni", "Pt"])
]


PROTOCOLS = f"""
    import os

    import psutil

    from mlipcluster.protocols import md

    def told(atoms, calc, rng, temperature):
        print(os.getpid())
        return md(atoms, calc, rng, temperature=temperature, steps={STEPS}, timestep=2.0)

    def murderous(atoms, calc, rng, temperature, marker):
        killing = marker and not os.path.exists(marker)
        atoms = md(atoms, calc, rng, temperature=temperature, steps={STEPS}, timestep=2.0)
        for process in psutil.Process().children():
            if killing and "socket_worker" in " ".join(process.cmdline()):
                open(marker, "x").close()
                process.kill()
        return md(atoms, calc, rng, steps={STEPS}, timestep=2.0, thermalize=False)
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A user's module; outside this repository, whose state does not matter here."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "users_dynamics.py").write_text(textwrap.dedent(PROTOCOLS))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("users_dynamics")


@pytest.fixture(scope="module")
def workers():
    """A client for each layout: Dask workers, and threads in each."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as one,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as two,
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as threads,
        Client(one, set_as_default=False) as of_one,
        Client(two, set_as_default=False) as of_two,
        Client(threads, set_as_default=False) as of_threads,
    ):
        yield {"one": of_one, "two": of_two, "threads": of_threads}


@pytest.fixture
def run(workers, tmp_path, monkeypatch, code):
    """Run the dynamics in one arrangement; give its results, and how many calls its chunks had."""
    numbers = itertools.count()

    def run(layout="one", tasks=TASKS, chunks=(), calculator="emt", **options):
        sizes = []
        for name, value in chunks:
            monkeypatch.setattr(schedule, name, value)
        submit = Workers.submit
        with monkeypatch.context() as patch:
            patch.setattr(Workers, "submit", lambda self, *a: (sizes.append(len(a[-1])), submit(self, *a))[1])
            cluster = MLIPCluster(
                tasks,
                calculator,
                nstruct=REPEATS,
                seed=3,
                client=workers[layout],
                progress=False,
                output_path=tmp_path / f"run {next(numbers)}",
                **options,
            )
            results = cluster.distribute(code.told)
        monkeypatch.undo()
        assert not results.failures
        return list(results), sizes

    return run


def place(output) -> tuple[str, int]:
    return output.record["metadata"]["task_key"], output.record["instance"]["replicate"]


def process_of(output) -> int:
    return int(output.record["metadata"]["printed"])


def started(output) -> str:
    return output.record["metadata"]["times"]["started"]


ALONE = (("LARGEST_CHUNK", 1),)
TOGETHER = (("GROWTH", 1000), ("TARGET_SECONDS", 1e6))


def test_worker_chunks_order_and_warmth_change_no_bit(run, workers, bits):
    reference, sizes = run(chunks=ALONE)
    assert set(sizes) == {1}
    assert len({process_of(output) for output in reference}) == 1
    expected = {place(output): bits(output.atoms) for output in reference}
    assert len(expected) == len({str(numbers) for numbers in expected.values()}) == REPEATS * len(TASKS)

    big, sizes = run("one", chunks=TOGETHER)
    assert max(sizes) > 5
    two, _ = run("two", tasks=TASKS[::-1], chunks=ALONE)
    assert len({process_of(output) for output in two}) == 2
    threads, _ = run("threads", tasks=TASKS[2:] + TASKS[:2])
    assert len({process_of(output) for output in threads}) == 2
    single, _ = run("one", tasks=TASKS[3])
    for outputs in (big, two, threads):
        assert {place(output): bits(output.atoms) for output in outputs} == expected
    for output in single:
        assert bits(output.atoms) == expected[place(output)]

    # The first of one process, the last of others, and one that was alone; each on another layout than before.
    chosen = [(min(reference, key=started), "two"), (single[-1], "threads")]
    for outputs, again in ((big, "two"), (two, "threads"), (threads, "one")):
        last = {process_of(output): output for output in sorted(outputs, key=started)}
        chosen += [(output, again) for output in last.values()]
    for output, again in chosen:
        audit = reproduce(output.path, client=workers[again])
        assert audit.verdict == "identical", audit.text()
        assert not audit.differences
        assert bits(audit.new.atoms) == expected[place(output)]


def test_a_calculator_that_is_killed_on_the_way_gives_the_same_bits(code, bits, workers, tmp_path):
    found = []
    for marker in ("", tmp_path / "killed"):
        given = {
            "seed": 3,
            "client": workers["one"],
            "progress": False,
            "output_path": tmp_path / f"run {bool(marker)}",
        }
        task = {**TASKS[1], "marker": os.fspath(marker)}
        pinned = {"seeds": [12345], "output_ids": [0]}  # another keyword argument would mean another seed
        (output,) = MLIPCluster(task, "emt", **pinned, **given).distribute(code.murderous)
        found.append(bits(output.atoms))
    assert marker.exists()
    assert found[0] == found[1]


def test_ready_made_dynamics_are_made_again_by_the_command_line(workers, tmp_path):
    given = {"seed": 4, "client": workers["two"], "progress": False, "output_path": tmp_path / "run"}
    results = MLIPCluster([{"atoms": t["atoms"], "steps": STEPS} for t in TASKS], "emt", **given).distribute(
        protocols.md
    )
    command = [sys.executable, "-m", "mlipcluster", "reproduce", os.fspath(results.outputs[-1].path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("identical: energy, forces, stress, positions, cell (bit for bit)")

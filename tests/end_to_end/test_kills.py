"""Whatever is killed, and whenever: the same script again finishes the run, with the results of a quiet one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from mlipcluster.outputs.output import problems

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OUTPUTS = 400

SCRIPT = """
    import os
    import sys

    from ase.build import bulk

    from mlipcluster import MLIPCluster, files

    METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt")


    def rattle(atoms, rng, amplitude, children):
        for _ in range(children):
            child = atoms.copy()
            child.positions += rng.normal(0, amplitude, child.positions.shape)
            yield child
        yield {"steps": 3}


    def walk(atoms, calc, rng, steps):
        atoms.calc = calc
        for _ in range(steps):
            atoms.positions += 0.01 * atoms.get_forces() + rng.normal(0, 0.01, atoms.positions.shape)
        atoms.get_potential_energy()
        return atoms


    def tasks():
        for number in range(300):
            atoms = bulk(METALS[number % len(METALS)], cubic=True)
            yield {"atoms": atoms, "amplitude": 0.01 + 0.0001 * number, "children": 2 if number % 3 == 0 else 1}


    def die_at(place, count):
        '''End this process with SIGKILL at one place of its work on the run folder.'''
        import signal

        from mlipcluster.outputs import ledger

        left = [count]

        def die_when_due():
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def dying_write(fd, data):
            if data.startswith(b'{"status":"' + place.encode()):
                if left[0] == 1:
                    os_write(fd, data[: len(data) // 2 + 7])
                die_when_due()
            return os_write(fd, data)

        def dying_replace(source, target):
            if target.suffix == ".extxyz":
                die_when_due()
            return replace(source, target)

        def dying_append(self, entries):
            if self.path.name == "ledger.jsonl":
                die_when_due()
            return append(self, entries)

        os_write, replace, append = os.write, files.Path.replace, ledger.Ledger.append
        if place == "rename":
            files.Path.replace = dying_replace
        elif place == "between":
            ledger.Ledger.append = dying_append
        else:
            os.write = dying_write


    if __name__ == "__main__":
        if "DIE_AT" in os.environ:
            die_at(os.environ["DIE_AT"], int(os.environ["DIE_COUNT"]))
        files.OUTPUTS_PER_FOLDER = 50
        cluster = MLIPCluster(tasks, "emt", output_path=sys.argv[1], seed=11, max_workers=int(sys.argv[2]))
        results = cluster.distribute(rattle, walk, retries=4)
        print(len(results), "outputs,", len(results.failures), "failures")
"""


@pytest.fixture(scope="module")
def quiet(script_of_module, lines):
    """What the run gives when nobody disturbs it: for each output the digest of its result, and its scores."""
    script = script_of_module(SCRIPT)
    assert f"{OUTPUTS} outputs, 0 failures" in script.run("run", "2")
    script.wait_until_gone()
    return results_in(lines(script.folder / "run" / "ledger.jsonl"))


@pytest.fixture
def is_as_quiet(quiet, lines):
    """Hold a finished run folder against the undisturbed one."""

    def check(root: Path) -> None:
        entries = lines(root / "ledger.jsonl")
        finished = [entry for entry in entries if entry["status"] != "passed on"]
        assert {entry["status"] for entry in finished} == {"output"}
        assert len(finished) == OUTPUTS  # each once: no line was written twice
        assert results_in(finished) == quiet
        files = {entry["file"] for entry in finished}
        assert len(files) == OUTPUTS
        here = {path.relative_to(root).as_posix() for path in (root / "outputs").rglob("*") if path.is_file()}
        assert here == files  # no half-written file, and none that no line knows
        assert not [file for file in files if problems(root / file)]
        lines(root / "intermediate.jsonl")
        assert not (root / "failures").exists()

    return check


def results_in(entries: list[dict]) -> dict[tuple[str, int], tuple[str, dict, list[int]]]:
    return {(e["slot"], e["output"][0]): (e["result_digest"], e["scores"], e["seeds"]) for e in entries}


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("*.jsonl"))


def wait_for_a_moment(process, root: Path, moments: random.Random) -> bool:
    """Wait until work is being saved, and then a random while; False if the script has ended meanwhile."""
    began = size(root)
    while process.poll() is None and size(root) == began:
        time.sleep(0.01)
    time.sleep(moments.uniform(0, 1.0))
    return process.poll() is None


def kill(victim: psutil.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGKILL)


# --- the driver ------------------------------------------------------------------------------------------------------


def test_the_driver_or_everything_killed_at_random_moments(script, is_as_quiet):
    moments = random.Random(20)
    one = script(SCRIPT)
    root = one.folder / "run"
    for victim in ("driver, early", "driver", "everything", "driver"):
        process = one.start("run", "2")
        if "early" in victim:
            time.sleep(moments.uniform(1, 4))
        else:
            wait_for_a_moment(process, root, moments)
        if victim == "everything":
            one.end()
        process.kill()
        process.wait()
        one.wait_until_gone()
    assert f"{OUTPUTS} outputs, 0 failures" in one.run("run", "2")
    one.wait_until_gone()
    is_as_quiet(root)


def test_the_driver_killed_at_the_worst_places(script, is_as_quiet):
    one = script(SCRIPT)
    for place, count in [
        ("rename", 40),  # an output is written, but not renamed
        ("between", 4),  # outputs are there without their lines
        ("children", 2),  # in the middle of what goes to the next protocol
        ("output", 2),  # in the middle of the ledger's lines
    ]:
        process = one.start("run", "1", DIE_AT=place, DIE_COUNT=str(count))
        assert process.wait(240) == -signal.SIGKILL, one.log.read_text()
        one.wait_until_gone()

    assert f"{OUTPUTS} outputs, 0 failures" in one.run("run", "1")
    is_as_quiet(one.folder / "run")


# --- its workers -----------------------------------------------------------------------------------------------------


def test_workers_and_their_processes_killed_while_the_driver_goes_on(script, is_as_quiet):
    moments = random.Random(22)
    one = script(SCRIPT)
    root = one.folder / "run"
    process = one.start("run", "2")
    killed = []
    for kind in ["calculator", "worker", "protocols", "calculator", "protocols"]:
        if not wait_for_a_moment(process, root, moments):
            break
        if victims := one.processes(kind):
            kill(moments.choice(victims))
            killed.append(kind)
    assert set(killed) == {"calculator", "worker", "protocols"}
    assert process.wait(240) == 0, one.log.read_text()
    assert f"{OUTPUTS} outputs, 0 failures" in one.log.read_text()
    one.wait_until_gone()
    is_as_quiet(root)

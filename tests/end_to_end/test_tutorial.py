"""Every block of the tutorial, run in the order in which a reader would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CALLS = 3 * 3 * 2  # of rattle: crystals, amplitudes, repeats
OUTPUTS = CALLS * 2


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert {language for language, _ in found} == {"python", "console"}
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder as the reader has it, and a PATH on which ``python`` and ``mlipcluster`` are those of the tests."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(ROOT / "examples")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (bin_folder / "mlipcluster").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlipcluster "$@"\n')
    for path in bin_folder.iterdir():
        path.chmod(0o755)
    for language, text in blocks():
        if language == "python" and (name := re.match(r"# (\w+\.py)\n", text)):
            (folder / name[1]).write_text(text)
    return folder, {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def session(reader):
    """What the reader's Python prints for the blocks that are no files."""
    folder, environment = reader
    code = [text for language, text in blocks() if language == "python" and not re.match(r"# \w+\.py\n", text)]
    # As typed: one after the other, in one Python.
    (folder / "session.py").write_text("\nprint('-----')\n".join(code))
    done = subprocess.run(
        [sys.executable, "-W", "error", "session.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(["relax", "table", "failures", "file", "audit"], done.stdout.split("-----\n"), strict=True))


def test_good_structures_are_relaxed_and_the_others_told(session):
    assert re.search(r"Results: \d+ outputs, \d+ failed in ", session["table"])
    assert "Ni_volumes.extxyz#1" in session["table"]
    for name in ("Ar.cif", "NaCl.cif", "Ne.extxyz"):
        assert name in session["failures"]
    assert "Ag.vasp" not in session["failures"]


def test_an_output_is_read_by_ase_and_made_again(session):
    assert session["file"].startswith("Atoms(symbols='Ag4', pbc=True")
    assert "'ase': " in session["file"]
    assert session["audit"].startswith("identical: energy, forces, stress, positions, cell (bit for bit)")


def run(command: str, reader) -> str:
    folder, environment = reader
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def interrupt(reader) -> tuple[str, int]:
    """Press Ctrl-C when the first outputs are there; what was said, and how many there are then."""
    folder, environment = reader
    ledger = folder / "runs" / "anneal" / "ledger.jsonl"
    process = subprocess.Popen(
        ["python", "anneal.py"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and not (ledger.exists() and ledger.stat().st_size):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    return said, len(ledger.read_text().splitlines())


def test_the_console_goes_on_after_ctrl_c_and_reproduces(reader):
    first, second, show, again = [
        line.removeprefix("$ ")
        for language, text in blocks()
        if language == "console"
        for line in text.splitlines()
        if line.startswith("$ ")
    ]
    assert first == second == "python anneal.py"
    said, done = interrupt(reader)
    assert "KeyboardInterrupt" in said
    assert 0 < done < OUTPUTS
    said = run(second, reader)
    assert len(re.findall(r"^(?:(?:Ag|Au|Cu)16)? +0\.\d\d +", said, flags=re.MULTILINE)) == 9
    assert re.search(rf"rattle → anneal: {CALLS + OUTPUTS}/{CALLS + OUTPUTS} done \(\d+ earlier\), 0 failed", said)

    shown = run(show, reader)
    assert "rattle" in shown
    assert "anneal" in shown
    assert run(again, reader).startswith("identical: energy, forces, stress, positions, cell (bit for bit)")

    folder, _ = reader
    path = folder / "anneal.py"
    path.write_text(path.read_text().replace("fmax=0.05", "fmax=0.01"))
    said = run(first, reader)
    assert f"{OUTPUTS} finished calls were made again: protocol 'anneal' changed." in said
    assert f"{CALLS + OUTPUTS}/{CALLS + OUTPUTS} done ({CALLS} earlier)" in said

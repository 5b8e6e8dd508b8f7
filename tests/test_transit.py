from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from mlipcluster.transit import SMALLEST, dumps, pack, unpack


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        b"",
        bytes(10 * SMALLEST),
        np.random.default_rng(0).bytes(10 * SMALLEST),
        {"a": [1, (2.5, None)]},
    ],
)
def test_what_is_packed_comes_out(value):
    assert unpack(pack(value)) == value


def test_repetitions_are_squeezed():
    assert len(pack(["Cu.cif#0"] * 5000 + ["x" * 10_000])) < 1000


def test_objects_of_a_class_that_nobody_else_can_import(tmp_path):
    code = (
        "import sys; from mlipcluster.transit import unpack; print(unpack(open(sys.argv[1], 'rb').read()).temperature)"
    )
    script = tmp_path / "own.py"
    script.write_text(
        "from dataclasses import dataclass\nfrom mlipcluster.transit import pack\n"
        "@dataclass\nclass Settings:\n    temperature: float\n"
        f"open({str(tmp_path / 'main')!r}, 'wb').write(pack(Settings(600.0)))\n"
    )
    subprocess.run([sys.executable, script], check=True)
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "main"], check=True, capture_output=True, text=True)
    assert said.stdout == "600.0\n"


def test_code_keeps_the_name_of_its_file():
    def outer():
        def inner():
            raise ValueError

        return inner

    copy = pickle.loads(dumps(outer))
    assert {copy.__code__.co_filename, copy().__code__.co_filename} == {__file__}

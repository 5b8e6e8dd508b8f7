from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mlipcluster
from mlipcluster.errors import InputError
from mlipcluster.settings.keys import KEYS, PLAIN, read, variable


def test_every_plain_key_has_a_variable_of_its_own():
    assert len({variable(key) for key in PLAIN}) == len(PLAIN)
    assert variable("serve.idle_timeout") == "MLIPCLUSTER_SERVE_IDLE_TIMEOUT"


@pytest.mark.parametrize("key", [key for key in PLAIN if KEYS[key].default is not None])
def test_a_default_is_what_could_be_said(key):
    default = KEYS[key].default
    assert read(key, default, "here") == (list(default) if isinstance(default, tuple) else default)


def test_a_name_of_a_cluster_may_hold_dots():
    assert read("clusters.a.b.c.root", "/x", "here") == "/x"
    with pytest.raises(InputError, match=r"here: clusters\.a\.b\.root is 3; give the full path"):
        read("clusters.a.b.root", 3, "here")


def test_the_standard_library_is_enough():
    code = (
        "import mlipcluster.settings.values as v; v.settings();"
        "print(sorted({module.split('.')[0] for module in sys.modules}))"
    )
    folder = Path(mlipcluster.__file__).parents[1]
    run = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(folder)!r}); {code}"]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "ase", "rich", "typer", "tomli"} & set(eval(found))


def test_the_page_has_every_key_with_its_variable():
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    for key in PLAIN:
        assert f"| `{key}` | `{variable(key)}` |" in page

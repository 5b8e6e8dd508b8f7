from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlipcluster.environments import measure_script
from mlipcluster.environments.measure_script import without_credentials

SCRIPT = Path(measure_script.__file__)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://user:pass@h.org/x", "https://h.org/x"),
        ("https://token@h.org/x", "https://h.org/x"),
        ("https://${USER}:${PASS}@h.org/x", "https://h.org/x"),
        ("https://us@er:p@ss@h.org/x", "https://h.org/x"),
        ("git+https://t@h.org/r.git@abc#subdirectory=x", "git+https://h.org/r.git@abc#subdirectory=x"),
        ("git+ssh://git@h.org/r.git", "git+ssh://git@h.org/r.git"),
        ("git+ssh://git:pw@h.org/r.git", "git+ssh://h.org/r.git"),
        ("https://c.org/t/se-cret/channel", "https://c.org/channel"),
        ("https://h.org/x?token=a&rev=main#abc", "https://h.org/x?rev=main#abc"),
        ("https://h.org/x?rev=main&X-Amz-Signature=a", "https://h.org/x?rev=main"),
        ("https://h.org/x?rev=main", "https://h.org/x?rev=main"),
        ("https://h.org/a@b", "https://h.org/a@b"),
        ("file:///a/t/b/c", "file:///a/t/b/c"),
        ('url = "https://a:b@h.org/x"\nother = "me@home.org"', 'url = "https://h.org/x"\nother = "me@home.org"'),
        ("no address, user@host", "no address, user@host"),
        ("https://user:pa/ss@h.org/x", "https://h.org/x"),
        ("see https://user:p?a#s/s@h.org/x, now", "see https://h.org/x, now"),
        ("https://h.org:8443/r.git@abc", "https://h.org:8443/r.git@abc"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("+https://a:b@h.org/x\n+https://c:d@h.org/y", "+https://h.org/x\n+https://h.org/y"),
        ("https://a.org/x https://b:c@h.org/y", "https://a.org/x https://h.org/y"),
        ("'https://a.org/https://b:c@h.org/y'", "'https://a.org/https://h.org/y'"),
        ("user:pw@h.org:path/repo", "h.org:path/repo"),
        ("git@h.org:path/repo", "git@h.org:path/repo"),
        ("image:tag@sha256:abc", "image:tag@sha256:abc"),
        ("https://h.org/t/se-cret", "https://h.org"),
        ("git+https://h.org/t/r.git@abc", "git+https://h.org/t/r.git@abc"),
        ("https://h.org/x?access_key=a&AWSAccessKeyId=b&rev=main", "https://h.org/x?rev=main"),
        ("https://h.org/x?key=a", "https://h.org/x"),
        ("https://h.org/x?code=a&sv=1", "https://h.org/x?sv=1"),
        ("https://h.org/x?keyword=a&encode=b", "https://h.org/x?keyword=a&encode=b"),
        ("https://h.org/x?pass=a&passage=b", "https://h.org/x?passage=b"),
        ("https://h.org/x#token=a", "https://h.org/x"),
        ("https://h.org/x#token=a&subdirectory=y", "https://h.org/x#subdirectory=y"),
        ("https://h.org/x?password=a b&rev=main", "https://h.org/x?rev=main"),
        ('url = "https://h.org/x?password=a b", rev = 1', 'url = "https://h.org/x", rev = 1'),
    ],
)
def test_without_credentials(text, clean):
    assert without_credentials(text) == clean
    assert without_credentials(clean) == clean


def test_a_python_without_the_global_lock_is_another_one(monkeypatch):
    monkeypatch.setattr(sys, "abiflags", "")
    usual = measure_script.measure()["python"]
    monkeypatch.setattr(sys, "abiflags", "t")
    assert measure_script.measure()["python"] == f"{usual}t"


def test_it_stands_alone():
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.partition(".")[0])
    assert modules <= set(sys.stdlib_module_names)


def test_its_answer_is_one_line_of_json(tmp_path):
    copy = tmp_path / "elsewhere ü.py"
    copy.write_text(SCRIPT.read_text())
    done = subprocess.run([sys.executable, "-I", str(copy)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["schema"] == 1
    assert answer["prefix"] == sys.prefix
    names = [package["name"] for package in answer["packages"]]
    assert names == sorted(set(names))
    assert {"numpy", "ase"} <= set(names)

from __future__ import annotations

import contextlib
import hashlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mlipcluster.errors import InputError
from mlipcluster.store.source import ANY, read_source

SEED = '''# /// script
# requires-python = ">=3.10"
# dependencies = ["mace-torch>=0.3.0", "ase>=3.22"]
# ///
"""MACE, in the first form."""

def setup(model: str, device: str = "cuda"):
    raise SystemExit("this file must not be run")

raise SystemExit("this file must not be run")
'''
LATER = """# /// script
# requires-python = ">=3.11"
# dependencies = [
#     # with a comment
#     "ase>=3.22",
#     "mine @ git+https://example.org/mine.git",
# ]
#
# [tool.uv.sources]
# ase = { index = "other" }
# ///

CHECKPOINTS: dict = {"mace-mp-0-small": "small", "mace-mp:custom": None}
VERIFY_KWARGS = {"mace-mp-0-small": {"task": "omat"}}
CLUSTERS = ["polaris"]


def setup(checkpoint, /, device="cuda", *more, head=None, **kwargs):
    pass


def setup_from_path(path, device="cuda", **kwargs):
    pass
"""
BODY = "\ndef setup(model, device='cuda'):\n    pass\n"
BLOCK = "# /// script\n# dependencies = []\n# ///\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="mace_env.py"):
        folder = tmp_path / "a 'folder'\nof \"sources\""
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
        return folder / name

    return write


def test_the_first_form(write):
    source = read_source(write(SEED))
    assert (source.name, source.kind, source.file_name, source.module) == (
        "mace_env",
        "python",
        "mace_env.py",
        "mace_env",
    )
    assert source.requires_python == ">=3.10"
    assert source.dependencies == ("mace-torch>=0.3.0", "ase>=3.22")
    assert source.functions == {"setup": ("model", "device")}
    assert (source.checkpoints, source.verify_kwargs, source.clusters) == ({}, {}, ())
    assert source.digest == hashlib.sha256(SEED.encode()).hexdigest()


def test_the_later_form(write):
    source = read_source(write(LATER, "mace.py"))
    assert source.checkpoints == {"mace-mp-0-small": "small", "mace-mp:custom": None}
    assert source.verify_kwargs == {"mace-mp-0-small": {"task": "omat"}}
    assert source.clusters == ("polaris",)
    assert source.functions["setup"] == ("checkpoint", "device", "*more", "head", "**kwargs")
    assert source.functions["setup_from_path"] == ("path", "device", "**kwargs")
    assert source.metadata["tool"]["uv"]["sources"] == {"ase": {"index": "other"}}


def test_its_module_does_not_hide_the_package_of_its_name(write):
    assert read_source(write(LATER, "mace.py")).module == "mace_env"


@pytest.mark.parametrize(
    ("body", "parameters"),
    [
        ("def make(model):\n    pass\nsetup = make\n", ("model",)),
        ("setup = lambda model, device: None\n", ("model", "device")),
        ("from mine import make as setup\n", ANY),
        ("import functools, mine\nsetup = functools.partial(mine.make, 3)\n", ANY),
    ],
)
def test_setup_may_be_a_name_for_something_else(write, body, parameters):
    assert read_source(write(BLOCK + body)).functions["setup"] == parameters


def test_other_line_ends_and_a_byte_order_mark_change_nothing(write):
    path = write(SEED)
    digest = read_source(path).digest
    path.write_bytes(b"\xef\xbb\xbf" + SEED.replace("\n", "\r\n").encode())
    assert read_source(path).digest == digest


def test_manifests_of_pixi_and_conda(write):
    write(BODY, "mace_env.py")
    pixi = read_source(write('[workspace]\nchannels = ["conda-forge"]\n', "pixi.toml"), "mace_env")
    conda = read_source(write("name: x\ndependencies:\n  - ase\n", "environment.yaml"), "mace_env")
    assert (pixi.kind, pixi.file_name) == ("pixi", "pixi.toml")
    assert (conda.kind, conda.file_name) == ("conda", "environment.yml")
    assert pixi.functions == conda.functions == {"setup": ("model", "device")}
    assert (pixi.requires_python, pixi.dependencies) == ("", ())


def test_the_python_file_of_a_manifest_counts_for_its_digest(write):
    manifest, setup = write("dependencies:\n  - ase\n", "environment.yml"), write(BODY, "other.py")
    before = read_source(manifest, setup=setup)
    assert before.name == "other"
    setup.write_text(BODY + "# other\n")
    assert read_source(manifest, setup=setup).digest != before.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BLOCK + "def setup(:\n", r"line 4: .*'def setup\(:'.*correct it"),
        (BLOCK + "def other(a):\n    pass\n", r"no function 'setup' \(it has other\); write def setup"),
        (BLOCK, r"it has no function\); write def setup"),
        (BODY, "no PEP 723 block.*# /// script"),
        (BLOCK + "\n" + BLOCK + BODY, "2 PEP 723 blocks"),
        ("# /// script\n# dependencies = [\n# ///\n" + BODY, "PEP 723 block of mace_env.py is not TOML.*correct it"),
        ('# /// script\n# dependencies = "ase"\n# ///\n' + BODY, "'ase' is no list of texts; write"),
        ("# /// script\n# requires-python = 3.10\n# ///\n" + BODY, "3.1 is no text; write"),
        (BLOCK + BODY + "CHECKPOINTS = dict(a=1)\n", "line 7: CHECKPOINTS is no literal dict.*write it out"),
        (BLOCK + BODY + "CHECKPOINTS = {1: 2}\n", "CHECKPOINTS is no literal dict"),
        (BLOCK + BODY + "CLUSTERS = 'della'\n", "CLUSTERS is no literal list"),
        (BLOCK + BODY + "\0", "mace_env.py.*correct it"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(write, text, says):
    path = write(text)
    with pytest.raises(InputError, match=f"(?s){says}") as caught:
        read_source(path)
    assert repr(str(path)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("mace-env.py", SEED, "'mace-env' cannot be the name of an environment; take letters"),
        ("class.py", SEED, "'class' cannot be the name"),
        ("notes.txt", SEED, "is no source of an environment; known: NAME.py, pixi.toml, environment.yml"),
        ("pixi.toml", "[workspace]\n", "does not name an environment; give --name"),
    ],
)
def test_names(write, name, text, says):
    with pytest.raises(InputError, match=says):
        read_source(write(text, name))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("pixi.toml", "[a]\n", "neither .workspace. nor .project."),
        ("pixi.toml", "[a\n", "not TOML"),
        ("environment.yml", "name: x\n", "no 'dependencies:'; write"),
    ],
)
def test_manifests_that_cannot_be_used(write, name, text, says):
    setup = write(BODY, "s.py")
    with pytest.raises(InputError, match=says):
        read_source(write(text, name), "a_env", setup=setup)


def test_a_manifest_without_a_python_file(write):
    with pytest.raises(InputError, match=r"no a_env\.py beside it; write one .* or name the file with --setup"):
        read_source(write("[workspace]\n", "pixi.toml"), "a_env")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_source(tmp_path / "none_env.py")
    (tmp_path / "binary_env.py").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"not text in UTF-8.*save it as such"):
        read_source(tmp_path / "binary_env.py")


@given(st.text(max_size=200))
def test_any_text_is_a_source_or_an_input_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "any_env.py"
    path.write_text(BLOCK + text, encoding="utf-8", errors="replace")
    with contextlib.suppress(InputError):
        assert "setup" in read_source(path).functions

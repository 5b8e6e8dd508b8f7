"""One trial of ``dump_env_file.py`` on a hostile file, watched: what it may write, how it may end.

``trial`` is called by Hypothesis (``test_dump.py``) and by atheris (``python dump_target.py -runs=20000``), which
mutates bytes: they are a file as it is, or instructions for changing a record that is whole.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAFE = re.compile(
    r"env(/calculators/[A-Za-z0-9][A-Za-z0-9._-]*)?(/(uv\.lock|requirements\.txt|environment\.yml|explicit\.txt|pixi\.lock"
    r"|pixi\.toml|pyproject\.toml|environment\.json|uncommitted\.diff))?|env/calculators"
)
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}
HOSTILE = (
    *(
        "../x",
        "/tmp/x",
        "..",
        ".",
        "",
        "a\0b",
        "~",
        "-rf",
        "a/b",
        "\\",
        "con",
        "\x1b[31m",
        "a\nb",
        "\ud800",
        "\u202e",
        "x" * 500,
    ),
    *("requirements.txt", "uv.lock", "environment.json", "calculators", "pyproject.toml", "uncommitted.diff"),
    *(None, True, 0, -1, 10**400, 1e999, [], {}, [[]], {"": {}}, {"../x": "y"}, {"packages": []}, [{"name": "../x"}]),
)
_watched: list[str] = []
_sandbox = ""


def _watch(event: str, arguments: tuple) -> None:
    """Audit hook: while a trial runs, whatever is written outside of its sandbox, and every process, is noted."""
    if not _sandbox:
        return
    if event == "open":
        path, mode, flags = arguments
        writing = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or any(c in (mode or "") for c in "wax+")
        paths = [path] if writing else []
    elif event in WRITES:
        paths = [path for path in arguments[:2] if isinstance(path, (str, bytes, os.PathLike))]
    else:
        if event in STARTS:
            _watched.append(f"{event} {arguments!r:.200}")
        return
    for path in paths:
        if isinstance(path, (str, bytes, os.PathLike)):
            place = os.path.realpath(os.fsdecode(path))
            if not place.startswith(_sandbox + os.sep) and not place.endswith(".pyc") and "__pycache__" not in place:
                _watched.append(f"{event} {place!r}")


sys.addaudithook(_watch)


def trial(data: bytes, *options: str, name: str = "file") -> int:
    """Dump from a file of these bytes; an assertion fails where the scripts' promises are broken."""
    global _sandbox
    from mlipcluster.recreation.command_line import dump_main

    root = Path(
        os.path.realpath(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    )
    here = os.getcwd()
    out, err = io.StringIO(), io.StringIO()
    try:
        (root / name).write_bytes(data)
        os.chdir(root)
        _sandbox = str(root)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = dump_main([*(options or ("--input_file",)), name])
        _sandbox = ""
        _judge(root, name, status, (out.getvalue(), err.getvalue()))
    finally:
        _sandbox = ""
        os.chdir(here)
        shutil.rmtree(root)
    return status


def _judge(root: Path, name: str, status: int, said: tuple[str, str]) -> None:
    out, err = said
    assert not _watched, _watched
    written = {path.relative_to(root).as_posix() for path in root.rglob("*")} - {name}
    assert all(SAFE.fullmatch(path) for path in written), written
    assert status in (0, 1), (status, err)
    assert bool(written) == (status == 0), (written, err)
    assert "Traceback" not in err, err
    assert ": unexpected: " not in err, err
    assert bool(err) == (status == 1), err
    assert all(line.isprintable() for line in (out + err).split("\n")), (out, err)


def whole() -> dict:
    """A record with all that is read of it."""
    package = {"name": "six", "version": "1.17.0", "source": "index"}
    local = {"name": "code", "version": "1", "source": "editable:code@" + "b" * 40}
    measured = {"manager": "uv", "python": "3.11.7", "platform": "linux-x86_64", "packages": [package, local]}
    measured |= {"prefix": "/env", "lock_name": "uv.lock", "drift": [], "more_files": {"requirements.txt": "six\n"}}
    model = {**measured, "packages": [package], "lock": "six\n", "lock_name": "requirements.txt", "digest": "0" * 64}
    return {
        "schema": 1,
        "digest": "0" * 64,
        "instance": {"sha1": "a" * 40, "environment": "version = 1\n", "environment_digest": "0" * 64},
        "metadata": {
            "output_name": "Cu4-1",
            "toml": "[project]\n",
            "toml_format": "pyproject.toml",
            "environment_manager": "uv",
            "environment": measured,
            "calculators": {"mace": {"environment": model}, "lj": {"environment": model}},
            "git": {"sha1": "a" * 40, "remote": "https://example.org/x", "dirty": True, "diff": "+x\n"},
        },
    }


def places(value: object, way: tuple = ()) -> list[tuple]:
    """The way to every value within a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, inner in items for place in places(inner, (*way, key)))]


def changed(record: dict, way: tuple, value: object, *, key: bool = False) -> dict:
    """The record with another value, or another key, at that place."""
    value = copy.deepcopy(value)  # else a later change in it would change all that has it, or put it into itself
    if not way:
        return record
    inner: object = record
    for step in way[:-1]:
        inner = inner[step]  # type: ignore[index]
    if key and isinstance(inner, dict):
        inner[value if isinstance(value, str) else repr(value)] = inner.pop(way[-1])
    else:
        inner[way[-1]] = value  # type: ignore[index]
    return record


def as_json(record: object) -> bytes:
    """As a JSON output holds it."""
    return json.dumps({"1": {}, "mlipcluster": record}).encode("ascii")


def as_extxyz(record: object) -> bytes:
    """As an output in extended XYZ holds it."""
    text = json.dumps(record).replace("\\", "\\\\").replace('"', '\\"')
    return f'1\nProperties=species:S:1:pos:R:3 mlipcluster="_JSON {text}"\nCu 0 0 0\n'.encode("ascii")


def from_bytes(data: bytes) -> bytes:
    """A file as atheris asks for it: the bytes themselves, or a record that they say how to change."""
    import atheris

    provider = atheris.FuzzedDataProvider(data)
    if provider.ConsumeIntInRange(0, 3) == 0:
        return provider.ConsumeBytes(len(data))
    record = whole()
    for _ in range(provider.ConsumeIntInRange(1, 4)):
        ways = places(record)
        way = ways[provider.ConsumeIntInRange(0, len(ways) - 1)]
        chosen = provider.ConsumeIntInRange(0, len(HOSTILE))
        value = HOSTILE[chosen] if chosen < len(HOSTILE) else provider.ConsumeUnicode(30)
        record = changed(record, way, value, key=provider.ConsumeBool())
    return as_extxyz(record) if provider.ConsumeBool() else as_json(record)


def main() -> None:
    """Run atheris, with its own options."""
    import atheris

    sys.path.insert(0, str(ROOT))
    os.fsync = lambda descriptor: None
    with atheris.instrument_imports(include=["mlipcluster"]):
        import mlipcluster.recreation.command_line  # noqa: F401
    corpus = tempfile.mkdtemp(prefix="corpus-")
    try:
        for number, seed in enumerate(
            (b"\0" + as_json(whole()), b"\0" + as_extxyz(whole()), b"\0{}", bytes(range(1, 40)))
        ):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus, "-max_len=8192"], lambda data: trial(from_bytes(data)) and None)
        atheris.Fuzz()
    finally:
        shutil.rmtree(corpus)


if __name__ == "__main__":
    main()

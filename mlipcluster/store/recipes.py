"""How an environment is made of each kind of source: resolve what is to be installed, then install it."""

from __future__ import annotations

import json
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from mlipcluster.environments.managers import named
from mlipcluster.environments.origins import OWN, pins
from mlipcluster.environments.steps import Wanted
from mlipcluster.environments.uv_cache import cached_hashes, narrowed
from mlipcluster.files import write_atomic
from mlipcluster.process import find_program
from mlipcluster.store.pythons import choose_python
from mlipcluster.store.source import CONDA, PIXI, PYTHON, Source, pep723_text
from mlipcluster.store.toml import parse_toml
from mlipcluster.store.workplace import Workplace


@dataclass(frozen=True)
class Plan:
    """What is to be installed.

    Attributes
    ----------
    manager : str
        Who installs it.
    lock : str
        What was resolved, as text; empty where only the environment itself will tell.
    kept : tuple of str
        Names of the files that the next build begins from, to keep its versions.
    python : Path
        The interpreter that the environment will have.
    install : callable
        Installs it.
    """

    manager: str
    lock: str
    kept: tuple[str, ...]
    python: Path
    install: Callable[[], None]


def plan(work: Workplace) -> Plan:
    """Resolve what is to be installed for a source. Its Python file is put into the folder as well."""
    write_atomic(work.folder / f"{work.source.module}.py", work.source.script, sync=False)
    return _PLANS[work.source.kind](work)


def kept_files(source: Source) -> tuple[str, ...]:
    """Names of the files that a build begins from where an earlier one has left them."""
    if source.kind != PYTHON:
        return ("pixi.lock",) if source.kind == PIXI else ()
    return ("uv.lock",) if _is_project(source) else ("requirements.txt",)


# --- a Python file ---------------------------------------------------------------------------------------------------


def _python(work: Workplace) -> Plan:
    uv = work.program(("uv",))
    python, version = choose_python(work, uv)
    return (_project if _is_project(work.source) else _requirements)(work, uv, str(python), version)


def _is_project(source: Source) -> bool:
    """Whether uv is told where packages come from: of a script, only its project commands read that."""
    tool = source.metadata.get("tool", {})
    return isinstance(tool, dict) and bool(tool.get("uv"))


def _requirements(work: Workplace, uv: str, python: str, version: str) -> Plan:
    """A ``requirements.txt`` with hashes; hashes of everything that has any are checked when it is installed."""
    pinned = work.folder / "requirements.txt"
    compiled = (uv, "pip", "compile", f"{work.source.module}.py", "--output-file", pinned.name, "--python", python)
    options = ("--quiet", "--generate-hashes", "--no-header", "--no-annotate")
    work.run((*compiled, *options, *(("--upgrade",) if work.options.upgrade else ())))
    text = _without_comments(pinned)
    hashes = cached_hashes(uv, python, pins(text), work.folder)
    lock = f"# Python {version} on {sysconfig.get_platform()}\n{narrowed(text, hashes)}"
    write_atomic(pinned, lock, sync=False)
    prefix = work.folder / "env"

    def install() -> None:
        work.run((uv, "venv", "--quiet", "--relocatable", "--python", python, str(prefix)))
        target = ("--python", str(prefix / "bin" / "python"))
        work.run((uv, "pip", "sync", "--compile-bytecode", "--allow-empty-requirements", *target, pinned.name))
        write_atomic(prefix / OWN, lock, sync=False)

    return Plan("uv", lock, (pinned.name,), prefix / "bin" / "python", install)


def _without_comments(pinned: Path) -> str:
    lines = pinned.read_text(encoding="utf-8").splitlines(keepends=True) if pinned.is_file() else []
    return "".join(line for line in lines if not line.startswith("#"))


def _project(work: Workplace, uv: str, python: str, version: str) -> Plan:
    """A project with the script's requirements, locked for this platform and Python alone.

    For every platform, as uv locks a script, nothing could be locked that has wheels for one.
    """
    write_atomic(work.folder / "pyproject.toml", project_toml(work.source, version), sync=False)
    prefix = work.folder / ".venv"
    variables = {"UV_PROJECT_ENVIRONMENT": str(prefix)}
    work.run((uv, "lock", "--python", python, *(("--upgrade",) if work.options.upgrade else ())), variables)
    lock = f"# Python {version} on {sysconfig.get_platform()}\n"
    lock += (work.folder / "uv.lock").read_text(encoding="utf-8")

    def install() -> None:
        work.run((uv, "venv", "--quiet", "--relocatable", "--python", python, str(prefix)))
        frozen = ("--frozen", "--no-install-project")
        work.run((uv, "sync", *frozen, "--compile-bytecode", "--python", python), variables)
        listed = ("--quiet", "--frozen", "--no-header", "--no-annotate", "--no-emit-project")
        work.run((uv, "export", *listed, "--output-file", str(prefix / OWN)), variables)

    return Plan("uv", lock, ("uv.lock",), prefix / "bin" / "python", install)


def project_toml(source: Source, version: str) -> str:
    """A ``pyproject.toml`` that asks for what the PEP 723 block of a source asks for, on this platform alone."""
    text = pep723_text(source)
    first = re.search(r"(?m)^\s*\[+\s*[A-Za-z\"']", text)
    tables = text[first.start() :].lstrip("\n") if first else ""
    minor = ".".join(version.split(".")[:2])
    operating_system, _, machine = sysconfig.get_platform().replace("macosx", "darwin").partition("-")
    here = f"sys_platform == '{operating_system}' and platform_machine == '{machine.rpartition('-')[2]}'"
    only = "" if "environments" in source.metadata["tool"]["uv"] else f"environments = [{json.dumps(here)}]\n"
    if re.search(r"(?m)^\[tool\.uv\]\s*(#.*)?$", tables):
        tables = re.sub(r"(?m)^(\[tool\.uv\].*\n)", lambda match: match.group(1) + only, tables, count=1)
    else:
        tables += f"\n[tool.uv]\n{only}" if only else ""
    project = (
        f'[project]\nname = {json.dumps(source.name.replace("_", "-").strip("-") + "-environment")}\nversion = "0"\n'
        f'requires-python = "=={minor}.*"\ndependencies = {json.dumps(list(source.dependencies), indent=4)}\n\n'
    )
    parse_toml(project + tables, f"the project made of {source.file_name}")
    return project + tables


# --- manifests -------------------------------------------------------------------------------------------------------


def _manifest(work: Workplace, manager: str) -> Plan:
    row = named(manager)
    program = work.program(row.programs)
    write_atomic(work.folder / work.source.file_name, work.source.text, sync=False)
    lock = ""
    if work.source.kind == PIXI:
        if work.options.upgrade:
            (work.folder / "pixi.lock").unlink(missing_ok=True)
        work.run((program, "lock", "--manifest-path", str(work.folder / work.source.file_name)))
        lock = (work.folder / "pixi.lock").read_text(encoding="utf-8")
    wanted = Wanted(work.folder, program)

    def install() -> None:
        for step in row.steps(wanted):
            work.run(step.command, step.variables)

    return Plan(manager, lock, kept_files(work.source), row.interpreter(wanted), install)


def _conda(work: Workplace) -> Plan:
    """With conda, or with mamba where only that is there."""
    rows = [named(name) for name in ("conda", "mamba")]
    found = next((row.name for row in rows if find_program(row.programs)), "")
    if not found:
        work.program([program for row in rows for program in row.programs])  # raises, with all that would do
    return _manifest(work, found)


_PLANS: dict[str, Callable[[Workplace], Plan]] = {
    PYTHON: _python,
    PIXI: lambda work: _manifest(work, "pixi"),
    CONDA: _conda,
}

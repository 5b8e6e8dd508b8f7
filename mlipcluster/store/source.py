"""The source of an environment: a Python file that names its requirements and makes a calculator. Read, never run."""

from __future__ import annotations

import ast
import hashlib
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlipcluster.errors import InputError
from mlipcluster.store.toml import parse_toml
from mlipcluster.store.versions import allows

PYTHON, PIXI, CONDA = "python", "pixi", "conda"
KINDS = {".py": PYTHON, ".toml": PIXI, ".yml": CONDA, ".yaml": CONDA}
FILE_NAMES = {PIXI: "pixi.toml", CONDA: "environment.yml"}
ANY = ("*args", "**kwargs")
"""The parameters of a function that cannot be told from the text, for it is made elsewhere."""

# https://packaging.python.org/en/latest/specifications/inline-script-metadata/ gives this expression
_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_FORMS = {dict: "dict with texts as keys", list: "list of texts", str: "text"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLE = '# /// script\n# requires-python = ">=3.10"\n# dependencies = ["ase"]\n# ///'


@dataclass(frozen=True)
class Source:
    """What an environment is made of, and how its calculators are made.

    Attributes
    ----------
    name : str
        Name of the environment: ``"mace_env"``, or Rootstock 1.6's ``"mace"``.
    kind : str
        ``"python"``: a file with a PEP 723 block; ``"pixi"``, ``"conda"``: a manifest, with a Python file beside it.
    text, file_name : str
        The file's text, and what it is called where it is built from: ``"mace_env.py"``, ``"pixi.toml"`` or
        ``"environment.yml"``.
    script : str
        Text of the Python file with ``setup``; of the kind ``"python"`` it is `text` itself.
    """

    name: str
    kind: str
    text: str
    file_name: str
    script: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text, and of the Python file beside it if there is one, as 64 hexadecimal digits."""
        digest = hashlib.sha256(self.text.encode())
        if self.kind != PYTHON:
            digest.update(b"\0" + self.script.encode())
        return digest.hexdigest()

    @property
    def module(self) -> str:
        """What its Python file is imported as: its name, with ``_env`` at the end.

        Rootstock 1.6's ``mace.py`` imports the package ``mace``, which it must not hide.
        """
        return self.name if self.name.endswith("_env") else f"{self.name}_env"

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The PEP 723 block's tables; empty of the other kinds."""
        return parse_toml(pep723_text(self), f"the PEP 723 block of {self.file_name}") if self.kind == PYTHON else {}

    @property
    def requires_python(self) -> str:
        """Versions of Python that it asks for, as ``">=3.10"``; empty if it does not say."""
        return str(self.metadata.get("requires-python", ""))

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Requirements in the PEP 723 block."""
        return tuple(self.metadata.get("dependencies", ()))

    @cached_property
    def functions(self) -> Mapping[str, tuple[str, ...]]:
        """Callables at module level, with the names of their parameters, as ``("model", "device", "**kwargs")``.

        Functions, and names that are assigned or imported: ``setup = make``. What is made elsewhere has :data:`ANY`.
        """
        return _functions(self._tree.body)

    @property
    def checkpoints(self) -> Mapping[str, Any]:
        """``CHECKPOINTS`` of Rootstock 1.6's form: model strings, and what ``setup`` makes of them; or empty."""
        return dict(self._literal("CHECKPOINTS", dict))

    @property
    def verify_kwargs(self) -> Mapping[str, Any]:
        """``VERIFY_KWARGS`` of Rootstock 1.6's form: arguments of ``setup`` by model string, for a test only."""
        return dict(self._literal("VERIFY_KWARGS", dict))

    @property
    def clusters(self) -> tuple[str, ...]:
        """``CLUSTERS`` of Rootstock 1.6's form: the clusters that it is for; empty: all."""
        return tuple(self._literal("CLUSTERS", list))

    @property
    def state(self) -> str:
        """``STATE``: how a calculator of its is brought to a defined state between protocol calls.

        As in a `CalculatorSpec`: a method's name, or ``"fresh"``, which calls ``setup`` again; empty: not said.
        """
        return str(self._literal("STATE", str))

    @cached_property
    def _tree(self) -> ast.Module:
        name = self.file_name if self.kind == PYTHON else f"{self.name}.py"
        try:
            return ast.parse(self.script)
        except SyntaxError as error:
            line = (error.text or "").strip()
            raise InputError(
                f"{name}, line {error.lineno}: {error.msg}" + (f": {line!r:.120}" if line else "") + "; correct it"
            ) from error
        except (ValueError, RecursionError, MemoryError) as error:  # a NUL; brackets nested a thousand deep
            raise InputError(f"{name} cannot be read as Python ({error}); correct it") from error

    def _literal(self, name: str, form: type[dict[str, Any] | list[str] | str]) -> Any:
        value = _assigned(self._tree.body, name)
        if value is None:
            return form()
        try:
            found = ast.literal_eval(value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            found = None
        if isinstance(found, tuple) and form is list:
            found = list(found)
        if not isinstance(found, form) or not all(isinstance(key, str) for key in found):
            wanted = _FORMS[form]
            raise InputError(
                f"{self.file_name}, line {value.lineno}: {name} is no literal {wanted}, and the file is read without "
                "running it; write it out"
            )
        return found


def read_source(path: str | os.PathLike[str], name: str = "", setup: str | os.PathLike[str] | None = None) -> Source:
    """Read the source of an environment and check that one can be built of it.

    Parameters
    ----------
    path : path
        ``NAME.py`` with a PEP 723 block and ``setup``, or a ``pixi.toml`` or ``environment.yml``.
    name : str
        Name of the environment; by default the file's. A manifest must be named, or have its Python file's name.
    setup : path, optional
        For a manifest, the Python file with ``setup``; by default ``NAME.py`` in the same folder.

    Raises
    ------
    InputError
        It cannot be read, is of no known kind, has no usable name, a syntax error, no ``setup``, no PEP 723 block, or
        TOML that is none; the message says which, and where.
    """
    path = Path(path).expanduser()
    kind = KINDS.get(path.suffix)
    if kind is None:
        raise InputError(f"{str(path)!r} is no source of an environment; known: NAME.py, pixi.toml, environment.yml")
    if kind == PYTHON:
        text = script = read_text(path)
        found = Source(name or path.stem, kind, text, f"{name or path.stem}.py", script)
    else:
        beside = _setup_file(path, name, setup)
        found = Source(name or beside.stem, kind, read_text(path), FILE_NAMES[kind], read_text(beside))
    check(found, path)
    return found


def check(source: Source, path: Path) -> None:
    """Raise InputError where no environment can be built of a *source* that was read from *path*."""
    check_name(source.name)
    try:
        functions = source.functions
        if "setup" not in functions:
            own = sorted(name for name, parameters in functions.items() if parameters != ANY)
            have = f"it has {', '.join(own)}" if own else "it has no function"
            raise InputError(f"there is no function 'setup' ({have}); write def setup(model, device='cuda'): …")
        source.checkpoints, source.verify_kwargs, source.clusters, source.state  # noqa: B018 - each raises where it is unreadable
        if source.kind == PYTHON:
            _check_metadata(source)
        elif source.kind == PIXI:
            _check_pixi(source.text)
        elif not re.search(r"(?m)^dependencies\s*:", source.text):
            raise InputError("it has no 'dependencies:'; write them as `conda env export` does")
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from error


def check_name(name: str) -> None:
    """Raise InputError for a *name* that no environment can have.

    It is a folder's and a module's name: letters, digits and underscores.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > 100:
        raise InputError(
            f"{name!r:.120} cannot be the name of an environment; take letters, digits and underscores: mace_env"
        )


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, its lines ended by newlines.

    Raises
    ------
    InputError
        There is none, or it is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not text in UTF-8 ({error}); save it as such") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}; name a file that can") from error


def _setup_file(path: Path, name: str, setup: str | os.PathLike[str] | None) -> Path:
    if setup is not None:
        return Path(setup).expanduser()
    if not name:
        raise InputError(f"{str(path)!r} does not name an environment; give --name, for example --name mace_env")
    beside = path.with_name(f"{name}.py")
    if not beside.is_file():
        raise InputError(
            f"{str(path)!r} has no {beside.name} beside it; write one with def setup(model, device='cuda'): …, "
            "or name the file with --setup"
        )
    return beside


def pep723_text(source: Source) -> str:
    """The TOML in the PEP 723 block of a Python file.

    Raises
    ------
    InputError
        There is none, or more than one.
    """
    blocks = [match for match in _BLOCK.finditer(source.text) if match.group("type") == "script"]
    if len(blocks) != 1:
        found = "no PEP 723 block" if not blocks else f"{len(blocks)} PEP 723 blocks"
        raise InputError(f"there is {found} that names the requirements; write one:\n{_EXAMPLE}")
    lines = blocks[0].group("content").splitlines(keepends=True)
    return "".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)


def _check_metadata(source: Source) -> None:
    dependencies, python = source.metadata.get("dependencies", []), source.metadata.get("requires-python", "")
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise InputError(f'dependencies = {dependencies!r:.120} is no list of texts; write dependencies = ["ase"]')
    if not isinstance(python, str):
        raise InputError(f'requires-python = {python!r:.120} is no text; write requires-python = ">=3.10"')
    allows(python, ())  # raises where it cannot be read


def _check_pixi(text: str) -> None:
    tables = parse_toml(text, "the manifest")
    if not any(isinstance(tables.get(name), dict) for name in ("workspace", "project")):
        raise InputError("it has neither [workspace] nor [project]; name a pixi.toml")


def _assigned(body: Iterable[ast.stmt], name: str) -> ast.expr | None:
    """What is assigned last to a name at module level."""
    found = None
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            found = node.value if any(isinstance(t, ast.Name) and t.id == name for t in targets) else found
    return found


def _functions(body: Iterable[ast.stmt]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _parameters(node.args)
        elif isinstance(node, ast.ImportFrom):
            found.update({alias.asname or alias.name: ANY for alias in node.names})
        elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Lambda, ast.Call, ast.Attribute)):
            made = _parameters(node.value.args) if isinstance(node.value, ast.Lambda) else ANY
            made = found.get(node.value.id, ANY) if isinstance(node.value, ast.Name) else made
            found.update({target.id: made for target in node.targets if isinstance(target, ast.Name)})
    return found


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [argument.arg for argument in arguments.kwonlyargs]
    names += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    return tuple(names)

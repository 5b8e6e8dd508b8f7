"""What conda, mamba and micromamba document of making environments; whatever else they are asked for is an error.

https://docs.conda.io/projects/conda/en/stable/commands/env/create.html, …/commands/create.html,
https://mamba.readthedocs.io/en/latest/user_guide/micromamba.html
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

import conda_prefix as fake

ALIAS = "https://conda.anaconda.org"


def main(program: str) -> int:
    """Do what one of the three does."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(f"{program} 26.1.0")
        return 0
    whole = arguments[:2] == ["env", "create"] and program != "micromamba"
    if not whole and arguments[:1] != ["create"]:
        print(f"{program}: error: invalid choice: {arguments[:2]}", file=sys.stderr)
        return 2
    asked = _parser(program).parse_args(arguments[2:] if whole else arguments[1:])
    prefix = Path(asked.prefix)
    yes = asked.yes or (program != "conda" and os.environ.get("MAMBA_ALWAYS_YES", "") in {"1", "true"})
    if prefix.exists() and not yes:
        print(f"\nCondaValueError: prefix already exists: {prefix}\n", file=sys.stderr)
        return 1
    if prefix.exists():
        raise SystemExit(f"a real {program} would remove {prefix} now")
    if not yes and not (whole and program == "conda"):
        print("Confirm changes: [Y/n] Aborted.", file=sys.stderr)
        return 1
    text = Path(asked.file).read_text(encoding="utf-8")
    if "@EXPLICIT" in text.splitlines():
        return 2 if whole else _explicit(text, prefix)
    return _environment(text, prefix) if whole or program != "conda" else 2


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(program, allow_abbrev=False)
    parser.add_argument("-f", "--file", default="environment.yml")
    parser.add_argument("-p", "--prefix", required=True)
    parser.add_argument("-y", "--yes", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


def _explicit(text: str, prefix: Path) -> int:
    packages = []
    for line in text.splitlines():
        match = re.fullmatch(r"(.+)/([\w-]+)/([^/]+)-([^-/]+)-([^-/]+)\.conda(?:#[0-9a-f]{32})?", line)
        if match:
            packages.append((match.group(3), match.group(4), match.group(5), match.group(1), match.group(2)))
        elif line and not line.startswith(("#", "@EXPLICIT")):
            raise SystemExit(f"ParseError: cannot be read: {line}")
    return _make(prefix, packages, [])


def _environment(text: str, prefix: Path) -> int:
    channels, specs, requirements = _read(text)
    packages = []
    for spec in specs:
        channel, _, rest = spec.rpartition("::")
        name, version, build = ([*re.split(r"\s*=+\s*", rest), "", ""])[:3]
        version = version or (fake.PYTHON if name == "python" else "1.0")
        place = channel or channels[0]
        place = place if "://" in place else f"{ALIAS}/{place}"
        packages.append((name, version, build or "h0", place, fake.SUBDIR))
    return _make(prefix, packages, requirements)


def _read(text: str) -> tuple[list[str], list[str], list[str]]:
    """Channels, specs and what is for pip, of the YAML that environments are written in."""
    found: dict[str, list[str]] = {"channels": [], "dependencies": [], "pip": []}
    part = ""
    for line in text.splitlines():
        entry = re.fullmatch(r"( *)- (.+?)\s*", line)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if re.fullmatch(r" *- pip:\s*", line):
            part = "pip"
        elif entry:
            part = "dependencies" if part == "pip" and len(entry.group(1)) <= 2 else part
            quoted = entry.group(2)[0] in "\"'"
            found[part].append(json.loads(entry.group(2)) if quoted else entry.group(2))
        else:
            part = line.partition(":")[0]
    return [c for c in found["channels"] if c != "nodefaults"] or ["conda-forge"], found["dependencies"], found["pip"]


def _make(prefix: Path, packages: list[tuple[str, str, str, str, str]], requirements: list[str]) -> int:
    missing = fake.gone([name for name, *_ in packages])
    missing += [name for name, version, *_ in packages if name == "python" and version != fake.PYTHON]
    if missing:
        lines = [f"  - {name}={version}={build}" for name, version, build, *_ in packages if name in missing]
        print(
            "PackagesNotFoundError: The following packages are not available from current channels:\n", *lines, sep="\n"
        )
        return 1
    print("Downloading and Extracting Packages: ...working... done\rPreparing transaction: done")
    made = fake.Prefix(prefix, [os.path.abspath(sys.argv[0]), *sys.argv[1:]])
    for package in packages:
        made.conda(*package)
    pins = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in requirements if not line.startswith("--")]
    unknown = [line for line, pin in zip(requirements, pins, strict=True) if pin is None]
    missing = fake.gone([pin.group(1) for pin in pins if pin])
    if missing or unknown:
        print(f"ERROR: No matching distribution found for {(missing + unknown)[0]}\nCondaEnvException: Pip failed")
        return 1
    for pin in pins:
        if pin:
            made.pypi(pin.group(1), pin.group(2), "pip")
    return 0

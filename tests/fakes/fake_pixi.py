"""What pixi documents of ``pixi install`` and ``pixi lock``; whatever else it is asked for is an error.

https://pixi.prefix.dev/latest/reference/cli/pixi/install, …/pixi/lock
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import conda_prefix as fake

CHANNEL = "https://conda.anaconda.org/conda-forge"


def main() -> int:
    """Install one environment of a workspace, from its ``pixi.lock``; without ``--frozen`` that is written first."""
    if sys.argv[1:] == ["--version"]:
        print("pixi 0.60.0")
        return 0
    if sys.argv[1:3] == ["lock", "--manifest-path"] and len(sys.argv) == 4:
        manifest = Path(sys.argv[3])
        if not manifest.with_name("pixi.lock").is_file():
            manifest.with_name("pixi.lock").write_text(_solved(manifest.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    if sys.argv[1:2] != ["install"]:
        print(f"error: unrecognized subcommand '{sys.argv[1:2]}'", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser("pixi install", allow_abbrev=False)
    parser.add_argument("-e", "--environment", default="default")
    parser.add_argument("--manifest-path", default=".")
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--locked", action="store_true")
    parser.add_argument("--no-progress", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--skip", action="append", default=[])
    asked = parser.parse_args(sys.argv[2:])
    manifest = Path(asked.manifest_path).absolute()
    manifest = manifest / "pixi.toml" if manifest.is_dir() else manifest
    lock = manifest.with_name("pixi.lock")
    text = manifest.read_text(encoding="utf-8")
    if manifest.name == "pyproject.toml" and "[tool.pixi" not in text:
        print("  × the manifest has no tool.pixi table", file=sys.stderr)
        return 1
    if not lock.is_file():
        if asked.frozen or asked.locked:
            print("  × lock-file not found", file=sys.stderr)
            return 1
        lock.write_text(_solved(text), encoding="utf-8")
    return _install(lock.read_text(encoding="utf-8"), manifest, asked.environment, asked.skip)


def _solved(text: str) -> str:
    """A lock of the manifest's ``[dependencies]``, each of version 1.0."""
    table = re.search(r"(?ms)^\[(?:tool\.pixi\.)?dependencies\]\n(.*?)(?=^\[|\Z)", text)
    names = [line.split("=")[0].strip() for line in (table.group(1) if table else "").splitlines() if "=" in line]
    versions = {name: fake.PYTHON if name == "python" else "1.0" for name in ["python", *names]}
    urls = [f"{CHANNEL}/{fake.SUBDIR}/{name}-{version}-h0.conda" for name, version in versions.items()]
    lines = ["version: 6", "environments:", "  default:", "    channels:", f"    - url: {CHANNEL}/", "    packages:"]
    lines += [f"      {fake.SUBDIR}:", *(f"      - conda: {url}" for url in urls), "packages:"]
    return "\n".join([*lines, *(f"- conda: {url}" for url in urls)]) + "\n"


def _install(text: str, manifest: Path, environment: str, skipped: list[str]) -> int:
    block = re.search(rf"(?m)^  {re.escape(environment)}:\n((?: {{4,}}.*\n)*)", text)
    if block is None:
        print(f"  × environment '{environment}' not found in the project", file=sys.stderr)
        return 1
    own = re.search(rf"(?m)^      {fake.SUBDIR}:\n((?:      - .*\n)*)", block.group(1))
    entries = re.findall(r"- (conda|pypi): (\S+)", own.group(1) if own else "")
    conda = [
        re.fullmatch(r"(.+)/([\w-]+)/([^/]+)-([^-/]+)-([^-/]+)\.conda", url) for kind, url in entries if kind == "conda"
    ]
    pypi = [
        re.search(rf"(?m)^- pypi: {re.escape(url)}\n  name: (\S+)\n  version: '?([^\s']+)", text)
        for kind, url in entries
        if kind == "pypi"
    ]
    missing = fake.gone([m.group(3) for m in conda if m] + [m.group(1) for m in pypi if m])
    wrong = [m.group(3) for m in conda if m and m.group(3) == "python" and m.group(4) != fake.PYTHON]
    if missing or wrong or not own:
        print(f"  × failed to fetch {(missing + wrong or ['anything for ' + fake.SUBDIR])[0]}", file=sys.stderr)
        return 1
    made = fake.Prefix(manifest.parent / ".pixi" / "envs" / environment, ["pixi", "install"])
    (made.path / "conda-meta" / "history").write_text("")
    about = {"manifest_path": str(manifest), "environment_name": environment, "pixi_version": "0.60.0"}
    (made.path / "conda-meta" / "pixi").write_text(json.dumps(about))
    for m in conda:
        if m and m.group(3) not in skipped:
            made.conda(m.group(3), m.group(4), m.group(5), m.group(1), m.group(2))
    for m in pypi:
        if m and m.group(1) not in skipped:
            made.pypi(m.group(1), m.group(2), "uv-pixi")
    print(f"✔ The {environment} environment has been installed.")
    return 0

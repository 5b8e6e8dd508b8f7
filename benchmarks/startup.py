"""Start-up: from a built environment to the first energy, here and in Rootstock, arms taking turns in one run.

    python benchmarks/startup.py --rootstock ENV/bin/python [--models emt chgnet] [--rounds 15] [--json FILE]

Both use the very same environment, built by ``mlipcluster env build``: it holds Rootstock too, because Rootstock's
worker imports it. A root of Rootstock's form is laid around it by hand, with a link in place of an environment: its
installer would fetch a Python. From there on it is Rootstock's own calculator, as its users write it. It reads all
files of an environment before it imports anything, which helps where they lie on a slow disk and have not been read
lately; here they have been, so there is an arm without that as well (``ROOTSTOCK_NO_PREWARM=1``, as its documentation
advises for such a case).

Each start is a process of its own, in which everything that the calculator needs is imported before the clock starts;
``script`` counts the whole process, imports too, of a script that does nothing else. The environments' files have been
compiled, Rootstock's worker keeps what it compiles for itself, and the first round is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SOURCES = {
    "emt": """
# /// script
# requires-python = ">=3.10"
# dependencies = ["ase", "rootstock==1.6.4"]
# ///
CHECKPOINTS = {"emt-default": "default"}


def setup(checkpoint, device="cuda"):
    from ase.calculators.emt import EMT

    return EMT()
""",
    "chgnet": """
# /// script
# requires-python = ">=3.10"
# dependencies = ["chgnet==0.4.2", "torch==TORCH", "ase", "rootstock==1.6.4"]
# ///
CHECKPOINTS = {"chgnet-default": "default"}
STATE = "reset"


def setup(checkpoint, device="cuda"):
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device=device)
""",
}


# One start, in a process of its own


def ours(model: str, root: str) -> Callable[[], Any]:
    from mlipcluster.calculators.socket_calculator import SocketCalculator

    return lambda: SocketCalculator(f"{model}-default", root=root, device="cpu")


def rootstock(model: str, root: str) -> Callable[[], Any]:
    from rootstock.calculator import RootstockCalculator

    return lambda: RootstockCalculator(checkpoint=f"{model}-default", root=root, device="cpu")


def start_once(arm: str, model: str, root: str) -> None:
    """Print the seconds from a calculator's construction to its first energy."""
    from ase.build import bulk

    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.02, seed=1)
    make = {"ours": ours, "rootstock": rootstock}[arm](model, root)
    started = time.perf_counter()
    with make() as atoms.calc:
        energy = float(atoms.get_potential_energy())
        seconds = time.perf_counter() - started
    print(json.dumps([seconds, energy]))


# The turns


def build(root: Path, model: str, text: str) -> Path:
    """Build the environment of a model in a root from the text of its source; its folder."""
    from mlipcluster.store.store import Store

    source = root.parent / f"{model}.py"
    source.write_text(text, encoding="utf-8")
    for arguments in (["init"], ["register", str(source)], ["build", model]):
        subprocess.run([sys.executable, "-m", "mlipcluster", "env", *arguments, "--root", str(root)], check=True)
    return Store(root).built(model).folder


def lay_around(folder: Path, root: Path, model: str, text: str) -> None:
    """A root of Rootstock's form around a built environment."""
    for name in ("environments", "envs"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "environments" / f"{model}.py").write_text(text, encoding="utf-8")
    (folder / "env" / "env_source.py").write_text(text, encoding="utf-8")
    (root / "envs" / model).symlink_to(folder / "env")


def start(python: str, arm: str, model: str, root: Path, **variables: str) -> tuple[float, float, float]:
    """Seconds of one start, seconds of its whole process, and the energy."""
    settings = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Rootstock's worker compiles what it imports into a cache of its own: it must be able to keep that.
    settings |= {"ROOTSTOCK_DISABLE_USAGE_STATS": "1", "ROOTSTOCK_USER_CACHE_DIR": str(root.parent / "cache")}
    here = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    ran = subprocess.run(
        [python, str(HERE), "--start", arm, model, str(root)],
        env={**here, **settings, **variables},
        stdout=subprocess.PIPE,
        check=True,
    )
    whole = time.perf_counter() - started
    seconds, energy = json.loads(ran.stdout.splitlines()[-1])
    return seconds, whole, energy


def measure(model: str, options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Medians of each arm, in seconds."""
    root, theirs = folder / "ours", folder / "rootstock"
    text = SOURCES[model].lstrip().replace("TORCH", options.torch)
    lay_around(build(root, model, text), theirs, model, text)
    arms: dict[str, tuple[Any, ...]] = {"ours": (sys.executable, "ours", model, root)}
    quick = {"ROOTSTOCK_NO_PREWARM": "1"}
    variables: dict[str, dict[str, str]] = {"ours": {}}
    if options.rootstock:
        for name, more in (("Rootstock", {}), ("Rootstock, no prewarm", quick)):
            arms[name] = (str(options.rootstock.absolute()), "rootstock", model, theirs)
            variables[name] = more
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in arms}
    order = list(arms)
    for turn in range(options.rounds + 1):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            found[name].append(start(*arms[name], **variables[name]))
    energies = {round(energy, 4) for times in found.values() for _, _, energy in times}
    if len(energies) != 1:
        raise SystemExit(f"the arms do not calculate the same: {energies}")
    return {
        name: {
            "first energy": statistics.median(seconds for seconds, _, _ in times[1:]),
            "script": statistics.median(whole for _, whole, _ in times[1:]),
        }
        for name, times in found.items()
    }


def show(model: str, medians: dict[str, dict[str, float]]) -> None:
    print(f"\n{model}: medians in seconds\n")
    print("| arm | to the first energy | ours / this | whole script | ours / this |")
    print("|---|---|---|---|---|")
    base = medians["ours"]
    for name, times in medians.items():
        cells = (f"{times[key]:.3f} | {base[key] / times[key]:.2f}" for key in ("first energy", "script"))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rootstock", metavar="PYTHON", type=Path, help="interpreter of an environment with rootstock")
    parser.add_argument("--models", nargs="+", default=["emt"], choices=list(SOURCES))
    parser.add_argument("--torch", default="2.13.0", help="version of PyTorch for CHGNet, for example 2.13.0+cpu")
    parser.add_argument("--rounds", type=int, default=15, help="starts of each arm that count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians, in seconds")
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start_once(*options.start)
        return
    if not options.rootstock:
        print("Rootstock: left out; give --rootstock an interpreter that has it")
    results = {}
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        for model in options.models:
            results[model] = measure(model, options, Path(folder))
            show(model, results[model])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

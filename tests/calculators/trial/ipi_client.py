"""A code that speaks i-PI's protocol, ASE's own client on EMT: ``ipi_client.py STRUCTURE NAME|PORT MANNER``."""

from __future__ import annotations

import sys
import time

import numpy as np
from ase.calculators.emt import EMT
from ase.calculators.socketio import SocketClient
from ase.io import read


class Hanging(EMT):
    def calculate(self, *arguments):
        print("hanging", flush=True)
        time.sleep(600)


class NaN(EMT):
    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results["forces"] = self.results["forces"] * np.nan


def main(structure: str, where: str, manner: str = "") -> None:
    if manner == "exits":
        sys.exit("no such potential")
    atoms = read(structure)
    atoms.calc = {"hangs": Hanging, "nan": NaN}.get(manner, EMT)()
    address = {"port": int(where)} if where.isdigit() else {"unixsocket": where}
    SocketClient(**address).run(atoms, use_stress=manner != "no stress")


if __name__ == "__main__":
    main(*sys.argv[1:])

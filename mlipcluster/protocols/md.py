"""Molecular dynamics at constant energy, temperature or pressure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from mlipcluster.protocols.segments import moved, put_back

ENSEMBLES = ("nve", "nvt", "npt")
SAMPLES = 1000


def md(
    atoms: Atoms,
    calc: BaseCalculator,
    rng: np.random.Generator,
    ensemble: str = "nvt",
    temperature: float = 300.0,
    steps: int = 1000,
    timestep: float = 1.0,
    friction: float = 0.01,
    pressure: float = 0.0,
    hydrostatic: bool = True,
    barostat_time: float = 300.0,
    thermalize: bool = True,
    checkpoint: Any = None,
    save_every: int = 100,
) -> Atoms:
    """Run molecular dynamics; every random number comes from ``rng``, and no file is written.

    ``nve`` is velocity Verlet. ``nvt`` is Langevin dynamics [1]_. ``npt`` is Langevin dynamics of positions
    and cell, integrated with the BAOAB splitting [2]_ [3]_; it needs a calculator with stress.

    Parameters
    ----------
    atoms : Atoms
        The structure. It is changed.
    calc : BaseCalculator
        Any ASE calculator; one with stress for ``npt``.
    rng : numpy.random.Generator
        Source of velocities and random forces.
    ensemble : str
        ``"nve"``, ``"nvt"`` or ``"npt"``.
    temperature : float
        Of the first velocities and, in ``nvt`` and ``npt``, of the bath, K. In ``nve`` a relaxed structure
        settles at about half of it: the other half becomes potential energy.
    steps : int
        Number of time steps.
    timestep : float
        Time step, fs.
    friction : float
        Friction of the bath in ``nvt`` and ``npt``, 1/fs.
    pressure : float
        External pressure in ``npt``, GPa; positive compresses.
    hydrostatic : bool
        In ``npt``: the cell keeps its shape and only its volume changes. False lets all of the cell change, which
        is for crystals only.
    barostat_time : float
        In ``npt``: about the period of the volume's oscillation in a solid, and the time in which the bath damps
        it, fs.
    thermalize : bool
        Draw new velocities (Maxwell–Boltzmann). False goes on with the velocities that the structure has.
    checkpoint : mlipcluster.checkpoint.Checkpoint, optional
        Where the run saves itself; with it, an interrupted run ends bit for bit as one that is not.
    save_every : int
        Steps from one save to the next.

    Returns
    -------
    Atoms
        The last structure with its velocities, its results and, in ``atoms.info``, the scores: ``time`` (fs) and,
        averaged over the second half of the run, ``mean_temperature`` (K), ``mean_energy`` (potential, eV); for
        ``nve`` over the whole run ``energy_drift`` (slope of the total energy, eV/(atom ps)) and
        ``energy_fluctuation`` (standard deviation of the total energy, eV an atom); for ``npt`` also
        ``mean_volume`` (Å³) and ``mean_pressure`` (with its kinetic part, GPa).

    Raises
    ------
    ValueError
        The ensemble is unknown, a number makes no sense, or ``npt`` has no cell to act on.
    FloatingPointError
        The energy is no longer a finite number: the structure has come apart.

    References
    ----------
    .. [1] E. Vanden-Eijnden and G. Ciccotti, Chem. Phys. Lett. 429, 310 (2006),
       https://doi.org/10.1016/j.cplett.2006.07.086
    .. [2] B. Leimkuhler and C. Matthews, J. Chem. Phys. 138, 174102 (2013), https://doi.org/10.1063/1.4802990
    .. [3] D. Quigley and M. I. J. Probert, J. Chem. Phys. 120, 11432 (2004), https://doi.org/10.1063/1.1755657
    """
    _check_ensemble(atoms, ensemble)
    if temperature < 0:
        raise ValueError(f"temperature={temperature!r}: give a temperature in K, zero or more.")
    _check_positive(steps=steps, timestep=timestep, friction=friction, barostat_time=barostat_time)
    _check_positive(save_every=save_every)
    atoms.calc = calc
    start = atoms.copy()
    period = barostat_time * units.fs
    mass = _barostat_mass(atoms, period, hydrostatic) if ensemble == "npt" else 0.0
    cell = {
        "T_tau": units.fs / friction,
        "externalstress": -pressure * units.GPa,
        "hydrostatic": hydrostatic,
        "P_tau": period,
        "P_mass": mass,
    }
    integrator = _Integrator(ensemble, timestep * units.fs, temperature, friction / units.fs, cell)
    restart = None if checkpoint is None else checkpoint.load()
    if restart is None and thermalize:
        _draw_momenta(atoms, rng, temperature, keep_center=ensemble == "nve")
    samples = _Samples(atoms, ensemble, timestep)
    interval = max(1, steps // SAMPLES)
    done = 0
    while True:
        if restart is not None:
            put_back(atoms, start, restart[0])
            done, samples.rows = restart[1]["done"], [tuple(row) for row in restart[1]["rows"].tolist()]
        dynamics = integrator.on(atoms, rng)
        if restart is not None and ensemble == "npt":
            dynamics.p_eps = restart[1]["p_eps"]  # the momentum of the cell
        dynamics.nsteps = done
        dynamics.attach(samples.take, interval, dynamics)
        stop = steps if checkpoint is None else min(steps, done + save_every)
        dynamics.run(stop - done)
        if stop == steps:
            break
        state = {"done": stop, "rows": np.array(samples.rows), "p_eps": getattr(dynamics, "p_eps", None)}
        checkpoint.save(moved(atoms), state)
        restart = checkpoint.load()
    if steps % interval:
        samples.take(dynamics)  # the last sample is of the structure that is returned
    atoms.info.update(samples.scores())
    return atoms


@dataclass(frozen=True)
class _Integrator:
    """The equations of motion of an ensemble; times in ASE's units."""

    ensemble: str
    step: float
    temperature: float
    friction: float
    cell: dict[str, Any]

    def on(self, atoms: Atoms, rng: np.random.Generator) -> Any:
        if self.ensemble == "nve":
            return VelocityVerlet(atoms, self.step)
        bath: dict[str, Any] = {"temperature_K": self.temperature, "rng": rng}
        if self.ensemble == "nvt":
            # fixcm=False: holding the centre of mass would not sample the canonical ensemble.
            return Langevin(atoms, self.step, friction=self.friction, fixcm=False, **bath)
        return LangevinBAOAB(atoms, self.step, **self.cell, **bath)


def _check_ensemble(atoms: Atoms, ensemble: str) -> None:
    if ensemble not in ENSEMBLES:
        raise ValueError(f"ensemble {ensemble!r} is unknown; known: {', '.join(ENSEMBLES)}.")
    if ensemble == "npt" and not (atoms.pbc.all() and atoms.cell.rank == 3):
        raise ValueError(
            f"npt needs a structure that is periodic in three directions, not pbc={atoms.pbc.tolist()} with a cell of "
            f"{atoms.cell.rank} vectors; use ensemble='nvt'."
        )


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name}={number!r}: give a positive number.")


def _draw_momenta(atoms: Atoms, rng: np.random.Generator, temperature: float, *, keep_center: bool) -> None:
    """Draw momenta from the Maxwell–Boltzmann distribution; constraints apply."""
    masses = atoms.get_masses()[:, np.newaxis]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * temperature)
    if keep_center and not atoms.constraints and len(atoms) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)


def _barostat_mass(atoms: Atoms, period: float, hydrostatic: bool) -> float:
    """Mass of the barostat for which the volume of a solid oscillates with about this period.

    In the equations of motion of [3]_ a strain ε answers with the force 9VKε (hydrostatic) or 3VKε, so
    ``W = 9VK (period/2π)²``. The bulk modulus K is taken as 100 GPa; the period goes as the root of the true one.
    """
    stiffness = (9 if hydrostatic else 3) * atoms.get_volume() * 100 * units.GPa
    return float(stiffness * (period / (2 * np.pi)) ** 2)


class _Samples:
    """What the scores are made of, taken along the way."""

    def __init__(self, atoms: Atoms, ensemble: str, timestep: float) -> None:
        self._atoms, self._ensemble, self._timestep = atoms, ensemble, timestep
        # Velocity Verlet keeps the centre of mass where it is: three degrees of freedom less.
        free = atoms.get_number_of_degrees_of_freedom()
        self._freedom = free - 3 if ensemble == "nve" and not atoms.constraints and len(atoms) > 1 else free
        self.rows: list[tuple[float, ...]] = []

    def take(self, dynamics: MolecularDynamics) -> None:
        atoms = self._atoms
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        if not np.isfinite(potential + kinetic):
            raise FloatingPointError(
                f"the energy is {potential} eV at step {dynamics.nsteps}: the structure has come apart; relax it "
                "first, or use a shorter timestep."
            )
        row: tuple[float, ...] = (dynamics.nsteps, potential, kinetic)
        if self._ensemble == "npt":
            stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
            row += (atoms.get_volume(), -np.trace(stress) / 3)
        self.rows.append(row)

    def scores(self) -> dict[str, float]:
        rows = np.array(self.rows)
        time = rows[:, 0] * self._timestep * units.fs / units.fs
        late = rows[len(rows) // 2 :].mean(axis=0)
        scores = {
            "time": float(time[-1]),
            "mean_temperature": float(2 * late[2] / (max(self._freedom, 1) * units.kB)),
            "mean_energy": float(late[1]),
        }
        if self._ensemble == "nve":
            total = (rows[:, 1] + rows[:, 2]) / len(self._atoms)
            scores["energy_drift"] = float(np.polyfit(time / 1000, total, 1)[0])
            scores["energy_fluctuation"] = float(total.std())
        if self._ensemble == "npt":
            scores["mean_volume"], scores["mean_pressure"] = float(late[3]), float(late[4] / units.GPa)
        return scores

"""`reproduce`: one output, same environment, code and seeds, again, and compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ase import Atoms

from mlipcluster.clusters import Clusters
from mlipcluster.errors import InputError, MismatchError, RecordError
from mlipcluster.outputs.output import Output
from mlipcluster.reproduction import checks
from mlipcluster.reproduction.attempt import Attempt, Where
from mlipcluster.reproduction.audit import Audit
from mlipcluster.reproduction.checks import Difference
from mlipcluster.reproduction.comparison import DIFFERENT, Quantity, Tolerance, compare, overall, tolerances
from mlipcluster.reproduction.original import load
from mlipcluster.reproduction.protocols import Protocol, locate

PathLike = str | os.PathLike[str]


def reproduce(  # noqa: PLR0913 - the keyword arguments that PyRosettaCluster's users know, and few more
    input_file: PathLike | None = None,
    *,
    scorefile: PathLike | None = None,
    output_name: str | None = None,
    decoy_name: str | None = None,
    protocols: Protocol | Sequence[Protocol] | None = None,
    cluster: Any = None,
    clusters: Sequence[Any] | None = None,
    client: Any = None,
    clients: Sequence[Any] | None = None,
    input_atoms: Atoms | None = None,
    instance_kwargs: Mapping[str, Any] | None = None,
    clients_indices: int | Sequence[int] | None = None,
    resources: Mapping[str, float] | Sequence[Mapping[str, float] | None] | None = None,
    tolerances: Mapping[str, float | Tolerance] | None = None,
    strict: bool = True,
    trust: bool = False,
) -> Audit:
    """Make one output again, in the same way, and compare.

    Before anything runs, the protocols' source and git commit, the environments, the weights and the file itself
    are held against the record. Then the one path that led to the output is run again from the recorded structure
    and seeds, and every quantity of the result is compared bit for bit, then within tolerances.

    Parameters
    ----------
    input_file : path, optional
        An output of `MLIPCluster`, in any format and compression.
    scorefile, output_name : path and str, optional
        Instead: a ledger (or the run folder that holds it), and the name of one of its outputs.
    decoy_name : str, optional
        Another word for ``output_name``.
    protocols : callable or sequence of callables, optional
        The protocols, in order. By default they are imported by the module and name in the record: ready-made ones,
        and the user's own if the function there is the recorded one.
    cluster, clusters, client, clients : optional
        Where to run, as `MLIPCluster` takes them. By default one worker is started here. The name of a configured
        cluster also says in whose root the calculators are.
    input_atoms : Atoms, optional
        Start from this structure instead of the recorded one.
    instance_kwargs : mapping, optional
        Other options of `MLIPCluster`, for example ``{"output_path": "again"}`` to keep the new output, or
        ``{"calculator": spec}`` for a calculator whose environment is in another place now, or ``{"root": path}`` for
        those of a root. Not those that the record decides (tasks, seeds, …), nor those without which the output could
        be missed (``dry_run``, …).
    clients_indices, resources
        As `MLIPCluster.distribute` takes them.
    tolerances : mapping, optional
        Other tolerances by quantity, see `mlipcluster.reproduction.comparison.TOLERANCES`; ``inf`` leaves a
        quantity unjudged.
    strict : bool
        Raise when something is not as recorded; otherwise it is in the `Audit`.
    trust : bool
        Run what the record asks for: any calculator in any interpreter, protocols of any module, and pickles
        (protocols that cannot be imported, keyword arguments that JSON cannot hold). That can be any code; say so
        only for files whose writer you trust.

    Returns
    -------
    Audit
        Its ``verdict``, numbers and ``text()``.

    Raises
    ------
    MismatchError
        Something is not as recorded, and *strict*; its ``differences`` name each.
    RecordError
        The file is damaged or was changed after it was written, and *strict*; or it cannot be read at all.
    ProtocolError
        A protocol cannot be found, or is none that a record may run without *trust*.
    InputError
        An argument cannot be used, the calculator's interpreter is not here, or the calculator is none that a record
        may start without *trust*.
    """
    options = dict(instance_kwargs or {})
    _check_options(options)
    original, damage = load(input_file, scorefile, output_name or decoy_name, trust=trust)
    if damage and strict:
        raise RecordError(f"{original.path} is damaged: {'; '.join(damage)}. Restore it from a copy, or strict=False.")
    cluster = options.pop("cluster", cluster)
    where = Where(Clusters(cluster, clusters, client, clients), clients_indices, resources)
    attempt = Attempt(original, locate(original.record, protocols, trust=trust, strict=strict), options, where, trust)
    compare_with = _tolerances(tolerances)
    before = [Difference(checks.FILE, line) for line in damage] + attempt.check_before(input_atoms)
    _refuse(original, before, strict=strict)
    new = attempt.run(input_atoms)
    after = [one for one in attempt.check_after(new) if one not in before] if new else []
    _refuse(original, after, strict=strict, ran=True)
    quantities = compare(original.atoms, new.atoms, compare_with) if new else (_NO_OUTPUT,)
    notes = attempt.notes(new) if new else ()
    return Audit(overall(quantities), quantities, (*before, *after), attempt.checked(), notes, original, new)


_REFUSED = {
    **dict.fromkeys(
        ("tasks", "nstruct", "seed", "seeds", "output_ids", "replicate"), "the record says it; leave it out"
    ),
    **dict.fromkeys(("clusters", "client", "clients", "input_atoms"), "give it to reproduce itself"),
    **dict.fromkeys(("dry_run", "filter_results"), "the output would not be there to compare; leave it out"),
    "ignore_errors": "a failure is no other result; leave it out",
    "resume": "what is in the folder already would be compared; leave it out",
}
"""Options of `MLIPCluster` that cannot be chosen, and why."""


def _check_options(options: Mapping[str, Any]) -> None:
    for name in options:
        if name in _REFUSED:
            raise InputError(f"instance_kwargs (--option): {name} cannot be chosen: {_REFUSED[name]}.")
    if not options.get("output_types", True) and not options.get("simulation_records_in_scorefile"):
        raise InputError(
            "instance_kwargs (--option): without output_types the output would not be there to compare; leave it out, "
            "or add simulation_records_in_scorefile=True."
        )


_NO_OUTPUT = Quantity("output", DIFFERENT, note="the protocols gave no such output this time")
_tolerances = tolerances  # the function, where an argument has its name


def _refuse(original: Output, differences: Sequence[Difference], *, strict: bool, ran: bool = False) -> None:
    if not differences or not strict:
        return
    lines = tuple(map(str, differences))
    when = " (seen when it was run again)" if ran else ""
    what = "1 thing is" if len(lines) == 1 else f"{len(lines)} things are"
    raise MismatchError(
        f"{original.name}: {what} not as recorded{when}:\n  " + "\n  ".join(lines) + "\nPut things back as the "
        "record says, or use strict=False (--lenient): the output is made again all the same, and they are reported.",
        lines,
    )

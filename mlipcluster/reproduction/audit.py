"""What came of making an output again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlipcluster.outputs.output import Output
from mlipcluster.reproduction.checks import CODE, ENVIRONMENT, SEEDS, WEIGHTS, Difference
from mlipcluster.reproduction.comparison import DIFFERENT, IDENTICAL, MAIN, WITHIN_TOLERANCE, Quantity

EXIT_STATUS = {IDENTICAL: 0, WITHIN_TOLERANCE: 3, DIFFERENT: 4}
"""Exit status of ``mlipcluster reproduce``, by verdict."""

_NAMED = (ENVIRONMENT, CODE, WEIGHTS, SEEDS)
_LISTED = 5  # quantities named in the headline


@dataclass(frozen=True, repr=False)
class Audit:
    """An output made again and held against its record.

    Attributes
    ----------
    verdict : str
        ``"identical"`` (every quantity bit for bit), ``"within tolerance"`` or ``"different"``.
    quantities : tuple of Quantity
        Each quantity's own verdict and numbers. Times, host names and what was printed are never compared.
    differences : tuple of Difference
        What is not as recorded: code, environment, calculator, weights, seeds, input, file. Empty unless
        ``strict=False``.
    checked : tuple of str
        Kinds of the things that could be checked; a calculator without weights, for example, has none to check.
    notes : tuple of str
        What else may matter: another processor, where a protocol was found.
    original : Output
        The output as recorded.
    new : Output or None
        The output made again; None when the protocols gave no such output this time.
    """

    verdict: str
    quantities: tuple[Quantity, ...]
    differences: tuple[Difference, ...]
    checked: tuple[str, ...]
    notes: tuple[str, ...]
    original: Output
    new: Output | None

    @property
    def exit_status(self) -> int:
        """For a command line: 0 identical, 3 within tolerance, 4 different."""
        return EXIT_STATUS[self.verdict]

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        groups = [f"{self.verdict}: {_listed(self._of(self.verdict), self.verdict)}"]
        if self.verdict != IDENTICAL:
            groups += [
                f"{v}: {_listed(self._of(v), v)}"
                for v in (WITHIN_TOLERANCE, IDENTICAL)
                if self._of(v) and v != self.verdict
            ]
        differing = list(dict.fromkeys(difference.kind for difference in self.differences))
        same = [kind for kind in _NAMED if kind in self.checked and kind not in differing]
        if same:
            groups.append(f"{', '.join(same)} as recorded")
        if differing:
            groups.append(f"NOT as recorded: {', '.join(differing)}")
        return "; ".join(groups)

    def text(self) -> str:
        """A page for a reviewer: the headline, what was run by whom, when and where, and every number compared."""
        from mlipcluster.reproduction.page import page

        return page(self)

    def _of(self, verdict: str) -> list[Quantity]:
        return [quantity for quantity in self.quantities if quantity.verdict == verdict]

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Audit of {self.original.name}: {self.headline}>"


def _listed(quantities: Sequence[Quantity], verdict: str) -> str:
    if verdict == IDENTICAL:
        main = [q.name for q in quantities if q.name in MAIN] or [q.name for q in quantities[:_LISTED]]
        return f"{', '.join(main)} (bit for bit)"
    shown = [f"{q.name} ({_amount(q)})" for q in quantities[:_LISTED]]
    rest = len(quantities) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _amount(quantity: Quantity) -> str:
    if quantity.difference is None or quantity.tolerance is None:
        return quantity.note or "not equal"
    amount = f"{quantity.difference:.2g} {quantity.tolerance.unit}".strip()
    allowed = f", tolerance {quantity.tolerance.value:g}" if quantity.verdict == DIFFERENT else ""
    return amount + allowed

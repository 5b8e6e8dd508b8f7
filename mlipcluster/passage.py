"""A chunk of calls on its way through a worker."""

from __future__ import annotations

from mlipcluster.calls import Call, Job
from mlipcluster.checkpoint import Saved, got_on
from mlipcluster.saves import HERE


class Passage:
    """A chunk on its way through a worker: its calls, and what came of them so far.

    Parameters
    ----------
    job : Job
    calls : tuple of Call

    Attributes
    ----------
    results : list of bytes
        A packed `CallResult` for each call that is over here.
    printed : dict of int to str
        The end of what each printed, for those that did.
    introductions : list of bytes
        Packed `Introduction` of the processes that took part.
    halted : bool
        The worker has to end, so that the rest is handed back.
    """

    def __init__(self, job: Job, calls: tuple[Call, ...]) -> None:
        self.job = job
        self.results: list[bytes] = []
        self.printed: dict[int, str] = {}
        self.introductions: list[bytes] = []
        self.halted = False
        self._calls = calls
        self._from: Saved | None = None

    @property
    def call(self) -> Call:
        """The one that runs."""
        return self._calls[len(self.results)]

    @property
    def over(self) -> bool:
        """Whether nothing of it is left to be run here."""
        return self.halted or len(self.results) == len(self._calls)

    def begin(self) -> Saved | None:
        """Its next call starts, or starts again: from where."""
        HERE.begin(self.job.run, self.call.slot)
        self._from = HERE.newest(self.job.run, self.call.slot) or self.call.checkpoint
        return self._from

    def keep(self, saved: Saved) -> None:
        """The call that runs has saved itself."""
        HERE.keep(self.job.run, self.call.slot, saved)

    @property
    def got_on(self) -> bool:
        """Whether the call that runs has saved itself further on than where it began."""
        newest = HERE.newest(self.job.run, self.call.slot)
        return got_on(self._from, newest)

    def end(self, result: bytes, printed: str) -> None:
        """The call that runs is over."""
        HERE.end(self.job.run, self.call.slot)
        if printed:
            self.printed[len(self.results)] = printed
        self.results.append(result)
        if not self.over:
            self.begin()

    def leave(self) -> None:
        """Nothing of it runs here any more."""
        if len(self.results) < len(self._calls):
            HERE.end(self.job.run, self.call.slot)

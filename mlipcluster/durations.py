"""How long calls take, learned on the way: by protocol and by the size of the structure; no clock, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

FORGETTING = 0.3
"""Weight of the newest call in the running means."""
SPREADS = 2.0
"""Standard deviations that the upper estimate lies above the mean."""
WIDENING = 1.25
"""The upper estimate is at least so many times the mean: a few calls say little about the next."""


@dataclass
class _Bucket:
    mean: float
    variance: float = 0.0

    def note(self, seconds: float) -> None:
        off = seconds - self.mean
        self.mean += FORGETTING * off
        self.variance = (1 - FORGETTING) * (self.variance + FORGETTING * off * off)

    @property
    def upper(self) -> float:
        return max(WIDENING * self.mean, self.mean + SPREADS * math.sqrt(self.variance))


class Durations:
    """Seconds a call, for each protocol in buckets of sizes: each holds the sizes from one power of two to the next.

    A size that was not met yet is taken to cost as much an atom as the nearest that was.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, dict[int, _Bucket]] = {}

    def note(self, step: int, size: int, seconds: float) -> None:
        """A call took *seconds*.

        Parameters
        ----------
        step : int
            Number of its protocol.
        size : int
            Number of atoms; 0 where there is no structure.
        seconds : float
        """
        buckets = self._buckets.setdefault(step, {})
        place = _place(size)
        if place in buckets:
            buckets[place].note(seconds)
        else:
            buckets[place] = _Bucket(seconds)

    def mean(self, step: int, size: int) -> float | None:
        """Seconds that such a call takes; None where no call of the protocol is known."""
        found = self._nearest(step, size)
        return None if found is None else found[0].mean * found[1]

    def upper(self, step: int, size: int) -> float | None:
        """Seconds that such a call will hardly exceed; None where no call of the protocol is known."""
        found = self._nearest(step, size)
        return None if found is None else found[0].upper * found[1]

    def _nearest(self, step: int, size: int) -> tuple[_Bucket, float] | None:
        """The bucket nearest to a size (of two the larger), and what to multiply its seconds with."""
        buckets = self._buckets.get(step)
        if not buckets:
            return None
        place = _place(size)
        nearest = place if place in buckets else min(buckets, key=lambda known: (abs(known - place), -known))
        return buckets[nearest], 2.0 ** (place - nearest)


def _place(size: int) -> int:
    return max(0, size).bit_length()

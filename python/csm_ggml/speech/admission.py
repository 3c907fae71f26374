"""How long a step takes with so many utterances, and how many may therefore speak at once."""

from __future__ import annotations

from collections import deque
from statistics import median

# Steps of one batch size that are remembered.
_STEPS = 15
# What one more utterance is taken to cost where only one batch size has been measured.
_SLOPE = 0.1


class StepTimes:
    """Measured times of steps, by the number of utterances in them."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}

    def add(self, utterances: int, seconds: float) -> None:
        """Take note of a step."""
        times = self._times.setdefault(utterances, deque(maxlen=_STEPS))
        times.append(seconds)
        self._medians[utterances] = median(times)

    def seconds(self) -> dict[int, float]:
        """The median of the latest steps, by the number of utterances."""
        return dict(sorted(self._medians.items()))

    def predict(self, utterances: int) -> float:
        """How long a step with so many utterances will take; 0 before anything was measured.

        Between two measured sizes it is interpolated, beyond them continued with the slope of the
        nearest two.
        """
        known = self._medians
        if utterances in known:
            return known[utterances]
        below = [n for n in known if n < utterances]
        above = [n for n in known if n > utterances]
        if not below and not above:
            return 0.0
        if not below:
            return known[min(above)]
        nearest = max(below)
        if above:
            following = min(above)
            share = (utterances - nearest) / (following - nearest)
            return known[nearest] + share * (known[following] - known[nearest])
        slope = _SLOPE * known[nearest]
        if len(below) > 1:
            before = sorted(below)[-2]
            slope = max(0.0, (known[nearest] - known[before]) / (nearest - before))
        return known[nearest] + slope * (utterances - nearest)

    def fits(self, utterances: int, limit: float) -> bool:
        """Whether a step with so many stays within a limit in seconds.

        At most one more than were measured: what two will take says little of what ten will.
        """
        return utterances <= max(self._medians, default=0) + 1 and (
            self.predict(utterances) <= limit
        )

    def most(self, limit: float, up_to: int) -> int:
        """The most utterances, at most so many, whose step stays within a limit in seconds."""
        fits = 0
        while fits < up_to and self.predict(fits + 1) <= limit:
            fits += 1
        return fits

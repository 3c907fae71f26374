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
        self._medians: dict[int, float] = {}  # those that somebody has asked for

    def add(self, utterances: int, seconds: float) -> None:
        """Take note of a step."""
        if utterances not in self._times:
            self._times[utterances] = deque(maxlen=_STEPS)
        self._times[utterances].append(seconds)
        self._medians.pop(utterances, None)

    def seconds(self) -> dict[int, float]:
        """The median of the latest steps, by the number of utterances."""
        return {utterances: self._median(utterances) for utterances in sorted(self._times)}

    def predict(self, utterances: int) -> float:
        """How long a step with so many utterances will take; 0 before anything was measured.

        Between two measured sizes it is interpolated, beyond them continued with the slope of the
        nearest two.
        """
        known, seconds = self._times, self._median
        if utterances in known:
            return seconds(utterances)
        below = [n for n in known if n < utterances]
        above = [n for n in known if n > utterances]
        if not below and not above:
            return 0.0
        if not below:
            return seconds(min(above))
        nearest = max(below)
        if above:
            following = min(above)
            share = (utterances - nearest) / (following - nearest)
            return seconds(nearest) + share * (seconds(following) - seconds(nearest))
        slope = _SLOPE * seconds(nearest)
        if len(below) > 1:
            before = sorted(below)[-2]
            slope = max(0.0, (seconds(nearest) - seconds(before)) / (nearest - before))
        return seconds(nearest) + slope * (utterances - nearest)

    def fits(self, utterances: int, limit: float) -> bool:
        """Whether a step with so many stays within a limit in seconds.

        At most one more than were measured: what two will take says little of what ten will.
        """
        return utterances <= max(self._times, default=0) + 1 and (self.predict(utterances) <= limit)

    def most(self, limit: float, up_to: int) -> int:
        """The most utterances, at most so many, whose step stays within a limit in seconds."""
        fits = 0
        while fits < up_to and self.predict(fits + 1) <= limit:
            fits += 1
        return fits

    def _median(self, utterances: int) -> float:
        found = self._medians.get(utterances)
        if found is None:
            found = self._medians[utterances] = median(self._times[utterances])
        return found

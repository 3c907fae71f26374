"""Did these draws come from that distribution?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# One false alarm in ten million runs of a test; the noise is seeded, so a test that passes once
# passes always.
_SIGNIFICANCE = 1e-7


def processed(
    logits: NDArray[np.float32], temperature: float, top_k: int, top_p: float
) -> NDArray[np.float64]:
    """Softmax of logits (codes,) after temperature, top-k (0 = off) and top-p, in float64."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    kept = order[: top_k or len(order)]
    mass = np.exp(scaled[kept] - scaled[kept[0]])
    mass /= mass.sum()
    if top_p < 1:
        # up to and including the code that reaches top_p
        kept = kept[: int(np.searchsorted(np.cumsum(mass), top_p)) + 1]
    probabilities = np.zeros(len(scaled))
    probabilities[kept] = np.exp(scaled[kept] - scaled[kept[0]])
    return probabilities / probabilities.sum()


def assert_drawn_from(
    counts: NDArray[np.int64], probabilities: NDArray[np.float64], what: str
) -> None:
    """Pearson's chi-squared test; rare codes (expected fewer than 5 times) are counted together."""
    impossible = counts[probabilities == 0]
    if impossible.any():
        code = int(np.flatnonzero((counts > 0) & (probabilities == 0))[0])
        raise AssertionError(f"{what}: code {code} was drawn, its probability is 0")
    total = int(counts.sum())
    expected = probabilities * total
    rare = (expected < 5) & (probabilities > 0)
    common = expected >= 5
    observed, wanted = list(counts[common]), list(expected[common])
    if rare.any() and expected[rare].sum() >= 5:
        observed.append(counts[rare].sum())
        wanted.append(expected[rare].sum())
    if len(wanted) < 2:
        return
    statistic = float(sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True)))
    p = _chi_squared_tail(statistic, len(wanted) - 1)
    if p < _SIGNIFICANCE:
        raise AssertionError(
            f"{what}: chi-squared {statistic:.1f} with {len(wanted) - 1} degrees of freedom "
            f"over {total} draws, p = {p:.1e}"
        )


def _chi_squared_tail(statistic: float, freedom: int) -> float:
    """P(chi-squared >= statistic): the upper incomplete gamma function Q(freedom/2, x/2)."""
    a, x = freedom / 2, statistic / 2
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        # series of the lower function
        term = total = 1 / a
        n = a
        while term > total * 1e-15:
            n += 1
            term *= x / n
            total += term
        return 1 - total * front
    # Lentz's continued fraction of the upper one
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    h = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = step * d + b
        d = 1 / (d if abs(d) > tiny else tiny)
        c = b + step / c
        c = c if abs(c) > tiny else tiny
        h *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return front * h

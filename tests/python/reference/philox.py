"""Philox4x32-10, written from the paper of Salmon et al., independent of the engine."""

from __future__ import annotations

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox4x32_10(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Four random 32-bit words of a counter and a key."""
    x, k = list(counter), list(key)
    for _ in range(10):
        first, second = _MULTIPLIERS[0] * x[0], _MULTIPLIERS[1] * x[2]
        x = [
            (second >> 32) ^ x[1] ^ k[0],
            second & _MASK,
            (first >> 32) ^ x[3] ^ k[1],
            first & _MASK,
        ]
        k = [(k[0] + _WEYL[0]) & _MASK, (k[1] + _WEYL[1]) & _MASK]
    return tuple(x)

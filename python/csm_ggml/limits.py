"""What numbers may be: options, and arguments that count something."""

from __future__ import annotations

import math
from dataclasses import dataclass

# More than any machine has cores; a number beyond it is a slip.
MOST_THREADS = 1024
SEED_LIMIT = 2**64


@dataclass(frozen=True)
class Limits:
    """What a number may be.

    Attributes:
        least: The least value.
        most: The greatest value.
        unit: What it counts, for messages; may be empty.
        zero: What 0 means where it is allowed beside the range; empty if it is not.
    """

    least: float
    most: float
    unit: str = ""
    zero: str = ""

    def __str__(self) -> str:
        """For messages."""
        zero = f"0 ({self.zero}) or " if self.zero else ""
        return f"{zero}{self.least} to {self.most}" + (f" {self.unit}" if self.unit else "")

    def allow(self, value: float) -> bool:
        """Whether a number is within."""
        return self.least <= value <= self.most or (bool(self.zero) and value == 0)


# What options, and arguments that count something, may be: within it, no value takes memory or
# time beyond reason, or ends in a number that the engine's 32 bits cannot hold.
LIMITS = {
    "temperature": Limits(0.0001, 100, zero="the most likely code"),
    "depth_temperature": Limits(0.0001, 100, zero="the most likely code"),
    "top_k": Limits(0, 2**31 - 1, "(0 = all codes)"),
    "depth_top_k": Limits(0, 2**31 - 1, "(0 = all codes)"),
    "top_p": Limits(0.000001, 1, "(1 = all codes)"),
    "depth_top_p": Limits(0.000001, 1, "(1 = all codes)"),
    "max_seconds": Limits(0.001, 36_000, "seconds"),
    "max_frames": Limits(1, 1_000_000, "frames"),
    "silence_seconds": Limits(0.001, 3_600, "seconds", zero="never"),
    "loop_seconds": Limits(0.001, 600, "seconds", zero="never"),
    "silence_db": Limits(-200, 0, "dB of full scale"),
    "max_characters_per_second": Limits(1, 10_000, "characters a second", zero="any number"),
    "retries": Limits(0, 100, "times"),
    "batch_size": Limits(1, 256, "utterances side by side"),
    "first_chunk_frames": Limits(1, 1_000_000, "frames"),
    "chunk_frames": Limits(1, 1_000_000, "frames"),
    "piece_characters": Limits(20, 100_000, "characters"),
    "pause": Limits(0, 60, "seconds"),
    "paragraph_pause": Limits(0, 60, "seconds"),
    "threads": Limits(1, MOST_THREADS, "threads"),
    "seed": Limits(0, SEED_LIMIT - 1),
}


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """Return a whole number of at least 1, or of at least `least`, within the limits of its name.

    Args:
        name: Of the option; where `LIMITS` has it, they hold.
        value: What was given.
        least: The least value of a name that has no limits.

    Raises:
        ValueError: If it is outside.
        TypeError: If it is none.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an int, got {_shown(value)}")
    try:
        count = int(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {_shown(value)}") from None
    if name in LIMITS:
        _check_limits(name, count)
    elif count < least:
        raise ValueError(f"{name} must be at least {least}, got {_shown(count)}")
    return int(count)


def number(name: str, value: object) -> float:
    """Return a number as a float, within the limits of its name, if it has any.

    Raises:
        ValueError: If it is outside.
        TypeError: If it is none.
    """
    if isinstance(value, bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number, got {_shown(value)}")
    try:
        real = float(value)  # type: ignore[arg-type]
    except OverflowError:
        real = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {_shown(value)}") from None
    if name in LIMITS:
        _check_limits(name, real)
    return real


def parse_option(name: str, text: str) -> float:
    """The value of an option that was given as text, such as on a command line.

    Raises:
        ValueError: If it is no number, or outside of the limits.
    """
    whole = name in _WHOLE
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind}, got {text[:40]!r}") from None
    return check_count(name, value, least=0) if whole else number(name, value)


_WHOLE = frozenset(
    (
        *("top_k", "depth_top_k", "max_frames", "retries", "batch_size", "threads", "seed"),
        *("piece_characters", "first_chunk_frames", "chunk_frames"),
    )
)


def _check_limits(name: str, value: float) -> None:
    if not LIMITS[name].allow(value):
        raise ValueError(f"{name} must be {LIMITS[name]}, got {_shown(value)}")


def _shown(value: object) -> str:
    """A value for a message: a few characters of it, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python converts
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."

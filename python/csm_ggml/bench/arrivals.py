"""Continuous batching: what joining and leaving at any time costs, against a batch that stays.

Requests of random lengths arrive at random times, more often than the slots can serve, so that
somebody waits nearly always: with 1.2 times as many as can be served, 5 % of the slots stood empty
because nobody asked, with 1.5 times 1 %. A request takes a slot as soon as one is free, between two
frames; its prompt is evaluated while the others pause.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from statistics import mean

import numpy as np

from csm_ggml.bench.session import UTTERANCE_SECONDS, Samples, Session

SHORTEST_SECONDS = 1.0
LONGEST_SECONDS = 6.0
# Requests that arrive, as a multiple of those that can be served.
LOAD = 1.5
# Requests for each slot, besides those that it serves at the beginning.
TURNS = 3


@dataclass(frozen=True)
class Arrival:
    """A request.

    Attributes:
        after: When it arrives, in seconds from the beginning.
        frames: Of speech that it asks for.
    """

    after: float
    frames: int


def draw_arrivals(slots: int, frame_rate: float, frame_seconds: float, seed: int) -> list[Arrival]:
    """One request for each slot that is being served already, then more at exponential distances.

    Args:
        slots: How many are served at once.
        frame_rate: Frames of speech per second.
        frame_seconds: What one frame of all slots takes.
        seed: Of times and lengths.
    """
    random = np.random.default_rng(seed)
    count = slots * TURNS
    shortest, longest = SHORTEST_SECONDS * frame_rate, LONGEST_SECONDS * frame_rate
    # Whoever looks in at any time meets long utterances more often than short ones, and each
    # somewhere in its middle.
    met = np.sqrt(random.uniform(shortest**2, longest**2, slots)) * random.uniform(0, 1, slots)
    lengths = [*met, *random.uniform(shortest, longest, count)]
    gap = (shortest + longest) / 2 * frame_seconds / slots / LOAD
    times = [*np.zeros(slots), *np.cumsum(random.exponential(gap, count))]
    return [
        Arrival(float(after), max(1, round(frames)))
        for after, frames in zip(times, lengths, strict=True)
    ]


def compare_with_static(session: Session, frames: int, seed: int) -> None:
    """Time a static batch, arrivals, and the static batch again; add to the session's samples.

    The static batch is that of the other numbers: utterances of 10 seconds side by side, each with
    a prompt.

    Args:
        session: Its batch is the number of slots.
        frames: Of the static batch, before and after together.
        seed: Of the arrivals.
    """
    samples, session.samples = session.samples, Samples()
    session.speak((frames + 1) // 2)
    arrivals = draw_arrivals(
        session.batch, session.frame_rate, _seconds_per_frame(session), seed=seed
    )
    codes, seconds, occupancy = serve(session, arrivals)
    session.speak(max(1, frames // 2))
    samples.static_rate.append(session.batch * session.codebooks / _seconds_per_frame(session))
    samples.continuous_rate.append(codes / seconds)
    samples.occupancy.append(occupancy)
    session.samples = samples


def _seconds_per_frame(session: Session) -> float:
    """Mean time of a frame of the static batch, with its share of the prompt."""
    samples = session.samples
    prompt = mean(samples.prompt) / (UTTERANCE_SECONDS * session.frame_rate)
    return mean(samples.lm) + mean(samples.mimi) + prompt


def serve(session: Session, arrivals: list[Arrival]) -> tuple[int, float, float]:
    """Speak requests as they arrive; those of time 0 have their slots and prompts already.

    Returns:
        Codes made, the seconds that this took, and the mean share of the slots that were taken;
        until the last request has got a slot.
    """
    waiting = deque(arrivals)
    remaining: dict[int, int] = {}
    codes, frames, taken = 0, 0, 0

    def admit(now: float) -> None:
        while waiting and len(remaining) < session.batch and waiting[0].after <= now:
            slot = session.begin(seed=len(waiting))
            remaining[slot] = waiting.popleft().frames

    admit(now=0)
    started = time.perf_counter()
    while waiting:
        if slots := list(remaining):
            session.sound(slots, session.frame(slots))
        else:
            time.sleep(max(0.0, waiting[0].after - (time.perf_counter() - started)))
        codes += len(slots) * session.codebooks
        frames += bool(slots)
        taken += len(slots)
        for slot in slots:
            remaining[slot] -= 1
            if remaining[slot] == 0:
                del remaining[slot]
                session.end(slot)
        admit(now=time.perf_counter() - started)
    seconds = time.perf_counter() - started
    for slot in remaining:
        session.end(slot)
    return codes, seconds, taken / frames / session.batch

"""The scheduler: whatever comes, goes, fails, waits or pauses, each job says what it says alone."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM, Audio, DeadlineExceeded, JobCancelled, QueueFull, Segment
from csm_ggml.speech.job import Job
from csm_ggml.speech.loop import LEAST_ROWS
from csm_ggml.speech.prefix import KVPrefix
from csm_ggml.speech.request import Conditioning, Request
from csm_ggml.speech.scheduler import Scheduler
from csm_ggml.speech.stop import StopRules
from csm_ggml.speech.utterance import WHOLE, ChunkSizes
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment
from fakes import HashEngine, letter_prompts, request, scheduler_of
from reference import devices

FRAME = ChunkSizes(1, 1)


def heard(audio: Audio) -> tuple[Any, ...]:
    """All of a result but what it cost."""
    return (
        audio.samples.tobytes(),
        audio.codes.tobytes(),
        audio.turns,
        audio.finish_reason,
        audio.seed,
    )


def check_free(scheduler: Scheduler, engine: HashEngine) -> None:
    """Nothing is left of what ended: no slot, no queue, no frame."""
    scheduler._runner.once()
    loop = scheduler._runner.loop
    assert not loop.busy and not loop._frames and not loop._parked
    for dialogue in list(loop._leases):
        loop.release(dialogue)
    assert engine.idle or loop._engine is None


# Random schedules

VOICE = EncodedSegment(Turn(0, "voice"), np.full((3, 2), 5, np.int32))


def conditionings() -> list[Conditioning]:
    """Nothing; a context; a voice whose prefix nobody has evaluated yet."""
    prefix = KVPrefix(letter_prompts().context_rows([VOICE]))
    return [
        Conditioning(),
        Conditioning(context=(VOICE,)),
        Conditioning((VOICE,), (), prefix),
    ]


def draw_request(dice: random.Random, shared: list[Conditioning]) -> Request:
    text = "".join(
        f"[{dice.randrange(2)}]{'ab'[: dice.randint(1, 2)]}" for _ in range(dice.randint(1, 3))
    )
    silence = StopRules(silence_frames=2, silence_db=-20.0) if dice.random() < 0.2 else StopRules()
    drawn = request(
        text,
        dice.randint(1, 8),
        seed=dice.randrange(100),
        retries=dice.choice((0, 0, 2)),
        stop=silence,
        sound=dice.random() < 0.9,
    )
    return replace(drawn, conditioning=dice.choice(shared))


def alone(asked: Request) -> tuple[Any, ...]:
    engine = HashEngine(context=64)
    fresh = asked.conditioning
    if fresh.prefix is not None:
        fresh = replace(fresh, prefix=KVPrefix(fresh.prefix.rows))
    scheduler = scheduler_of(engine)
    return heard(scheduler.submit(replace(asked, conditioning=fresh)).result())


class Schedule:
    """One random schedule, done step by step in this thread."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.engine = HashEngine(slots=dice.randint(1, 4), context=64)
        self.scheduler = scheduler_of(
            self.engine,
            prefill_rows=dice.choice((None, 1, 2, 5, 64)),
            realtime=dice.choice((None, None, 1e-9, 1.0)),
        )
        self.shared = conditionings()
        self.jobs: list[tuple[Job, Request]] = []
        self.slow: list[tuple[Job, Request, list[Audio]]] = []
        self.cancelled: list[Job] = []
        self.failing: list[Job] = []

    def run(self) -> None:
        for _ in range(self.dice.randint(3, 14)):
            self.act()
            for _ in range(self.dice.randint(0, 3)):
                self.scheduler.pump()
        for job, asked, chunks in self.slow:
            chunks += list(job)
            assert heard(Audio.concatenate(chunks)) == alone(asked)
        for job, asked in self.jobs:
            assert heard(job.result()) == alone(asked)
        for job in self.cancelled:
            with pytest.raises(JobCancelled):
                job.result()
        for job in self.failing:
            with pytest.raises(ZeroDivisionError):
                job.result()
        check_free(self.scheduler, self.engine)

    def act(self) -> None:
        dice = self.dice
        what = dice.random()
        asked = draw_request(dice, self.shared)
        how: dict[str, Any] = {
            "chunks": dice.choice((WHOLE, FRAME, ChunkSizes(2, 3))),
            "priority": dice.choice(("live", "bulk")),
        }
        if what < 0.45:
            self.jobs.append((self.scheduler.submit(asked, **how), asked))
        elif what < 0.65:
            # Read in a while: it pauses, and is parked if others want its slot.
            job = self.scheduler.submit(asked, **{**how, "chunks": FRAME, "buffer": 0.1})
            self.slow.append((job, asked, []))
        elif what < 0.75:
            job = self.scheduler.submit(asked, **how)
            self.failing.append(self.scheduler.submit(asked, watermark=lambda chunk: 1 // 0, **how))
            self.cancelled.append(job)
            job.cancel()
        elif what < 0.85 and self.jobs:
            job, _ = self.jobs[dice.randrange(len(self.jobs))]
            if job.cancel():
                self.jobs = [pair for pair in self.jobs if pair[0] is not job]
                self.cancelled.append(job)
        elif self.slow:
            job, _, chunks = self.slow[dice.randrange(len(self.slow))]
            if (chunk := next(job, None)) is not None:
                chunks.append(chunk)


@pytest.mark.parametrize("block", range(10))
def test_random_schedules_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who waits long enough is parked; here, who waits at all.
    monkeypatch.setattr("csm_ggml.speech.loop.PARK_SECONDS", 0.0)
    for seed in range(1000 * block, 1000 * (block + 1)):
        try:
            Schedule(seed).run()
        except BaseException as error:
            error.add_note(f"schedule {seed}") if hasattr(error, "add_note") else None
            raise


# The tick


def test_all_share_a_step() -> None:
    engine = HashEngine(slots=4, context=200, end=10**9)
    scheduler = scheduler_of(engine)
    jobs = [scheduler.submit(request("a", 5, seed=seed)) for seed in range(4)]
    for job in jobs:
        job.result()
    assert [len(step) for step in engine.steps] == [4] * 5


def test_a_newcomer_does_not_wait_for_others_to_end() -> None:
    engine = HashEngine(slots=4, context=300, end=10**9)
    scheduler = scheduler_of(engine)
    busy = [scheduler.submit(request("a", 100, seed=seed), chunks=FRAME) for seed in range(3)]
    for job in busy:
        next(job)
    before = len(engine.steps)
    late = scheduler.submit(request("a", 5), chunks=FRAME)
    next(late)
    assert len(engine.steps) - before <= 2
    for job in busy:
        job.cancel()


@pytest.mark.parametrize("rows", [None, 7])
def test_a_long_prompt_goes_in_pieces_beside_live_speech(rows: int | None) -> None:
    engine = HashEngine(slots=2, context=600, end=10**9)
    scheduler = scheduler_of(engine, prefill_rows=rows)
    busy = scheduler.submit(request("a", 300), chunks=FRAME)
    next(busy)
    engine.appended.clear()
    long = scheduler.submit(request("b" * 200, 2))
    long.result()
    assert max(engine.appended) <= (rows or 64)
    assert len(engine.appended) >= 200 // (rows or 64)
    # All of them with a step of the other one, so that the weights are read once for both.
    assert engine.joined == engine.appended
    # Nobody listens, nobody waits.
    busy.cancel()
    engine.appended.clear()
    scheduler.submit(request("b" * 200, 2)).result()
    assert engine.appended == [205]


def test_a_prefix_is_evaluated_once_for_all() -> None:
    engine = HashEngine(slots=4, context=200)
    shared = conditionings()[2]
    assert shared.prefix is not None
    scheduler = scheduler_of(engine)
    for job in [
        scheduler.submit(replace(request("a", 3, seed=seed), conditioning=shared))
        for seed in range(4)
    ]:
        job.result()
    # The first evaluates the prefix; the others load it, and evaluate the row that ends it.
    prefix, text = len(shared.prefix.rows), len(letter_prompts().text_rows(Turn(0, "a")))
    assert sum(engine.appended) == prefix + text + 3 * (1 + text)


def test_live_goes_before_bulk_and_takes_its_slot() -> None:
    engine = HashEngine(slots=1, context=200, end=10**9)
    scheduler = scheduler_of(engine)
    bulk = [scheduler.submit(request("a", 20, seed=n), priority="bulk") for n in range(2)]
    for _ in range(5):
        scheduler.pump()
    live = scheduler.submit(request("b", 3, seed=9), priority="live")
    assert heard(live.result()) == heard(
        scheduler_of(HashEngine(context=200, end=10**9)).submit(request("b", 3, seed=9)).result()
    )
    assert not any(job.done() for job in bulk)
    for number, job in enumerate(bulk):
        expected = scheduler_of(HashEngine(context=200, end=10**9)).submit(
            request("a", 20, seed=number)
        )
        assert heard(job.result()) == heard(expected.result())


def test_live_jobs_are_admitted_by_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = HashEngine(slots=4, context=300, end=10**9)
    step, clock = engine.step, [0.0]
    # Steps take what the test says, however busy the machine is.
    watch = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr("csm_ggml.speech.worker.time", watch)

    def slow(slots: Any) -> Any:
        clock[0] += 0.02 * len(slots)  # A frame is 80 ms.
        return step(slots)

    engine.step = slow  # type: ignore[method-assign]
    scheduler = scheduler_of(engine, realtime=0.7)
    jobs = [scheduler.submit(request("a", 30, seed=n), chunks=FRAME) for n in range(4)]
    for _ in range(12):
        scheduler.pump()
    # Two take 40 ms, a third would take 60 of the 56 ms that are allowed.
    stats = scheduler.stats()
    assert (stats.speaking, stats.queued) == (2, 2)
    bulk = scheduler.submit(request("b", 30), priority="bulk")
    for _ in range(4):
        scheduler.pump()
    assert not any(len(step) > 2 for step in engine.steps[-4:])
    for job in [*jobs, bulk]:
        job.cancel()


# What callers see


def test_the_queue_is_bounded() -> None:
    scheduler = scheduler_of(HashEngine(slots=2), queue=3)
    jobs = [scheduler.submit(request("a")) for _ in range(5)]
    with pytest.raises(QueueFull, match="the queue takes 3") as caught:
        scheduler.submit(request("a"))
    assert caught.value.retry_after > 0
    for job in jobs:
        job.result()
    scheduler.submit(request("a")).result()


def test_deadlines() -> None:
    engine = HashEngine(slots=1, context=300, end=10**9)
    scheduler = scheduler_of(engine)
    busy = scheduler.submit(request("a", 200), deadline=60)
    queued = scheduler.submit(request("a"), deadline=0.01)
    amid = scheduler.submit(request("a"), deadline=30)
    time.sleep(0.02)
    with pytest.raises(DeadlineExceeded):
        queued.result()
    assert busy.result().finish_reason == amid.result().finish_reason == "max_frames"
    with pytest.raises(ValueError, match="deadline must be a positive number of seconds, got 0"):
        scheduler.submit(request("a"), deadline=0)


def test_a_full_buffer_pauses_its_job_alone() -> None:
    engine = HashEngine(slots=2, context=300, end=10**9)
    scheduler = scheduler_of(engine)
    slow = scheduler.submit(request("a", 50), chunks=FRAME, buffer=0.4)  # 5 frames
    other = scheduler.submit(request("b", 50))
    assert len(other.result().codes) == 50
    assert slow.state == "paused"
    assert sum(0 in step for step in engine.steps) in (5, 6)
    assert len(Audio.concatenate(slow).codes) == 50


def test_a_job_tells_its_state_and_its_end() -> None:
    scheduler = scheduler_of(HashEngine(slots=1, end=10**9))
    ended: list[Job] = []
    first, second = (scheduler.submit(request("a", 3), chunks=FRAME) for _ in range(2))
    first.add_done_callback(ended.append)
    assert (first.state, first.stats, first.done()) == ("queued", None, False)
    next(first)
    assert (first.state, second.state) == ("speaking", "queued")
    assert first.stats is not None and first.stats.frames == 1
    list(first)
    assert (first.state, first.done(), ended) == ("done", True, [first])
    assert not first.cancel()
    with pytest.raises(RuntimeError, match="iterated over"):
        first.result()
    with pytest.raises(TimeoutError):
        second.result(timeout=0)
    assert second.result() is second.result()
    late: list[Job] = []
    second.add_done_callback(late.append)
    assert late == [second]


def test_waiting_leaves_nothing() -> None:
    """Neither those who gave up waiting, nor bells that nobody hears where there is no thread."""

    class Slow(HashEngine):
        def step(self, *args: Any, **more: Any) -> Any:
            time.sleep(0.05)
            return super().step(*args, **more)

    scheduler = scheduler_of(Slow(), threads=True)
    job = scheduler.submit(request("a"))
    for _ in range(3):
        with pytest.raises(TimeoutError):
            job.result(timeout=0.01)
    assert not job._outbox._wakers
    job.result()
    scheduler.close()

    engine = HashEngine()
    threadless = scheduler_of(engine)
    for _ in range(20):
        threadless.submit(request("a")).cancel()
    assert threadless._runner.news.qsize() == 1
    assert threadless.stats().queued == 20
    check_free(threadless, engine)


def test_callbacks_may_fail_and_must_not_wait() -> None:
    scheduler = scheduler_of(HashEngine(slots=1), threads=True)
    job, errors = scheduler.submit(request("a")), []

    def wait(done: Job) -> None:
        try:
            scheduler.submit(request("a")).result()
        except RuntimeError as error:
            errors.append(str(error))
            raise

    job.add_done_callback(wait)
    job.result()
    scheduler.submit(request("a")).result()
    assert len(errors) == 1 and "runs in the thread that makes it" in errors[0]


def test_async_iteration_and_cancelling() -> None:
    engine = HashEngine(slots=2, context=300, end=10**9)
    scheduler = scheduler_of(engine, threads=True)

    async def read(seed: int) -> Audio:
        job = scheduler.submit(request("a", 20, seed=seed), chunks=FRAME)
        return Audio.concatenate([chunk async for chunk in job])

    async def main() -> list[Audio]:
        return await asyncio.gather(*(read(seed) for seed in range(5)))

    for seed, audio in enumerate(asyncio.run(main())):
        expected = scheduler_of(HashEngine(context=300, end=10**9)).submit(
            request("a", 20, seed=seed)
        )
        assert heard(audio) == heard(expected.result())


def test_a_failing_step_fails_those_in_it_and_no_others() -> None:
    engines: list[HashEngine] = []

    def make(slots: int) -> HashEngine:
        engines.append(HashEngine(slots=slots, context=64, end=10**9))
        return engines[-1]

    scheduler = scheduler_of(HashEngine(slots=2, context=64))
    scheduler._runner.loop._make_engine = make
    jobs = [scheduler.submit(request("a", 5, seed=n)) for n in range(3)]
    scheduler.pump()

    def broken(_: Any) -> Any:
        raise RuntimeError("the device is gone")

    engines[0].step = broken  # type: ignore[method-assign]
    for job in jobs[:2]:
        with pytest.raises(RuntimeError, match="the device is gone"):
            job.result()
    # Nobody knows what state the engine was left in: the next job gets another one.
    assert len(jobs[2].result().codes) == 5
    assert len(engines) == 2


def test_a_failing_prompt_fails_alone() -> None:
    engine = HashEngine(slots=3, context=200, end=10**9)
    append = engine.append

    def picky(slot: int, text: np.ndarray, audio: np.ndarray) -> None:
        if ord("z") in text:
            raise ValueError("no z")
        append(slot, text, audio)

    engine.append = picky  # type: ignore[method-assign]
    scheduler = scheduler_of(engine)
    jobs = [scheduler.submit(request(text, 5)) for text in ("a", "z", "b")]
    with pytest.raises(ValueError, match="no z"):
        jobs[1].result()
    assert [len(jobs[n].result().codes) for n in (0, 2)] == [5, 5]
    check_free(scheduler, engine)


# Conversations


def test_leases_are_parked_and_taken_up_again() -> None:
    engine = HashEngine(slots=2, context=400)
    scheduler = scheduler_of(engine)
    leases = [scheduler.lease(Conditioning()) for _ in range(9)]
    histories: list[tuple[EncodedSegment, ...]] = [()] * 9
    spoken = [0] * 9
    rows = 0
    for turn in range(4):
        for number, lease in enumerate(leases):
            asked = replace(request("a", 4, seed=10 * number + turn), history=histories[number])
            engine.appended.clear()
            job = scheduler.submit(asked, lease=lease)
            codes = job.result().codes
            rows += sum(engine.appended)
            fresh = scheduler_of(HashEngine(context=400)).submit(asked)
            assert np.array_equal(codes, fresh.result().codes)
            histories[number] = job.segments
            spoken[number] += len(codes) > 0
            assert len(job.segments) == spoken[number]
    # Each turn's text, and at most a row that ends the turn before: nothing is evaluated twice.
    assert rows <= 4 * 9 * 7
    check_free(scheduler, engine)


def test_saved_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csm_ggml.speech.loop.PARKED_BYTES", 1)
    engine = HashEngine(slots=1, context=400)
    scheduler = scheduler_of(engine)
    leases = [scheduler.lease(Conditioning()) for _ in range(4)]
    for turn in range(3):
        for lease in leases:
            history = tuple(lease.segments)
            asked = replace(request("a", 4, seed=turn), history=history)
            codes = scheduler.submit(asked, lease=lease).result().codes
            fresh = scheduler_of(HashEngine(context=400)).submit(asked)
            assert np.array_equal(codes, fresh.result().codes)
            assert sum(other.parked is not None for other in leases) <= 1


# Life


def test_draining_and_closing() -> None:
    for threads in (False, True):
        scheduler = scheduler_of(HashEngine(slots=1, end=10**9), threads=threads)
        jobs = [scheduler.submit(request("a", 5)) for _ in range(4)]
        scheduler.close(drain=True)
        assert [len(job.result().codes) for job in jobs] == [5] * 4
        with pytest.raises(RuntimeError, match="the model was closed"):
            scheduler.submit(request("a"))
        scheduler = scheduler_of(HashEngine(slots=1, context=600, end=10**9), threads=threads)
        job = scheduler.submit(request("a", 500))
        scheduler.close()
        with pytest.raises(JobCancelled, match="the model was closed"):
            job.result()


def test_a_dropped_scheduler_ends_its_threads() -> None:
    before = set(threading.enumerate())
    scheduler = scheduler_of(HashEngine(slots=1), threads=True)
    scheduler.submit(request("a")).result()
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    del scheduler
    gc.collect()
    until = time.monotonic() + 10
    while any(thread.is_alive() for thread in started) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(thread.is_alive() for thread in started)


def test_a_day_of_requests_leaves_nothing() -> None:
    """24 hours: a request every half minute, some of them cancelled."""
    engine = HashEngine(slots=4, context=64, end=40)
    scheduler = scheduler_of(engine)
    dice = random.Random(0)
    second = 25 / 2  # frames
    frames, jobs = 0.0, 0
    waiting: list[Job] = []
    while frames < 24 * 3600 * second:
        asked = request("a", dice.randint(1, 50), seed=jobs)
        waiting.append(scheduler.submit(asked, priority=dice.choice(("live", "bulk"))))
        jobs += 1
        gap = dice.expovariate(1 / (30 * second))
        for _ in range(min(200, round(gap))):
            scheduler.pump()
        frames += gap
        if dice.random() < 0.2:
            waiting[-1].cancel()
        waiting = [job for job in waiting if not job.done()]
        engine.steps.clear()
        engine.appended.clear()
    for job in waiting:
        job.wait()
    assert jobs > 2000
    check_free(scheduler, engine)


# With the real engine


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device=devices.SPEECH, threads=2, slots=3)


@pytest.fixture(scope="module")
def expected(path: Path) -> Callable[[str, int, int], Audio]:
    lone = CSM.from_pretrained(path, device=devices.SPEECH, threads=1, slots=1)

    @cache
    def speak(text: str, seed: int, frames: int) -> Audio:
        return lone.generate(text, seed=seed, max_frames=frames)

    return speak


def test_random_schedules_with_the_real_engine(
    csm: CSM, expected: Callable[[str, int, int], Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csm_ggml.speech.loop.PARK_SECONDS", 0.0)
    texts = ["Hi.", "[0]One.[1]Two.", "A somewhat longer sentence with more words in it."]
    for seed in range(200):
        dice = random.Random(seed)
        jobs: list[tuple[Job, tuple[str, int, int], list[Audio]]] = []
        for _ in range(dice.randint(2, 7)):
            what = (dice.choice(texts), dice.randrange(3), dice.choice((1, 3, 6)))
            job = csm.submit(
                what[0],
                seed=what[1],
                max_frames=what[2],
                chunk_frames=1,
                priority=dice.choice(("live", "bulk")),
                buffer=dice.choice((None, 0.08)),
            )
            if dice.random() < 0.2:
                job.cancel()
            else:
                jobs.append((job, what, []))
            if dice.random() < 0.5:
                time.sleep(dice.random() * 0.002)
        for job, what, chunks in dice.sample(jobs, len(jobs)):
            chunks += list(job)
            assert heard(Audio.concatenate(chunks)) == heard(expected(*what))


def test_pieces_of_a_prompt_change_nothing(path: Path, csm: CSM) -> None:
    codes = np.random.default_rng(0).integers(0, 128, (60, csm.codebooks)).astype(np.int32)
    context = [Segment(0, "What was said before.", codes=codes)]
    whole = csm.generate("Hi.", context=context, seed=1, max_frames=4)
    for rows in (1, LEAST_ROWS, 13, 50):
        other = CSM.from_pretrained(path, device=devices.SPEECH, threads=1)
        other.scheduler._runner.loop.settings = replace(
            other.scheduler._runner.loop.settings, prefill_rows=rows
        )
        busy = other.submit("Hello there.", seed=2, max_frames=150, chunk_frames=1)
        next(busy)
        assert heard(other.generate("Hi.", context=context, seed=1, max_frames=4)) == heard(whole)
        busy.cancel()


def test_cancelling_leaves_no_growth_and_frees_at_once(csm: CSM) -> None:
    for number in range(1000):
        job = csm.submit("Hi.", seed=number, max_frames=50, chunk_frames=1)
        if number % 3 == 0:
            next(job)
        job.cancel()
    job.wait()
    loop = csm.scheduler._runner.loop
    until = time.monotonic() + 10
    while loop.busy and time.monotonic() < until:
        time.sleep(0.001)
    assert not loop.busy and not loop._active and not loop._frames and not loop._queue


def test_callers_share_batches(csm: CSM) -> None:
    sizes: list[int] = []
    engine = csm.scheduler._runner.loop._engine
    assert engine is not None
    add = csm.scheduler._runner.loop.times.add

    def note(utterances: int, seconds: float) -> None:
        sizes.append(utterances)
        add(utterances, seconds)

    csm.scheduler._runner.loop.times.add = note  # type: ignore[method-assign]
    results: dict[int, Audio] = {}

    def call(seed: int) -> None:
        results[seed] = csm.generate("Hello there.", seed=seed, max_frames=40)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    csm.scheduler._runner.loop.times.add = add  # type: ignore[method-assign]
    assert sum(sizes) == 120 and len(sizes) < 90
    assert heard(results[1]) == heard(csm.generate("Hello there.", seed=1, max_frames=40))

"""The scheduler's loop: which request has a slot, whose prompt goes on, who speaks, who waits.

One tick: drop what was cancelled or is overdue; admit; let the engine evaluate a piece of a prompt
and step all that are ready, and decode the frames of the step before meanwhile; take the new codes.
Nothing here waits for a caller. The loop knows no threads but the worker's: see `scheduler`.
"""

from __future__ import annotations

import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.watermark import apply_watermark
from csm_ggml.errors import DeadlineExceeded, JobCancelled
from csm_ggml.loading.geometry import Geometry
from csm_ggml.log import logger
from csm_ggml.speech.admission import StepTimes
from csm_ggml.speech.dialogue import Dialogue
from csm_ggml.speech.engine import Decoder, Engine
from csm_ggml.speech.entry import Entry, Frame
from csm_ggml.speech.meter import Meter
from csm_ggml.speech.options import Sampling
from csm_ggml.speech.request import Request
from csm_ggml.speech.utterance import Utterance
from csm_ggml.speech.worker import Work, Worker
from csm_ggml.voices.prompt import EncodedSegment

# Rows of prompts in one tick: while nobody speaks; while only bulk work does; and at least.
ROWS_ALONE = 256
ROWS_BESIDE_BULK = 64
LEAST_ROWS = 5
# A sentence without a voice: evaluated whole, as nobody notices one tick that takes longer. With
# `realtime` one in a tick, else two or three.
SHORT_PROMPT = 32
# With live speech beside it, a piece of a prompt and a step together last this share of a frame.
LONGEST_TICK = 1.2
# A piece may in any case take this share of what a step takes without one.
LEAST_PIECE = 0.15
_rank = attrgetter("rank")
# How long a job whose caller does not read keeps a slot that another job waits for.
PARK_SECONDS = 2.0
# Saved caches of idle conversations that are kept; beyond this they are evaluated again.
PARKED_BYTES = 512 << 20


@dataclass(frozen=True)
class LoopSettings:
    """Sizes of the scheduler; see `CSM.from_pretrained`.

    Attributes:
        slots: Utterances that are spoken side by side at most.
        realtime: Share of a frame that a step with live jobs may last; None for no limit.
        prefill_rows: Rows of prompts between two steps; None to choose by measured times.
    """

    slots: int
    realtime: float | None = None
    prefill_rows: int | None = None


class Loop:
    """The state of the scheduler, and its tick."""

    def __init__(
        self,
        make_engine: Callable[[int], Engine],
        make_decoder: Callable[[int], Decoder],
        make_dialogue: Callable[[Request], Dialogue],
        geometry: Geometry,
        settings: LoopSettings,
        worker: Worker,
    ) -> None:
        self.settings = settings
        self.times = StepTimes()
        self.meter = Meter()
        self._make_engine = make_engine
        self._make_decoder = make_decoder
        self._make_dialogue = make_dialogue
        self._geometry = geometry
        self._worker = worker
        self._engine: Engine | None = None
        self._decoder: Decoder | None = None
        self._queue: list[Entry] = []
        self._active: list[Entry] = []  # by rank, as the queue
        self._parked: list[Entry] = []
        self._finishing: list[Entry] = []  # the engine has done with them, the codec has not
        self._held: OrderedDict[Dialogue, int] = OrderedDict()  # idle leases, the oldest first
        self._saved: OrderedDict[Dialogue, int] = OrderedDict()  # parked leases and their bytes
        self._leases: set[Dialogue] = set()
        self._frames: list[Frame] = []
        self._failures: list[tuple[Entry, BaseException]] = []
        self._piece = float(LEAST_ROWS)
        self._turn_of_bulk = 0

    # What goes in

    def add(self, entry: Entry) -> None:
        """Queue a job."""
        insort(self._queue, entry, key=_rank)
        if entry.lease is not None:
            self._leases.add(entry.lease)

    def release(self, dialogue: Dialogue) -> None:
        """End a lease; the dialogue is not used again."""
        self._leases.discard(dialogue)
        self._saved.pop(dialogue, None)
        dialogue.parked = None
        if self._held.pop(dialogue, None) is not None:
            self._close(dialogue)

    # What is there

    @property
    def queued(self) -> int:
        """Jobs without a slot that may speak."""
        return len(self._queue)

    @property
    def free(self) -> int:
        """Slots that a job may have at once."""
        return max(0, self.settings.slots - len(self._active))

    @property
    def busy(self) -> bool:
        """Whether there is any job that has not ended."""
        return bool(self._queue or self._active or self._parked or self._finishing)

    def count(self) -> dict[str, int]:
        """Jobs by their state."""
        counts = dict.fromkeys(("queued", "prefilling", "speaking", "paused", "parked"), 0)
        for entry in [*self._queue, *self._active, *self._parked]:
            if entry.outbox.state in counts:
                counts[entry.outbox.state] += 1
        return counts

    # The tick

    def tick(self) -> bool:
        """Go on by one frame; returns whether there was anything to do."""
        started, own = time.perf_counter(), -time.thread_time()
        self._drop(started)
        self._admit(started)
        work = self._plan(started)
        if work is not None:
            assert self._engine is not None
            self._worker.begin(work, self._engine)
        sounding = bool(self._frames or self._finishing)
        began = time.perf_counter()
        own -= self._sound()
        if work is None:
            self._end_failures()
        else:
            sound_seconds = time.perf_counter() - began
            self._worker.wait()
            self._take(work, sound_seconds)
            own += time.thread_time()
            self.meter.add(len(work.speaking), work.prefill_rows, own)
        return work is not None or sounding

    def alarm(self) -> float | None:
        """Seconds until there may be something to do although nobody says so; None for never."""
        times = [
            entry.deadline
            for entry in [*self._queue, *self._active, *self._parked, *self._finishing]
            if entry.deadline is not None
        ]
        if self._queue or any(not entry.outbox.full for entry in self._parked):
            patience = 0.0 if any(entry.live for entry in self._queue) else PARK_SECONDS
            times += [
                entry.idle_since + patience
                for entry in self._active
                if entry.idle_since is not None
            ]
        return max(0.0, min(times) - time.perf_counter()) if times else None

    def fail_all(self, error: BaseException) -> None:
        """End every job."""
        for entry in [*self._queue, *self._active, *self._parked, *self._finishing]:
            self._end(entry, error)

    def rest(self) -> None:
        """Give memory back that nobody uses, after some time without jobs."""
        if self.busy or self._engine is None:
            return
        self._engine.trim()
        if self._decoder is not None:
            self._decoder.trim()

    def drop_engine(self) -> None:
        """Free the engine and the codec's streams; they are made anew when they are needed."""
        for dialogue in [*self._held, *self._saved, *self._leases]:
            dialogue.lose()
        self._held.clear()
        self._saved.clear()
        self._engine = self._decoder = None

    # Leaving

    def _drop(self, now: float) -> None:
        for entry in [*self._queue, *self._active, *self._parked, *self._finishing]:
            if entry.outbox.cancelled:
                self._end(entry, JobCancelled("the job was cancelled"))
            elif entry.deadline is not None and now > entry.deadline:
                self._end(
                    entry, DeadlineExceeded("the speech was not complete at the job's deadline")
                )

    def _end(self, entry: Entry, error: BaseException | None) -> None:
        """Take a job out, wherever it is, and tell its caller."""
        for place in (self._queue, self._finishing):
            if entry in place:
                place.remove(entry)
        if entry in self._parked:
            self._parked.remove(entry)
            entry.speaker.dialogue.lose()
        if entry in self._active:
            self._active.remove(entry)
            if self._engine is not None:
                entry.speaker.abandon(self._engine)
            self._free(entry)
        self._frames = [frame for frame in self._frames if frame.entry is not entry]
        logger.debug("job %d ends: %s", entry.number, "spoken" if error is None else repr(error))
        said: tuple[EncodedSegment, ...] = ()
        if entry.utterance is not None:
            said = tuple(entry.utterance.dialogue.segments)
            if error is None:
                self.meter.ended(time.perf_counter() - entry.admitted)
        entry.outbox.finish(error, said)

    def _free(self, entry: Entry) -> None:
        """Give up the slot of a job that the engine has done with."""
        dialogue = entry.speaker.dialogue
        if dialogue in self._leases:
            assert dialogue.slot is not None
            self._held[dialogue] = dialogue.slot
        else:
            self._close(dialogue)

    def _close(self, dialogue: Dialogue) -> None:
        if self._engine is not None and dialogue.slot is not None:
            self._engine.close(dialogue.slot)
        dialogue.lose()

    # Coming

    def _admit(self, now: float) -> None:
        if not self._queue and not self._parked:
            return
        waiting = [entry for entry in self._parked if not entry.outbox.full]
        blocked = False
        for entry in sorted([*self._queue, *waiting], key=_rank):
            has_slot = entry.lease is not None and entry.lease in self._held
            if (blocked and not has_slot) or not self._may_enter(entry):
                continue
            try:
                slot = self._slot_for(entry, now)
                if slot is None:
                    blocked = True
                else:
                    self._enter(entry, slot, now)
            except Exception as error:
                self._end(entry, error)
            if blocked and not self._held:
                return

    def _may_enter(self, entry: Entry) -> bool:
        if entry.lease is not None and any(other.lease is entry.lease for other in self._active):
            return False
        limit = self.settings.realtime
        if limit is None or not entry.live:
            return True
        speaking = sum(other.live and other.idle_since is None for other in self._active)
        longest = limit / self._geometry.frame_rate
        return speaking == 0 or self.times.fits(speaking + 1, longest)

    def _slot_for(self, entry: Entry, now: float) -> int | None:
        """An open slot for a job; None if it has to wait."""
        if self._engine is None:
            self._engine = self._make_engine(self.settings.slots)
        if entry.lease is not None and entry.lease in self._held:
            return self._held.pop(entry.lease)
        if len(self._active) + len(self._held) >= self.settings.slots:
            if self._held:
                dialogue, _ = self._held.popitem(last=False)
                self._engine.close(dialogue.park(self._engine))
                self._keep_saved(dialogue)
            elif (victim := self._victim(entry, now)) is not None:
                if self._hear_before_touching(victim.slot):
                    # It may have ended with that.
                    return self._slot_for(entry, now)
                self._park(victim)
            else:
                return None
        return self._engine.open(seed=0, **Sampling().as_dict())

    def _victim(self, entry: Entry, now: float) -> Entry | None:
        """Who gives up a slot for this job: who is not read, or bulk work for a live job."""
        idle = [
            other
            for other in self._active
            if other.idle_since is not None
            and (entry.live or now - other.idle_since >= PARK_SECONDS)
        ]
        if idle:
            return min(idle, key=lambda other: other.idle_since or 0.0)
        if entry.live and (bulk := [other for other in self._active if not other.live]):
            return max(bulk, key=lambda other: other.number)
        return None

    def _park(self, entry: Entry) -> None:
        """Take the slot away from a job that may go on later."""
        assert self._engine is not None
        slot = entry.slot
        if self._decoder is not None:
            entry.stream = self._decoder.save(slot)
        self._engine.close(entry.speaker.dialogue.park(self._engine))
        logger.debug("job %d is parked", entry.number)
        self._active.remove(entry)
        self._parked.append(entry)
        entry.outbox.state = "parked"

    def _keep_saved(self, dialogue: Dialogue) -> None:
        self._saved[dialogue] = len(dialogue.parked or b"")
        while len(self._saved) > 1 and sum(self._saved.values()) > PARKED_BYTES:
            oldest, _ = self._saved.popitem(last=False)
            oldest.lose()

    def _enter(self, entry: Entry, slot: int, now: float) -> None:
        assert self._engine is not None
        if entry in self._parked:
            self._hear_before_touching(slot)
            self._parked.remove(entry)
            insort(self._active, entry, key=_rank)
            entry.speaker.dialogue.take(self._engine, slot)
            if entry.stream is not None and self._decoder is not None:
                self._decoder.load(slot, entry.stream)
            entry.stream = entry.idle_since = None
            return
        logger.debug(
            "job %d has slot %d after %.0f ms",
            entry.number,
            slot,
            1e3 * (now - entry.request.asked),
        )
        self._queue.remove(entry)
        insort(self._active, entry, key=_rank)
        dialogue = entry.lease or self._make_dialogue(entry.request)
        entry.utterance = Utterance(entry.request, dialogue, self._geometry, entry.chunks)
        entry.admitted = now
        if dialogue.slot is None:
            self._saved.pop(dialogue, None)
            dialogue.take(self._engine, slot)
        entry.utterance.enter(self._engine)

    def _hear_before_touching(self, stream: int) -> bool:
        """Decode now if a frame of this stream is to be decoded yet."""
        if not any(frame.stream == stream for frame in self._frames):
            return False
        self._sound()
        self._end_failures()
        return True

    # Speaking

    def _plan(self, now: float) -> Work | None:
        speaking, prompts = [], []
        for entry in self._active:
            if not entry.speaker.ready:
                prompts.append(entry)
                entry.outbox.state = "prefilling"
            elif entry.outbox.full:
                entry.idle_since = now if entry.idle_since is None else entry.idle_since
                entry.outbox.state = "paused"
            else:
                speaking.append(entry)
                entry.idle_since = None
                entry.outbox.state = "speaking"
        live = [entry for entry in speaking if entry.live]
        bulk = speaking[len(live) :]
        room = self._room_for_bulk(len(live), len(speaking))
        if room < len(bulk):
            self._turn_of_bulk += 1
            first = self._turn_of_bulk % len(bulk)
            bulk = (bulk[first:] + bulk[:first])[:room]
        speaking = live + bulk
        if not speaking and not prompts:
            return None
        waits = [entry for entry in prompts if not entry.live]
        return Work(
            prompts=prompts,
            rows=self._rows(speaking),
            short=SHORT_PROMPT if self.settings.prefill_rows is None else 0,
            short_rows=SHORT_PROMPT * (1 if self.settings.realtime else 2),
            speaking=speaking,
            later=frozenset(waits if room <= len(bulk) else ()),
        )

    def _room_for_bulk(self, live: int, speaking: int) -> int:
        """How much bulk work leaves live jobs in real time."""
        limit = self.settings.realtime
        if limit is None or not live:
            return self.settings.slots
        most = self.times.most(limit / self._geometry.frame_rate, speaking + 1)
        return max(0, most - live)

    def _rows(self, speaking: list[Entry]) -> int:
        """Rows of prompts that may be evaluated before the next step."""
        if not speaking:
            return ROWS_ALONE
        if self.settings.prefill_rows is not None:
            return self.settings.prefill_rows
        if not any(entry.live for entry in speaking):
            return ROWS_BESIDE_BULK
        return round(self._piece)

    def _sound(self) -> float:
        """Decode the frames that are to be heard, hand out; returns the CPU time of decoding."""
        decoding = 0.0
        frames, self._frames = self._frames, []
        if frames:
            try:
                decoding = self._decode(frames)
            except Exception as error:
                self._failures += [(frame.entry, error) for frame in frames]
        for entry in [*self._active, *self._finishing]:
            self._hand_out(entry)
        return decoding

    def _end_failures(self) -> None:
        """End jobs whose sound failed, which has to wait while the engine is at work."""
        failures, self._failures = self._failures, []
        for entry, error in failures:
            if not entry.outbox.done:
                self._end(entry, error)

    def _decode(self, frames: Sequence[Frame]) -> float:
        if self._decoder is None:
            self._decoder = self._make_decoder(self.settings.slots)
        started, worked = time.perf_counter(), time.thread_time()
        for frame in frames:
            if frame.attempt.heard == 0:
                # Every turn starts from silence, as it would if its codes were decoded alone.
                self._decoder.reset(frame.stream)
        codes = np.concatenate([frame.codes for frame in frames]).reshape(len(frames), 1, -1)
        samples = self._decoder.decode(codes, [frame.stream for frame in frames])
        seconds, worked = time.perf_counter() - started, time.thread_time() - worked
        for frame, own in zip(frames, samples, strict=True):
            frame.entry.speaker.hear(frame.attempt, own, seconds)
        return worked

    def _hand_out(self, entry: Entry) -> None:
        try:
            for chunk in entry.speaker.chunks():
                if entry.watermark is not None:
                    chunk = apply_watermark(entry.watermark, chunk)
                entry.outbox.put(chunk)
        except Exception as error:
            self._failures.append((entry, error))
            return
        if entry.speaker.drained and entry in self._finishing:
            self._end(entry, None)

    def _take(self, work: Work, sound_seconds: float) -> None:
        """Take what the engine made, while the sound of the step before was made in so long."""
        self._end_failures()
        for entry, error in work.failed:
            self._end(entry, error)
        if work.error is not None:
            # Nobody knows what state the engine was left in.
            for entry in [*self._active, *self._parked]:
                self._end(entry, work.error)
            self.drop_engine()
            return
        if work.codes is not None:
            # The slower of the two is what a frame takes: with tiny models that is the sound.
            if not work.joined_rows:
                self.times.add(len(work.speaking), max(work.step_seconds, sound_seconds))
                self._piece = float(LEAST_ROWS)
            elif work.rows <= work.joined_rows:
                self._fit_piece(work)
            for entry, codes in zip(work.speaking, work.codes, strict=True):
                if not entry.outbox.done:
                    self._accept(entry, codes, work.step_seconds)
        for entry in list(self._active):
            if entry.speaker.finished:
                self._active.remove(entry)
                self._free(entry)
                self._finishing.append(entry)

    def _accept(self, entry: Entry, codes: npt.NDArray[np.int32], seconds: float) -> None:
        assert self._engine is not None
        try:
            attempt = entry.speaker.accept(self._engine, codes, seconds)
        except Exception as error:
            self._end(entry, error)
            return
        if attempt is not None:
            self._frames.append(Frame(entry, attempt, attempt.codes[-1], entry.slot))

    def _fit_piece(self, work: Work) -> None:
        """Let the next piece of a prompt be as long as a tick allows.

        What one tick takes says little, so that a piece grows slowly where it is nearly too long.
        """
        # Where steps take as long as frames, waiting newcomers would make nothing better.
        least = (1 + LEAST_PIECE) * self.times.predict(len(work.speaking))
        allowed = max(LONGEST_TICK / self._geometry.frame_rate, least)
        rows = float(work.joined_rows)
        if work.step_seconds > allowed:
            rows *= 0.75
        elif work.step_seconds > 0.8 * allowed:
            rows += 1
        else:
            rows *= 2
        self._piece = min(ROWS_BESIDE_BULK, max(LEAST_ROWS, rows))

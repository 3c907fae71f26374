"""A model and its threads through the life of a process: exit, forks, pickles, Ctrl-C, async."""

from __future__ import annotations

import asyncio
import dis
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import csm_ggml
import numpy as np
import pytest
from csm_ggml import CSM, Audio, JobCancelled, QueueFull
from csm_ggml.speech.request import Request
from csm_ggml.speech.scheduler import Scheduler
from fakes import HashEngine, request, scheduler_of

PACKAGE = str(Path(csm_ggml.__file__).parent)

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")


def run(program: str, path: Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


BUSY_AT_EXIT = """
import sys, threading, time
import numpy as np
from csm_ggml import CSM
csm = CSM.from_pretrained(sys.argv[1], device="cpu", threads=2)
noise = np.random.default_rng(0).normal(0, 0.1, 24000 * 60)

def for_ever(work):
    while True:
        work()

for work in (
    lambda: csm.generate("Hello.", max_frames=100),
    lambda: list(csm.stream("Hello.", max_frames=100)),
    lambda: csm.encode(noise),
    lambda: csm.decode(np.zeros((500, csm.codebooks), int)),
):
    threading.Thread(target=for_ever, args=(work,), daemon=True).start()
job = csm.submit("Nobody waits for this.", max_frames=300, buffer=None)
time.sleep(0.2)
print("end", flush=True)
"""


def test_exit_while_daemon_threads_compute(path: Path) -> None:
    for _ in range(4):
        done = run(BUSY_AT_EXIT, path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


AT_EXIT = """
import atexit, sys
def speak(when):
    print(when, len(csm.generate("Hello.", seed=1, max_frames=5).codes), flush=True)
atexit.register(speak, "registered before the import")
from csm_ggml import CSM
csm = CSM.from_pretrained(sys.argv[1], device="cpu", threads=2)
atexit.register(speak, "registered after it")
speak("before the exit")
"""


def test_speaking_in_exit_handlers(path: Path) -> None:
    done = run(AT_EXIT, path)
    assert done.stdout.splitlines() == [
        "before the exit 5",
        "registered after it 5",
        "registered before the import 5",
    ]
    assert (done.returncode, done.stderr) == (0, "")


FORK = """
import os, sys
from csm_ggml import CSM, BackendError
csm = CSM.from_pretrained(sys.argv[1], device="cpu", threads=2)
stream = csm.stream("Hello.", max_frames=200)
next(stream)
child = os.fork()
if child == 0:
    import numpy as np
    for use in (
        lambda: csm.generate("Hello."),
        lambda: next(stream),
        lambda: csm.submit("Hello."),
        lambda: csm.decode(np.zeros((2, csm.codebooks), int)),
    ):
        try:
            use()
            print("no error", flush=True)
        except BackendError as error:
            assert "loaded before a fork" in str(error)
    print("child", flush=True)
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert len(csm.generate("Hello.", seed=1, max_frames=5).codes) == 5
print("parent", status, flush=True)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the system has no fork")
def test_a_forked_child_gets_an_error_and_ends(path: Path) -> None:
    done = run(FORK, path)
    assert done.stdout.splitlines() == ["child", "parent 0"], done.stderr
    assert done.returncode == 0


def test_pickling_loads_again(path: Path) -> None:
    csm = CSM.from_pretrained(path, device="cpu", threads=1, slots=3, token="secret")
    data = pickle.dumps(csm)
    assert b"secret" not in data
    again = pickle.loads(data)
    assert (again.name, again.threads, again.scheduler.slots) == (csm.name, 1, 3)
    ours, theirs = (one.generate("Hi.", seed=1, max_frames=4) for one in (csm, again))
    assert np.array_equal(ours.samples, theirs.samples)


SPAWN = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from csm_ggml import CSM
def speak(csm, seed):
    return csm.generate("Hi.", seed=seed, max_frames=4).codes.tolist()
if __name__ == "__main__":
    csm = CSM.from_pretrained(sys.argv[1], device="cpu", threads=1)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(speak, csm, 3).result() == speak(csm, 3)
    print("same")
"""


def test_spawned_workers(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, str(program), str(path)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.returncode) == ("same\n", 0), done.stderr


def test_a_dropped_model_frees_its_memory_and_threads(path: Path) -> None:
    before = threading.active_count()
    csm = CSM.from_pretrained(path, device="cpu", threads=1)
    core = weakref.ref(csm.model)
    csm.generate("Hi.", max_frames=2)
    stream = csm.stream("Hi.", max_frames=50)
    next(stream)
    del csm
    gc.collect()
    # A stream that is still read keeps what it needs.
    assert len(next(stream).codes) == 6
    del stream
    gc.collect()
    until = time.monotonic() + 10
    while (threading.active_count() > before or core() is not None) and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before and core() is None


def test_closing(path: Path) -> None:
    with CSM.from_pretrained(path, device="cpu", threads=1) as csm:
        job = csm.submit("Hi.", max_frames=2000, buffer=None)
    with pytest.raises(JobCancelled):
        job.result()
    with pytest.raises(RuntimeError, match="the model was closed"):
        csm.generate("Hi.")
    assert csm.decode(np.zeros((1, csm.codebooks), int)).shape == (csm.frame_size,)


INTERRUPTED_PROMPT = """
import sys, time
import numpy as np
from csm_ggml import CSM, Segment
csm = CSM.from_pretrained(sys.argv[1], device="cpu", threads=1)
codes = np.zeros((csm.context_length - 40, csm.codebooks), np.int32)
noise = np.random.default_rng(0).normal(0, 0.1, 24000 * 600)
works = {
    "prompt": lambda: csm.generate("Hi.", context=[Segment(0, "a", codes=codes)], max_frames=1),
    "encode": lambda: csm.encode(noise),
    "batch": lambda: csm.generate_batch(["Hi."] * 30, max_frames=300),
    "wait": lambda: csm.submit("Hi.", max_frames=400, buffer=None).wait(),
}
work = works[sys.argv[2]]
print("ready", flush=True)
try:
    while True:
        work()
except KeyboardInterrupt:
    started = time.monotonic()
    assert len(csm.generate_codes("Hello.", seed=1, max_frames=3)) == 3
    print("usable", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process on Windows")
@pytest.mark.parametrize("what", ["prompt", "encode", "batch", "wait"])
def test_ctrl_c(path: Path, what: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_PROMPT, str(path), what],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0] == "usable\n"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_point() -> None:
    """Wherever it strikes the caller, no thread is lost and the model speaks on."""
    begin = threading.enumerate()
    asked = request("[0]a", 3)
    wanted = scheduler_of(HashEngine()).submit(asked).result().codes
    gc.collect()
    gc.freeze()
    points = 0
    struck = True
    while struck:
        engine = HashEngine()
        scheduler = scheduler_of(engine, threads=True)
        struck = interrupted_at(points, scheduler, asked)
        assert np.array_equal(scheduler.submit(asked).result().codes, wanted)
        scheduler.close()
        assert engine.idle
        del scheduler
        gc.collect()  # a finalizer that was struck would swallow it
        points += 1
    gc.unfreeze()
    assert points > 50
    left = [thread for thread in threading.enumerate() if thread not in begin]
    wait_until(lambda: not any(thread.is_alive() for thread in left))


def interrupted_at(count: int, scheduler: Scheduler, asked: Request) -> bool:
    """Raise KeyboardInterrupt at the point of that number where Python looks for signals.

    Returns whether there are so many. These are the beginnings of functions, the jumps back, and
    the ends of calls, here of those in the package and in threading.py.
    """
    left = count
    before: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith((PACKAGE, threading.__file__)):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            last = before.get(frame, "")
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if last.startswith(("CALL", "RESUME", "JUMP_BACK")):
                left -= 1
                if left < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        scheduler.submit(asked).result()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left < 0


def wait_until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


# Async use


def test_async_calls_share_a_model(path: Path) -> None:
    csm = CSM.from_pretrained(path, device="cpu", threads=1, slots=2)
    expected = [csm.generate("[0]One.[1]Two.", seed=seed, max_frames=5) for seed in range(5)]

    async def main() -> None:
        wholes = await asyncio.gather(
            *(csm.agenerate("[0]One.[1]Two.", seed=seed, max_frames=5) for seed in range(5))
        )
        for whole, wanted in zip(wholes, expected, strict=True):
            assert np.array_equal(whole.samples, wanted.samples)
            assert whole.turns == wanted.turns
        chunks = [
            chunk
            async for chunk in csm.astream(
                "[0]One.[1]Two.", seed=3, chunk_frames=2, max_frames=5, priority="bulk"
            )
        ]
        assert len(chunks) > 4
        assert np.array_equal(Audio.concatenate(chunks).samples, expected[3].samples)
        long = await csm.agenerate("One. Two.", seed=1, long_form="batch", max_frames=3)
        wanted = csm.generate("One. Two.", seed=1, long_form="batch", max_frames=3)
        assert np.array_equal(long.samples, wanted.samples)

        # Closing, and cancelling, end the job.
        stream = csm.astream("Hi.", max_frames=3000, buffer=None)
        await anext(stream)
        await stream.aclose()
        task = asyncio.create_task(csm.agenerate("Hi.", max_frames=3000))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ValueError, match="temperature"):
            await csm.agenerate("Hi.", temperature=-1)

    asyncio.run(main())
    until = time.monotonic() + 10
    while csm.scheduler._runner.loop.busy and time.monotonic() < until:
        time.sleep(0.001)
    assert not csm.scheduler._runner.loop.busy


def test_as_completed(path: Path) -> None:
    csm = CSM.from_pretrained(path, device="cpu", threads=1, slots=2)
    texts = ["Hi."] * 6
    limits = [30, 2, 2, 2, 2, 2]
    pairs = list(csm.as_completed(texts, seed=1, max_frames=limits))
    assert sorted(number for number, _ in pairs) == list(range(6))
    assert pairs[-1][0] == 0
    batch = csm.generate_batch(texts, seed=1, max_frames=limits)
    for number, audio in pairs:
        assert np.array_equal(audio.samples, batch[number].samples)
    with pytest.raises(ValueError, match="text 1"):
        csm.as_completed(["Hi.", ""])


def test_a_batch_waits_where_the_queue_is_short(path: Path) -> None:
    csm = CSM.from_pretrained(path, device="cpu", threads=1, slots=1, queue=1)
    assert len(csm.generate_batch(["Hi."] * 6, max_frames=2, batch_size=6)) == 6
    jobs = [csm.submit("Hi.", max_frames=300, buffer=None) for _ in range(2)]
    with pytest.raises(QueueFull):
        csm.generate("Hi.")
    for job in jobs:
        job.cancel()

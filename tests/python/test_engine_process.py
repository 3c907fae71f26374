"""What the process may not do to the core, nor the core to the process: threads, forks, None."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from csm_ggml import _core

Load = Callable[..., _core.Model]

SECONDS = 60


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python of its own, which may hang or die."""
    begin = """
        import os, sys
        import numpy as np
        from csm_ggml import _core

        def speak(model, frames=2):
            codebooks = model.config["csm.codebooks"]
            engine = _core.Engine(model)
            slot = engine.open(seed=1)
            engine.append(slot, np.array([1, 2, 3], np.int32), np.zeros((3, codebooks), np.int32))
            return engine, slot, [engine.step([slot])[0].tolist() for _ in range(frames)]
    """
    return subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(begin) + textwrap.dedent(code),
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )


def check(code: str, *arguments: object) -> None:
    done = run(code, *arguments)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the interpreter lock"
)
def test_a_python_without_the_lock_stays_without() -> None:
    check("assert not sys._is_gil_enabled()")


def test_backends_are_loaded_once_whoever_asks() -> None:
    # Release wheels load them; ggml lists the devices of a library again when it is loaded again.
    check("""
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path

        folder = str(Path(_core.__file__).parent)
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: _core.set_backend_dir(folder), range(32)))
        names = [device["name"] for device in _core.devices()]
        assert "CPU" in names
        assert len(names) == len(set(names)), names
    """)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="reads an x86's /proc/cpuinfo"
)
def test_kernels_are_those_of_the_processor() -> None:
    # whatever the compiler's own library says of it
    found = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert found is not None
    flags = set(found[1].split())
    avx2 = {"avx2", "fma", "f16c"}
    avx512 = avx2 | {"avx512f", "avx512vl", "avx512dq", "avx512bw"}
    needs = {"avx2": avx2, "avx512": avx512, "avx512vnni": avx512 | {"avx512_vnni"}}
    expected = {name for name, needed in needs.items() if needed <= flags}
    assert expected == needs.keys() & set(_core.instruction_sets())


@pytest.mark.parametrize(
    "call",
    [
        lambda: _core.Engine(None),
        lambda: _core.MimiDecoder(None),
        lambda: _core.MimiDecoder(None, streams=2),
        lambda: _core.MimiEncoder(None),
        lambda: _core.Model(None),
        lambda: _core.Model([None]),
        lambda: _core.Engine.step(None, [0]),
        lambda: _core.MimiDecoder.reset(None),
        lambda: _core.gguf_info(None),
    ],
)
def test_none_is_a_type_error(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


def test_none_for_an_argument_is_an_error(model: Load) -> None:
    engine, decoder = _core.Engine(model("plain4")), _core.MimiDecoder(model("plain4"))
    slot = engine.open()
    for call in (
        lambda: engine.append(slot, None, None),
        lambda: engine.step(None),
        lambda: engine.step([None]),
        lambda: engine.load_slot(slot, None),
        lambda: engine.load_prefix(slot, None),
        lambda: engine.close(None),
        lambda: decoder.decode(None),
        lambda: decoder.load(0, None),
        lambda: _core.quantize(None, "q8_0"),
        lambda: _core.sample(None, None, temperature=1.0, top_k=0, top_p=1.0),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()


@pytest.mark.parametrize("threads", [-1, 513, 100_000, 2**31 - 1])
def test_more_threads_than_sense_are_refused(gguf: Callable[..., Path], threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}, expected 1 to 512"):
        _core.Model([str(gguf("plain4", "f32"))], device="cpu", threads=threads)


@pytest.mark.skipif(sys.platform != "linux", reason="limits threads with RLIMIT_AS")
@pytest.mark.parametrize("type", ["f32", "q6_k"])
def test_threads_that_the_system_does_not_give(gguf: Callable[..., Path], type: str) -> None:
    """Neither our own nor ggml's end the process, and fewer can be had afterwards."""
    check(
        """
        import resource
        path, device = sys.argv[1:]
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        # stacks are 8 MiB of address space each
        limit = used + (700 << 20)
        most = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, most))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for threads in (400, 60):
            try:
                speak(_core.Model([path], device=device, threads=threads))
            except _core.BackendError as error:
                assert "threads" in str(error), error
            else:
                assert threads == 60
        speak(_core.Model([path], device=device, threads=2))
        """,
        gguf("wide", type),
        "cpu",
    )


def test_models_share_the_threads_of_a_device(gguf: Callable[..., Path]) -> None:
    check(
        """
        def tasks():
            return len(os.listdir("/proc/self/task"))
        before = tasks()
        models = [_core.Model([path], device="cpu", threads=3) for path in sys.argv[1:] * 3]
        # two more threads each for the language model and the codec
        assert tasks() - before <= 4, (before, tasks())
        said = [speak(model)[2] for model in models]
        assert said[0] == said[2] == said[4]
        other = _core.Model([sys.argv[1]], device="cpu", threads=2)
        assert other.threads == 2 and speak(other)[2] == said[0]
        del models, other
        """,
        gguf("plain4", "f32"),
        gguf("grouped8", "f32"),
    )


def test_models_take_turns(model: Load, gguf: Callable[..., Path]) -> None:
    """Two models on one device say what each says alone, and neither waits for the other to end."""
    check(
        """
        import threading
        first, second = (_core.Model([path], device="cpu", threads=2) for path in sys.argv[1:])
        wanted = [speak(model, 40)[2] for model in (first, second)]
        got = {}
        threads = [
            threading.Thread(target=lambda i=i, m=m: got.__setitem__(i, speak(m, 40)[2]))
            for i, m in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [got[0], got[1]] == wanted
        """,
        gguf("plain4", "f32"),
        gguf("grouped8", "f32"),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
# q4_0 has kernels of our own; the products of q6_k are ggml's, on its own threads
@pytest.mark.parametrize("type", ["q4_0", "q6_k"])
def test_a_model_from_before_a_fork(gguf: Callable[..., Path], type: str) -> None:
    """It says so in the child, where another can be loaded; the child ends, the parent goes on."""
    check(
        """
        import signal
        path = sys.argv[1]
        model = _core.Model([path], device="cpu", threads=2)
        engine, slot, said = speak(model, 3)
        decoder, encoder = _core.MimiDecoder(model), _core.MimiEncoder(model)
        codes = np.zeros((1, model.config["csm.codebooks"]), np.int32)
        decoder.decode(codes)
        child = os.fork()
        if child == 0:
            signal.alarm(40)
            samples = np.zeros(model.config["mimi.frame_size"], np.float32)
            text = np.array([1, 2], np.int32)
            for use in (
                lambda: engine.step([slot]),
                lambda: engine.append(slot, text, np.repeat(codes, 2, axis=0)),
                lambda: _core.Engine(model),
                lambda: decoder.decode(codes),
                lambda: _core.MimiDecoder(model),
                lambda: encoder.encode(samples),
            ):
                try:
                    use()
                except _core.BackendError as error:
                    assert "before a fork" in str(error) and "spawn" in str(error), error
                else:
                    raise AssertionError("it was used")
            fresh = _core.Model([path], device="cpu", threads=2)
            assert speak(fresh, 3)[2] == said
            sys.exit(0)  # destructors and all
        assert os.waitpid(child, 0)[1] == 0, "the child"
        assert engine.step([slot])[0].shape == codes.shape
        """,
        gguf("wide", type),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_while_others_compute(gguf: Callable[..., Path]) -> None:
    """Locks are then held, and workers busy."""
    check(
        """
        import signal, threading
        model = _core.Model([sys.argv[1]], device="cpu", threads=2)
        stop = threading.Event()

        def work():
            while not stop.is_set():
                speak(model, 5)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    speak(model)
                except _core.BackendError:
                    speak(_core.Model([sys.argv[1]], device="cpu", threads=2))
                    del model
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        """,
        gguf("plain4", "q8_0"),
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loaded_file_is_closed(gguf: Callable[..., Path]) -> None:
    check(
        """
        path = os.path.realpath(sys.argv[1])
        model = _core.Model([path], device="cpu", threads=1)
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        assert path not in [os.path.realpath(link) for link in links]
        assert model.config and model.tokenizer is not None and path in repr(model)
        """,
        gguf("plain4", "f32"),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no alarms")
def test_loading_can_be_interrupted(gguf: Callable[..., Path]) -> None:
    """What a signal's handler raises ends the loading at once, and another can follow."""
    check(
        """
        import signal, time

        def interrupt(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)

        def load(after=0.0):
            signal.setitimer(signal.ITIMER_REAL, after)
            begin = time.perf_counter()
            try:
                _core.Model([sys.argv[1]], device="cpu", threads=1)
                interrupted = False
            except KeyboardInterrupt:
                interrupted = True
            signal.setitimer(signal.ITIMER_REAL, 0)
            return interrupted, time.perf_counter() - begin

        whole = min(load()[1] for _ in range(5))
        tries = [load(whole / 3) for _ in range(10)]
        assert any(stopped and took < whole * 0.8 for stopped, took in tries), (whole, tries)
        assert not load()[0]
        """,
        gguf("wide", "f32"),
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only Linux gives pages back")
def test_idle_memory_is_given_back() -> None:
    """Graphs, rows of closed slots and ended streams; what is in use stays, to the bit."""
    check(
        """
        import csm_ggml
        path = os.path.join(os.path.dirname(csm_ggml.__file__), "data", "demo.gguf")
        model = _core.Model([path], device="cpu", threads=1)
        codebooks, context = model.config["csm.codebooks"], model.config["csm.context_length"]

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096

        def fill(engine, rows):
            slot = engine.open(seed=1)
            text = np.resize(np.array([1, 2, 3], np.int32), rows)
            engine.append(slot, text, np.zeros((rows, codebooks), np.int32))
            return slot

        speak(model)
        engine, decoder = _core.Engine(model, slots=8), _core.MimiDecoder(model, streams=16)
        kept = fill(engine, 300)
        decoder.decode(np.zeros((1, 20, codebooks), np.int32), [3])
        engine.trim()
        decoder.trim()
        begin = resident()
        slots = [fill(engine, context - 10) for _ in range(6)]
        engine.step([kept, *slots])
        others = [stream for stream in range(16) if stream != 3]
        decoder.decode(np.zeros((15, 20, codebooks), np.int32), others)
        full = resident()
        for slot in slots:
            engine.close(slot)
        for stream in others:
            decoder.reset(stream)
        saved = engine.save_slot(kept), decoder.save(3)
        engine.trim()
        decoder.trim()
        idle = resident()
        print(begin >> 10, full >> 10, idle >> 10, "KiB")
        assert idle - begin < (full - begin) / 4, (begin, full, idle)
        assert (engine.save_slot(kept), decoder.save(3)) == saved
        # and all of it can be used again
        again = fill(engine, 50)
        want = _core.Engine(model)
        said, alone = engine.step([kept, again])[0][1], want.step([fill(want, 50)])[0][0]
        assert said.tolist() == alone.tolist()
        fresh = _core.MimiDecoder(model).decode(np.ones((4, codebooks), np.int32))
        assert (decoder.decode(np.ones((1, 4, codebooks), np.int32), [5])[0] == fresh).all()
        """
    )


def test_the_log_goes_where_it_is_sent() -> None:
    """And nowhere that would hold up the end of the interpreter."""
    check(
        """
        got = []
        _core.set_log(lambda level, message: got.append((level, message)))
        _core.set_log(None)
        _core.set_log(got.append)
        _core.devices()
        """
    )
    with pytest.raises(TypeError):
        _core.set_log()  # type: ignore[call-arg]

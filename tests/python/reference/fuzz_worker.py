"""Loads damaged files one after another in a process of its own, which may die of it.

    python -m reference.fuzz_worker FIRST COUNT TARGET FILE [FILE ...]

TARGET is the number of the file that is damaged; the others stay as they are. Before each attempt
its seed is written to standard output, so that whoever started this knows which one it was when
nothing follows. An attempt ends well with ModelFormatError, or with a model that loads; what loads
is also made to speak a frame, which may fail with an ordinary exception. Anything else is written
as a line "FAIL seed what".
"""

from __future__ import annotations

import collections
import contextlib
import resource
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from csm_ggml import _core

from .mutations import mutate

# Address space beyond what the process has when it begins, and seconds a file may take.
EXTRA_MEMORY = 1 << 30
SECONDS = 30


def attempt(files: list[str], damaged: str) -> str:
    """Load, and speak a frame if that worked; returns how it ended."""
    with contextlib.suppress(_core.ModelFormatError):
        _core.gguf_info(damaged)
    try:
        model = _core.Model(files, device="cpu", threads=1)
    except _core.ModelFormatError as error:
        if not str(error):
            raise AssertionError("ModelFormatError without a message") from error
        return "refused"
    try:
        codebooks = model.config["csm.codebooks"]
        engine = _core.Engine(model, context=min(8, model.config["csm.context_length"]))
        slot = engine.open(temperature=0.0, depth_temperature=0.0)
        engine.append(slot, np.array([1, -1], np.int32), np.zeros((2, codebooks), np.int32))
        codes, _ = engine.step([slot])
        _core.MimiDecoder(model).decode(codes)
        if model.config["mimi.has_encoder"]:
            _core.MimiEncoder(model).encode(np.zeros(model.config["mimi.frame_size"], np.float32))
    except (_core.ModelFormatError, _core.BackendError, ValueError):
        return "loaded, did not speak"
    return "loaded"


def main() -> None:
    """Run the attempts that the command line asks for."""
    first, count, target = (int(argument) for argument in sys.argv[1:4])
    paths = [Path(argument) for argument in sys.argv[4:]]
    valid = paths[target].read_bytes()
    ends: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / paths[target].name
        files = [str(damaged if i == target else path) for i, path in enumerate(paths)]
        damaged.write_bytes(valid)
        if attempt(files, str(damaged)) != "loaded":
            raise AssertionError("the undamaged file does not load")
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY, used + EXTRA_MEMORY))
        for seed in range(first, first + count):
            print(seed, flush=True)
            data, what = mutate(valid, seed)
            damaged.write_bytes(data)
            # nothing handles this signal, so that it ends even a loop that never comes back to
            # Python
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                ends[f"{what}: {attempt(files, str(damaged))}"] += 1
            except BaseException as error:
                print(f"FAIL {seed} {what}: {type(error).__name__}: {error}", flush=True)
            signal.setitimer(signal.ITIMER_REAL, 0)
    for end, times in sorted(ends.items()):
        print(f"END {times} {end}")


if __name__ == "__main__":
    main()

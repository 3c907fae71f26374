"""Speaking a hundred times takes no more memory than speaking a few times."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from csm_ggml import CSM
from csm_ggml.convert import make_random

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="reads the memory in use from Linux's /proc"
)

# Each speaks six times. What caches and the allocator keep has been taken after five or so.
WARM_UP_ROUNDS = 8
ROUNDS = 17
# Nothing grew when this was written. A decoder that has decoded holds 350 kB here, and as much is
# a frame graph: one that stays behind in each round makes six times the bound.
GROWTH_BYTES = 1 << 20


@pytest.fixture(scope="module")
def csm(tmp_path_factory: pytest.TempPathFactory) -> CSM:
    path = tmp_path_factory.mktemp("memory") / "tiny.gguf"
    make_random(path, preset="tiny", progress=False)
    return CSM.from_pretrained(path, device="cpu", threads=1)


def memory_in_use() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def speak_six_times(csm: CSM, seed: int) -> None:
    csm.generate("[0]One.", seed=seed, max_frames=3)
    stream = csm.stream("[0]Two.", seed=seed, max_frames=9)
    next(stream)
    stream.close()
    csm.generate_batch(["[0]Three.", "[1]Four."], seed=seed, max_frames=3)
    with csm.conversation(seed=seed, max_frames=3) as talk:
        talk.say("[0]Five.")
        talk.say("[1]Six.")


def test_a_hundred_generations_leave_no_growth(csm: CSM) -> None:
    for seed in range(WARM_UP_ROUNDS):
        speak_six_times(csm, seed)
    before = memory_in_use()
    for seed in range(ROUNDS):
        speak_six_times(csm, seed)
    assert memory_in_use() - before < GROWTH_BYTES

"""Options: defaults of the model file, ranges, limits, seeds, lists in batches, threads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import Segment
from csm_ggml.loading import threads
from csm_ggml.speech.batch import batch_options, batch_seeds
from csm_ggml.speech.options import Sampling, resolve_length, resolve_sampling, resolve_seed


def test_defaults_come_from_the_file_then_from_csm() -> None:
    assert resolve_sampling({}, {}) == Sampling(0.9, 50, 1.0, 0.9, 50, 1.0)
    config = {"csm.generation.temperature": 0.6, "csm.generation.depth_top_k": 10}
    assert resolve_sampling(config, {}) == Sampling(0.6, 50, 1.0, 0.9, 10, 1.0)
    given = {"temperature": 0.7, "top_p": 0.8, "depth_top_k": None, "max_frames": 3}
    assert resolve_sampling(config, given) == Sampling(0.7, 50, 0.8, 0.9, 10, 1.0)


def test_temperature_zero_is_greedy_in_both_models() -> None:
    config = {"csm.generation.depth_temperature": 0.4}
    assert resolve_sampling(config, {"temperature": 0}).depth_temperature == 0
    both = {"temperature": 0, "depth_temperature": 0.5}
    assert resolve_sampling(config, both).depth_temperature == 0.5
    assert resolve_sampling(config, {"temperature": 1}).depth_temperature == 0.4


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"temperature": -0.1}, ValueError),
        ({"temperature": float("nan")}, ValueError),
        ({"depth_temperature": float("inf")}, ValueError),
        ({"temperature": "hot"}, TypeError),
        ({"top_k": -1}, ValueError),
        ({"top_k": 2**31}, ValueError),
        ({"top_k": 2.5}, TypeError),
        ({"depth_top_k": True}, TypeError),
        ({"top_p": 0}, ValueError),
        ({"depth_top_p": 1.01}, ValueError),
    ],
)
def test_ranges(option: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(option))):
        resolve_sampling({}, option)


def test_numpy_numbers_are_numbers() -> None:
    options = {"temperature": np.float32(0.5), "top_k": np.int64(3)}
    assert resolve_sampling({}, options).top_k == 3
    assert resolve_seed(np.uint32(7)) == 7


def test_length() -> None:
    assert resolve_length(None, 7, 12.5).max_frames == 7
    assert resolve_length(2.0, None, 12.5).max_frames == 25
    assert resolve_length(0.4, None, 12.5).max_frames == 5
    assert resolve_length(0.01, None, 12.5).max_frames == 1
    assert resolve_length(None, None, 12.5).max_frames is None
    with pytest.raises(ValueError, match="not both"):
        resolve_length(1, 1, 12.5)
    for seconds in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="max_seconds"):
            resolve_length(seconds, None, 12.5)
    with pytest.raises(ValueError, match="max_frames"):
        resolve_length(None, 0, 12.5)
    with pytest.raises(TypeError, match="max_frames"):
        resolve_length(None, 1.5, 12.5)  # type: ignore[arg-type]


def test_seeds() -> None:
    assert resolve_seed(2**64 - 1) == 2**64 - 1
    assert 0 <= resolve_seed(None) < 2**32
    assert resolve_seed(None) != resolve_seed(None)
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match="seed must be 0 to"):
            resolve_seed(seed)
    with pytest.raises(TypeError, match="seed"):
        resolve_seed(1.0)  # type: ignore[arg-type]


def test_seeds_of_a_batch() -> None:
    assert batch_seeds(None, 2) == [None, None]
    assert batch_seeds(5, 3) == [5, 6, 7]
    assert batch_seeds([1, 1], 2) == [1, 1]
    with pytest.raises(ValueError, match="seed has 1 values, expected one for each of 2"):
        batch_seeds([1], 2)


def test_options_of_a_batch() -> None:
    segment = Segment(0, "a", codes=np.ones((1, 2), np.int32))
    assert batch_options({"top_k": 3, "temperature": [0.1, None]}, 2) == [
        {"top_k": 3, "temperature": 0.1},
        {"top_k": 3, "temperature": None},
    ]
    assert batch_options({"context": [segment]}, 2) == [{"context": [segment]}] * 2
    assert batch_options({"context": [[segment], None]}, 2)[1] == {"context": None}
    with pytest.raises(ValueError, match="temperature has 3 values"):
        batch_options({"temperature": [1, 2, 3]}, 2)


def test_threads_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSM_GGML_THREADS", "3")
    assert threads.default_threads() == 3
    for wrong in ("0", "two", "-1", "1.5"):
        monkeypatch.setenv("CSM_GGML_THREADS", wrong)
        with pytest.raises(ValueError, match="CSM_GGML_THREADS"):
            threads.default_threads()


def test_threads_respect_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSM_GGML_THREADS", raising=False)
    monkeypatch.setattr(threads, "physical_cores", lambda: 8)
    for quota, expected in [(None, 8), (3.9, 3), (0.5, 1), (64.0, 8)]:
        monkeypatch.setattr(threads, "cpu_quota", lambda quota=quota: quota)
        assert threads.default_threads() == expected


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/hidden\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {}, None),
        (
            "2:cpu,cpuacct:/a\n0::/\n",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_quota_of_control_groups(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    groups: str,
    files: dict[str, str],
    expected: float | None,
) -> None:
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "self").write_text(groups)
    monkeypatch.setattr(threads, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_PROC_CGROUP", tmp_path / "self")
    assert threads.cpu_quota() == expected


def test_siblings_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu, core in enumerate(["0,4", "1,5", "2,6", "3,7"] * 2):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "core_cpus_list").write_text(core + "\n")
    monkeypatch.setattr(threads, "_SYS_CPU", tmp_path)
    monkeypatch.setattr(threads.sys, "platform", "linux")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 4, 5, 6}, raising=False)
    assert threads.physical_cores() == 3

"""`csm-ggml bench`: what its numbers mean, that configurations take turns, and what it refuses."""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_llama_csm
from csm_ggml import _core
from csm_ggml.bench import runner
from csm_ggml.bench.arrivals import LOAD, Arrival, draw_arrivals, serve
from csm_ggml.bench.floor import dominant_types, frame_bytes, frame_products
from csm_ggml.bench.rows import make_row
from csm_ggml.bench.runner import BenchmarkError, Configuration, Limits, Measured, measure
from csm_ggml.bench.session import PROMPT_ROWS, Samples, Session
from csm_ggml.bench.synthetic import synthetic_path
from csm_ggml.bench.worker import Job, Result
from csm_ggml.cli import main
from csm_ggml.convert import make_random

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
TINY = ["bench", "--synthetic", "tiny", "--device", "cpu", "--threads", "1"]

PROMISED = [
    "type",
    "batch",
    "threads",
    "device",
    "ms_per_frame",
    "codes_per_second",
    "rtf",
    "lm_ms_per_frame",
    "mimi_ms_per_frame",
    "prefill_rows_per_second",
    "time_to_first_audio_ms",
    "peak_rss_mb",
    "floor_ms",
    "read_bandwidth_gbs",
]


@pytest.fixture(autouse=True)
def _quick_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "BANDWIDTH_BYTES", 1 << 20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny.gguf"
    make_random(out, preset="tiny", type="f32", seed=0, progress=False)
    return out


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    arguments = [*TINY, "--type", "f32,Q8_0", "--batch", "1,3", "--frames", "5", "--rounds", "2"]
    arguments += ["--work-dir", str(tmp_path / "work"), "--contention", "--arrivals"]
    assert main([*arguments, "--json", str(out)]) == 0
    printed, told = capsys.readouterr()

    document = json.loads(out.read_text())
    rows = document["rows"]
    assert [(row["type"], row["batch"]) for row in rows] == [
        ("f32", 1),
        ("f32", 3),
        ("q8_0", 1),
        ("q8_0", 3),
    ]
    for row in rows:
        assert set(PROMISED) <= row.keys()
        assert row["frames"] == 5
        assert (row["threads"], row["device"]) == (1, "CPU")
        numbers = {key: row[key] for key in PROMISED if key not in ("type", "device")}
        if sys.platform == "win32":
            assert numbers.pop("peak_rss_mb") is None
        assert all(value > 0 for value in numbers.values())
        assert row["ms_per_frame_min"] <= row["ms_per_frame"] <= row["ms_per_frame_max"]
        assert row["contention_ratio"] == row["contended_ms_per_frame"] / row["ms_per_frame"]
        assert row["static_codes_per_second"] > 0
        assert row["continuous_codes_per_second"] > 0
        assert row["continuous_ratio"] > 0
        assert 0 < row["continuous_occupancy"] <= 1
        assert row["floor_ms"] == pytest.approx(row["frame_mb"] / row["read_bandwidth_gbs"])
        if row["instruction_set"] is not None:
            assert row["compute_floor_ms"] > 0
            assert row["limit"] in ("memory", "arithmetic")
            floor = max(row["floor_ms"], row["compute_floor_ms"])
            assert row["limit_ratio"] == pytest.approx(row["lm_ms_per_frame"] / floor)
    assert document["machine"]["ggml"] == _core.ggml_version
    assert document["settings"]["model"] == "random weights, tiny"

    lines = printed.splitlines()
    assert sum(line.startswith("| f32 ") for line in lines) == 6
    assert sum(line.startswith("| q8_0 ") for line in lines) == 6
    assert len({len(line) for line in lines if line.startswith("| f32 ")}) == 3
    rounds = [line for line in told.splitlines() if ": round " in line]
    assert len(rounds) == 8
    assert rounds[:4] == [line.replace("round 2", "round 1") for line in reversed(rounds[4:])]


@pytest.mark.skipif(len(_core.instruction_sets()) < 2, reason="needs two instruction sets")
def test_instruction_sets_side_by_side(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [_core.instruction_sets()[0], _core.instruction_sets()[-1]]
    out = tmp_path / "results.json"
    arguments = ["bench", "--model", str(tiny), "--device", "cpu", "--threads", "1", "--batch", "1"]
    arguments += ["--frames", "2", "--rounds", "1", "--isa", ",".join(both), "--json", str(out)]
    assert main(arguments) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["instruction_set"] for row in rows] == both
    lines = capsys.readouterr().out.splitlines()
    assert [sum(line.startswith(f"| f32, {name} ") for line in lines) for name in both] == [2, 2]


def test_random_weights_are_made_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSM_GGML_CACHE", str(tmp_path))
    arguments = [*TINY, "--type", "q4_0", "--batch", "1", "--frames", "1"]
    assert main(arguments) == 0
    path = synthetic_path(tmp_path, "tiny", "q4_0")
    assert str(path) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]
    written = path.stat().st_mtime_ns
    assert main(arguments) == 0
    assert "random weights" not in capsys.readouterr().err
    assert path.stat().st_mtime_ns == written


def test_the_name_of_random_weights_holds_what_they_depend_on(tmp_path: Path) -> None:
    given = [
        ("tiny", "q4_0", None),
        ("tiny", "q4_0", "q8_0"),
        ("tiny", "q8_0", None),
        ("csm-1b", "q4_0", None),
    ]
    assert len({synthetic_path(tmp_path, *one) for one in given}) == len(given)
    with pytest.raises(ValueError, match="no preset 'huge', expected one of tiny, csm-1b"):
        synthetic_path(tmp_path, "huge", "q4_0")


def test_bytes_of_a_frame(tiny: Path) -> None:
    """By hand, from the sizes of the preset (F32: 4 bytes a weight)."""
    assert dominant_types([tiny]) == ("f32", "f32")
    codebooks, codes = 8, 131

    def layer(width: int, hidden: int, heads: int, kv_heads: int, head: int) -> int:
        attention = width * head * (2 * heads + 2 * kv_heads)
        return attention + 3 * width * hidden + 2 * width

    backbone = 3 * layer(256, 512, 4, 2, 64) + 256 + 64 // 2
    depth = 2 * layer(128, 256, 4, 2, 32)
    heads = 256 * codes + (codebooks - 1) * 128 * codes
    weights = backbone + (codebooks - 1) * (depth + 256 * 128) + heads
    assert frame_bytes([tiny], codebooks) == 4 * weights

    def matrices(width: int, hidden: int, heads: int, kv_heads: int, head: int) -> int:
        return layer(width, hidden, heads, kv_heads, head) - 2 * width

    backbone = 3 * matrices(256, 512, 4, 2, 64) + 256 * codes
    # every code has a position, and a head but for the first
    depth = codebooks * (2 * matrices(128, 256, 4, 2, 32) + 256 * 128)
    depth += (codebooks - 1) * 128 * codes
    assert frame_products([tiny], codebooks) == (backbone, depth)


def test_bytes_of_a_frame_of_three_files(tmp_path: Path) -> None:
    """The same layers in llama.cpp's files: pages of heads that no codebook has do not count."""
    totals = set()
    for pages in (2, 3):
        folder = write_llama_csm(tmp_path / str(pages), pages=pages)
        files = sorted(folder.glob("*.gguf"))
        assert dominant_types(files) == ("f16", "f16")
        totals.add(frame_bytes(files, 4))
    assert len(totals) == 1
    alone = [path for path in files if "decoder" not in path.name]
    assert 0 < frame_bytes(alone, 4) < totals.pop()


def test_utterances_are_replaced_when_they_are_over(tiny: Path) -> None:
    session = Session([tiny], device="cpu", threads=1, batch=2)
    assert session.frame_rate == 12.5
    session.speak(126)
    samples = session.samples
    assert len(samples.lm) == len(samples.mimi) == 126
    assert len(samples.prompt) == len(samples.first_audio) == 2
    session.speak(3, contended=True)
    assert len(samples.lm) == 126
    assert len(samples.contended) == 3


def test_arrivals_are_seeded_and_keep_the_slots_busy() -> None:
    first, again = (draw_arrivals(4, 12.5, 0.08, seed=3) for _ in range(2))
    assert first == again != draw_arrivals(4, 12.5, 0.08, seed=4)
    assert [arrival.after for arrival in first[:4]] == [0, 0, 0, 0]
    assert all(12 <= arrival.frames <= 75 for arrival in first[4:])
    # 4 slots serve a request of 3.5 s of speech in 43.75 frames of 80 ms: 1.14 in a second.
    many = draw_arrivals(400, 12.5, 0.08, seed=3)
    assert all(1 <= arrival.frames <= 75 for arrival in many)
    rate = (len(many) - 400) / many[-1].after
    assert rate == pytest.approx(LOAD * 400 / (43.75 * 0.08), rel=0.1)


def test_requests_are_served_as_they_come(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([tiny], device="cpu", threads=1, batch=2)
    taken: list[list[int]] = []
    step = session.frame

    def frame(slots: list[int]) -> Any:
        taken.append(slots)
        return step(slots)

    monkeypatch.setattr(session, "frame", frame)
    lengths = (2, 5, 3, 1)
    codes, seconds, occupancy = serve(session, [Arrival(0, n) for n in lengths])
    # The third takes the slot of the first, the fourth is the last to get one, after five frames.
    assert [sorted(slots) for slots in taken] == [[0, 1]] * 5
    assert (codes, occupancy) == (5 * 2 * session.codebooks, 1)
    assert seconds > 0
    # All slots are free again; one request arrives late.
    codes, seconds, occupancy = serve(session, [Arrival(0, 1), Arrival(0.05, 1)])
    assert (codes, occupancy) == (session.codebooks, 0.5)
    assert seconds >= 0.05


def test_no_room_for_speech(tmp_path: Path) -> None:
    make_random(
        tmp_path / "short.gguf",
        overrides={"csm.context_length": PROMPT_ROWS},
        progress=False,
    )
    with pytest.raises(ValueError, match="context of 16 rows has no room"):
        Session([tmp_path / "short.gguf"], device="cpu", threads=1)


def result(peak: int | None = 10**9, **samples: list[float]) -> Result:
    return Result(
        device="CPU",
        on_cpu=True,
        threads=2,
        codebooks=32,
        frame_rate=12.5,
        frame_bytes=2 * 10**9,
        frame_products=(10**9, 3 * 10**9),
        instruction_set="avx2",
        peak_bytes=peak,
        samples=Samples(**samples),
    )


def configuration(batch: int = 4) -> Configuration:
    return Configuration((Path("model.gguf"),), "q4_0", "q4_0", batch)


def test_what_the_numbers_mean() -> None:
    timings = result(
        lm=[0.060, 0.070, 0.080, 0.500],
        mimi=[0.008, 0.012, 0.010, 0.010],
        prompt=[0.25, 0.25],
        first_audio=[0.3],
        context_row=[0.005],
        mimi_chunk=[0.003],
        static_rate=[1000.0, 500.0, 800.0],
        continuous_rate=[900.0, 400.0, 760.0],
        occupancy=[1.0, 0.9, 0.95],
    )
    row = make_row(
        Measured(
            configuration(batch=4),
            timings,
            Limits([30e9, 40e9, 50e9], [(100e9, 100e9), (200e9, 600e9), (400e9, 1200e9)]),
        )
    )
    # Frames of 68, 82, 90 and 510 ms, and 250 ms of prompt spread over 125 frames.
    assert row["ms_per_frame"] == pytest.approx(88)
    assert (row["ms_per_frame_min"], row["ms_per_frame_max"]) == pytest.approx((70, 512))
    assert row["codes_per_second"] == pytest.approx(4 * 32 / 0.088)
    assert row["rtf"] == pytest.approx(1.1)
    assert row["lm_ms_per_frame"] == pytest.approx(75)
    assert row["mimi_ms_per_frame"] == pytest.approx(2.5)
    assert row["prefill_rows_per_second"] == pytest.approx(200)
    assert row["time_to_first_audio_ms"] == pytest.approx(300)
    assert row["peak_rss_mb"] == pytest.approx(1000)
    assert row["read_bandwidth_gbs"] == pytest.approx(40)
    assert row["floor_ms"] == pytest.approx(50)
    # 4 utterances of 10**9 products at 200 and 3 * 10**9 at 600 in a second: 5 ms each.
    assert row["gigaproducts"] == pytest.approx(16)
    assert row["peak_gigaproducts"] == pytest.approx(400)
    assert row["compute_floor_ms"] == pytest.approx(40)
    assert (row["limit"], row["limit_ratio"]) == ("memory", pytest.approx(75 / 50))
    assert row["encode_ms_per_frame"] is None
    assert row["contention_ratio"] is None
    assert row["static_codes_per_second"] == 800
    assert row["continuous_codes_per_second"] == 760
    assert row["continuous_ratio"] == 0.9
    assert row["continuous_occupancy"] == 0.95


def test_arithmetic_may_be_the_limit() -> None:
    timings = result(lm=[0.2], mimi=[0.01], prompt=[0.1], first_audio=[0.1], context_row=[0.01])
    limits = Limits([40e9], [(160e9, 160e9)])
    row = make_row(Measured(configuration(batch=4), timings, limits))
    assert row["compute_floor_ms"] == pytest.approx(100)
    assert (row["limit"], row["limit_ratio"]) == ("arithmetic", pytest.approx(2))
    # A build without kernels of its own has no peak of its own.
    row = make_row(Measured(configuration(batch=4), timings, Limits([40e9])))
    assert (row["limit"], row["compute_floor_ms"]) == ("memory", None)


def test_off_the_cpu_there_is_no_floor() -> None:
    timings = result(lm=[0.01], mimi=[0.01], prompt=[0.1], first_audio=[0.1], context_row=[0.01])
    elsewhere = Result(**{**vars(timings), "on_cpu": False, "device": "CUDA0"})
    row = make_row(Measured(configuration(), elsewhere, Limits([40e9], [(1e9, 1e9)])))
    assert row["floor_ms"] is None
    assert row["compute_floor_ms"] is None
    assert row["limit"] is None
    assert row["read_bandwidth_gbs"] is None
    assert row["continuous_ratio"] is None


def test_configurations_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    def run(job: Job) -> tuple[Result, Limits]:
        jobs.append(job)
        return result(peak=len(jobs), lm=[float(len(jobs))] * job.frames), Limits([1.0, 2.0])

    monkeypatch.setattr(runner, "_run", run)
    one, two = configuration(1), configuration(2)
    measured = measure([one, two], device="cpu", threads=1, frames=10, rounds=3)
    assert [job.batch for job in jobs] == [1, 2, 2, 1, 1, 2]
    assert [job.frames for job in jobs if job.batch == 1] == [3, 3, 4]
    assert [m.configuration for m in measured] == [one, two]
    assert measured[0].result.samples.lm == [1.0] * 3 + [4.0] * 3 + [5.0] * 4
    assert [m.result.peak_bytes for m in measured] == [5, 6]
    assert measured[0].limits.bandwidth == [1.0, 2.0] * 3


def test_an_error_names_the_configuration(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--model", str(tiny), "--batch", "2", "--device", "warp-drive"]
    assert main(arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("csm-ggml: error: f32, batch 2: ")
    assert "'warp-drive' is not known" in error


def test_a_damaged_model(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.read_bytes()[:100_000])
    assert main(["bench", "--model", str(damaged), "--batch", "1"]) == 1
    assert str(damaged) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(not shutil.which("false"), reason="needs the POSIX command")
def test_a_process_that_dies(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    one = Configuration((tiny,), "f32", "f32", 1)
    with pytest.raises(BenchmarkError, match=r"f32, batch 1: .* ended with exit code 1"):
        measure([one], device="cpu", threads=1, frames=1, rounds=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x.gguf", "--type", "q4_0"], "are for random weights, not --model"),
        (["--model", "x.gguf", "--synthetic", "tiny"], "not allowed with"),
        (["--batch", "1,0"], "batch_size must be 1 to 256"),
        (["--isa", "mmx"], "--isa mmx: this processor or build cannot use it; expected of: "),
        (["--callers", "2", "--isa", "portable"], "--callers runs in this process"),
        (["--batch", "1,,2"], "values with commas between"),
        (["--json", "nowhere/results.json"], "there is no folder"),
        (["--plot", "results"], "an ending such as .png"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _pretend_matplotlib(monkeypatch, there=True)
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "q3"], "type='q3': not a weight type"),
        (["--synthetic", "huge"], "no preset 'huge'"),
    ],
)
def test_unknown_weights(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments, "--work-dir", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_plot_without_matplotlib_fails_before_measuring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_matplotlib(monkeypatch, there=False)
    assert main([*TINY, "--plot", "results.png"]) == 2
    assert 'needs matplotlib: pip install "csm-ggml[plot]"' in capsys.readouterr().err


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="needs the extra 'plot'")
def test_a_plot(tmp_path: Path) -> None:
    from csm_ggml.bench.plot import save_plot

    rows = [
        {
            "type": kind,
            "depth_type": "q8_0",
            "batch": n,
            "codes_per_second": 400.0 * n,
            "rtf": 0.8,
            "ms_per_frame": 80.0,
            "floor_ms": 50.0,
            "compute_floor_ms": 10.0 * n if kind == "q4_0" else None,
        }
        for kind in ("q4_0", "q8_0")
        for n in (16, 1, 4)
    ]
    document: dict[str, Any] = {
        "machine": {"cpu": "A processor"},
        "settings": {"threads": 2, "device": "CPU"},
        "rows": rows,
    }
    save_plot(document, tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_roof_of_a_plot() -> None:
    from csm_ggml.bench.plot import roof

    # 32 codes a frame: reading takes 50 ms, multiplying 10 ms for each utterance.
    row = {"codes_per_second": 800.0, "ms_per_frame": 80.0, "batch": 2, "floor_ms": 50.0}
    row["compute_floor_ms"] = 20.0
    batches, codes = roof(row, 16) or ([], [])
    assert batches == [1, 5, 16]
    assert codes == pytest.approx([640, 3200, 3200])


def _pretend_matplotlib(monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        if name == "matplotlib":
            return find("json") if there else None
        return find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)

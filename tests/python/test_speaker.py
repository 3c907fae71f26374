"""`csm_ggml.ray.Speaker` without Ray: what a row sounds like is its own affair."""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from csm_ggml import CSM
from csm_ggml.ray import Speaker
from csm_ggml.ray.rows import OUTPUTS, row_seed

WORDS = ("Hello.", "This is a longer text.", "One two three.", "Yes.", "And so on and so on.")
COLUMNS = {"audio", "duration", "frames", "finish_reason", "seed", "error"}


@pytest.fixture(scope="module")
def csm(path: Path) -> CSM:
    return CSM.from_pretrained(path, device="cpu", threads=1, slots=4)


def batch(ids: Iterable[Any]) -> dict[str, Any]:
    ids = list(ids)
    texts = [WORDS[int(str(id)) % len(WORDS)] for id in ids]
    return {"id": np.array(ids), "text": np.array(texts, dtype=object)}


def spoken(speaker: Speaker, rows: dict[str, Any]) -> dict[str, Any]:
    """The bytes of each row by its id."""
    return {str(row["id"][0]): row["audio"][0] for row in speaker(rows)}


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name != "amplitude"])
def test_a_row_has_the_same_bytes_whatever_its_place(csm: CSM, output: str) -> None:
    if output == "aac":
        pytest.importorskip("av")
    how = {"seed": 3, "output": output, "max_frames": 6}
    whole = spoken(Speaker(csm, batch_size=4, **how), batch(range(7)))
    parts: dict[str, Any] = {}
    for part in (range(6, 3, -1), range(4)):
        parts |= spoken(Speaker(csm, batch_size=2, **how), batch(part))
    assert whole == parts
    assert len(set(whole.values())) == 7
    other = spoken(Speaker(csm, **{**how, "seed": 4}), batch(range(7)))
    assert all(other[id] != whole[id] for id in whole)


def test_a_row_is_what_generate_says(csm: CSM) -> None:
    [row] = Speaker(csm, seed=3, output="wav", max_frames=6)(batch([2]))
    assert row["seed"][0] == row_seed(3, 2) == row_seed(3, "2")
    audio = csm.generate(WORDS[2], seed=int(row["seed"][0]), max_frames=6)
    samples, rate = soundfile.read(io.BytesIO(row["audio"][0]), dtype="int16")
    assert rate == 24000
    assert np.array_equal(samples, audio.pcm16())
    assert (row["duration"][0], row["frames"][0]) == (audio.duration, len(audio.codes))
    assert (row["finish_reason"][0], row["error"][0]) == (audio.finish_reason, "")


def test_seeds_do_not_change_between_versions() -> None:
    assert row_seed(0, "a") == int(hashlib.sha256(b"0:a").hexdigest()[:12], 16)
    assert 0 <= row_seed(2**64 - 1, "\ud800") < 2**48


def test_rows_come_in_an_order_that_the_batch_fixes_long_texts_first(csm: CSM) -> None:
    rows = list(Speaker(csm, max_frames=6)({"text": list(WORDS), "n": list(range(5))}))
    lengths = [len(row["text"][0]) for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    assert [row["n"][0] for row in rows] == [1, 4, 2, 0, 3]


def test_columns_of_the_row_and_new_ones_with_one_type_each(csm: CSM) -> None:
    rows = batch([1, 2]) | {"own": [{"a": 1}, None]}
    rows["text"][1] = ""
    good, bad = Speaker(csm, max_frames=2)(rows)
    assert set(good) == set(bad) == COLUMNS | {"id", "text", "own"}
    assert (good["own"], bad["own"]) == ([{"a": 1}], [None])
    for name in COLUMNS:
        assert good[name].dtype == bad[name].dtype
        assert type(good[name][0]) is type(bad[name][0])
    assert (bad["audio"][0], bad["frames"][0], bad["finish_reason"][0]) == (b"", 0, "error")


def test_amplitude_is_what_read_audio_of_ray_gives(csm: CSM) -> None:
    rows = batch([1, 2])
    rows["text"][1] = None
    good, bad = Speaker(csm, output="amplitude", max_frames=2)(rows)
    assert "audio" not in good
    assert good["amplitude"].shape == (1, 1, 2 * 1920)
    assert (good["amplitude"].dtype, good["sample_rate"][0]) == (np.float32, 24000)
    assert bad["amplitude"].shape == (1, 1, 0)


def test_errors_of_rows_are_recorded_or_raised(csm: CSM) -> None:
    texts = ["Hello.", "", None, 7, "a " * 5000, "Yes."]
    rows = {
        row["id"][0]: row for row in Speaker(csm, max_frames=2)({"id": range(6), "text": texts})
    }
    assert [bool(rows[n]["error"][0]) for n in range(6)] == [False, True, True, True, True, False]
    assert "nothing to say" in rows[1]["error"][0]
    assert "NoneType" in rows[2]["error"][0]
    with pytest.raises(ValueError, match="nothing to say"):
        list(Speaker(csm, on_error="raise", max_frames=2)({"text": ["Hello.", ""]}))


def test_what_is_not_the_fault_of_a_row_is_raised(csm: CSM) -> None:
    def broken(_: Any) -> Any:
        raise RuntimeError("the machine is broken")

    csm.watermark = broken
    try:
        with pytest.raises(RuntimeError, match="broken"):
            list(Speaker(csm, max_frames=2)({"text": ["Hello."]}))
    finally:
        csm.watermark = None


def test_a_voice_for_all_and_for_a_row(csm: CSM, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 1920).astype(np.float32)
    voice = csm.create_voice(noise, "What I say.")
    voice.save(tmp_path / "me.voice")
    rows = batch([1, 2, 3]) | {
        "who": ["", str(tmp_path / "me.voice"), str(tmp_path / "none.voice")]
    }
    how = {"max_frames": 4, "output": "pcm"}
    none = spoken(Speaker(csm, **how), rows)
    own = {str(r["id"][0]): r for r in Speaker(csm, voice_column="who", **how)(rows)}
    every = spoken(Speaker(csm, voice=voice, **how), rows)
    assert own["1"]["audio"][0] == none["1"]
    assert own["2"]["audio"][0] == every["2"] != none["2"]
    assert "none.voice" in own["3"]["error"][0]
    both = spoken(Speaker(csm, voice=voice, voice_column="who", **how), rows)
    assert both["1"] == every["1"]


def test_as_completed_tells_the_number_of_each_row(csm: CSM) -> None:
    speaker = Speaker(csm, max_frames=3)
    rows = batch([4, 3, 2, 1])
    found = dict(speaker.as_completed(rows))
    assert {n: found[n]["id"][0] for n in found} == {0: 4, 1: 3, 2: 2, 3: 1}
    assert {str(r["id"][0]): r["audio"][0] for r in found.values()} == spoken(speaker, rows)


def test_a_text_is_its_own_id_where_there_is_none(csm: CSM) -> None:
    rows = {"text": ["Hello.", "Yes."]}
    by_default = [row["seed"][0] for row in Speaker(csm, max_frames=2)(rows)]
    assert by_default == [row_seed(0, "Hello."), row_seed(0, "Yes.")]
    numbered = rows | {"id": [1, 2]}
    assert [
        r["seed"][0] for r in Speaker(csm, id_column=None, max_frames=2)(numbered)
    ] == by_default


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output": "mp4"}, ValueError, "output must be one of mp3"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"temprature": 1}, TypeError, "unknown option 'temprature'"),
        ({"temperature": -1}, ValueError, "temperature must be"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"voice": "none.voice"}, FileNotFoundError, "none.voice"),
    ],
)
def test_mistakes_of_all_rows_are_told_at_the_start(
    csm: CSM, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Speaker(csm, **arguments)


@pytest.mark.parametrize(
    ("rows", "arguments", "error", "message"),
    [
        ([1], {}, TypeError, 'batch_format="numpy"'),
        ({"txt": ["a"]}, {}, KeyError, "no column 'text', only txt"),
        ({"text": ["a"]}, {"id_column": "key"}, KeyError, "no column 'key'"),
        ({"text": ["a"], "id": [1, 2]}, {}, ValueError, "equally long"),
        ({"text": ["a"], "id": [0.5]}, {}, TypeError, "ids must be strings or whole numbers"),
    ],
)
def test_mistakes_of_a_batch_are_told_by_the_call(
    csm: CSM, rows: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Speaker(csm, **arguments)(rows)


def test_leaving_the_rows_ends_the_work(csm: CSM) -> None:
    rows = Speaker(csm, batch_size=2)(batch(range(20)))
    next(rows)
    rows.close()
    assert csm.scheduler.stats().queued == 0
    assert csm.generate("Hello.", max_frames=2).samples.size == 2 * 1920


def test_as_completed_returns_exceptions(csm: CSM) -> None:
    found = dict(csm.as_completed(["", "Hello.", None], return_exceptions=True, max_frames=2))  # type: ignore[list-item]
    assert isinstance(found[0], ValueError)
    assert isinstance(found[2], TypeError)
    assert len(found[1].codes) == 2
    with pytest.raises(ValueError, match="text 0: nothing to say"):
        csm.as_completed(["", "Hello."])

"""What runs on a GPU: ggml's operators alone, the composed sampler, ggml's scheduler.

On the CPU treated as a GPU, and on the device that CSM_GGML_TEST_DEVICE names (see docs/GPU.md).
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csm_ggml import CSM, _core
from csm_ggml.convert import quantize_file
from csm_ggml.loading import hub
from reference import devices, engines, scenes
from reference.compare import assert_codes_equal, assert_logits_close
from reference.expected import whole
from reference.recipes import GROUPED8, PLAIN4, SINGLE32, WIDE, Recipe

FRAMES = 12
LONG = 64
DEMO = "[0]My brother has a dog and three cats. We can take the bus to the station in the city."
SAMPLED: dict[str, Any] = {
    "temperature": 0.9,
    "top_k": 30,
    "depth_temperature": 0.8,
    "depth_top_k": 0,
}
WITH_TOP_P = {**SAMPLED, "top_p": 0.95, "depth_top_p": 0.9}

Load = Callable[..., _core.Model]

# Devices add up in an order of their own, but in F32: what that is worth, as part of the range.
ROUNDING = 1e-5


@pytest.fixture(params=[PLAIN4, GROUPED8, SINGLE32], ids=lambda recipe: recipe.name)
def small(request: pytest.FixtureRequest) -> Recipe:
    wanted: Recipe = request.param
    return wanted


@pytest.fixture(scope="module", params=devices.GPU_LIKE)
def gpu_like(request: pytest.FixtureRequest) -> str:
    """A device without nodes of our own."""
    wanted: str = request.param
    return wanted


@pytest.fixture(scope="module")
def on_device(gguf: Callable[..., Path], gpu_like: str) -> Load:
    """A recipe's model on such a device."""
    loaded: dict[tuple[str, str], _core.Model] = {}

    def load(name: str, type: str = "f32") -> _core.Model:
        if (name, type) not in loaded:
            # ggml's own threads spin at barriers between nodes; one needs none.
            path = str(gguf(name, type))
            loaded[name, type] = _core.Model([path], device=gpu_like, threads=1)
        return loaded[name, type]

    if not devices.exact(gpu_like):
        pytest.skip("products in F16 draw other codes; set GGML_VK_DISABLE_F16=1 to compare")
    return load


def test_greedy_codes_and_logits(small: Recipe, model: Load, on_device: Load) -> None:
    other, prompt = on_device(small.name), scenes.context_prompt(small)
    codes = engines.speak_alone(model(small.name), prompt, FRAMES, **engines.GREEDY)
    got = engines.speak_alone(other, prompt, FRAMES, **engines.GREEDY)
    assert_codes_equal(got, codes, small.name)
    wanted = whole(engines.forced_logits(model(small.name), prompt, codes[:4]), small)
    assert_logits_close(engines.forced_logits(other, prompt, codes[:4]), wanted, small.name)


def test_greedy_codes_of_many_frames(small: Recipe, model: Load, on_device: Load) -> None:
    prompt = scenes.context_prompt(small)
    wanted = engines.speak_alone(model(small.name), prompt, LONG, **engines.GREEDY)
    got = engines.speak_alone(on_device(small.name), prompt, LONG, **engines.GREEDY)
    assert_codes_equal(got, wanted, small.name)


@pytest.mark.device
def test_greedy_codes_of_wide_layers(model: Load, on_device: Load) -> None:
    """Prompt blocks of many rows, and past a bucket of the cache's rows another graph."""
    prompt = scenes.context_prompt(WIDE)
    wanted = engines.speak_alone(model("wide"), prompt, LONG, **engines.GREEDY)
    got = engines.speak_alone(on_device("wide"), prompt, LONG, **engines.GREEDY)
    assert_codes_equal(got, wanted, "wide")


def test_the_demo_voice(tmp_path: Path, gpu_like: str) -> None:
    """Trained weights, in F32: the same codes and, but for rounding, the same samples."""
    if not devices.exact(gpu_like):
        pytest.skip("products in F16 draw other codes; set GGML_VK_DISABLE_F16=1 to compare")
    file = tmp_path / "demo.gguf"
    quantize_file(hub.resolve("demo").paths[0], file, type="f32", progress=False)
    said = []
    for device in (devices.CPU, gpu_like):
        with CSM.from_pretrained(file, device=device, threads=1) as csm:
            said.append(csm.generate(DEMO, max_frames=LONG, **engines.GREEDY))
    assert len(said[0].codes) == LONG
    assert_codes_equal(said[1].codes, said[0].codes, "demo")
    np.testing.assert_allclose(said[1].samples, said[0].samples, atol=1e-4)


@pytest.mark.parametrize("sampling", [SAMPLED, WITH_TOP_P], ids=["top-k", "top-p"])
def test_draws_from_the_same_logits(on_device: Load, sampling: dict[str, Any]) -> None:
    """The composed sampler, in F32, against the CPU's node, in F64: a difference is a near tie."""
    model, slots, frames = on_device("single32"), 2, 6
    engine = _core.Engine(model, slots=slots)
    prompt = scenes.text_prompt(SINGLE32)
    opened = [engines.open_slot(engine, prompt, seed=seed, **sampling) for seed in range(slots)]
    others = {name.removeprefix("depth_"): value for name, value in sampling.items()}
    first = {"top_p": 1.0, **{name: sampling[name] for name in sampling if name in others}}
    others = {"top_p": 1.0, **others}
    wrong = 0
    for frame in range(frames):
        codes, logits = engine.step(opened, return_logits=True)
        assert logits is not None
        for slot in range(slots):
            u = _core.uniforms(slot, frame, 1, SINGLE32.codebooks)[0]
            drawable = np.ascontiguousarray(logits[slot, :, : SINGLE32.codebook_size])
            wanted = np.concatenate(
                [
                    _core.sample(drawable[:1], u[:1], **first),
                    _core.sample(drawable[1:], u[1:], **others),
                ]
            )
            wrong += int((wanted != codes[slot]).sum())
    assert wrong <= 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_loads_leave_nothing(gguf: Callable[..., Path], gpu_like: str) -> None:
    """Twenty models, one after another, each of which speaks, decodes and encodes."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    sizes = []
    for _ in range(20):
        model = _core.Model([str(gguf("plain4"))], device=gpu_like, threads=1)
        engines.speak_alone(model, scenes.text_prompt(PLAIN4), 2, seed=1)
        _core.MimiEncoder(model).encode(
            _core.MimiDecoder(model).decode(scenes.codes(PLAIN4, "x", 4))
        )
        del model
        sizes.append(resident())
    # a model, its caches and its graphs are more than that
    assert sizes[-1] - sizes[4] < 4e6, [size >> 10 for size in sizes]


@pytest.mark.parametrize("sampling", [SAMPLED, WITH_TOP_P], ids=["top-k", "top-p"])
def test_sampled_codes_of_a_batch(
    small: Recipe, model: Load, on_device: Load, sampling: dict[str, Any]
) -> None:
    prompt = scenes.context_prompt(small)

    def speak(of: _core.Model) -> np.ndarray:
        engine = _core.Engine(of, slots=2)
        slots = [engines.open_slot(engine, prompt, seed=seed, **sampling) for seed in (5, 6)]
        engine.reseed(slots[1], seed=6, **{**WITH_TOP_P, "temperature": 0.0, "depth_top_k": 1})
        return np.array(engines.speak(engine, slots, FRAMES))

    assert_codes_equal(speak(on_device(small.name)), speak(model(small.name)), small.name)


def test_what_neighbours_need_changes_no_draw(on_device: Load) -> None:
    """Graphs with top-p, with forced codes, and without: who uses neither says the same in all."""
    model, prompt = on_device("plain4"), scenes.text_prompt(PLAIN4)
    alone = engines.speak_alone(model, prompt, FRAMES, seed=5, **SAMPLED)
    engine = _core.Engine(model, slots=2)
    slots = [
        engines.open_slot(engine, prompt, seed=5, **SAMPLED),
        engines.open_slot(engine, prompt, seed=6, **WITH_TOP_P),
    ]
    forced = np.full((2, PLAIN4.codebooks), -1, np.int32)
    forced[1] = 3
    said = [engine.step(slots, forced=forced if i % 2 else None)[0] for i in range(FRAMES)]
    assert_codes_equal(np.stack(said)[:, 0], alone, "beside top-p and forced codes")
    assert (np.stack(said)[1::2, 1] == 3).all()


def test_codec(small: Recipe, model: Load, on_device: Load) -> None:
    codes = scenes.decode_codes(small)
    wanted = _core.MimiDecoder(model(small.name)).decode(codes)
    got = _core.MimiDecoder(on_device(small.name)).decode(codes)
    np.testing.assert_allclose(got, wanted, atol=ROUNDING * np.abs(wanted).max())


def test_encoding_from_the_first_frame_on(small: Recipe, model: Load, on_device: Load) -> None:
    """Of the first frame the past is written and read in one graph; the last is a part of one."""
    spoken = _core.MimiDecoder(model(small.name)).decode(scenes.decode_codes(small))
    heard = spoken[: len(spoken) - small.frame_size // 2]
    wanted, latents = _core.MimiEncoder(model(small.name)).encode(heard, return_latents=True)
    got, ours = _core.MimiEncoder(on_device(small.name)).encode(heard, return_latents=True)
    assert np.abs(ours - latents).max() <= 1e-4 * np.ptp(latents)
    assert np.array_equal(got, wanted)


def test_codec_streams(small: Recipe, model: Load, on_device: Load) -> None:
    """States are gathered and scattered by ggml's operators."""
    codes = np.stack([scenes.codes(small, f"stream {i}", FRAMES) for i in range(3)])
    wanted = np.stack([_core.MimiDecoder(model(small.name)).decode(own) for own in codes])
    decoder = _core.MimiDecoder(on_device(small.name), streams=4)
    split = 5 * small.frame_size
    got = np.empty_like(wanted)
    got[[2, 0], :split] = decoder.decode(codes[[2, 0], :5], [3, 0])
    got[1] = decoder.decode(codes[1:2], [1])[0]
    got[[0, 2], split:] = decoder.decode(codes[[0, 2], 5:], [0, 3])
    np.testing.assert_allclose(got, wanted, atol=ROUNDING * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("recipe", "type"),
    [(PLAIN4, "f32"), (WIDE, "f16")],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_device_runs_whole_graphs(on_device: Load, recipe: Recipe, type: str) -> None:
    """Nothing is left to the CPU, which would cost two copies and a wait each.

    The wide layers in F16, as their table of codes has 128 MB in F32, which lavapipe does not bind.
    """
    model = on_device(recipe.name, type)
    engine = _core.Engine(model, slots=2)
    assert engine.splits == {"prefill": 0, "step": 0}
    prompt = scenes.context_prompt(recipe)
    slots = [
        engines.open_slot(engine, prompt, seed=1, **SAMPLED),
        engines.open_slot(engine, prompt, seed=2, **WITH_TOP_P),
    ]
    engine.step(slots)
    assert engine.splits == {"prefill": 1, "step": 1}
    engine.step(slots[:1])
    assert engine.splits["step"] == 1
    decoder, encoder = _core.MimiDecoder(model), _core.MimiEncoder(model)
    samples = decoder.decode(scenes.codes(recipe, "whole", 2))
    encoder.encode(samples)
    assert (decoder.splits, encoder.splits) == (1, 1)


def test_prefixes_go_from_the_device_to_the_cpu_and_back(model: Load, on_device: Load) -> None:
    prompt = scenes.context_prompt(PLAIN4)
    here, there = model("plain4"), on_device("plain4")
    wanted = engines.speak_alone(here, prompt, FRAMES, **engines.GREEDY)
    for first, second in ((here, there), (there, here)):
        one, two = _core.Engine(first), _core.Engine(second)
        data = one.save_slot(engines.open_slot(one, prompt, **engines.GREEDY))
        slot = two.open()
        two.load_slot(slot, data)
        assert_codes_equal(engines.speak(two, [slot], FRAMES)[0], wanted, "after the move")


def test_a_slot_is_rewound_and_speaks_again(on_device: Load) -> None:
    prompt = scenes.context_prompt(PLAIN4)
    engine = _core.Engine(on_device("plain4"))
    slot = engines.open_slot(engine, prompt, seed=3)
    said = engines.speak(engine, [slot], 5)
    engine.rewind(slot, len(prompt.text) - 1)
    engine.append(slot, prompt.text[-1:], prompt.audio[-1:])
    engine.reseed(
        slot,
        seed=3,
        temperature=0.9,
        top_k=50,
        top_p=1.0,
        depth_temperature=0.9,
        depth_top_k=50,
        depth_top_p=1.0,
    )
    assert_codes_equal(engines.speak(engine, [slot], 5)[0], said[0], "after the rewind")


def test_engines_of_one_model_in_threads(on_device: Load) -> None:
    """Graphs are planned and run side by side on one device; codecs run on it as well."""
    model, prompt = on_device("plain4"), scenes.text_prompt(PLAIN4)
    wanted = [engines.speak_alone(model, prompt, FRAMES, seed=seed) for seed in range(4)]
    codes = scenes.codes(PLAIN4, "thread", FRAMES)
    sound = _core.MimiDecoder(model).decode(codes)
    wrong: list[str] = []

    def speak(seed: int) -> None:
        for _ in range(3):
            if not np.array_equal(
                engines.speak_alone(model, prompt, FRAMES, seed=seed), wanted[seed]
            ):
                wrong.append(f"seed {seed}")

    def decode() -> None:
        for _ in range(3):
            if not np.allclose(_core.MimiDecoder(model).decode(codes), sound, atol=1e-6):
                wrong.append("samples")

    threads = [threading.Thread(target=speak, args=(seed,)) for seed in range(4)]
    threads += [threading.Thread(target=decode) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q6_k", "q4_k", "q4_0"])
def test_formats_speak(on_device: Load, type: str) -> None:
    """What is said need not be what the CPU says, which rounds activations; it is in batches."""
    prompt = scenes.text_prompt(WIDE)
    model = on_device("wide", type)
    alone = [engines.speak_alone(model, prompt, 3, seed=seed) for seed in (1, 2)]
    engine = _core.Engine(model, slots=2)
    slots = [engines.open_slot(engine, prompt, seed=seed) for seed in (1, 2)]
    together = engines.speak(engine, slots, 3)
    for mine, wanted in zip(together, alone, strict=True):
        assert_codes_equal(mine, wanted, type)


def test_what_a_device_cannot_do_is_an_error(gguf: Callable[..., Path]) -> None:
    path = [str(gguf("plain4"))]
    with pytest.raises(_core.BackendError, match="device 'gpu:99'"):
        _core.Model(path, device="gpu:99")
    with pytest.raises(_core.BackendError, match="'nonsense' is not known; there are: auto, cpu"):
        _core.Model(path, device="nonsense")

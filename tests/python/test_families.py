"""CSM-shaped models by name: heads, RoPE, prompts and marks are known, or the model is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checkpoints
import numpy as np
import pytest
from csm_ggml import CSM, ModelFormatError, Segment, _core
from csm_ggml.convert import convert, families, quantize_file
from csm_ggml.text.prompt_format import PromptFormat
from csm_ggml.text.turns import Turn
from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder
from csm_ggml.voices.voice import Voice
from fakes import CODEBOOKS, LetterTokenizer
from numpy.typing import NDArray
from reference.checkpoint import draw_tensors, write_tokenizer
from reference.recipes import LLAMA3_BACKBONE, LLAMA3_DEPTH, WIDE, Recipe
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Backbone and depth decoder as the models' makers list them: layers, width, heads, key/value heads,
# head width, feed-forward.
KNOWN = {
    "csm-1b": ((16, 2048, 32, 8, 64, 8192), (4, 1024, 8, 2, 128, 8192)),
    "miso-tts": ((32, 4096, 32, 8, 128, 14336), (8, 1536, 24, 6, 64, 6912)),
    "marvis-250m": ((6, 1536, 12, 3, 128, 8192), (4, 1024, 8, 2, 128, 4096)),
}


def widths(sizes: tuple[int, ...]) -> families.Widths:
    layers, width, heads, kv_heads, head_dim, hidden = sizes
    return families.Widths(layers, width, heads * head_dim, kv_heads * head_dim, hidden)


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_is_told_by_its_widths(name: str) -> None:
    parts = dict(zip(("backbone", "depth"), KNOWN[name], strict=True))
    found = {part: widths(sizes) for part, sizes in parts.items()}
    family = families.by_widths(found, {}, "here")
    assert family.name == name
    for part, (layers, width, heads, kv_heads, head_dim, hidden) in parts.items():
        sizes = families.sizes_like(family, part, found[part], "here")
        assert (sizes.block_count, sizes.embedding_length) == (layers, width)
        assert (sizes.head_count, sizes.head_count_kv, sizes.head_dim) == (
            heads,
            kv_heads,
            head_dim,
        )
        assert sizes.feed_forward_length == hidden
    flavors = {"backbone_flavor": family.backbone, "decoder_flavor": family.depth}
    assert families.by_widths(found, flavors, "here") is family
    with pytest.raises(ModelFormatError, match="names backbone_flavor 'llama-2B'"):
        families.by_widths(found, {"backbone_flavor": "llama-2B"}, "here")
    # Two flavors that no known model pairs, where the configuration names both.
    other = "miso-tts" if name != "miso-tts" else "csm-1b"
    found["depth"] = widths(KNOWN[other][1])
    with pytest.raises(ModelFormatError, match="not the sizes of a known model"):
        families.by_widths(found, {}, "here")
    flavors["decoder_flavor"] = families.FAMILIES[other].depth
    pair = families.by_widths(found, flavors, "here")
    assert (pair.backbone, pair.depth) == (family.backbone, flavors["decoder_flavor"])
    assert (pair.rope is None) == (name == "marvis-250m")
    found["depth"] = replace(found["depth"], hidden=5000)
    with pytest.raises(ModelFormatError, match="not the sizes of a known model"):
        families.by_widths(found, {}, "here")


def test_an_original_of_unknown_sizes_is_refused(tmp_path: Path) -> None:
    source = checkpoints.write_original(tmp_path / "source")
    for settings in (None, {"backbone_flavor": "llama-1B", "decoder_flavor": "llama-100M"}):
        (source / "config.json").unlink(missing_ok=True)
        if settings is not None:
            (source / "config.json").write_text(json.dumps(settings))
        with pytest.raises(
            ModelFormatError,
            match=r"not the sizes of a known model \(backbone: 2 layers of 96, .*heads, its RoPE "
            r"and its prompts are unknown.*family= \(--family\): csm-1b, miso-tts, marvis-250m",
        ):
            convert(source, tmp_path / "out.gguf")
    report = convert(source, tmp_path / "out.gguf", family="csm-1b")
    assert any("heads, RoPE and context length are csm-1b's" in note for note in report.notes)
    with pytest.raises(ModelFormatError, match="marvis-250m's RoPE is told by its config"):
        convert(source, tmp_path / "out.gguf", family="marvis-250m")
    with pytest.raises(ValueError, match="family='csm-2b': expected one of csm-1b, miso-tts"):
        convert(source, tmp_path / "out.gguf", family="csm-2b")


def prompt_keys(path: Path) -> dict[str, Any]:
    return {k: v for k, v in checkpoints.read_keys(path).items() if k.startswith("csm.prompt.")}


def test_csm_itself_needs_no_keys(tmp_path: Path) -> None:
    """So that its files are those of before, byte for byte."""
    convert(checkpoints.write_transformers(tmp_path / "source"), tmp_path / "out.gguf")
    assert prompt_keys(tmp_path / "out.gguf") == {}
    assert "csm.prompt.text" not in CSM.from_pretrained(tmp_path / "out.gguf").config


TEMPLATE = (
    "{% for m in messages %}{% if not m['role'].isdigit() %}{{ raise_exception('no') }}{% endif %}"
    "{{ bos_token + '[' + m['role'] + ']SPACE' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ eos_token }}{% endfor %}"
)


@pytest.mark.parametrize("where", ["jinja", "config"])
@pytest.mark.parametrize("space", ["", " "])
def test_the_chat_template_says_how_text_is_written(where: str, space: str, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    template = TEMPLATE.replace("SPACE", space)
    if where == "jinja":
        (source / "chat_template.jinja").write_text(template)
    else:
        (source / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    convert(source, tmp_path / "out.gguf")
    expected = {"csm.prompt.text": "[{speaker}] {text}"} if space else {}
    assert prompt_keys(tmp_path / "out.gguf") == expected


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{{ unknown.thing }}", "the chat template cannot be run"),
        ("{% for %}", "the chat template cannot be run"),
        ("{{ raise_exception('never') }}", "cannot be run: never"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be run"),
        ("{{ messages[0].content[0].text }}", "expected both once between"),
        (TEMPLATE.replace("SPACE", "<|style|>"), "writes '<|style|>' inside a segment"),
        (TEMPLATE.replace("SPACE", "{calm}"), "expected a text with {speaker} and {text}"),
    ],
)
def test_templates_that_cannot_be_followed(template: str, match: str, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    (source / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelFormatError) as caught:
        convert(source, tmp_path / "out.gguf")
    assert match in str(caught.value)


def test_configurations_say_it_too(tmp_path: Path) -> None:
    """The keys that MLX's CSM models have."""
    settings = checkpoints.config(speaker_prefix_space=True, voice_match=True)
    source = checkpoints.write_transformers(tmp_path / "source", settings=settings)
    (source / "chat_template.jinja").write_text("{{ unknown.thing }}")
    convert(source, tmp_path / "out.gguf")
    expected = {"csm.prompt.text": "[{speaker}] {text}", "csm.prompt.voice": "match"}
    assert prompt_keys(tmp_path / "out.gguf") == expected
    quantize_file(tmp_path / "out.gguf", tmp_path / "other.gguf", "f16")
    assert prompt_keys(tmp_path / "other.gguf") == expected
    settings["voice_match"] = "yes"
    (source / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelFormatError, match="voice_match is 'yes', expected true or false"):
        convert(source, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    "text", ["", "{text}", "[{speaker}]", "[{speaker}]{text}{text}", "[{speaker}]{text}{x}", "}"]
)
def test_keys_that_cannot_be_followed(text: str) -> None:
    with pytest.raises(
        ModelFormatError, match=r"here: csm\.prompt\.text is .*expected a text with"
    ):
        PromptFormat.from_metadata({"csm.prompt.text": text}, "here")
    with pytest.raises(ModelFormatError, match=r"csm\.prompt\.voice is 'x', expected 'segment' or"):
        PromptFormat.from_metadata({"csm.prompt.voice": "x"}, "here")
    with pytest.raises(ModelFormatError, match=r"csm\.prompt\.voice is 5, expected a text"):
        PromptFormat.from_metadata({"csm.prompt.voice": 5}, "here")


def test_words_are_never_taken_for_the_format() -> None:
    assert PromptFormat("{speaker}: {text}").write(3, "{speaker} {text}") == "3: {speaker} {text}"


def test_voice_match_writes_one_segment() -> None:
    tokenizer: Any = LetterTokenizer()
    prompts = PromptBuilder(tokenizer, codebooks=CODEBOOKS, audio_vocab_size=51, voice_match=True)
    codes = np.array([[1, 2], [3, 4]], np.int32)
    mine, other = EncodedSegment(Turn(0, "a"), codes), EncodedSegment(Turn(1, "b"), codes)
    before, rows = prompts.opening([other, mine], Turn(0, "c"))
    assert before == (other,)
    assert rows.text.tolist() == [1000, *map(ord, "[0]a c"), 1001, -1, -1]
    assert rows.audio[-2:].tolist() == [[1, 2], [3, 4]]
    before, rows = prompts.opening([mine], Turn(1, "c"))
    assert before == (mine,)
    assert rows.text.tolist() == [1000, *map(ord, "[1]c"), 1001]


# Small ones, with the head widths, codebooks, prompts and marks of the real ones.


def small(backbone: tuple[int, ...], depth: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """A configuration of (width, heads, key/value heads, head width, feed-forward) each."""
    names = (
        *("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
        "intermediate_size",
    )
    settings = json.loads(json.dumps(WIDE.config))
    settings.update(zip(names, backbone, strict=True), num_hidden_layers=2, **more)
    settings["rope_parameters"] = LLAMA3_BACKBONE
    settings["depth_decoder_config"].update(
        zip(names, depth, strict=True), num_hidden_layers=2, backbone_hidden_size=backbone[0]
    )
    settings["depth_decoder_config"]["rope_parameters"] = LLAMA3_DEPTH
    return settings


MARVIS = small((96, 4, 1, 128, 192), (64, 4, 1, 128, 96), voice_match=True)
MISO = small((128, 4, 1, 128, 192), (96, 4, 1, 64, 160))
REFERENCE_TEXT, NEW_TEXT = "The rain in spain.", "And then 42 more, he said."


def marvis_tokenizer(folder: Path) -> Tokenizer:
    """SmolLM2's kind of tokenizer: digits alone, other marks, which it sets itself."""
    from tokenizers import Tokenizer

    write_tokenizer(folder / "tokenizer.json")
    content = (folder / "tokenizer.json").read_text("utf-8")
    content = content.replace("<|begin_of_text|>", "<|im_start|>")
    settings = json.loads(content.replace("<|end_of_text|>", "<|im_end|>"))
    settings["model"]["ignore_merges"] = False
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    settings["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {**byte_level, "use_regex": True},
        ],
    }
    ids = {entry["content"]: entry["id"] for entry in settings["added_tokens"]}
    marks = {
        text: {"id": text, "ids": [ids[text]], "tokens": [text]}
        for text in ("<|im_start|>", "<|im_end|>")
    }
    before, text, after = (
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
    )
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [before, text, after],
        "pair": [before, text, after],
        "special_tokens": marks,
    }
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def speech(path: Path, voice: NDArray[np.int32] | None, frames: int) -> tuple[CSM, NDArray[Any]]:
    """Greedy codes of the new text by speaker 1, after the voice if there is one."""
    csm = CSM.from_pretrained(path, threads=1, device="cpu")
    given = None
    if voice is not None:
        given = Voice(
            speaker=1,
            transcript=REFERENCE_TEXT,
            codes=voice,
            sample_rate=csm.sample_rate,
            frame_size=csm.frame_size,
            codec=None,
        )
    spoken = csm.generate(
        [Turn(1, NEW_TEXT)], voice=given, temperature=0, depth_temperature=0, max_frames=frames
    )
    return csm, spoken.codes


def codes_of_voice(frames: int = 9) -> NDArray[np.int32]:
    drawn = np.random.default_rng(4).integers(1, 2048, (frames, 32))
    return drawn.astype(np.int32)


@pytest.mark.parity
@pytest.mark.parametrize("form", ["mlx", "transformers"])
def test_a_small_marvis_speaks_as_in_transformers(form: str, tmp_path: Path) -> None:
    """MLX's names, SmolLM2's marks, the voice in the same segment as the new words."""
    from reference.runner import Reference
    from reference.scenes import Prompt

    recipe = Recipe("marvis", seed=61, config=MARVIS, gain=4.0)
    tensors = {n: checkpoints.half(v) for n, v in draw_tensors(recipe).items()}
    whole = checkpoints.write_transformers(tmp_path / "transformers", tensors, MARVIS)
    source = whole
    if form == "mlx":
        source = tmp_path / "mlx"
        source.mkdir()
        save_file(checkpoints.mlx_language(tensors, MARVIS), source / "model.safetensors")
        (source / "config.json").write_text(json.dumps({**MARVIS, "model_type": "marvis"}))
        save_file(checkpoints.mimi(tensors), source / "mimi.safetensors")
    tokenizer = marvis_tokenizer(source)
    convert(source, tmp_path / "out.gguf", type="f32")
    voice = codes_of_voice()
    csm, spoken = speech(tmp_path / "out.gguf", voice, 20)
    ids = tokenizer.encode(f"[1]{REFERENCE_TEXT} {NEW_TEXT}").ids
    assert csm.tokenize(f"{REFERENCE_TEXT} {NEW_TEXT}", speaker=1) == ids
    assert "<|im_start|>" in tokenizer.encode("x").tokens
    prompt = Prompt(
        np.array([*ids, *[-1] * len(voice)], np.int32),
        np.concatenate([np.zeros((len(ids), 32), np.int32), voice]),
    )
    wanted = Reference(whole).greedy(prompt, 20)
    np.testing.assert_array_equal(spoken, wanted.codes[: len(spoken)])
    assert len(spoken) == 20
    with pytest.raises(ValueError, match="one segment"):
        csm.create_voice(np.full(csm.frame_size, 0.1, np.float32), "Hm.", prefix=True)


@pytest.mark.parity
def test_a_small_miso_speaks_as_in_transformers(tmp_path: Path) -> None:
    """One safetensors in F32, no configuration, no tokenizer; a space after the tag."""
    from reference.runner import Reference
    from reference.scenes import Prompt
    from tokenizers import Tokenizer

    recipe = Recipe("miso", seed=62, config=MISO, gain=4.0)
    tensors = {n: checkpoints.half(v) for n, v in draw_tensors(recipe).items()}
    whole = checkpoints.write_transformers(tmp_path / "transformers", tensors, MISO)
    source = tmp_path / "model.safetensors"
    save_file(checkpoints.original_language(tensors, MISO), source)
    with pytest.raises(ModelFormatError, match="not the sizes of a known model"):
        convert(source, tmp_path / "out.gguf", mimi=whole, tokenizer=whole)
    convert(
        source,
        tmp_path / "out.gguf",
        type="f32",
        mimi=whole,
        tokenizer=whole / "tokenizer.json",
        family="miso-tts",
    )
    assert prompt_keys(tmp_path / "out.gguf") == {"csm.prompt.text": "[{speaker}] {text}"}
    csm, spoken = speech(tmp_path / "out.gguf", None, 20)
    tokenizer = Tokenizer.from_file(str(whole / "tokenizer.json"))
    bos, eos = (tokenizer.token_to_id(f"<|{m}_of_text|>") for m in ("begin", "end"))
    ids = [bos, *tokenizer.encode(f"[1] {NEW_TEXT}").ids, eos]
    assert csm.tokenize(NEW_TEXT, speaker=1) == ids
    prompt = Prompt(np.array(ids, np.int32), np.zeros((len(ids), 32), np.int32))
    wanted = Reference(whole).greedy(prompt, 20)
    np.testing.assert_array_equal(spoken, wanted.codes[: len(spoken)])
    assert len(spoken) == 20


def test_turns_of_a_model_with_voice_match(tmp_path: Path) -> None:
    """Turn by turn, in a conversation, and after a parking: what the whole prompt, anew, says."""
    settings = checkpoints.config(voice_match=True)
    source = checkpoints.write_transformers(tmp_path / "source", settings=settings)
    convert(source, tmp_path / "out.gguf", type="f32")
    csm = CSM.from_pretrained(tmp_path / "out.gguf", threads=1, device="cpu", slots=1)
    rng = np.random.default_rng(7)
    voices = [
        Voice(
            speaker=speaker,
            transcript=f"I am {speaker}.",
            codes=rng.integers(1, 32, (6, 4)).astype(np.int32),
            sample_rate=csm.sample_rate,
            frame_size=csm.frame_size,
            codec=None,
        )
        for speaker in (0, 1)
    ]
    how: dict[str, Any] = {"max_frames": 5, "voice": voices, "loop_seconds": None}
    talk = csm.conversation(seed=3, **how)
    lines = [(0, "Hello there."), (1, "Hi."), (0, "How are you?")]
    said: list[Segment] = []
    for number, (speaker, text) in enumerate(lines):
        audio = talk.say(text, speaker=speaker)
        # Somebody else takes the only slot.
        csm.generate("Me too.", max_frames=2, seed=1)
        alone = csm.generate([Turn(speaker, text)], seed=3 + number, context=[*said], **how)
        np.testing.assert_array_equal(audio.codes, alone.codes)
        assert len(audio.codes) == 5
        said.append(Segment(speaker, text, codes=audio.codes))
    engine_rows = _core.Model([str(tmp_path / "out.gguf")], device="cpu", threads=1).config
    assert engine_rows["csm.prompt.voice"] == "match"

"""Fine-tunes as they lie there: adapters, pickles, wrappers, shards, quantized ones, new tokens."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import checkpoints
import numpy as np
import pytest
from csm_ggml import CSM, ModelFormatError, ModelNotFoundError
from csm_ggml.cli import main
from csm_ggml.convert import convert
from csm_ggml.convert.pickle_file import read_pickle
from reference.checkpoint import Tensors
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from transformers import CsmForConditionalGeneration

Q = "backbone_model.layers.1.self_attn.q_proj"
HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    source = checkpoints.write_transformers(folder / "source")
    return convert(source, folder / "plain.gguf", type="f32", name="conversion").path


def converted(source: Path, folder: Path, **options: Any) -> dict[str, np.ndarray]:
    convert(source, folder / "out.gguf", type="f32", progress=False, **options)
    return checkpoints.read_values(folder / "out.gguf")


def fails(source: Path, match: str, folder: Path, **options: Any) -> None:
    with pytest.raises(ModelFormatError, match=match):
        convert(source, folder / "out.gguf", **options)
    assert not list(folder.glob("*.gguf"))


# Names


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
@pytest.mark.parametrize("form", ["transformers", "original"])
def test_wrappers_of_training(wrapper: str, form: str, plain: Path, tmp_path: Path) -> None:
    write = {
        "transformers": checkpoints.write_transformers,
        "original": checkpoints.write_original,
    }[form]
    source = write(tmp_path / "source")
    values = checkpoints.weights()
    if form == "original":
        values = checkpoints.original_language(values)
    else:
        values = {n: v for n, v in values.items() if not n.startswith("codec_model.")}
        save_file(checkpoints.mimi(checkpoints.weights()), source / "mimi.safetensors")
    save_file({wrapper + n: v for n, v in values.items()}, source / "model.safetensors")
    convert(source, tmp_path / "out.gguf", type="f32", name="conversion")
    assert checkpoints.read(tmp_path / "out.gguf") == checkpoints.read(plain)


def test_a_name_in_two_wrappings(tmp_path: Path) -> None:
    values = checkpoints.weights()
    values["module." + HEAD] = values[HEAD]
    source = checkpoints.write_transformers(tmp_path / "source", values)
    fails(source, r"'lm_head\.weight' and 'module\.lm_head\.weight' are both", tmp_path)


def test_mlx_names_keep_the_order_of_rows(plain: Path, tmp_path: Path) -> None:
    source = checkpoints.write_original(tmp_path / "source")
    save_file(checkpoints.mlx_language(checkpoints.weights()), source / "model.safetensors")
    convert(source, tmp_path / "out.gguf", type="f32", name="conversion")
    assert (tmp_path / "out.gguf").read_bytes() == plain.read_bytes()


# What cannot be read says what to do


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({f"{Q}.weight.absmax": np.ones(4, np.float32)}, "by bitsandbytes .*call model.dequantize"),
        (
            {f"{Q}.weight.quant_state.bitsandbytes__nf4": np.ones(4, np.uint8)},
            "quantized by bitsandbytes",
        ),
        ({f"{Q}.SCB": np.ones(4, np.float32)}, "quantized by bitsandbytes"),
        ({f"{Q}.qweight": np.ones((4, 4), np.int32)}, "quantized by GPTQ or AWQ"),
        (
            {f"{Q}.weight": np.ones((4, 4), np.uint32), f"{Q}.scales": np.ones((4, 1), np.float16)},
            "quantized by MLX .*use the bf16 weights",
        ),
    ],
)
def test_quantized_weights(extra: Tensors, match: str, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source", {**checkpoints.weights(), **extra})
    fails(source, match, tmp_path)


def test_files_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for start in (b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00."):
        path.write_bytes(start)
        fails(path, r"a PyTorch pickle under another name; rename it to model\.pt", tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    fails(path, "only a pointer of Git LFS", tmp_path)


# Index files


def write_index(source: Path) -> dict[str, str]:
    from safetensors import safe_open

    listed = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            listed |= dict.fromkeys(file.keys(), path.name)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return listed


def test_an_index_wins_over_what_else_lies_there(plain: Path, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source", shards=3)
    listed = write_index(source)
    strange = {name: values + 1 for name, values in checkpoints.weights().items()}
    save_file(strange, source / "model.safetensors")
    shard = source / "model-00002-of-00003.safetensors"
    more = {n: strange[n] for n, f in listed.items() if f != shard.name}
    own = {n: checkpoints.weights()[n] for n, f in listed.items() if f == shard.name}
    save_file({**more, **own}, shard)
    report = convert(source, tmp_path / "out.gguf", type="f32", name="conversion")
    assert (tmp_path / "out.gguf").read_bytes() == plain.read_bytes()
    assert any(
        "not used: model.safetensors (CSM in transformers' format)" in n for n in report.notes
    )


def test_an_index_that_does_not_fit(tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source", shards=3)
    listed = write_index(source)
    shard = source / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    match = r"index\.json: lists 'model-00002-of-00003\.safetensors', which is not there \(1 of 3"
    fails(source, match, tmp_path)
    save_file({"x": np.zeros(1, np.float32)}, shard)
    fails(source, "the index says that tensor .* is in this file, which does not have", tmp_path)
    shard.write_bytes(content)
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": [*listed]}))
    fails(source, "weight_map is .*expected tensors and their files", tmp_path)


# PyTorch's pickles


def save(values: Tensors, path: Path, nested: str | None = None) -> None:
    import torch

    state: Any = OrderedDict((name, torch.from_numpy(v)) for name, v in values.items())
    if nested is not None:
        state = {
            "step": 7,
            "args": SimpleNamespace(rate=1e-4),
            "dtype": torch.float32,
            "loss": np.float32(0.5),
            nested: state,
        }
    torch.save(state, path)


@pytest.mark.parity
@pytest.mark.parametrize("nested", [None, "model", "model_state", "state_dict"])
def test_a_pickle_is_the_same_checkpoint(nested: str | None, plain: Path, tmp_path: Path) -> None:
    source = checkpoints.write_transformers(tmp_path / "source")
    (source / "model.safetensors").unlink()
    save(checkpoints.weights(), source / "ckpt.pt", nested)
    (source / "optimizer.pt").write_bytes(b"not looked at")
    for given in (source, source / "ckpt.pt"):
        convert(given, tmp_path / "out.gguf", type="f32", name="conversion")
        assert (tmp_path / "out.gguf").read_bytes() == plain.read_bytes()


@pytest.mark.parity
def test_half_precision_parameters_and_views_in_a_pickle(tmp_path: Path) -> None:
    import torch

    values = checkpoints.weights()
    source = checkpoints.write_transformers(tmp_path / "source", values)
    wanted = converted(source, tmp_path)
    (source / "model.safetensors").unlink()
    state = {name: torch.from_numpy(v) for name, v in values.items()}
    both = torch.cat([state[HEAD].bfloat16().float(), state[HEAD]])
    state[HEAD] = both[len(values[HEAD]) :]
    state[f"{Q}.weight"] = torch.nn.Parameter(state[f"{Q}.weight"].half())
    torch.save(state, source / "pytorch_model.bin")
    found = converted(source, tmp_path)
    for name, expected in wanted.items():
        np.testing.assert_array_equal(found[name], expected)
    state[HEAD] = torch.from_numpy(np.ascontiguousarray(values[HEAD].T)).T
    torch.save(state, source / "pytorch_model.bin")
    (tmp_path / "out.gguf").unlink()
    fails(source, r"strides \[1, \d+\].*save it \.contiguous\(\)", tmp_path)


def write_pickle(path: Path, content: bytes, *, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", bytes(64))


class Calls:
    """Reading a pickle of it as usual runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_in_a_pickle_is_run(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "ckpt.pt"
    write_pickle(path, pickle.dumps({"model": {"a": Calls(mark)}}, protocol))
    fails(path, r"ckpt\.pt: the file calls posix\.system when it is read", tmp_path)
    for called in ("builtins eval", "torch load", "collections Counter\n(tR.c__builtin__\neval"):
        write_pickle(path, f"c{called.replace(' ', chr(10))}\n(S'1'\ntR.".encode())
        with pytest.raises(ModelFormatError):
            convert(path, tmp_path / "out.gguf")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the pickle is damaged"),
        (b"\x80\x02}q\x00", "the pickle is damaged"),
        (pickle.dumps({"epoch": 3}, 2), r"no tensors, which holds 'epoch'; expected names and"),
        (pickle.dumps({"model": {"a": 1}}, 2), r"no tensors under 'model', which holds 'a'"),
        (pickle.dumps([1, 2], 2), "holds no dictionary of tensors"),
        (b"\x80\x02(U\x07storageK\x01U\x010U\x03cpuK\x10tQ.", "unknown tensor data"),
    ],
)
def test_damaged_pickles(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    write_pickle(path, content)
    fails(path, match, tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    fails(path, "not a PyTorch checkpoint, truncated, damaged, or one of PyTorch", tmp_path)
    write_pickle(path, pickle.dumps({}), compression=zipfile.ZIP_DEFLATED)
    fails(path, "is compressed, expected plain", tmp_path)


@pytest.mark.parity
def test_random_damage_to_a_pickle_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    save({f"a.{n}": np.ones((3, 4), np.float32) for n in range(4)}, path, "state_dict")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(600):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 5)):
            damaged[at] = rng.choice([0, 255, damaged[at] ^ 1, int(rng.integers(256))])
        path.write_bytes(bytes(damaged[: rng.choice([len(whole), int(at)], p=[0.9, 0.1])]))
        try:
            for stored in read_pickle(path).values():
                stored.values()
        except ModelFormatError:
            refused += 1
    assert refused > 200


# LoRA


@pytest.fixture(scope="module")
def csm(tmp_path_factory: pytest.TempPathFactory) -> CsmForConditionalGeneration:
    from transformers import CsmForConditionalGeneration

    source = checkpoints.write_transformers(tmp_path_factory.mktemp("base"))
    return CsmForConditionalGeneration.from_pretrained(source)


LORAS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 16},
    "rank-stabilised": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"depth_decoder.*.q_proj": 2, "layers.1.self_attn.v_proj": 3},
        "alpha_pattern": {"k_proj": 5.0},
    },
    "saved whole": {"r": 2, "lora_alpha": 2, "modules_to_save": ["lm_head"]},
    "embedding": {"r": 2, "lora_alpha": 6, "target_modules": ["embed_text_tokens", "o_proj"]},
}


@pytest.mark.parity
@pytest.mark.parametrize("kind", LORAS)
@pytest.mark.parametrize("form", ["adapter", "inside"])
def test_adapters_are_merged_as_peft_does(
    kind: str, form: str, csm: CsmForConditionalGeneration, tmp_path: Path
) -> None:
    import copy

    import torch
    from peft import LoraConfig, get_peft_model

    settings = {"target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"], **LORAS[kind]}
    adapted = get_peft_model(copy.deepcopy(csm), LoraConfig(**settings))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, values in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                values += 0.1 * torch.randn_like(values)
    base = checkpoints.write_transformers(tmp_path / "the base")
    adapter = tmp_path / "my tune"
    adapted.save_pretrained(adapter)
    saved = json.loads((adapter / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = str(base)
    (adapter / "adapter_config.json").write_text(json.dumps(saved))
    source = adapter
    if form == "inside":
        source = checkpoints.write_transformers(tmp_path / "inside")
        (source / "model.safetensors").unlink()
        torch.save({"state_dict": adapted.state_dict()}, source / "last.ckpt")
        (adapter / "adapter_config.json").rename(source / "adapter_config.json")
    found = converted(source, tmp_path)
    name = checkpoints.read_keys(tmp_path / "out.gguf")["general.name"]
    assert name == ("inside" if form == "inside" else "the base + my tune")
    report = convert(source, tmp_path / "again.gguf", progress=False)
    assert any("LoRA adapter of" in note and "matrices changed" in note for note in report.notes)

    merged = tmp_path / "merged"
    adapted.merge_and_unload().save_pretrained(merged)
    (base / "tokenizer.json").rename(merged / "tokenizer.json")
    wanted = converted(merged, tmp_path)
    assert found.keys() == wanted.keys()
    before = checkpoints.read_values(
        convert(
            checkpoints.write_transformers(tmp_path / "before"), tmp_path / "b.gguf", type="f32"
        ).path
    )
    changed = 0
    for tensor, expected in wanted.items():
        np.testing.assert_allclose(found[tensor], expected, rtol=1e-6, atol=1e-6)
        changed += not np.array_equal(before[tensor], expected)
    assert changed >= 5


WRONG = np.ones((5, 2), np.float32)


def write_adapter(folder: Path, base: Path, **changes: Any) -> Path:
    """An adapter of one matrix, without PEFT."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    name = f"base_model.model.{Q}.lora_"
    factors = {
        f"{name}A.weight": rng.standard_normal((2, 96), np.float32),
        f"{name}B.weight": rng.standard_normal((128, 2), np.float32),
    }
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    for key, value in changes.items():
        if key == "factors":
            value(factors)
        else:
            settings[key] = value
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_an_adapter_changes_its_matrix_and_no_other(plain: Path, tmp_path: Path) -> None:
    base = checkpoints.write_transformers(tmp_path / "base")
    before = checkpoints.read_values(plain)
    found = converted(write_adapter(tmp_path / "tune", base), tmp_path)
    changed = [n for n in found if not np.array_equal(found[n], before[n])]
    assert changed == ["backbone.blk.1.attn_q.weight"]
    elsewhere = write_adapter(tmp_path / "other", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        convert(elsewhere, tmp_path / "x.gguf")
    again = converted(elsewhere, tmp_path, base=base)
    np.testing.assert_array_equal(again[changed[0]], found[changed[0]])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"peft_type": "LOHA"}, r"peft_type is 'LOHA', expected 'LORA'; merge it with PEFT's"),
        ({"use_dora": True}, "use_dora is True, expected none"),
        ({"bias": "all"}, "bias is 'all', expected 'none'"),
        ({"lora_alpha": None}, "lora_alpha is None, expected a positive number"),
        ({"r": 3}, "the rank of the change of .* is 3, but its factors have rank 2"),
        ({"base_model_name_or_path": None}, r"names no base model; pass base= \(--base\)"),
        (
            {"factors": lambda f: f.pop(f"base_model.model.{Q}.lora_B.weight")},
            "lacks one of its two factors",
        ),
        (
            {
                "factors": lambda f: f.update(
                    {f"base_model.model.{Q}.lora_B.weight": np.ones((5, 2))}
                )
            },
            r"is made of \[5, 2\] and \[2, 96\], expected factors of \[128, 96\]",
        ),
        (
            {"factors": lambda f: f.update({"base_model.model.other.weight": np.ones((5, 2))})},
            "holds 'base_model.model.other.weight', which the model does not have",
        ),
    ],
)
def test_adapters_that_cannot_be_merged(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    base = checkpoints.write_transformers(tmp_path / "base")
    fails(write_adapter(tmp_path / "tune", base, **changes), match, tmp_path)


def test_an_adapter_of_another_format_or_without_settings(tmp_path: Path) -> None:
    base = checkpoints.write_original(tmp_path / "base")
    adapter = write_adapter(tmp_path / "tune", base)
    fails(adapter, "which the model does not have: is it an adapter of another model", tmp_path)
    (adapter / "adapter_config.json").unlink()
    fails(adapter, r"adapter_config\.json: missing; PEFT writes it", tmp_path)
    whole = checkpoints.weights()
    whole[f"{Q}.lora_A.default.weight"] = np.ones((2, 96), np.float32)
    whole[f"{Q}.lora_B.default.weight"] = np.ones((128, 2), np.float32)
    whole[f"{Q}.base_layer.weight"] = whole.pop(f"{Q}.weight")
    source = checkpoints.write_transformers(tmp_path / "inside", whole)
    fails(source, "holds LoRA factors that were not merged", tmp_path)


# The hub


class FakeHub:
    """Repositories that are folders, in a cache whose names say nothing."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self.asked: list[tuple[str, list[str]]] = []

    def model_info(self, repository: str, **_: Any) -> Any:
        files = [SimpleNamespace(rfilename=p.name) for p in self.folders[repository].iterdir()]
        return SimpleNamespace(siblings=files)

    def snapshot_download(self, repository: str, *, allow_patterns: list[str], **_: Any) -> str:
        self.asked.append((repository, allow_patterns))
        cached = self.folders[repository].parent / f"cache-{len(self.asked)}"
        cached.symlink_to(self.folders[repository])
        return str(cached)


def test_repositories_are_fetched_as_far_as_needed(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = checkpoints.write_transformers(tmp_path / "both", shards=2)
    write_index(both)
    save_file({HEAD: np.zeros((1, 1), np.float32)}, both / "model.safetensors")
    (empty := tmp_path / "empty").mkdir()
    hub = FakeHub(
        {
            "me/both": both,
            "me/tune": write_adapter(tmp_path / "tune", Path("me/both")),
            "me/empty": empty,
        }
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: hub)
    code = main(["convert", "me/both", "-o", str(tmp_path / "out.gguf"), "--type", "f32"])
    assert code == 0
    assert checkpoints.read(tmp_path / "out.gguf") == checkpoints.read(plain)
    assert checkpoints.read_keys(tmp_path / "out.gguf")["general.name"] == "both"
    wanted = [p for _, patterns in hub.asked for p in patterns]
    assert "model.safetensors" not in wanted
    assert "model-00001-of-00002.safetensors" in wanted
    convert("me/tune", tmp_path / "out.gguf")
    assert checkpoints.read_keys(tmp_path / "out.gguf")["general.name"] == "both + tune"
    with pytest.raises(ModelFormatError, match="no CSM checkpoint"):
        convert("me/empty", tmp_path / "out.gguf")
    capsys.readouterr()


def test_names_that_are_neither_paths_nor_repositories(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        convert("nothing-here", tmp_path / "out.gguf")
    with pytest.raises(ModelNotFoundError, match="me/nothing: no such file or folder here"):
        convert("me/nothing", tmp_path / "out.gguf", local_files_only=True)


# Tokens


def with_tokens(folder: Path, *texts: str, special: bool = False, **flags: bool) -> Path:
    """A checkpoint with tokens, and rows of its table, that a fine-tune added."""
    from tokenizers import AddedToken, Tokenizer

    settings = checkpoints.config(text_vocab_size=checkpoints.TEXT_VOCAB + len(texts))
    source = checkpoints.write_transformers(folder, settings=settings)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokens = [AddedToken(text, special=special, normalized=False, **flags) for text in texts]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(tokens)
    tokenizer.save(str(source / "tokenizer.json"))
    return source


@pytest.mark.parametrize("special", [False, True])
def test_added_tokens_are_matched_whole(
    special: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = with_tokens(tmp_path / "source", "<laugh>", "[sigh]", special=special)
    convert(source, tmp_path / "out.gguf")
    csm = CSM.from_pretrained(tmp_path / "out.gguf", threads=1, device="cpu")
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(source / "tokenizer.json"))
    text = "Oh<laugh> no [sigh]<laugh>, <laughs>."
    ids = csm.tokenize(text)[1:-1]
    assert ids == theirs.encode(f"[0]{text}", add_special_tokens=False).ids
    assert ids.count(theirs.token_to_id("<laugh>")) == 2
    assert csm.model.tokenizer.added == ("<laugh>", "[sigh]")
    # numbers become words, tokens stay what they are
    request = csm._resolver.request("<b>3</b> <laugh> [sigh]", 1, {"normalize": "en"})
    assert [turn.text for turn in request.turns] == ["Three <laugh> [sigh]"]
    # a mark stays a mark: what a user writes never ends a segment
    end = theirs.token_to_id("<|end_of_text|>")
    assert end not in csm.tokenize("a <|end_of_text|> b")[1:-1]
    main(["info", str(tmp_path / "out.gguf")])
    shown = capsys.readouterr().out
    assert "Tokens that a fine-tune added (2), each matched whole\n  <laugh>\n  [sigh]" in shown
    main(["info", "--json", str(tmp_path / "out.gguf")])
    assert json.loads(capsys.readouterr().out)[0]["added_tokens"] == ["<laugh>", "[sigh]"]


def test_tokens_that_would_be_matched_otherwise_are_refused(tmp_path: Path) -> None:
    source = with_tokens(tmp_path / "source", "<laugh>", lstrip=True)
    fails(source, "the added token '<laugh>' has lstrip set", tmp_path)

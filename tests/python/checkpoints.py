"""One small checkpoint in every form that conversion reads, all with the same weights.

The weights come from a recipe in transformers' naming; the other forms are derived from them here
by the published descriptions of those formats, not by the converter's own tables. Every value is a
half-precision number, so that forms that store some tensors as F16 lose nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from reference.checkpoint import Tensors, draw_tensors, write_tokenizer
from reference.recipes import LLAMA3_BACKBONE, LLAMA3_DEPTH, TEXT_VOCAB, Recipe
from safetensors.numpy import save_file

CODEBOOKS, CODES, AUDIO_VOCAB = 4, 32, 35

CONFIG: dict[str, Any] = {
    "model_type": "csm",
    "architectures": ["CsmForConditionalGeneration"],
    "num_codebooks": CODEBOOKS,
    "vocab_size": AUDIO_VOCAB,
    "text_vocab_size": TEXT_VOCAB,
    "max_position_embeddings": 2048,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "intermediate_size": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": LLAMA3_BACKBONE,
    "tie_codebooks_embeddings": True,
    "depth_decoder_config": {
        "num_codebooks": CODEBOOKS,
        "vocab_size": AUDIO_VOCAB,
        "backbone_hidden_size": 96,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "intermediate_size": 96,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_DEPTH,
    },
    "codec_config": {
        "model_type": "mimi",
        "hidden_size": 64,
        "num_filters": 4,
        "upsampling_ratios": [4, 3, 2],
        "kernel_size": 5,
        "last_kernel_size": 5,
        "residual_kernel_size": 3,
        "num_residual_layers": 2,
        "compress": 4,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 96,
        "codebook_size": CODES,
        "codebook_dim": 16,
        "vector_quantization_hidden_dimension": 16,
        "num_quantizers": CODEBOOKS,
        "num_semantic_quantizers": 1,
        "upsample_groups": 64,
        "sliding_window": 250,
    },
}
"""Head widths and everything else that some forms do not carry are those of csm-1b and Mimi."""


def config(**changes: Any) -> dict[str, Any]:
    """A copy of the configuration; `depth_` and `codec_` prefixes change the nested ones."""
    copy: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        if key.startswith("codec_") and key != "codec_config":
            copy["codec_config"][key.removeprefix("codec_")] = value
        elif key.startswith("depth_") and key != "depth_decoder_config":
            copy["depth_decoder_config"][key.removeprefix("depth_")] = value
        else:
            copy[key] = value
    return copy


def weights(settings: dict[str, Any] | None = None) -> Tensors:
    """The checkpoint's tensors under transformers' flat names."""
    drawn = draw_tensors(Recipe("conversion", seed=5, config=settings or CONFIG))
    return {name: half(values) for name, values in drawn.items()}


def half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


def interleave(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of q or k from half-split to neighbouring pairs, one row after the other."""
    width = len(values) // heads
    result = np.empty_like(values)
    for head in range(heads):
        for pair in range(width // 2):
            first = head * width + pair
            result[head * width + 2 * pair] = values[first]
            result[head * width + 2 * pair + 1] = values[first + width // 2]
    return result


def write_transformers(
    folder: Path,
    tensors: Tensors | None = None,
    settings: dict[str, Any] | None = None,
    *,
    shards: int = 1,
    nested: bool = False,
    prefix: str = "model",
) -> Path:
    """A folder as save_pretrained leaves it; nested: with the module names of newer releases."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = weights(settings) if tensors is None else tensors
    if nested:
        tensors = {nested_name(name): values for name, values in tensors.items()}
    names = list(tensors)
    for n in range(shards):
        part = {name: tensors[name] for name in names[n::shards]}
        label = f"{prefix}-{n + 1:05}-of-{shards:05}" if shards > 1 else prefix
        save_file(part, folder / f"{label}.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings or CONFIG))
    write_tokenizer(folder / "tokenizer.json")
    return folder


def nested_name(name: str) -> str:
    name = re.sub(
        r"^codec_model\.(encoder|decoder)\.layers", r"codec_model.\1.\1_seanet.layers", name
    )
    name = re.sub(r"^codec_model\.((en|de)coder)_", r"codec_model.\1.\1_", name)
    name = name.replace("codec_model.downsample", "codec_model.encoder.downsample")
    return name.replace("codec_model.upsample", "codec_model.decoder.upsample")


def original_language(tensors: Tensors, of: dict[str, Any] | None = None) -> Tensors:
    """The language models in the names and layouts of the original release.

    Args:
        tensors: In transformers' names.
        of: Their configuration; `CONFIG` if left out.
    """
    of = of or CONFIG
    renamed = {
        "embed_text_tokens.weight": "text_embeddings.weight",
        "backbone_model.embed_tokens.embed_audio_tokens.weight": "audio_embeddings.weight",
        "lm_head.weight": "codebook0_head.weight",
        "depth_decoder.model.inputs_embeds_projector.weight": "projection.weight",
        "depth_decoder.codebooks_head.weight": "audio_head",
        "backbone_model.norm.weight": "backbone.norm.scale",
        "depth_decoder.model.norm.weight": "decoder.norm.scale",
    }
    block = {
        "self_attn.q_proj.weight": "attn.q_proj.weight",
        "self_attn.k_proj.weight": "attn.k_proj.weight",
        "self_attn.v_proj.weight": "attn.v_proj.weight",
        "self_attn.o_proj.weight": "attn.output_proj.weight",
        "mlp.gate_proj.weight": "mlp.w1.weight",
        "mlp.up_proj.weight": "mlp.w3.weight",
        "mlp.down_proj.weight": "mlp.w2.weight",
        "input_layernorm.weight": "sa_norm.scale",
        "post_attention_layernorm.weight": "mlp_norm.scale",
    }
    result = {}
    for name, values in tensors.items():
        if name in renamed:
            result[renamed[name]] = values
        match = re.fullmatch(r"(backbone|depth_decoder\.)_?model\.(layers\.\d+)\.(.+)", name)
        if match:
            part, layer, rest = match.groups()
            settings = of if part == "backbone" else of["depth_decoder_config"]
            if "q_proj" in rest or "k_proj" in rest:
                values = interleave(values, _heads(settings, rest))
            side = "backbone" if part == "backbone" else "decoder"
            result[f"{side}.{layer}.{block[rest]}"] = values
    return result


def _heads(settings: dict[str, Any], name: str) -> int:
    return int(settings["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])


MLX_BLOCK = {
    "attn.q_proj.weight": "self_attn.q_proj.weight",
    "attn.k_proj.weight": "self_attn.k_proj.weight",
    "attn.v_proj.weight": "self_attn.v_proj.weight",
    "attn.output_proj.weight": "self_attn.o_proj.weight",
    "mlp.w1.weight": "mlp.gate_proj.weight",
    "mlp.w2.weight": "mlp.down_proj.weight",
    "mlp.w3.weight": "mlp.up_proj.weight",
    "sa_norm.scale": "input_layernorm.weight",
    "mlp_norm.scale": "post_attention_layernorm.weight",
    "norm.scale": "norm.weight",
}


def mlx_language(tensors: Tensors, of: dict[str, Any] | None = None) -> Tensors:
    """The language models as mlx-audio saves them: its names, rows of q and k as first released."""
    result = {}
    for name, values in original_language(tensors, of).items():
        theirs, block = name, re.fullmatch(r"(?:backbone|decoder)\.(?:layers\.\d+\.)?(.+)", name)
        if block:
            theirs = name.removesuffix(block[1]) + MLX_BLOCK[block[1]]
        result[f"model.{theirs}"] = values
    return result


def mimi(tensors: Tensors) -> Tensors:
    """The codec alone, in transformers' flat names."""
    prefix = "codec_model."
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def kyutai_mimi(tensors: Tensors) -> Tensors:
    """The codec in Kyutai's names: q, k and v in one matrix, rotary pairs neighbouring."""
    codec = mimi(tensors)
    stages = len(CONFIG["codec_config"]["upsampling_ratios"])
    step = 2 + CONFIG["codec_config"]["num_residual_layers"]
    transposed = {f"decoder.layers.{2 + n * step}" for n in range(stages)}
    result = {}
    for name, values in codec.items():
        block = re.fullmatch(r"(\w+_transformer)\.layers\.(\d+)\.(.+)", name)
        quantizer = re.fullmatch(r"quantizer\.(\w+)_residual_vector_quantizer\.(.+)", name)
        if block:
            part, layer, rest = block.groups()
            base = f"{part}.transformer.layers.{layer}."
            if rest == "self_attn.q_proj.weight":
                parts = [codec[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
                parts[0], parts[1] = interleave(parts[0], 2), interleave(parts[1], 2)
                result[base + "self_attn.in_proj_weight"] = np.concatenate(parts)
            for theirs, ours in (
                ("self_attn.o_proj", "self_attn.out_proj"),
                ("mlp.fc1", "linear1"),
                ("mlp.fc2", "linear2"),
                ("input_layernorm", "norm1"),
                ("post_attention_layernorm", "norm2"),
                ("self_attn_layer_scale", "layer_scale_1"),
                ("mlp_layer_scale", "layer_scale_2"),
            ):
                if rest.startswith(theirs + "."):
                    result[base + rest.replace(theirs, ours)] = values
        elif quantizer:
            part, rest = quantizer.groups()
            base = "quantizer." + {"semantic": "rvq_first", "acoustic": "rvq_rest"}[part]
            rest = rest.replace("codebook.embed_sum", "_codebook.embedding_sum")
            rest = rest.replace("codebook.cluster_usage", "_codebook.cluster_usage")
            rest = rest.replace("codebook.initialized", "_codebook._initialized")
            result[f"{base}.vq.{rest}" if rest.startswith("layers") else f"{base}.{rest}"] = values
        elif name == "downsample.conv.weight":
            result["downsample.conv.conv.conv.weight"] = values
        elif name == "upsample.conv.weight":
            result["upsample.convtr.convtr.convtr.weight"] = values
        else:
            path, kind = name.rsplit(".conv.", 1)
            inner = "convtr.convtr" if path in transposed else "conv.conv"
            result[f"{path.replace('.layers.', '.model.')}.{inner}.{kind}"] = values
    return result


def write_original(folder: Path, tensors: Tensors | None = None) -> Path:
    """The original release with Kyutai's codec file and a tokenizer in one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = weights() if tensors is None else tensors
    save_file(original_language(tensors), folder / "model.safetensors")
    save_file(kyutai_mimi(tensors), folder / "tokenizer-e351c8d8-checkpoint125.safetensors")
    sizes = {key: value for key, value in CONFIG.items() if key != "codec_config"}
    (folder / "config.json").write_text(json.dumps(sizes))
    write_tokenizer(folder / "tokenizer.json")
    return folder


def write_llama_csm(
    folder: Path, tensors: Tensors | None = None, *, pages: int = 2, mimi_q8_0: str = ""
) -> Path:
    """The three files of llama.cpp pull request 12648.

    Args:
        folder: Where to.
        tensors: Of the checkpoint.
        pages: How many empty head pages.
        mimi_q8_0: The codec's tensors with this in their name are written as Q8_0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = weights() if tensors is None else tensors
    original = original_language(tensors)
    write_tokenizer(folder / "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    for side, settings in (("backbone", CONFIG), ("decoder", CONFIG["depth_decoder_config"])):
        writer = gguf.GGUFWriter(folder / f"sesame-csm-{side}.gguf", "llama-csm")
        _llama_keys(writer, settings, content)
        if side == "backbone":
            _add(writer, "token_embd.weight", original["text_embeddings.weight"])
            _add(writer, "codebook0_head.weight", original["codebook0_head.weight"])
        else:
            _add(writer, "audio_embd.weight", original["audio_embeddings.weight"])
            heads = original["audio_head"].transpose(0, 2, 1)
            empty = np.zeros_like(heads[:1])
            _add(writer, "audio_head.weight", np.concatenate([empty, heads, empty][: pages + 1]))
        _add(writer, "csm_proj.weight", original["projection.weight"])
        for name, values in original.items():
            if name.startswith(f"{side}."):
                _add(writer, _llama_name(name.removeprefix(f"{side}.")), values)
        _finish(writer)
    writer = gguf.GGUFWriter(folder / "kyutai-mimi.gguf", "this model cannot be used as LLM")
    for name, values in _llama_mimi(tensors).items():
        if mimi_q8_0 and mimi_q8_0 in name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            _add(writer, name, values)
    _finish(writer)
    return folder


def _llama_keys(writer: gguf.GGUFWriter, settings: dict[str, Any], content: dict[str, Any]) -> None:
    writer.add_block_count(settings["num_hidden_layers"])
    writer.add_context_length(2048)
    writer.add_embedding_length(settings["hidden_size"])
    writer.add_feed_forward_length(settings["intermediate_size"])
    writer.add_head_count(settings["num_attention_heads"])
    writer.add_head_count_kv(settings["num_key_value_heads"])
    writer.add_key_length(settings["head_dim"])
    writer.add_value_length(settings["head_dim"])
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    special = {entry["content"] for entry in content["added_tokens"]}
    ids = content["model"]["vocab"] | {e["content"]: e["id"] for e in content["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    merges = content["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(ids["<|begin_of_text|>"])
    writer.add_eos_token_id(ids["<|end_of_text|>"])


def _llama_name(name: str) -> str:
    if name == "norm.scale":
        return "output_norm.weight"
    block = {
        "attn.q_proj.weight": "attn_q",
        "attn.k_proj.weight": "attn_k",
        "attn.v_proj.weight": "attn_v",
        "attn.output_proj.weight": "attn_output",
        "mlp.w1.weight": "ffn_gate",
        "mlp.w2.weight": "ffn_down",
        "mlp.w3.weight": "ffn_up",
        "sa_norm.scale": "attn_norm",
        "mlp_norm.scale": "ffn_norm",
    }
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{block[rest]}.weight"


def _llama_mimi(tensors: Tensors) -> Tensors:
    result = {}
    codec = mimi(tensors)
    for name, values in codec.items():
        if name.endswith(("cluster_usage", "initialized")):
            continue
        if name.endswith("embed_sum"):
            usage = codec[name.replace("embed_sum", "cluster_usage")]
            values = values / np.maximum(usage, np.float32(1e-5))[:, None]
        elif "q_proj" in name or "k_proj" in name:
            values = interleave(values, 2)
        elif name.endswith("conv.bias"):
            values = values[:, None]
        elif "put_proj" in name:
            values = values[:, :, 0]
        name = name.replace("_residual_vector_quantizer", "_rvq").replace(".embed_sum", "")
        result[name] = values
    return result


def _add(writer: gguf.GGUFWriter, name: str, values: NDArray[np.float32]) -> None:
    small = values.ndim == 1 or "codebook." in name or name.endswith((".bias", ".codebook"))
    values = np.ascontiguousarray(values)
    writer.add_tensor(name, values if small else values.astype(np.float16))


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Tensors of a GGUF file: ggml type, shape in numpy order, bytes."""
    reader = gguf.GGUFReader(path)
    return {
        t.name: (t.tensor_type.name.lower(), tuple(map(int, t.shape[::-1])), t.data.tobytes())
        for t in reader.tensors
    }


def read_values(path: Path) -> Tensors:
    """Tensors of a GGUF file as float32."""
    return {
        t.name: gguf.dequantize(t.data, t.tensor_type).reshape(tuple(map(int, t.shape[::-1])))
        for t in gguf.GGUFReader(path).tensors
    }


def read_keys(path: Path) -> dict[str, Any]:
    """Keys of a GGUF file, without the reader's own."""
    fields = gguf.GGUFReader(path).fields
    return {k: f.contents() for k, f in fields.items() if not k.startswith("GGUF.")}

"""Stage 7, export: one transformers-format folder from the trained parts.

    python export.py --work-dir DIR --output DIR/export

The folder holds config.json, model.safetensors, tokenizer.json, generation_config.json and the
processor's files, and is what `csm-ggml convert` reads. A missing encoder.pt leaves Mimi's
encoder random: speaking works, reference audio does not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import CsmForConditionalGeneration, MimiModel

import gguf_codec
from decoder import Vocoder
from features import Quantizer
from lm_model import export_names
from models import CODES, csm_config, mimi_config, set_codebooks
from tokenizer import SPECIALS, build_tokenizer, special_ids

SAMPLING = {"temperature": 0.2, "top_k": 20}
DEPTH_SAMPLING = {"temperature": 0.3, "top_k": 20}
MAX_FRAMES = 250

CHAT_TEMPLATE = (
    "{%- for message in messages %}{{ '<|begin_of_text|>' }}{{ '[' + message['role'] + ']' }}"
    "{%- for content in message['content'] %}"
    "{%- if content['type'] == 'text' %}{{ content['text'] + '<|end_of_text|>' }}"
    "{%- elif content['type'] == 'audio' %}{{ '<|AUDIO|><|audio_eos|>' }}{%- endif %}"
    "{%- endfor %}{%- endfor %}"
)


def load_codec(work_dir: Path) -> MimiModel:
    """Mimi with the averaged decoder and, where there is one, the averaged encoder."""
    mimi = MimiModel(mimi_config())
    quantizer = Quantizer.load(work_dir)
    set_codebooks(mimi, quantizer)
    state = torch.load(work_dir / "decoder.pt", weights_only=False)
    Vocoder(mimi).load_state_dict(state["average"])
    encoder = work_dir / "encoder.pt"
    if encoder.exists():
        from encoder import Listener

        learned = torch.load(encoder, weights_only=False)["average"]
        Listener(mimi).load_state_dict(learned)
    set_codebooks(mimi, quantizer)
    return mimi.eval()


def load_model(work_dir: Path, codec: Path | None = None) -> CsmForConditionalGeneration:
    """The whole model in transformers' class, in evaluation mode.

    Args:
        work_dir: of the trained parts.
        codec: a GGUF whose codec is taken instead of a trained one.
    """
    tokenizer = build_tokenizer()
    config = csm_config(tokenizer.get_vocab_size(), special_ids(tokenizer))
    model = CsmForConditionalGeneration(config)
    weights = export_names(torch.load(work_dir / "lm.pt", weights_only=False)["average"])
    result = model.load_state_dict(weights, strict=False)
    left = [k for k in result.missing_keys if not k.startswith("codec_model.")]
    left = [k for k in left if "audio_tokens_offsets" not in k]
    if left or result.unexpected_keys:
        raise SystemExit(f"names differ: missing {left}, unexpected {result.unexpected_keys}")
    mimi = gguf_codec.load_codec(codec) if codec else load_codec(work_dir)
    model.codec_model.load_state_dict(mimi.state_dict())
    return model.eval()


def save(model: CsmForConditionalGeneration, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    ids = special_ids(tokenizer)
    generation = {
        "bos_token_id": ids["bos"],
        "pad_token_id": ids["audio"],
        "do_sample": True,
        **SAMPLING,
        "max_new_tokens": MAX_FRAMES,
        "depth_decoder_do_sample": True,
        **{f"depth_decoder_{k}": v for k, v in DEPTH_SAMPLING.items()},
    }
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "generation_config.json": generation,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIALS["bos"],
            "eos_token": SPECIALS["eos"],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "chat_template": CHAT_TEMPLATE,
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "sampling_rate": 24_000,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
        },
        "processor_config.json": {"processor_class": "CsmProcessor"},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--codec", type=Path, help="a GGUF whose codec is taken")
    args = parser.parse_args()
    model = load_model(args.work_dir, args.codec)
    save(model, args.output)
    total = sum(p.numel() for p in model.parameters())
    print(f"{total / 1e6:.2f} M parameters, {CODES} codes, in {args.output}")


if __name__ == "__main__":
    main()

"""`csm-ggml convert`: a published checkpoint to one GGUF file."""

from __future__ import annotations

import argparse
from typing import Any

from csm_ggml.cli.common import Subparsers, check_output, local_paths
from csm_ggml.cli.parser import checked, option
from csm_ggml.cli.weights import add_type_arguments, check_types, tell_report


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "convert",
        help="make a .gguf file of a checkpoint",
        description="Convert a CSM checkpoint into one .gguf file. Its tensors tell what it is: "
        "the original release, a transformers folder, or the files of a llama.cpp conversion.",
    )
    parser.add_argument(
        "source",
        nargs="+",
        help="a folder, a .safetensors or .pt file, a repository of the Hugging Face hub, or the "
        ".gguf files of a llama.cpp conversion",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the .gguf file to write"
    )
    add_type_arguments(parser, default="f16")
    parser.add_argument(
        "--mimi",
        metavar="PATH",
        help="the codec's file, folder or repository, Kyutai's or transformers' naming, if the "
        "source has none",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="tokenizer.json, its folder or repository, if the source has none",
    )
    parser.add_argument(
        "--base",
        metavar="PATH",
        help="the model that an adapter was trained on, if it does not name it",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the model's name for people (default: the source's)"
    )
    parser.add_argument(
        "--family",
        type=checked(_family),
        metavar="NAME",
        help="csm-1b, miso-tts or marvis-250m: whose head widths, RoPE and prompts a checkpoint "
        "has that does not tell them and has other sizes",
    )
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of the source's repository"
    )
    parser.add_argument("--local-files-only", action="store_true", help="never use the network")
    parser.add_argument(
        "--piece-characters",
        type=option("piece_characters"),
        metavar="N",
        help="into how long pieces long texts are cut for this model (default: 200)",
    )
    parser.set_defaults(run=run)


def _family(name: str) -> str:
    from csm_ggml.convert import FAMILIES

    if name not in FAMILIES:
        raise ValueError(f"there is no family {name!r}, expected one of {', '.join(FAMILIES)}")
    return name


def run(args: argparse.Namespace) -> None:
    """Convert."""
    check_types(args)
    check_output(args.output, "model", inputs=[*args.source, args.mimi, args.tokenizer])
    from csm_ggml.convert import FAMILIES, convert
    from csm_ggml.loading.aliases import ALIASES

    sources = [path for name in args.source for path in local_paths(name)]
    alias = ALIASES.get(args.source[0]) if len(args.source) == 1 else None
    if alias is not None and alias.repository is not None and not alias.files:
        sources = [alias.repository]
        args.mimi = args.mimi or alias.mimi
        args.tokenizer = args.tokenizer or alias.tokenizer
        args.family = args.family or (alias.name if alias.name in FAMILIES else None)
        args.name = args.name or alias.name
    report = convert(
        sources[0] if len(sources) == 1 else sources,
        args.output,
        type=args.type,
        preset=args.preset,
        mimi=args.mimi,
        tokenizer=args.tokenizer,
        depth_type=args.depth_type,
        codec_type=args.codec_type,
        name=args.name,
        family=args.family,
        base=args.base,
        revision=args.revision,
        local_files_only=args.local_files_only,
        piece_characters=args.piece_characters,
    )
    tell_report(report)

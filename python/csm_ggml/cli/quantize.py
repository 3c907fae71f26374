"""`csm-ggml quantize`: the same model in another number format."""

from __future__ import annotations

import argparse
from typing import Any

from csm_ggml.cli.common import Subparsers, UsageError, check_output, local_paths
from csm_ggml.cli.weights import add_type_arguments, check_types, tell_report


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "quantize",
        help="write a model in another number format",
        description="Rewrite a .gguf file with other number formats; start from the finest.",
    )
    parser.add_argument("source", help="the .gguf file to read, or demo")
    parser.add_argument("output", help="the .gguf file to write")
    add_type_arguments(parser, default=None)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Quantize."""
    check_types(args)
    check_output(args.output, "model", inputs=[args.source])
    from csm_ggml.convert import quantize_file

    sources = local_paths(args.source)
    if len(sources) > 1:
        raise UsageError(
            f"{args.source} is three files of llama.cpp's layout: `csm-ggml convert {args.source} "
            "-o FILE` makes one of them, in any number format"
        )
    report = quantize_file(
        sources[0],
        args.output,
        args.type,
        args.depth_type,
        preset=args.preset,
        codec_type=args.codec_type,
    )
    tell_report(report)

"""`csm-ggml encode`: an audio file to Mimi codes."""

from __future__ import annotations

import argparse
from typing import Any

from csm_ggml.cli.common import (
    Subparsers,
    add_model_arguments,
    check_output,
    load_model,
    tell,
)


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "encode",
        help="audio to codes",
        description="Encode an audio file to Mimi codes; channels are averaged, rates converted.",
    )
    parser.add_argument("audio", help="any audio file")
    parser.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="text with one frame a line, or a .npy array (default: text to standard output)",
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Encode."""
    from csm_ggml.cli.codes_file import write_codes

    if args.output != "-":
        check_output(args.output, "codes", "text", inputs=[args.audio, args.model])
    csm = load_model(args, quiet=True)
    codes = csm.encode(args.audio)
    write_codes(args.output, codes)
    tell(f"{args.audio}: {len(codes)} frames of {codes.shape[1]} codes")

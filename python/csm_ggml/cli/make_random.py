"""`csm-ggml make-random`: a checkpoint of random weights, for tests and benchmarks."""

from __future__ import annotations

import argparse
from typing import Any

from csm_ggml.cli.common import Subparsers, check_output
from csm_ggml.cli.parser import checked, option
from csm_ggml.cli.weights import add_type_arguments, tell_report


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "make-random",
        help="make a checkpoint of random weights",
        description="Write a checkpoint of random weights; it makes noise, as fast as a real one.",
    )
    parser.add_argument(
        "--preset",
        type=checked(_preset),
        default="tiny",
        metavar="NAME",
        help="tiny or csm-1b, for the sizes (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the .gguf file to write"
    )
    add_type_arguments(parser, default="f32", presets=False)
    parser.add_argument(
        "--seed",
        type=option("seed"),
        metavar="N",
        default=0,
        help="the same seed makes the same file (default: %(default)s)",
    )
    parser.add_argument(
        "--piece-characters",
        type=option("piece_characters"),
        metavar="N",
        help="into how long pieces long texts are cut for it (default: 200)",
    )
    parser.set_defaults(run=run)


def _preset(name: str) -> str:
    from csm_ggml.convert import PRESETS

    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}, expected one of {', '.join(PRESETS)}")
    return name


def run(args: argparse.Namespace) -> None:
    """Make it."""
    check_output(args.output, "model")
    from csm_ggml.convert import make_random

    report = make_random(
        args.output,
        preset=args.preset,
        type=args.type,
        depth_type=args.depth_type,
        codec_type=args.codec_type,
        seed=args.seed,
        piece_characters=args.piece_characters,
    )
    tell_report(report)

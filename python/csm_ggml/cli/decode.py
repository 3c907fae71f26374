"""`csm-ggml decode`: Mimi codes to an audio file."""

from __future__ import annotations

import argparse
import io
from typing import Any

from csm_ggml.cli.common import (
    Subparsers,
    add_model_arguments,
    add_samples_argument,
    binary_stdout,
    check_audio_output,
    load_model,
    tell,
    write_stdout,
)


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "decode",
        help="codes to audio",
        description="Decode Mimi codes to an audio file.",
    )
    parser.add_argument(
        "codes", help="text with one frame a line, or a .npy array; '-' is standard input"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="audio file: .wav, .flac, .ogg, .mp3 or .opus; '-' writes WAV to standard output",
    )
    add_samples_argument(parser)
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Decode."""
    from csm_ggml.audio.audio import SUBTYPES, output_format, save_samples
    from csm_ggml.cli.codes_file import read_codes

    if args.output == "-":
        binary_stdout()
    else:
        check_audio_output(args.output, inputs=[args.codes, args.model], samples=args.bits)
    codes = read_codes(args.codes)
    csm = load_model(args, quiet=True)
    samples = csm.decode(codes)
    if args.output == "-":
        buffer = io.BytesIO()
        save_samples(buffer, samples, csm.sample_rate, format="WAV", subtype=SUBTYPES[args.bits])
        write_stdout(buffer.getvalue())
    else:
        format, subtype = output_format(args.output, args.bits)
        save_samples(args.output, samples, csm.sample_rate, format=format, subtype=subtype)
    tell(f"{args.output}: {len(samples) / csm.sample_rate:.2f} s from {len(codes)} frames")

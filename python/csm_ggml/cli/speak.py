"""`csm-ggml speak`: text to an audio file."""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_ggml.cli.common import (
    Subparsers,
    UsageError,
    add_model_arguments,
    binary_stdout,
    check_output_folder,
    load_model,
    positive,
    tell,
)

if TYPE_CHECKING:
    from csm_ggml.audio import Audio
    from csm_ggml.model import CSM

DEFAULT_OUTPUT = "speech.wav"

_OPTIONS = (
    "temperature",
    "top_k",
    "top_p",
    "depth_temperature",
    "depth_top_k",
    "depth_top_p",
    "max_seconds",
    "max_frames",
    "speaker",
)


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "speak",
        help="say a text",
        description="Say a text with speaker tags, such as '[0]Hello. [1]Hi!'.",
        epilog="A file, and standard input, hold one turn a line; a line without a tag is said by "
        "the speaker of the line before.",
    )
    parser.add_argument(
        "text", nargs="*", help="what to say; standard input if neither this nor -f is given"
    )
    parser.add_argument(
        "-f", "--file", help="read what to say from a text file, one turn a line ('-': stdin)"
    )
    parser.add_argument(
        "-o",
        "--output",
        default=DEFAULT_OUTPUT,
        help="audio file: .wav, .flac or .ogg; '-' writes WAV to standard output "
        "(default: %(default)s)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages, no progress bar")
    add_model_arguments(parser)
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--seed", type=int, help="the same seed gives the same speech (default: drawn)"
    )
    group.add_argument("--speaker", type=int, help="who says text without a tag (default: 0)")
    group.add_argument(
        "--max-seconds",
        type=float,
        help="cut a turn after this much speech (default: by the length of its text, at most 90)",
    )
    group.add_argument("--max-frames", type=positive, help="the same limit in frames of 80 ms")
    group.add_argument(
        "--temperature",
        type=float,
        help="0 picks the likeliest codes (default: the model's, else 0.9)",
    )
    group.add_argument("--top-k", type=int, help="0 for all codes (default: the model's, else 50)")
    group.add_argument("--top-p", type=float, help="1 for all codes (default: the model's, else 1)")
    group.add_argument(
        "--depth-temperature",
        type=float,
        help="of the depth decoder (default: 0 if --temperature is 0, else the model's, else 0.9)",
    )
    group.add_argument("--depth-top-k", type=int, help="of the depth decoder")
    group.add_argument("--depth-top-p", type=float, help="of the depth decoder")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Speak, save, and say in one line what came of it."""
    from csm_ggml.audio import output_format

    to_stdout = args.output == "-"
    if to_stdout:
        binary_stdout()
    else:
        output_format(args.output)
        check_output_folder(args.output)
    text = _text(args)
    csm = load_model(args, quiet=args.quiet)
    options = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    audio = _speak(csm, text, args.seed, options, quiet=args.quiet)
    if to_stdout:
        buffer = io.BytesIO()
        audio.save(buffer, format="WAV")
        sys.stdout.buffer.write(buffer.getvalue())
    else:
        audio.save(args.output)
    if not args.quiet:
        tell(_summary("standard output" if to_stdout else args.output, audio))


def _text(args: argparse.Namespace) -> str:
    """What to say, tagged."""
    from csm_ggml.text import parse_lines

    if args.text and args.file is not None:
        raise UsageError("give the text or -f FILE, not both")
    if args.text and args.text != ["-"]:
        return " ".join(args.text)
    if args.file is not None and args.file != "-":
        where, data = args.file, Path(args.file).read_bytes()
    elif sys.stdin is None or (sys.stdin.isatty() and not args.text and args.file is None):
        raise UsageError('nothing to say: give a text ("[0]Hello."), -f FILE, or pipe the text in')
    else:
        where, data = "standard input", sys.stdin.buffer.read()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None
    try:
        turns = parse_lines(lines, speaker=args.speaker or 0)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return "".join(f"[{turn.speaker}]{turn.text}" for turn in turns)


def _speak(csm: CSM, text: str, seed: int | None, options: dict[str, Any], *, quiet: bool) -> Audio:
    from csm_ggml.audio import Audio

    if quiet or not sys.stderr.isatty():
        return csm.generate(text, seed=seed, **options)
    from tqdm import tqdm

    chunks = []
    with tqdm(
        unit=" s", leave=False, bar_format="speaking: {n:.1f} s of speech in {elapsed}{postfix}"
    ) as progress:
        for chunk in csm.stream(text, seed=seed, chunk_frames=1, **options):
            chunks.append(chunk)
            progress.set_postfix_str(f"{1 / chunk.stats.rtf:.2f} x real time", refresh=False)
            progress.update(chunk.duration)
    return Audio.concatenate(chunks)


def _summary(where: str, audio: Audio) -> str:
    stats = audio.stats
    cut = sum(turn.finish_reason == "max_frames" for turn in audio.turns)
    ended = f"finish reason {audio.finish_reason}"
    if cut and len(audio.turns) > 1:
        ended += f" in {cut} of {len(audio.turns)} turns"
    first = stats.time_to_first_audio
    return (
        f"{os.fspath(where)}: {audio.duration:.2f} s of speech in {stats.total_seconds:.2f} s"
        + (f", real-time factor {stats.rtf:.2f}" if audio.duration else "")
        + (f", first audio after {first:.2f} s" if first is not None else "")
        + f", {ended}, seed {audio.seed}"
    )

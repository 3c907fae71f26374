"""`csm-ggml voice`: voice files made and shown."""

from __future__ import annotations

import argparse
from typing import Any

from csm_ggml.cli.common import (
    Subparsers,
    add_model_arguments,
    check_output,
    load_model,
    say,
    size,
    speaker,
    tell,
)
from csm_ggml.cli.parser import checked
from csm_ggml.cli.recording import add_transcribe, add_trim, transcript_of
from csm_ggml.inputs import read_whole


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "voice",
        help="make a voice file of a recording, or show one",
        description="A voice file makes `csm-ggml speak --voice` sound like a recording.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="a recording to a voice file")
    create.add_argument("audio", help="any audio file; about 10 seconds")
    create.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="the voice file, such as me.voice"
    )
    group = create.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "-t", "--transcript", metavar="TEXT", help="what is said in the recording, word for word"
    )
    group.add_argument("-f", "--transcript-file", metavar="FILE", help="a text file that holds it")
    add_transcribe(create, group)
    create.add_argument(
        "--speaker",
        type=checked(speaker),
        default=0,
        metavar="N",
        help="whose voice it is (default: %(default)s)",
    )
    create.add_argument(
        "--prefix",
        action="store_true",
        help="also save the KV cache: starts faster, a large file, for this model only",
    )
    create.add_argument("-q", "--quiet", action="store_true", help="no messages")
    add_model_arguments(create)
    create.set_defaults(run=_create)
    add_trim(actions)
    info = actions.add_parser("info", help="what is in a voice file")
    info.add_argument("voice", help="the voice file")
    info.set_defaults(run=_info)


def _create(args: argparse.Namespace) -> None:
    from pathlib import Path

    from csm_ggml.text.scripts import decode_text

    check_output(args.output, "voice", inputs=[args.audio, args.transcript_file, args.model])
    transcript = args.transcript
    if args.transcript_file is not None:
        transcript = decode_text(read_whole(args.transcript_file), args.transcript_file)
    if not Path(args.audio).is_file():
        raise FileNotFoundError(f"{args.audio}: no such audio file")
    if transcript is None:
        transcript = transcript_of(args)
    csm = load_model(args, quiet=args.quiet)
    voice = csm.create_voice(args.audio, transcript, args.speaker, prefix=args.prefix)
    voice.save(args.output)
    if not args.quiet:
        tell(f"{args.output}: {voice.duration:.2f} s of speaker {voice.speaker}")


def _info(args: argparse.Namespace) -> None:
    from csm_ggml.voices.voice import Voice

    voice = Voice.load(args.voice)
    lines = {
        "speaker": str(voice.speaker),
        "transcript": voice.transcript,
        "duration": f"{voice.duration:.2f} s, {len(voice.codes)} frames",
        "codec": f"{voice.codes.shape[1]} codebooks, {voice.sample_rate} Hz, "
        f"{voice.frame_size} samples a frame",
        "prefix": "none"
        if voice.prefix is None
        else f"{size(len(voice.prefix.data))}, of {voice.prefix.model} "
        f"(fingerprint {voice.prefix.fingerprint})",
    }
    for name, value in lines.items():
        say(f"{name:<12}{value}")

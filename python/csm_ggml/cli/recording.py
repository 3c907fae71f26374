"""What `csm-ggml voice` does with recordings: the best seconds, and what is said in them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from csm_ggml.cli.common import UsageError, check_audio_output, say, tell
from csm_ggml.cli.parser import checked

# A recording is read at the rate of CSM's codec.
_RATE = 24_000


def add_trim(actions: Any) -> None:
    """Describe the arguments of `voice trim`."""
    trim = actions.add_parser("trim", help="the best ten seconds of a longer recording")
    trim.add_argument("audio", help="any audio file")
    trim.add_argument("-o", "--output", required=True, metavar="FILE", help="audio file: .wav, ...")
    trim.add_argument(
        "--seconds",
        type=checked(_seconds),
        default=10.0,
        metavar="SEC",
        help="seconds at most (default: %(default)s)",
    )
    trim.add_argument("-q", "--quiet", action="store_true", help="no messages")
    trim.set_defaults(run=_trim)


def add_transcribe(create: argparse.ArgumentParser, group: Any) -> None:
    """Describe the arguments that have a recording transcribed."""
    group.add_argument(
        "--transcribe",
        nargs="?",
        const="packaged",
        metavar="MODEL",
        help="have faster-whisper write a draft, to be corrected before the voice is saved: a "
        "folder, a name such as small, or packaged (default: the packaged tiny.en)",
    )
    create.add_argument(
        "--download", action="store_true", help="the model of --transcribe may be fetched"
    )
    create.add_argument(
        "--yes", action="store_true", help="take the draft of --transcribe as it is"
    )


def transcript_of(args: argparse.Namespace) -> str:
    """The transcript of a recording, as somebody has corrected it.

    Raises:
        UsageError: If nobody is there to correct it, and --yes was not given.
    """
    from csm_ggml.audio.load import load_audio
    from csm_ggml.voices.transcribing import transcribe

    samples = load_audio(args.audio, _RATE)
    draft = transcribe(samples, _RATE, model=args.transcribe, download=args.download)
    if args.yes:
        if not args.quiet:
            tell(f"transcript: {draft}")
        return draft
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        say(draft)
        raise UsageError(
            "the transcript above is a draft; correct it and give it with --transcript, or take it "
            "as it is with --yes"
        )
    tell(f"draft: {draft}")
    tell("press Enter if that is word for word what is said, or type what is")
    return input("> ").strip() or draft


def _trim(args: argparse.Namespace) -> None:
    from csm_ggml.audio.audio import save_samples
    from csm_ggml.audio.load import load_audio
    from csm_ggml.voices.trimming import best_span

    check_audio_output(args.output, inputs=[args.audio])
    if not Path(args.audio).is_file():
        raise FileNotFoundError(f"{args.audio}: no such audio file")
    samples = load_audio(args.audio, _RATE)
    try:
        span = best_span(samples, _RATE, args.seconds)
    except ValueError as error:
        raise ValueError(f"{args.audio}: {error}") from None
    save_samples(args.output, samples[span.start : span.end], _RATE)
    if not args.quiet:
        clipped = "; some of it is clipped" if span.clipped else ""
        tell(
            f"{args.output}: {span.start / _RATE:.2f} s to {span.end / _RATE:.2f} s, "
            f"{span.speech:.0%} of it speech{clipped}"
        )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 60:
        raise ValueError(f"must be 1 to 60 seconds, got {text[:40]!r}")
    return value

"""`csm-ggml speak`: text to an audio file."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

from csm_ggml.cli.common import (
    Subparsers,
    UsageError,
    add_model_arguments,
    add_samples_argument,
    add_text_arguments,
    binary_stdout,
    check_audio_output,
    load_model,
    speaker,
    tell,
    tell_if_slow,
    write_stdout,
)
from csm_ggml.cli.parser import checked, option
from csm_ggml.cli.said import Said
from csm_ggml.cli.script import LONG_TEXT_CHARACTERS, Script, read_script

if TYPE_CHECKING:
    from csm_ggml.audio.audio import Audio
    from csm_ggml.csm import CSM
    from csm_ggml.longform.reading import LongForm
    from csm_ggml.longform.recording import Progress
    from csm_ggml.text.reading import Text

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
    "silence_seconds",
    "loop_seconds",
    "max_characters_per_second",
    "retries",
    "voice",
    "speaker",
    "tags",
    "normalize",
    "lexicon",
)


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "speak",
        help="say a text",
        description="Say a text with speaker tags, such as '[0]Hello. [1]Hi!'.",
        epilog="A file (and standard input) with speaker tags holds one turn a line; a line "
        "without a tag is said by the speaker of the line before. A file without them is prose, "
        "whose paragraphs are parted by blank lines.",
    )
    parser.add_argument(
        "text", nargs="*", help="what to say; standard input if neither this nor -f is given"
    )
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="read what to say from a text file ('-': stdin)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="audio file: .wav, .flac, .ogg, .mp3 or .opus; '-' writes WAV to standard output "
        f"(default: {DEFAULT_OUTPUT}, or none with --play)",
    )
    add_samples_argument(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages, no progress bar")
    group = parser.add_argument_group("text")
    add_text_arguments(group)
    group = parser.add_argument_group("while speaking")
    group.add_argument(
        "--stream",
        action="store_true",
        help="write while speaking, in little memory; a FIFO and '-' hear it at once",
    )
    group.add_argument(
        "--raw", action="store_true", help="with -o -: 16-bit samples without a header, at once"
    )
    group.add_argument(
        "--split", action="store_true", help="one file for each turn: talk-001.wav, ..."
    )
    group.add_argument(
        "--play", action="store_true", help="play it (needs the sounddevice package)"
    )
    group.add_argument(
        "--watermark",
        metavar="MODULE:NAME",
        help="a Python function that sees each chunk first, as CSM.watermark does; modules of "
        "the current folder are found",
    )
    group = parser.add_argument_group("long texts")
    group.add_argument(
        "--long-form",
        choices=("auto", "batch", "chain", "off"),
        default="auto",
        help="speak in pieces, side by side or each after the one before; auto: batch for files of "
        f"more than {LONG_TEXT_CHARACTERS} characters without tags (default: %(default)s)",
    )
    group.add_argument(
        "--pause",
        type=option("pause"),
        metavar="SEC",
        help="seconds between pieces (default: 0.3)",
    )
    group.add_argument(
        "--paragraph-pause",
        type=option("paragraph_pause"),
        metavar="SEC",
        help="seconds between paragraphs (default: 0.7)",
    )
    group.add_argument(
        "--piece-characters",
        type=option("piece_characters"),
        metavar="N",
        help="a piece has at most so many characters (default: the model's, else 200)",
    )
    group.add_argument(
        "--batch-size",
        type=option("batch_size"),
        metavar="N",
        help="pieces side by side (default: 8)",
    )
    group.add_argument(
        "--no-resume",
        action="store_true",
        help="do not go on with an interrupted run; it is kept under another name",
    )
    add_model_arguments(parser)
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--seed",
        type=option("seed"),
        metavar="N",
        help="the same seed gives the same speech (default: drawn)",
    )
    group.add_argument(
        "--voice",
        action="append",
        metavar="FILE",
        help="a voice file (`csm-ggml voice create`); again for each further speaker",
    )
    group.add_argument(
        "--speaker",
        type=checked(speaker),
        metavar="N",
        help="who says text without a tag (default: the first voice's speaker, else 0)",
    )
    group.add_argument(
        "--max-seconds",
        type=option("max_seconds"),
        metavar="SEC",
        help="cut a turn after this much speech (default: by the length of its text, at most 90)",
    )
    group.add_argument(
        "--max-frames",
        type=option("max_frames"),
        metavar="N",
        help="the same limit in frames of 80 ms",
    )
    group.add_argument(
        "--temperature",
        type=option("temperature"),
        metavar="X",
        help="0 always picks the most likely code (default: the model's, else 0.9)",
    )
    group.add_argument(
        "--top-k",
        type=option("top_k"),
        metavar="N",
        help="0 for all codes (default: the model's, else 50)",
    )
    group.add_argument(
        "--top-p",
        type=option("top_p"),
        metavar="X",
        help="1 for all codes (default: the model's, else 1)",
    )
    group.add_argument(
        "--depth-temperature",
        type=option("depth_temperature"),
        metavar="X",
        help="of the depth decoder (default: 0 if --temperature is 0, else the model's, else 0.9)",
    )
    for name, metavar in (("top-k", "N"), ("top-p", "X")):
        group.add_argument(
            f"--depth-{name}",
            type=option(f"depth_{name.replace('-', '_')}"),
            metavar=metavar,
            help="of the depth decoder",
        )
    group.add_argument(
        "--retries",
        type=option("retries"),
        metavar="N",
        help="draw a turn again that is not ended, empty or too short (default: 0, long texts: 2)",
    )
    group.add_argument(
        "--silence-seconds",
        type=option("silence_seconds"),
        metavar="SEC",
        help="end a turn after so much silence (default: 3; 0: no)",
    )
    group.add_argument(
        "--loop-seconds",
        type=option("loop_seconds"),
        metavar="SEC",
        help="end a turn that repeats itself (default: 3; 0: no)",
    )
    group.add_argument(
        "--max-characters-per-second",
        type=option("max_characters_per_second"),
        metavar="N",
        help="a turn with more than so many letters a second is too short (default: 40; 0: none)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Speak, save, and print a summary of one line."""
    if args.output is None and not args.play:
        args.output = DEFAULT_OUTPUT
    to_stdout = args.output == "-"
    if args.raw and not to_stdout:
        raise UsageError("--raw goes with -o -")
    if args.split and (to_stdout or args.output is None):
        raise UsageError("--split needs -o FILE, whose name the names are made of")
    if to_stdout:
        binary_stdout()
    elif args.output is not None:
        check_audio_output(args.output, inputs=_inputs(args), samples=args.bits)
    script = read_script(args, *_speakers(args))
    long_form = _long_form(args, script)
    if args.bits != "16" and ((to_stdout and (long_form or args.stream)) or args.raw):
        raise UsageError("what is streamed to standard output has 16 bits: leave --bits out")
    text = script.text if long_form or script.turns is None else script.turns
    described = script.description(long_form=long_form is not None)
    if described and not args.quiet:
        tell(described)
    csm = load_model(args, quiet=args.quiet)
    options = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    if args.watermark is not None:
        csm.watermark = watermark_function(args.watermark)
    from csm_ggml.audio.audio import SUBTYPES, output_format

    as_it_comes = args.stream or args.raw or args.split or args.play
    recorded = args.output not in (None, "-") and not args.split and not args.play
    if long_form and recorded and args.bits == "16":
        _record(csm, text, long_form, args, options)
    elif as_it_comes or long_form:
        _stream(csm, text, long_form, args, options)
    else:
        audio = _speak(csm, text, args.seed, options, quiet=args.quiet)
        said = Said()
        said.take(audio)
        said.check()
        if to_stdout:
            buffer = io.BytesIO()
            audio.save(buffer, format="WAV", subtype=SUBTYPES[args.bits])
            write_stdout(buffer.getvalue())
        else:
            format, subtype = output_format(args.output, args.bits)
            audio.save(args.output, format=format, subtype=subtype)
        if not args.quiet:
            tell(_summary("standard output" if to_stdout else args.output, audio))
            tell_if_slow(args, audio.stats.total_seconds, audio.stats.audio_seconds)


def _inputs(args: argparse.Namespace) -> list[str]:
    """The files that are read."""
    return [name for name in (args.file, args.model, *(args.voice or ())) if name is not None]


def _speakers(args: argparse.Namespace) -> tuple[int, list[int]]:
    """Who says text without a tag, and the speakers of the voices."""
    from csm_ggml.voices.voice import Voice

    speakers = [Voice.load(file).speaker for file in args.voice or ()]
    return (speakers[0] if speakers else 0) if args.speaker is None else args.speaker, speakers


def _long_form(args: argparse.Namespace, script: Script) -> LongForm | None:
    from csm_ggml.longform.reading import LongForm

    mode = args.long_form
    if mode == "auto":
        mode = "batch" if script.is_long else "off"
    if mode == "off":
        return None
    names = ("pause", "paragraph_pause", "batch_size", "piece_characters")
    given = {name: getattr(args, name) for name in names}
    return LongForm(mode, **{name: value for name, value in given.items() if value is not None})


def watermark_function(name: str) -> Any:
    """The function that a --watermark module:function means.

    Raises:
        UsageError: If there is none.
    """
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--watermark {name}: no such function: {error}") from None
    if not callable(function):
        raise UsageError(f"--watermark {name}: it is not a function")
    return function


def _record(
    csm: CSM, text: Text, form: LongForm, args: argparse.Namespace, options: dict[str, Any]
) -> None:
    """A long text into a file, which can be gone on with after an interruption."""
    bar: Any = None
    if not args.quiet and sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(
            leave=False,
            bar_format="speaking: {percentage:.0f}% |{bar}| {elapsed}{postfix}",
        )

    def progress(state: Progress) -> None:
        bar.total = state.total_characters
        to_go = bar.format_interval(state.remaining or 0)
        bar.set_postfix_str(f"{to_go} to go, {state.audio_seconds:.0f} s spoken", refresh=False)
        bar.update(state.characters - bar.n)

    try:
        recording = csm.generate_to_file(
            text,
            args.output,
            long_form=form,
            seed=args.seed,
            resume=not args.no_resume,
            progress=progress if bar is not None else None,
            **options,
        )
    except KeyboardInterrupt as error:
        from csm_ggml.longform.journal import journal_path

        if not args.no_resume and os.path.exists(journal_path(args.output)):
            kept = journal_path(args.output)
            error.notes = [f"the same command goes on where this was ({kept})"]  # type: ignore[attr-defined]
        raise
    finally:
        if bar is not None:
            bar.close()
    if not args.quiet:
        reasons = ", ".join(f"{n} {reason}" for reason, n in recording.finish_reasons.items())
        resumed = f", {recording.resumed} of them before" if recording.resumed else ""
        tell(
            f"{recording.path}: {recording.duration:.2f} s of speech in {recording.seconds:.2f} s, "
            f"{recording.pieces} pieces{resumed} (finish reasons: {reasons}), "
            f"seed {recording.seed}"
        )
        if not recording.resumed:
            tell_if_slow(args, recording.seconds, recording.duration)


def _stream(
    csm: CSM, text: Text, form: LongForm | None, args: argparse.Namespace, options: dict[str, Any]
) -> None:
    """Speech to where it is wanted while it is being made."""
    from csm_ggml.cli.output import FileSink, PipeSink, PlaySink, Sink, Sinks, SplitSink

    sinks: list[Sink] = []
    where = [args.output] if args.output else []
    if args.play:
        sinks.append(PlaySink(csm.sample_rate))
        where.append("the sound card")
    if args.output == "-":
        sinks.append(PipeSink(csm.sample_rate, raw=args.raw))
        where[0] = "standard output"
    elif args.split:
        turns = _count_turns(csm, text, form, args)
        sinks.append(SplitSink(args.output, csm.sample_rate, turns, _inputs(args), args.bits))
    elif args.output is not None:
        sinks.append(FileSink(args.output, csm.sample_rate, _inputs(args), args.bits))
    summary = None
    said = Said()
    with (
        Sinks(*sinks) as out,
        closing(csm.stream(text, seed=args.seed, long_form=form, **options)) as chunks,
    ):
        for chunk in chunks:
            out.write(chunk)
            said.take(chunk)
            summary = chunk
        said.check(warn=form is None)
    if not args.quiet and summary is not None:
        tell(_summary(" and ".join(where), summary))
        tell_if_slow(args, summary.stats.total_seconds, summary.stats.audio_seconds)


def _count_turns(csm: CSM, text: Text, form: LongForm | None, args: argparse.Namespace) -> int:
    """How many turns, or pieces of a long text, there will be."""
    from csm_ggml.longform.pieces import split_pieces
    from csm_ggml.text.reading import read_text

    speaker, speakers = _speakers(args)
    how: dict[str, Any] = {"speaker": speaker, "speakers": speakers, "tags": args.tags}
    how |= {"normalize": args.normalize, "lexicon": args.lexicon}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is all said when it is spoken
        if form is None:
            return len(read_text(text, **how))
        return len(split_pieces(text, characters=form.characters(csm.config), **how))


def _speak(
    csm: CSM, text: Text, seed: int | None, options: dict[str, Any], *, quiet: bool
) -> Audio:
    from csm_ggml.audio.audio import Audio

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
    """One line; of a stream, from its last chunk."""
    stats = audio.stats
    cut = sum(turn.finish_reason not in ("eos", None) for turn in audio.turns)
    ended = f"finish reason {audio.finish_reason}"
    if cut and len(audio.turns) > 1:
        ended += f" in {cut} of {len(audio.turns)} turns"
    first = stats.time_to_first_audio
    return (
        f"{where}: {stats.audio_seconds:.2f} s of speech in {stats.total_seconds:.2f} s"
        + (f", real-time factor {stats.rtf:.2f}" if stats.audio_seconds else "")
        + (f", first audio after {first:.2f} s" if first is not None else "")
        + f", {ended}, seed {audio.seed}"
    )

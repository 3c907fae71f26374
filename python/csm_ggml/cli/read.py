"""`csm-ggml read`: a book to an audiobook."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from csm_ggml.cli.common import (
    Subparsers,
    UsageError,
    add_model_arguments,
    add_text_arguments,
    load_model,
    positive,
    say,
    speaker,
    tell,
)
from csm_ggml.cli.parser import checked, option

if TYPE_CHECKING:
    from csm_ggml.books import Audiobook, Book, BookProgress
    from csm_ggml.books.output import SavedBook

_OPTIONS = ("normalize", "lexicon", "temperature", "top_k", "retries", "speaker")


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "read",
        help="read a book: EPUB or another file to an audiobook",
        description="Read a book aloud: .epub, .docx, .html, .md or .txt to an audiobook with "
        "chapter marks, title, author and cover.",
        epilog="After an interruption the same command goes on where it was.",
    )
    parser.add_argument("book", help="the book's file")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="audiobook: .m4b, .mp3, .opus or .flac"
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="show chapters with words and expected duration, and what is left out; speak nothing",
    )
    parser.add_argument(
        "--chapters", metavar="N-M,N", help="speak these alone, as --list numbers them"
    )
    parser.add_argument(
        "--all", action="store_true", help="leave out no front matter, notes and page numbers"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages, no progress")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--split", action="store_true", help="one file for each chapter: book-01.mp3, ..."
    )
    group.add_argument(
        "--subtitles", choices=("srt", "vtt"), help="also write a file of subtitles, by sentences"
    )
    group.add_argument(
        "--loudness",
        type=checked(_loudness),
        default=-18.0,
        metavar="LUFS",
        help="loudness to bring the book to; off: leave it (default: %(default)s)",
    )
    group.add_argument(
        "--bit-rate",
        type=positive,
        metavar="KBIT",
        help="kbit a second (default: 64, of Opus 32)",
    )
    group.add_argument(
        "--chapter-pause",
        type=option("pause"),
        default=2.0,
        metavar="SEC",
        help="seconds between chapters (default: %(default)s)",
    )
    group = parser.add_argument_group("job")
    group.add_argument(
        "--job",
        metavar="FOLDER",
        help="where what is spoken is gathered (default: OUTPUT.job)",
    )
    group.add_argument(
        "--workers",
        type=option("batch_size"),
        metavar="N",
        help="pieces that are spoken side by side (default: 8)",
    )
    group.add_argument(
        "--redo",
        metavar="N,N",
        help="speak these pieces again, with the next seed; the report has their numbers",
    )
    group = parser.add_argument_group("voices")
    voices = group.add_mutually_exclusive_group()
    voices.add_argument("--voice", metavar="FILE", help="the narrator's voice file")
    voices.add_argument(
        "--voice-map",
        metavar="N=FILE",
        help="voice files by the numbers of speaker tags: 0=anna.voice,1=ben.voice",
    )
    group.add_argument(
        "--speaker",
        type=checked(speaker),
        metavar="N",
        help="who says text without a tag (default: the first voice's speaker, else 0)",
    )
    group = parser.add_argument_group("text")
    add_text_arguments(group, tags="with --voice-map, as in speak; else none")
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--long-form",
        choices=("batch", "chain"),
        default="batch",
        help="pieces side by side, or each after the one before (default: %(default)s)",
    )
    for name, metavar, text in (
        ("pause", "SEC", "seconds between pieces (default: 0.3)"),
        ("paragraph-pause", "SEC", "seconds between paragraphs (default: 0.7)"),
        (
            "piece-characters",
            "N",
            "a piece has at most so many characters (default: the model's, else 200)",
        ),
        ("seed", "N", "the same seed gives the same speech (default: drawn)"),
        ("temperature", "X", "0 always picks the most likely code (default: the model's)"),
        ("top-k", "N", "0 for all codes (default: the model's)"),
        ("retries", "N", "draw a piece again that the model does not end (default: 2)"),
    ):
        kind = option(name.replace("-", "_"))
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--title-pause",
        type=option("pause"),
        default=1.2,
        metavar="SEC",
        help="seconds after a chapter's title (default: %(default)s)",
    )
    add_model_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Show the chapters, or speak and save."""
    from csm_ggml.books.plan import parse_numbers
    from csm_ggml.books.source import read_book

    if args.output is None and not args.list:
        raise UsageError("give -o FILE for the audiobook, or --list to see the chapters")
    book = read_book(args.book, everything=args.all)
    chapters = None
    if args.chapters is not None:
        chapters = _usage(parse_numbers, args.chapters, len(book.chapters), "--chapters")
    if args.list:
        _list(book, chapters)
        return
    from csm_ggml.books.output import check_save
    from csm_ggml.cli.common import check_output

    voice_map = _voice_map(args.voice_map)
    inputs = [args.book, args.model, args.lexicon, args.voice, *voice_map.values()]
    check_output(args.output, inputs=inputs)
    _usage(check_save, args.output, subtitles=args.subtitles, loudness=args.loudness)
    if not args.quiet:
        _tell_book(book, chapters)
    csm = load_model(args, quiet=args.quiet)
    from csm_ggml.books.job import Audiobook

    job = args.job or f"{args.output}.job"
    try:
        with Audiobook(
            csm,
            book,
            job,
            seed=args.seed,
            long_form=_long_form(args),
            chapters=chapters,
            voice=args.voice,
            voice_map=voice_map or None,
            tags=args.tags if args.tags is not None else None if voice_map else False,
            title_pause=args.title_pause,
            **{name: value for name in _OPTIONS if (value := getattr(args, name)) is not None},
        ) as audiobook:
            _read(audiobook, args)
    except KeyboardInterrupt as error:
        error.notes = [f"the same command goes on where this was ({job})"]  # type: ignore[attr-defined]
        raise


def _read(audiobook: Audiobook, args: argparse.Namespace) -> None:
    import time

    from csm_ggml.books.output import save_book
    from csm_ggml.books.plan import parse_numbers
    from csm_ggml.books.report import write_report

    started = time.perf_counter()
    if args.redo is not None:
        last = audiobook.plan[-1]
        most = last.first + len(last.pieces) - 1
        redone = audiobook.redo(_usage(parse_numbers, args.redo, most, "--redo"))
        if not args.quiet:
            for piece in redone:
                tell(
                    f"piece {piece.number}: {piece.record.finish_reason}, seed {piece.record.seed}"
                )
    with _Bar(audiobook, quiet=args.quiet) as bar:
        now = audiobook.speak(bar.spoken)
        spoken = time.perf_counter()
        saved = save_book(
            audiobook,
            args.output,
            split=args.split,
            subtitles=args.subtitles,
            loudness=args.loudness,
            bit_rate=None if args.bit_rate is None else 1000 * args.bit_rate,
            chapter_pause=args.chapter_pause,
            wave=True,
            progress=bar.written,
        )
    report = audiobook.folder.path / "report.html"
    write_report(
        report,
        audiobook.book,
        saved.survey,
        seed=audiobook.seed,
        times=audiobook.folder.times(),
        gain_db=saved.gain_db,
    )
    if not args.quiet:
        _summary(audiobook, saved, now, spoken - started, time.perf_counter() - spoken)
        tell(f"report and pieces are in {audiobook.folder.path}; delete it when all is well")


def _summary(
    audiobook: Audiobook, saved: SavedBook, now: int, speaking: float, writing: float
) -> None:
    from csm_ggml.books.report import time_text

    names = [os.fspath(path) for path in (*saved.paths, *saved.subtitles)]
    shown = ", ".join(names if len(names) < 4 else [*names[:2], "...", names[-1]])
    pieces = sum(len(chapter.pieces) for chapter in saved.survey.chapters)
    before = f", {pieces - now} of them before" if now < pieces else ""
    tell(
        f"{shown}: {time_text(saved.duration)} in {len(saved.marks)} chapters, {pieces} pieces"
        f"{before}; spoken in {speaking:.0f} s, written in {writing:.0f} s, seed {audiobook.seed}"
    )
    if doubtful := saved.survey.doubtful:
        few = ",".join(str(piece.number) for piece in doubtful[:20])
        more = ", ..." if len(doubtful) > 20 else ""
        tell(f"{len(doubtful)} pieces to listen to: {few}{more} (--redo speaks them again)")


def _list(book: Book, chapters: list[int] | None) -> None:
    say(book.title + (f", by {book.author}" if book.author else ""))
    words = 0
    for chapter in book.chapters:
        if chapters is None or chapter.number in chapters:
            words += chapter.words
            title = chapter.title or "(no title)"
            say(
                f"{chapter.number:>4}  {chapter.words:>7} words  {_time(chapter.words):>8}  {title}"
            )
    say(f"      {words:>7} words  {_time(words):>8}  in all")
    for part in book.left_out:
        say(f"left out: {part}")


def _tell_book(book: Book, chapters: list[int] | None) -> None:
    wanted = [c for c in book.chapters if chapters is None or c.number in chapters]
    words = sum(chapter.words for chapter in wanted)
    tell(
        f"{book.title}: {len(wanted)} chapters, {words} words, about {_time(words)}"
        + (f"; {len(book.left_out)} things left out (--list)" if book.left_out else "")
    )


def _time(words: int) -> str:
    from csm_ggml.books.book import WORDS_PER_MINUTE
    from csm_ggml.books.report import time_text

    return time_text(60 * words / WORDS_PER_MINUTE)


class _Bar:
    """Progress: a bar on a terminal, else a line for each chapter."""

    def __init__(self, audiobook: Audiobook, *, quiet: bool) -> None:
        self._quiet = quiet
        self._chapters = len(audiobook.chapters)
        self._done = 0
        self._bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                leave=False,
                bar_format="{desc}: {percentage:.0f}% |{bar}| {elapsed}{postfix}",
            )

    def spoken(self, state: BookProgress) -> None:
        ends = state.chapter_characters == state.chapter_total
        self._done += ends
        if self._bar is not None:
            bar, to_go = self._bar, self._bar.format_interval
            bar.total = state.total_characters
            bar.set_description_str(f"chapter {state.chapter.number}", refresh=False)
            bar.set_postfix_str(
                f"{to_go(state.chapter_remaining or 0)} to go of the chapter, "
                f"{to_go(state.remaining or 0)} of the book",
                refresh=False,
            )
            bar.update(state.characters - bar.n)
        elif ends and not self._quiet:
            tell(
                f"chapter {state.chapter.number} ({state.chapter.label}) is spoken, "
                f"{state.remaining or 0:.0f} s to go"
            )

    def written(self, share: float) -> None:
        if self._bar is not None:
            self._bar.total = 100
            self._bar.n = 0
            self._bar.set_description_str("writing", refresh=False)
            self._bar.set_postfix_str("", refresh=False)
            self._bar.update(round(100 * share))

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _long_form(args: argparse.Namespace) -> Any:
    from csm_ggml.longform.reading import LongForm

    names = {
        "pause": args.pause,
        "paragraph_pause": args.paragraph_pause,
        "piece_characters": args.piece_characters,
        "batch_size": args.workers,
    }
    given = {name: value for name, value in names.items() if value is not None}
    return LongForm(args.long_form, **given)


def _voice_map(text: str | None) -> dict[int, str]:
    """Read `0=anna.voice,1=ben.voice`."""
    voices: dict[int, str] = {}
    for part in text.split(",") if text is not None else ():
        number, mark, name = part.partition("=")
        if not mark or not name.strip():
            raise UsageError(
                "--voice-map: expected numbers and files such as 0=anna.voice,1=ben.voice, got "
                f"{part!r}"
            )
        number_of = _usage(speaker, number.strip())
        if number_of in voices:
            raise UsageError(f"--voice-map: speaker {number_of} has two voices")
        voices[number_of] = name.strip()
    return voices


def _loudness(text: str) -> float | None:
    if text == "off":
        return None
    try:
        value = float(text)
    except ValueError:
        raise ValueError(
            f"must be a number of LUFS such as -18, or off, got {text[:40]!r}"
        ) from None
    if not -40 <= value <= -9:
        raise ValueError(f"must be -40 to -9 LUFS, or off, got {text[:40]}")
    return value


def _usage(check: Any, *arguments: Any, **options: Any) -> Any:
    """The result of a check, whose ValueError is wrong usage."""
    try:
        return check(*arguments, **options)
    except ValueError as error:
        raise UsageError(str(error)) from None

"""`csm-ggml speak-many`: a table of texts to a folder of audio files, here or on a Ray cluster."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from csm_ggml.cli.common import (
    Subparsers,
    UsageError,
    add_model_arguments,
    add_text_arguments,
    load_model,
    positive,
    speaker,
    tell,
)
from csm_ggml.cli.parser import checked, option

if TYPE_CHECKING:
    from csm_ggml.cli.collection import Collection, Item

# How the speech of a row sounds.
_OPTIONS = (
    *("temperature", "top_k", "max_seconds", "retries", "silence_seconds", "loop_seconds"),
    "max_characters_per_second",
    *("speaker", "tags", "normalize", "lexicon"),
)
_EXTENSIONS = {"flac": ".flac", "wav": ".wav", "mp3": ".mp3", "opus": ".opus"}
# What of a row's new columns goes into its line of the manifest.
_FACTS = ("duration", "frames", "finish_reason", "seed", "error")
# Rows of a batch under Ray for each that is spoken at a time: the slots of an actor are empty
# towards the end of each batch.
_ROWS_A_SLOT = 8


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "speak-many",
        help="say the texts of a table",
        description="Say each text of a table into an audio file of its own; the file "
        "manifest.jsonl beside them has a line for each row.",
        epilog="After an interruption the same command goes on with the rows that are not done. "
        "What a row sounds like depends on its text, its id, the seed and the options alone.",
    )
    parser.add_argument(
        "table", metavar="TABLE", help="rows: a .jsonl, .ndjson, .csv, .tsv or .parquet file"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--format",
        choices=tuple(_EXTENSIONS),
        default="flac",
        help="of the audio files (default: %(default)s)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no messages, no progress bar")
    group = parser.add_argument_group("table")
    group.add_argument(
        "--text-column",
        default="text",
        metavar="NAME",
        help="column of texts (default: %(default)s)",
    )
    group.add_argument(
        "--id-column",
        metavar="NAME",
        help="column of ids, which name the files (default: id; rows are numbered if there is "
        "no such column)",
    )
    group.add_argument(
        "--voice-column", metavar="NAME", help="column of voice files; empty: that of --voice"
    )
    group.add_argument(
        "--on-error",
        choices=("record", "raise"),
        default="record",
        help="note what is wrong with a row in the manifest, or stop (default: %(default)s)",
    )
    add_model_arguments(parser)
    group = parser.add_argument_group("speech")
    group.add_argument(
        "--seed",
        type=option("seed"),
        metavar="N",
        default=0,
        help="mixed with the id of each row, gives the row's own (default: %(default)s)",
    )
    group.add_argument("--voice", metavar="FILE", help="a voice file (`csm-ggml voice create`)")
    group.add_argument(
        "--batch-size",
        type=option("batch_size"),
        metavar="N",
        default=16,
        help="rows side by side (default: %(default)s)",
    )
    _add_speech_arguments(group)
    group = parser.add_argument_group("Ray")
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="speak on a Ray cluster: at this address, or one that is started here",
    )
    group.add_argument(
        "--actors",
        type=positive,
        metavar="N",
        default=1,
        help="processes that each load the model (default: %(default)s)",
    )
    group.add_argument(
        "--cpus", type=positive, metavar="N", help="CPUs of each (default: --threads, else 1)"
    )
    group.add_argument("--gpus", type=float, metavar="X", help="GPUs of each (default: 0)")
    parser.set_defaults(run=run)


def _add_speech_arguments(group: Any) -> None:
    group.add_argument(
        "--speaker",
        type=checked(speaker),
        metavar="N",
        help="who says text without a tag (default: the voice's speaker, else 0)",
    )
    add_text_arguments(group)
    for name, metavar, text in (
        ("max-seconds", "SEC", "cut a turn after this much speech (default: by its text)"),
        (
            "temperature",
            "X",
            "0 always picks the most likely code (default: the model's, else 0.9)",
        ),
        ("top-k", "N", "0 for all codes (default: the model's, else 50)"),
        ("retries", "N", "draw a turn again that is not ended, empty or too short (default: 0)"),
        ("silence-seconds", "SEC", "end a turn after so much silence (default: 3; 0: no)"),
        ("loop-seconds", "SEC", "end a turn that repeats itself (default: 3; 0: no)"),
        (
            "max-characters-per-second",
            "N",
            "a turn with more than so many letters a second is too short (default: 40; 0: none)",
        ),
    ):
        kind = option(name.replace("-", "_"))
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)


def run(args: argparse.Namespace) -> int:
    """Speak what is not done yet; returns 1 if there were rows that could not be spoken."""
    from csm_ggml.cli.collection import Collection
    from csm_ggml.cli.table import read_table
    from csm_ggml.loading import hub
    from csm_ggml.loading.fingerprint import fingerprint
    from csm_ggml.text.lexicon import as_lexicon
    from csm_ggml.voices.voice import Voice

    if args.ray is not None:
        _check_ray()
    items = _items(args, read_table(args.table))
    files = hub.resolve(args.model, revision=args.revision, local_files_only=args.local_files_only)
    options = {name: value for name in _OPTIONS if (value := getattr(args, name)) is not None}
    settings = {
        **{name: str(value) for name, value in options.items()},
        "model": fingerprint({}, files.paths),
        "seed": args.seed,
        "format": args.format,
        "voice": _digest(args.voice),
        "lexicon": _digest(args.lexicon),
        "voice_column": args.voice_column,
    }
    if args.lexicon is not None:
        options["lexicon"] = as_lexicon(args.lexicon)
    how = {
        **options,
        "voice": None if args.voice is None else Voice.load(args.voice),
        "seed": args.seed,
        "batch_size": args.batch_size,
        "output": args.format,
        "on_error": args.on_error,
        "text_column": "text",
        "id_column": "id",
        "voice_column": None if args.voice_column is None else "voice",
    }
    started = time.perf_counter()
    with Collection(args.output, items, settings, _EXTENSIONS[args.format]) as folder:
        to_do = folder.to_do
        if to_do:
            speak = _here if args.ray is None else _on_ray
            _speak(folder, to_do, speak(args, to_do, how), args)
        folder.finish()
        return _summary(args, folder, len(items), time.perf_counter() - started)


def _items(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> list[Item]:
    """The rows with their ids.

    Raises:
        UsageError: If a column is missing.
        ValueError: If two rows have the same id, or one has none.
    """
    from csm_ggml.cli.collection import Item

    if not rows:
        raise ValueError(f"{args.table}: there are no rows")
    names = {name for row in rows for name in row}
    for name in (args.text_column, args.id_column, args.voice_column):
        if name is not None and name not in names:
            raise UsageError(
                f"{args.table} has no column {name!r}, only {', '.join(sorted(names))}"
            )
    id_column = args.id_column or ("id" if "id" in names else None)
    items: list[Item] = []
    known: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        id = f"{number:06}" if id_column is None else row.get(id_column)
        if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
            raise ValueError(
                f"{args.table}, row {number}: an id must be a string or a whole number, got {id!r}"
            )
        if str(id) in known:
            raise ValueError(
                f"{args.table}: rows {known[str(id)]} and {number} have the same id {str(id)!r}"
            )
        known[str(id)] = number
        items.append(Item(str(id), row))
    return items


def _columns(args: argparse.Namespace, items: Sequence[Item]) -> dict[str, list[Any]]:
    """What is needed of the rows."""
    columns: dict[str, list[Any]] = {
        "id": [item.id for item in items],
        "text": [item.row.get(args.text_column) for item in items],
    }
    if args.voice_column is not None:
        voices = (item.row.get(args.voice_column) for item in items)
        columns["voice"] = [os.path.abspath(voice) if voice else "" for voice in voices]
    return columns


def _here(
    args: argparse.Namespace, items: Sequence[Item], how: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """New columns of each row, and its id, as they come."""
    from csm_ggml.ray.speaker import Speaker

    csm = load_model(args, quiet=args.quiet, slots=args.batch_size)
    with csm, closing(Speaker(csm, **how).as_completed(_columns(args, items))) as rows:
        for _, row in rows:
            yield {name: column[0] for name, column in row.items()}


def _on_ray(
    args: argparse.Namespace, items: Sequence[Item], how: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The same, spoken by actors."""
    import ray
    import ray.data

    from csm_ggml.ray.speaker import Speaker

    model = os.path.abspath(args.model) if os.path.exists(args.model) else args.model
    loading = {
        "model": model,
        "device": args.device,
        "threads": args.threads,
        "revision": args.revision,
        "local_files_only": args.local_files_only,
    }
    mine = not ray.is_initialized()
    if mine:
        level = logging.ERROR if args.quiet else logging.INFO
        ray.init(address=args.ray or None, log_to_driver=not args.quiet, logging_level=level)
    if args.quiet:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        columns = _columns(args, items)
        names = tuple(columns)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        size = min(args.batch_size * _ROWS_A_SLOT, math.ceil(len(rows) / args.actors))
        spoken = ray.data.from_items(rows).map_batches(
            Speaker,
            fn_constructor_kwargs={**loading, **how},
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=args.actors),
            num_cpus=args.cpus or args.threads or 1,
            num_gpus=args.gpus or 0,
        )
        yield from spoken.iter_rows()
    except ray.exceptions.RayError as error:
        raise _cause(error) from None
    finally:
        if mine:
            ray.shutdown()


def _speak(
    folder: Collection,
    items: Sequence[Item],
    rows: Iterator[dict[str, Any]],
    args: argparse.Namespace,
) -> None:
    """Put rows into the folder as they come."""
    from tqdm import tqdm

    from csm_ggml.ray.rows import plain

    by_id = {item.id: item for item in items}
    quiet = args.quiet or not sys.stderr.isatty()
    try:
        with (
            closing(rows),  # type: ignore[type-var]
            tqdm(total=len(items), unit=" rows", leave=False, disable=quiet) as progress,
        ):
            for row in rows:
                facts = {name: plain(row[name]) for name in _FACTS}
                folder.add(by_id[str(row["id"])], row["audio"], facts)
                progress.update()
    except KeyboardInterrupt as error:
        left = len(folder.to_do)
        error.notes = [f"the same command speaks the {left} rows that are left"]  # type: ignore[attr-defined]
        raise


def _summary(args: argparse.Namespace, folder: Collection, count: int, seconds: float) -> int:
    lines = list(folder.done.values())
    failed = [line for line in lines if line["error"]]
    if not args.quiet:
        speech = sum(line["duration"] for line in lines)
        before = f", {folder.before} of them before" if folder.before else ""
        tell(f"{args.output}: {count} rows{before}, {speech:.2f} s of speech; {seconds:.2f} s")
    if failed:
        first = failed[0]
        tell(
            f"error: {len(failed)} rows could not be spoken, such as {first['id']}: "
            f"{first['error']}; the manifest has all of them"
        )
    return 1 if failed else 0


def _digest(path: str | None) -> str | None:
    """What tells one input file from another."""
    import hashlib

    if path is None:
        return None
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:32]


def _check_ray() -> None:
    import importlib.util

    if importlib.util.find_spec("ray") is None:
        raise UsageError('ray is not installed: pip install "csm-ggml[ray]"')


def _cause(error: BaseException) -> BaseException:
    """What an actor raised, without what Ray has wrapped around it."""
    import ray

    inner = getattr(error, "cause", None) or error.__cause__
    while isinstance(inner, ray.exceptions.RayError):
        error = inner
        inner = getattr(error, "cause", None) or error.__cause__
    return inner if isinstance(inner, Exception) else error

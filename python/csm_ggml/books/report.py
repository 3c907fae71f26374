"""A report on an audiobook: one HTML file that needs nothing else, with what to listen to."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from csm_ggml.books.book import Book
from csm_ggml.books.survey import ChapterFacts, PieceFacts, Survey
from csm_ggml.files import write_file

_WIDTH, _HEIGHT = 800, 60
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd;
         vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { display: block; width: 100%; height: 60px; background: #f4f4f2; }
h3 { margin: 1.5rem 0 .3rem; font-size: 1rem; }
.doubt { color: #a33; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #1b1b1b; } th, td { border-color: #444; }
  svg { background: #262626; } .doubt { color: #f88; } }
"""


def write_report(
    path: str | os.PathLike[str],
    book: Book,
    found: Survey,
    *,
    seed: int,
    times: Mapping[int, tuple[float, float]] | None = None,
    gain_db: float = 0.0,
) -> None:
    """Write the report.

    Args:
        path: .html.
        book: That was spoken.
        found: What is on the disk, with its wave.
        seed: Of the book.
        times: Of each chapter: seconds that pieces took, and seconds of audio in them; None if
            they are not known.
        gain_db: What was added to the loudness.

    Raises:
        OSError: If it cannot be written.
    """
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><meta charset="utf-8"><title>{_e(book.title)}: report</title>',
        f"<style>{_STYLE}</style>",
        f"<h1>{_e(book.title)}</h1>",
        f"<p>{_e(_summary(book, found, seed, gain_db))}</p>",
        "<h2>Pieces to listen to</h2>",
        _doubtful(found),
        "<h2>Chapters</h2>",
        _chapters(found, times or {}),
        "<h2>Waveforms</h2>",
        "<p>Marks are the pieces to listen to.</p>",
        *(_wave(chapter, found.sample_rate) for chapter in found.chapters),
        "<h2>Left out</h2>",
        _left_out(book),
        "</html>",
    ]
    write_file(path, "\n".join(parts).encode(), "text")


def time_text(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _summary(book: Book, found: Survey, seed: int, gain_db: float) -> str:
    pieces = sum(len(chapter.pieces) for chapter in found.chapters)
    parts = [
        f"{book.author}." if book.author else "",
        f"{len(found.chapters)} chapters, {pieces} pieces, {time_text(found.duration)},",
        f"seed {seed}.",
    ]
    if found.loudness is not None:
        parts.append(f"Loudness {found.loudness:.1f} LUFS, {gain_db:+.1f} dB added.")
    return " ".join(part for part in parts if part)


def _doubtful(found: Survey) -> str:
    rows = [
        (piece, chapter) for chapter in found.chapters for piece in chapter.pieces if piece.doubts
    ]
    if not rows:
        return "<p>None.</p>"
    numbers = ",".join(str(piece.number) for piece, _ in rows)
    body = "".join(
        f'<tr><td class="n">{piece.number}</td><td>{_e(chapter.planned.chapter.label)}</td>'
        f'<td class="n">{time_text(piece.start / found.sample_rate)}</td>'
        f'<td class="doubt">{_e("; ".join(piece.doubts))}</td><td>{_e(piece.text)}</td></tr>'
        for piece, chapter in rows
    )
    return (
        f"<p>Speak them again with <code>--redo {numbers}</code></p><table><tr>"
        '<th class="n">piece</th><th>chapter</th><th class="n">at</th><th>why</th><th>text</th>'
        f"</tr>{body}</table>"
    )


def _chapters(found: Survey, times: Mapping[int, tuple[float, float]]) -> str:
    rows = []
    for chapter in found.chapters:
        number = chapter.planned.chapter.number
        took, audio = times.get(number, (0.0, 0.0))
        reasons = Counter(piece.finish_reason for piece in chapter.pieces)
        first, last = chapter.pieces[0].number, chapter.pieces[-1].number
        cells = (
            str(number),
            f"{first}\u2013{last}",
            time_text(chapter.samples / found.sample_rate),
            f"{took / audio:.3f}" if audio else "",
            str(sum(piece.drawn_again > 0 for piece in chapter.pieces)),
        )
        title = f"<td>{_e(chapter.planned.chapter.label)}</td>"
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        rows.append(f"<tr>{title}{numbers}<td>{_e(_counted(reasons))}</td></tr>")
    heads = ("number", "pieces", "duration", "real-time factor", "drawn again")
    head = "".join(f'<th class="n">{name}</th>' for name in heads)
    return f"<table><tr><th>chapter</th>{head}<th>ended by</th></tr>{''.join(rows)}</table>"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _wave(chapter: ChapterFacts, sample_rate: int) -> str:
    label = _e(chapter.planned.chapter.label)
    wave = chapter.wave or [0.0]
    columns = min(_WIDTH, len(wave))
    edges = [at * len(wave) // columns for at in range(columns + 1)]
    highest = [max(wave[a:b], default=0.0) for a, b in pairwise(edges)]
    step, middle = _WIDTH / columns, _HEIGHT / 2
    bars = "".join(
        f"M{at * step:.1f} {middle * (1 - value):.1f}V{middle * (1 + value):.1f}"
        for at, value in enumerate(highest)
    )
    marks = "".join(_mark(piece, chapter.samples) for piece in chapter.pieces if piece.doubts)
    return (
        f"<h3>{label}, {time_text(chapter.samples / sample_rate)}</h3>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="waveform"><path d="{bars}" stroke="#5a8fb8" stroke-width="1" fill="none"/>'
        f"{marks}</svg>"
    )


def _mark(piece: PieceFacts, samples: int) -> str:
    start = _WIDTH * piece.start / max(1, samples)
    width = max(2.0, _WIDTH * piece.samples / max(1, samples))
    return (
        f'<rect x="{start:.1f}" y="0" width="{width:.1f}" height="{_HEIGHT}" fill="#d33" '
        f'fill-opacity="0.35"><title>piece {piece.number}: {_e("; ".join(piece.doubts))}</title>'
        "</rect>"
    )


def _left_out(book: Book) -> str:
    items: Iterable[str] = (f"<li>{_e(str(part))}</li>" for part in book.left_out)
    return f"<ul>{''.join(items)}</ul>" if book.left_out else "<p>Nothing.</p>"


def _e(text: str) -> str:
    return html.escape(text)

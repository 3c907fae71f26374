"""Title, author, cover and chapter marks in an audio file, where players look for them."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from csm_ggml.books.book import Picture
from csm_ggml.books.encode import Mark
from csm_ggml.books.extras import import_mutagen

_FRONT_COVER = 3
_GENRE = "Audiobook"


@dataclass(frozen=True)
class Tags:
    """What a file says of itself.

    Attributes:
        title: Of the file.
        album: Of the book.
        author: Of the book; "" if it is not known.
        cover: None if there is none.
        marks: Its chapters.
        track: Number of the file among those of the book and their number; None of one file.
    """

    title: str
    album: str
    author: str
    cover: Picture | None
    marks: Sequence[Mark] = ()
    track: tuple[int, int] | None = None


def write_tags(path: str | os.PathLike[str], extension: str, tags: Tags, sample_rate: int) -> None:
    """Put tags into a file.

    Args:
        path: The file.
        extension: Its format, one of `csm_ggml.books.encode.FORMATS`. The chapter marks of M4B are
            the container's and there already.
        tags: What it says of itself.
        sample_rate: Samples per second, by which the marks count.

    Raises:
        ImportError: If the package `mutagen` is not installed.
        OSError: If the file cannot be written.
    """
    write = {".mp3": _id3, ".opus": _opus, ".flac": _flac}.get(extension, _mp4)
    write(os.fspath(path), tags, sample_rate)


def _mp4(path: str, tags: Tags, sample_rate: int) -> None:
    mp4 = import_mutagen("mutagen.mp4")
    file = mp4.MP4(path)
    file["\xa9nam"], file["\xa9alb"], file["\xa9gen"] = tags.title, tags.album, _GENRE
    if tags.author:
        file["\xa9ART"] = file["aART"] = tags.author
    if tags.track:
        file["trkn"] = [tags.track]
    # 2: an audiobook, which players resume and sort apart from music.
    file["stik"] = [2]
    if tags.cover:
        kind = mp4.MP4Cover.FORMAT_PNG if tags.cover.kind == "png" else mp4.MP4Cover.FORMAT_JPEG
        file["covr"] = [mp4.MP4Cover(tags.cover.data, imageformat=kind)]
    file.save()


def _id3(path: str, tags: Tags, sample_rate: int) -> None:
    id3 = import_mutagen("mutagen.id3")
    frames = id3.ID3()
    frames.add(id3.TIT2(encoding=3, text=tags.title))
    frames.add(id3.TALB(encoding=3, text=tags.album))
    frames.add(id3.TCON(encoding=3, text=_GENRE))
    if tags.author:
        frames.add(id3.TPE1(encoding=3, text=tags.author))
    if tags.track:
        frames.add(id3.TRCK(encoding=3, text="{}/{}".format(*tags.track)))
    if tags.cover:
        frames.add(
            id3.APIC(
                encoding=3,
                mime=tags.cover.media_type,
                type=_FRONT_COVER,
                desc="",
                data=tags.cover.data,
            )
        )
    names = [f"ch{number}" for number in range(len(tags.marks))]
    for name, mark in zip(names, tags.marks, strict=True):
        frames.add(
            id3.CHAP(
                element_id=name,
                start_time=round(1000 * mark.start / sample_rate),
                end_time=round(1000 * mark.end / sample_rate),
                sub_frames=[id3.TIT2(encoding=3, text=mark.title)],
            )
        )
    # A table of contents holds 255 entries at most.
    if 0 < len(names) < 256:
        flags = id3.CTOCFlags.TOP_LEVEL | id3.CTOCFlags.ORDERED
        frames.add(id3.CTOC(element_id="toc", flags=flags, child_element_ids=names))
    frames.save(path)


def _opus(path: str, tags: Tags, sample_rate: int) -> None:
    file = import_mutagen("mutagen.oggopus").OggOpus(path)
    _comments(file, tags, sample_rate)
    if tags.cover:
        block = _flac_picture(tags.cover).write()
        file["metadata_block_picture"] = [base64.b64encode(block).decode("ascii")]
    file.save()


def _flac(path: str, tags: Tags, sample_rate: int) -> None:
    file = import_mutagen("mutagen.flac").FLAC(path)
    _comments(file, tags, sample_rate)
    if tags.cover:
        file.add_picture(_flac_picture(tags.cover))
    file.save()


def _comments(file: Any, tags: Tags, sample_rate: int) -> None:
    file["title"], file["album"], file["genre"] = tags.title, tags.album, _GENRE
    if tags.author:
        file["artist"] = tags.author
    if tags.track:
        file["tracknumber"], file["tracktotal"] = map(str, tags.track)
    for number, mark in enumerate(tags.marks):
        seconds, rest = divmod(mark.start, sample_rate)
        time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        file[f"chapter{number:03}"] = f"{time}.{1000 * rest // sample_rate:03}"
        file[f"chapter{number:03}name"] = mark.title


def _flac_picture(cover: Picture) -> Any:
    block = import_mutagen("mutagen.flac").Picture()
    block.type, block.mime, block.data = _FRONT_COVER, cover.media_type, cover.data
    return block

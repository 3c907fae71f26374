"""What is to be said, from the arguments, a file or standard input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csm_ggml.cli.common import UsageError

if TYPE_CHECKING:
    from csm_ggml.text.turns import Turn

# A file without speaker tags that is longer than this is spoken as a long text unless asked
# otherwise: more than one utterance of CSM should hold.
LONG_TEXT_CHARACTERS = 600


@dataclass(frozen=True)
class Script:
    """What is to be said.

    Attributes:
        text: As it was given.
        where: What it was read from; None for an argument.
        turns: Of a file with speaker tags: one turn a line. None for an argument, and for a file of
            prose.
    """

    text: str
    where: str | None
    turns: list[Turn] | None

    @property
    def is_long(self) -> bool:
        """Whether it is a file of running text that is more than one utterance."""
        return (
            self.where is not None and self.turns is None and len(self.text) > LONG_TEXT_CHARACTERS
        )

    def description(self, *, long_form: bool) -> str | None:
        """How a file is read, for people; None for an argument."""
        if self.where is None:
            return None
        if self.turns is not None and not long_form:
            speakers = sorted({turn.speaker for turn in self.turns})
            names = ", ".join(f"[{speaker}]" for speaker in speakers[:8])
            more = ", ..." if len(speakers) > 8 else ""
            return (
                f"{self.where}: a script of {len(self.turns)} lines, speakers {names}{more} "
                "(--no-tags reads it as prose)"
            )
        kind = "prose" if self.turns is None else "a text with speaker tags"
        return f"{self.where}: {kind}, spoken " + (
            f"as a long text of {len(self.text)} characters" if long_form else "as a short text"
        )


def read_script(
    args: argparse.Namespace, speaker: int = 0, speakers: Collection[int] = ()
) -> Script:
    """Read what the arguments `text` and `file` say.

    Args:
        args: Of the command; `tags` says what is a speaker tag.
        speaker: Who says text without a tag.
        speakers: Numbers that are known to be speakers, of voices.

    Raises:
        UsageError: If both are given, or there is neither and standard input is a terminal.
        ValueError: If it is no text, or a tag in it is not right.
        OSError: If the file cannot be read.
    """
    from csm_ggml.text.scripts import decode_text, read_script

    if args.text and args.file is not None:
        raise UsageError("give the text or -f FILE, not both")
    if args.text and args.text != ["-"]:
        return Script(" ".join(args.text), None, None)
    if args.file is not None and args.file != "-":
        where, data = args.file, Path(args.file).read_bytes()
    elif sys.stdin is None or (sys.stdin.isatty() and not args.text and args.file is None):
        raise UsageError('nothing to say: give a text ("[0]Hello."), -f FILE, or pipe the text in')
    else:
        where, data = "standard input", sys.stdin.buffer.read()
    text = decode_text(data, where)
    try:
        turns = read_script(text, speaker=speaker, tags=args.tags, speakers=speakers)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Script(text, where, turns)

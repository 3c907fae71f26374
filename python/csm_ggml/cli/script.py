"""What is to be said, from the arguments, a file or standard input."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from csm_ggml.cli.common import UsageError

# A file without speaker tags that is longer than this is spoken as a long text unless asked
# otherwise: more than one utterance of CSM should hold.
LONG_TEXT_CHARACTERS = 600


@dataclass(frozen=True)
class Script:
    """What is to be said.

    Attributes:
        text: As it was given.
        where: What it was read from; None for an argument.
    """

    text: str
    where: str | None

    def turns(self, speaker: int) -> str:
        """The text with tags, of files one turn a line.

        Raises:
            ValueError: If there is nothing to say, or a tag is not right.
        """
        from csm_ggml.text.turns import parse_lines

        if self.where is None:
            return self.text
        try:
            turns = parse_lines(self.text.splitlines(), speaker=speaker)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None
        return "".join(f"[{turn.speaker}]{turn.text}" for turn in turns)

    def is_long(self) -> bool:
        """Whether it is a file of running text, rather than of turns."""
        from csm_ggml.text.turns import has_tags

        return (
            self.where is not None
            and len(self.text) > LONG_TEXT_CHARACTERS
            and not has_tags(self.text)
        )


def read_script(args: argparse.Namespace) -> Script:
    """Read what the arguments `text` and `file` say.

    Raises:
        UsageError: If both are given, or there is neither and standard input is a terminal.
        ValueError: If it is not UTF-8.
        OSError: If the file cannot be read.
    """
    if args.text and args.file is not None:
        raise UsageError("give the text or -f FILE, not both")
    if args.text and args.text != ["-"]:
        return Script(" ".join(args.text), None)
    if args.file is not None and args.file != "-":
        where, data = args.file, Path(args.file).read_bytes()
    elif sys.stdin is None or (sys.stdin.isatty() and not args.text and args.file is None):
        raise UsageError('nothing to say: give a text ("[0]Hello."), -f FILE, or pipe the text in')
    else:
        where, data = "standard input", sys.stdin.buffer.read()
    try:
        return Script(data.decode("utf-8-sig"), where)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None

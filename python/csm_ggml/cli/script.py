"""What is to be said, from the arguments, a file or standard input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csm_ggml.cli.common import UsageError
from csm_ggml.inputs import read_standard_input, read_whole

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
        longest: Characters of the longest turn.
    """

    text: str
    where: str | None
    turns: list[Turn] | None
    longest: int

    @property
    def is_long(self) -> bool:
        """Whether it is a file of running text that is more than one utterance."""
        return self.where is not None and self.turns is None and self._is_too_long

    def description(self, *, long_form: bool) -> str | None:
        """How a file is read, for people; of an argument, whether it is too long."""
        if self.where is None:
            return f"the text: {self._advice()}" if self._is_too_long and not long_form else None
        if self.turns is not None and not long_form:
            speakers = sorted({turn.speaker for turn in self.turns})
            names = ", ".join(f"[{speaker}]" for speaker in speakers[:8])
            more = ", ..." if len(speakers) > 8 else ""
            advice = f"; {self._advice()}" if self._is_too_long else ""
            return (
                f"{self.where}: a script of {len(self.turns)} lines, speakers {names}{more} "
                f"(--no-tags reads it as prose){advice}"
            )
        kind = "prose" if self.turns is None else "a text with speaker tags"
        return f"{self.where}: {kind}, spoken " + (
            f"as a long text of {len(self.text)} characters" if long_form else "as a short text"
        )

    @property
    def _is_too_long(self) -> bool:
        return self.longest > LONG_TEXT_CHARACTERS

    def _advice(self) -> str:
        return (
            f"{self.longest} characters are more than the model says well in one go, "
            "--long-form batch speaks them in pieces"
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
    from csm_ggml.text.characters import clean, one_line
    from csm_ggml.text.scripts import decode_text, read_script
    from csm_ggml.text.turns import open_turns

    if args.text and args.file is not None:
        raise UsageError("give the text or -f FILE, not both")
    if args.text and args.text != ["-"]:
        text = " ".join(args.text)
        said = open_turns(clean(text), speaker=speaker, tags=args.tags, speakers=speakers)
        longest = max((len(one_line(words)) for _, words in said), default=0)
        return Script(text, None, None, longest)
    if args.file is not None and args.file != "-":
        where, data = args.file, read_whole(args.file)
    elif sys.stdin is None or (sys.stdin.isatty() and not args.text and args.file is None):
        raise UsageError('nothing to say: give a text ("[0]Hello."), -f FILE, or pipe the text in')
    else:
        where, data = "standard input", read_standard_input()
    text = decode_text(data, where)
    try:
        turns = read_script(text, speaker=speaker, tags=args.tags, speakers=speakers)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    longest = max((len(turn.text) for turn in turns or ()), default=len(text))
    return Script(text, where, turns, longest)

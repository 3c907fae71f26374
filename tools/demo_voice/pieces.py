"""How long the pieces of long texts should be for a model: words misheard at several lengths.

    python pieces.py --model demo.gguf --characters 60 80 100 150 200 --skip 0 --words 500

The text is running text of Jane Austen's (Debian `r-cran-janeaustenr`), from word --skip of book
--book on. Choose on one book, report on another.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from csm_ggml import CSM, LongForm

from judge import Judge, Score
from texts import austen_books

MARKS = r"\b(Mrs?)\."  # a full stop that ends no sentence


def running_text(book: int, skip: int, words: int) -> str:
    """Whole sentences of a book: as many as have at least so many words."""
    sentences = re.split(r"(?<=[a-z][.?!]) (?=[A-Z])", re.sub(MARKS, r"\1", austen_books()[book]))
    seen, taken = 0, []
    for sentence in sentences:
        count = len(sentence.split())
        if seen >= skip:
            taken.append(sentence)
        seen += count
        if seen >= skip + words:
            break
    return " ".join(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--characters", type=int, nargs="+", required=True)
    parser.add_argument("--book", type=int, default=0)
    parser.add_argument("--skip", type=int, default=200)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    csm, judge = CSM.from_pretrained(str(args.model), threads=1), Judge()
    text = running_text(args.book, args.skip, args.words)
    print(f"{len(text.split())} words: {text[:80]}...")
    for characters in args.characters:
        audio = csm.generate(
            f"[0]{text}", seed=args.seed, long_form=LongForm(piece_characters=characters)
        )
        score = Score()
        score.add(text, judge.hear(audio.samples, audio.sample_rate))
        print(f"{characters:4d} characters: {score}  {audio.duration:.0f} s", flush=True)


if __name__ == "__main__":
    main()

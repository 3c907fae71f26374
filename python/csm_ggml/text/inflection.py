"""Forms of English words."""

from __future__ import annotations

import re


def plural(word: str) -> str:
    """More than one of an English noun."""
    if re.search(r"(s|x|z|ch|sh)$", word, re.IGNORECASE):
        return f"{word}es"
    if re.search(r"[^aeiou\W\d]y$", word, re.IGNORECASE):
        return f"{word[:-1]}ies"
    return f"{word}s"

"""Numbers in English words, as they are said in the United States: no "and" before the tens."""

from __future__ import annotations

import re


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(" "))


_UNITS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = _words("_ ten twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = _words(
    " thousand million billion trillion quadrillion quintillion sextillion septillion octillion "
    "nonillion decillion"
)
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
# Longer rows of digits are codes, and are spelled.
LONGEST_NUMBER = 15
# One number as it is written: with commas between thousands or without, with decimals or without.
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
# What stands before no number: the inside of a word, a code or another number.
START = r"(?<![\w.,/:-])"


def cardinal(value: int) -> str:
    """A whole number below 10**36: "one hundred twenty-three"."""
    if value < 0:
        return f"minus {cardinal(-value)}"
    if value < 20:
        return _UNITS[value]
    if value < 100:
        tens, units = divmod(value, 10)
        return _TENS[tens] + (f"-{_UNITS[units]}" if units else "")
    if value < 1000:
        hundreds, rest = divmod(value, 100)
        return f"{_UNITS[hundreds]} hundred" + (f" {cardinal(rest)}" if rest else "")
    words = []
    for scale in reversed(range(len(_SCALES))):
        group = value // 1000**scale % 1000
        if group:
            words.append(f"{cardinal(group)} {_SCALES[scale]}".strip())
    return " ".join(words)


def ordinal(value: int) -> str:
    """Its place in a row: "twenty-first"."""
    return ordinal_of(cardinal(value))


def ordinal_of(words: str) -> str:
    """The ordinal number of a cardinal one, both in words."""
    head, separator, last = re.fullmatch(r"(.*?)([ -]?)(\w+)", words).groups()  # type: ignore[union-attr]
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{head}{separator}{last}"


def year(value: int) -> str:
    """A year of four digits, or of fewer: "nineteen oh five", "two thousand eight"."""
    hundreds, rest = divmod(value, 100)
    if not 1000 <= value < 10000 or (hundreds % 10 == 0 and rest < 10):
        return cardinal(value)
    if not rest:
        return f"{cardinal(hundreds)} hundred"
    return f"{cardinal(hundreds)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def is_year(digits: str) -> bool:
    """Whether a number of four digits is rather a year than a count."""
    return len(digits) == 4 and digits.isdigit() and 1100 <= int(digits) <= 2099


def spelled(digits: str) -> str:
    """Digit by digit; what is no digit parts groups."""
    groups = re.findall(r"\d+", digits)
    return ", ".join(" ".join(_UNITS[int(digit)] for digit in group) for group in groups)


def number(written: str) -> str:
    """A number as `NUMBER` finds it: a count, with decimals or without, or a code."""
    whole, point, decimals = written.replace(",", "").partition(".")
    if point:
        said = cardinal(int(whole)) if len(whole) <= LONGEST_NUMBER else spelled(whole)
        return f"{said} point {spelled(decimals)}"
    if len(whole) > LONGEST_NUMBER or (len(whole) > 1 and whole[0] == "0"):
        return spelled(whole)
    return cardinal(int(whole))


_ROMAN = re.compile(r"(?=[MDCLXVI])M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def roman(written: str) -> int | None:
    """The value of a Roman numeral in capitals; None if it is none."""
    if not _ROMAN.fullmatch(written):
        return None
    values = [_ROMAN_DIGITS[letter] for letter in written]
    followers = [*values[1:], 0]
    return sum(-v if v < after else v for v, after in zip(values, followers, strict=True))

"""Dates and times of the day."""

from __future__ import annotations

import re

from csm_ggml.text.english.numbers import START, cardinal, is_year, ordinal, year
from csm_ggml.text.inflection import plural

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = {
    "Mon": "Monday",
    "Tue": "Tuesday",
    "Tues": "Tuesday",
    "Wed": "Wednesday",
    "Thu": "Thursday",
    "Thur": "Thursday",
    "Thurs": "Thursday",
    "Fri": "Friday",
    "Sat": "Saturday",
    "Sun": "Sunday",
}
_SHORT = {month[:3]: month for month in _MONTHS if month != "May"} | {"Sept": "September"}
_MONTH = "|".join([*_MONTHS, *(rf"{short}\b\.?" for short in _SHORT)])
_DAY = r"(?:[12]\d|3[01]|0?[1-9])"
_YEAR = r"(?:1\d{3}|20\d{2})"

_WEEKDAY = re.compile(rf"\b({'|'.join(_DAYS)})\b(?:\.(?=,? \w)|(?=,? (?:{_MONTH}|\d)))")
_ISO = re.compile(rf"{START}({_YEAR})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(?:T(?=\d)|(?![\w-]))")
_SLASHES = re.compile(rf"{START}(\d{{1,2}})([/.])(\d{{1,2}})\2({_YEAR})(?![\w/]|\.\d)")
_MONTH_DAY = re.compile(
    rf"\b({_MONTH})\s({_DAY})(?:st|nd|rd|th)?(?:\s?[-\u2013]\s?({_DAY}))?\b(?![:\d]|[.,]\d|%)"
    rf"(?:,?\s({_YEAR})\b(?![:\d-]|[.,]\d))?"
)
_DAY_MONTH = re.compile(
    rf"(?P<the>\b[Tt]he )?(?<![\w.,/:$-])({_DAY})(?:st|nd|rd|th)?(?:\s?[-\u2013]\s?({_DAY}))?"
    r"(?: of)? "
    rf"({_MONTH})(?!\w)(?:,?\s({_YEAR})\b(?![:\d-]|[.,]\d))?"
)
_MONTH_YEAR = re.compile(rf"\b({'|'.join(_SHORT)})\.? ({_YEAR})\b")
_DECADE = re.compile(r"(?<![\w.,-])(\d{2}|['\u2019]\d{2}|1\d{2}0|20\d0)['\u2019]?s\b")
_YEARS = re.compile(rf"(?<![\w.,/$-])({_YEAR})\s?[-\u2013]\s?({_YEAR}|\d{{2}})(?![\w/-]|[.,]\d)")
_SHORT_YEAR = re.compile(r"(?<!\w)['\u2019](\d{2})(?![\w'\u2019])")

_HALF = r"\s?(?P<half>[aApP])\.?\s?[mM](?:\.|\b)"
_TO_TIME = re.compile(r"(?<=\d:[0-5]\d)\s?[-\u2013]\s?(?=\d{1,2}:[0-5]\d(?![\d:]))")
_TIME = re.compile(
    rf"{START}(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d+)?)?(?![\d:])"
    rf"(?:{_HALF})?"
)
_HOUR = re.compile(
    rf"{START}(?P<hour>1[0-2]|0?[1-9])(?:\s?[-\u2013]\s?(?P<to>1[0-2]|0?[1-9]))?{_HALF}"
)


def say_dates(text: str) -> str:
    """Say dates, decades and spans of years in words."""
    text = _WEEKDAY.sub(lambda match: _DAYS[match[1]], text)
    text = _ISO.sub(
        lambda m: _date(int(m[2]), int(m[3]), m[1]) + (" at " if m[0].endswith("T") else ""), text
    )
    text = _SLASHES.sub(_slashes, text)
    text = _MONTH_DAY.sub(_month_day, text)
    text = _DAY_MONTH.sub(_day_month, text)
    text = _MONTH_YEAR.sub(lambda match: f"{_month(match[1])} {match[2]}", text)
    text = _YEARS.sub(_years, text)
    text = _DECADE.sub(_decade, text)
    return _SHORT_YEAR.sub(lambda match: _two_digits(match[1]), text)


def say_times(text: str) -> str:
    """Say times of the day, and durations of hours, minutes and seconds, in words."""
    return _HOUR.sub(_hour, _TIME.sub(_time, _TO_TIME.sub(" to ", text)))


def _month(written: str) -> str:
    return _SHORT.get(written.rstrip("."), written)


def _date(month: int, day: int, in_year: str) -> str:
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(int(in_year))}"


def _slashes(match: re.Match[str]) -> str:
    first, second = int(match[1]), int(match[3])
    # With dots the day comes first; with slashes the month, unless there is no such month.
    if match[2] == "." or first > 12:
        first, second = second, first
    if not 1 <= first <= 12 or not 1 <= second <= 31:
        return match[0]
    return _date(first, second, match[4])


def _month_day(match: re.Match[str]) -> str:
    said = f"{_month(match[1])} {ordinal(int(match[2]))}"
    if match[3]:
        said += f" to {ordinal(int(match[3]))}"
    return said + (f", {year(int(match[4]))}" if match[4] else "")


def _day_month(match: re.Match[str]) -> str:
    days = ordinal(int(match[2])) + (f" to {ordinal(int(match[3]))}" if match[3] else "")
    said = f"{match['the'] or 'the '}{days} of {_month(match[4])}"
    return said + (f", {year(int(match[5]))}" if match[5] else "")


def _two_digits(digits: str) -> str:
    return f"oh {cardinal(int(digits))}" if digits[0] == "0" else cardinal(int(digits))


def _years(match: re.Match[str]) -> str:
    end = match[2]
    if len(end) == 2 and int(end) <= int(match[1]) % 100:
        return match[0]
    return f"{year(int(match[1]))} to {year(int(end)) if is_year(end) else _two_digits(end)}"


def _decade(match: re.Match[str]) -> str:
    digits = match[1].lstrip("'\u2019")
    if len(digits) == 2 and (digits[1] != "0" or digits == "00"):
        return match[0]
    head, separator, last = re.fullmatch(  # type: ignore[union-attr]
        r"(.*?)([ -]?)(\w+)", year(int(digits)) if len(digits) == 4 else cardinal(int(digits))
    ).groups()
    return f"{head}{separator}{plural(last)}"


def _half_of(match: re.Match[str]) -> str:
    if match["half"] is None:
        return ""
    return f" {match['half'].lower()}.m."


def _time(match: re.Match[str]) -> str:
    hour, minute = int(match["hour"]), int(match["minute"])
    if match["second"] is not None and match["half"] is None:
        parts = [(hour, "hour"), (minute, "minute"), (int(match["second"]), "second")]
        said = [f"{cardinal(n)} {word if n == 1 else plural(word)}" for n, word in parts if n]
        return " ".join([*said[:-1], "and", said[-1]] if len(said) > 1 else said or ["zero hours"])
    if minute:
        said_time = f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    else:
        said_time = cardinal(hour) + (" o'clock" if match["half"] is None else "")
    return said_time + _half_of(match)


def _hour(match: re.Match[str]) -> str:
    to = f" to {cardinal(int(match['to']))}" if match["to"] else ""
    return f"{cardinal(int(match['hour']))}{to}{_half_of(match)}"

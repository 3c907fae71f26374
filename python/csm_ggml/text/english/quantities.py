"""Amounts: money, measures, shares, telephone numbers, sums, and then all numbers that are left."""

from __future__ import annotations

import re
import unicodedata

from csm_ggml.text.english.numbers import (
    NUMBER,
    START,
    cardinal,
    is_year,
    number,
    ordinal,
    spelled,
    year,
)
from csm_ggml.text.inflection import plural

_MINUS = r"(?:(?<![\w)\]])[-\u2212](?=[\d$\u00a3\u20ac.]))"
_DECIMAL = rf"(?:{NUMBER}|\.\d+)"
_TO = r"(?:\s?[-\u2013\u2014]\s?|\sto\s)"

# Sign -> one, many, and the hundredth part of it.
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent"),
    "US$": ("US dollar", "US dollars", "cent"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent"),
    "A$": ("Australian dollar", "Australian dollars", "cent"),
    "\u00a3": ("pound", "pounds", "penny"),
    "\u20ac": ("euro", "euros", "cent"),
    "\u00a5": ("yen", "yen", ""),
    "\u20b9": ("rupee", "rupees", "paisa"),
    "\u20a9": ("won", "won", ""),
    "\u20bd": ("ruble", "rubles", "kopeck"),
    "\u20bf": ("bitcoin", "bitcoins", ""),
    "USD": ("US dollar", "US dollars", "cent"),
    "EUR": ("euro", "euros", "cent"),
    "GBP": ("pound", "pounds", "penny"),
    "JPY": ("yen", "yen", ""),
    "CHF": ("Swiss franc", "Swiss francs", "centime"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent"),
    "AUD": ("Australian dollar", "Australian dollars", "cent"),
    "INR": ("rupee", "rupees", "paisa"),
    "CNY": ("yuan", "yuan", ""),
}
_PLURAL_PARTS = {"penny": "pence", "paisa": "paise"}
_SIGNS = "|".join(re.escape(sign) for sign in sorted(_CURRENCIES, key=len, reverse=True))
_SCALES = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "mn": "million",
    "mm": "million",
    "b": "billion",
    "B": "billion",
    "bn": "billion",
    "tn": "trillion",
    "T": "trillion",
}
_SCALE = rf"(?:\s?(?P<scale>thousand|million|billion|trillion)\b|(?P<short>{'|'.join(_SCALES)})\b)"
_MONEY = re.compile(
    rf"(?P<minus>{_MINUS})?(?<![\w$])(?P<sign>{_SIGNS})\s?(?P<minus2>[-\u2212])?(?P<amount>{_DECIMAL})"
    rf"(?:{_TO}(?:{_SIGNS})?(?P<to>{_DECIMAL}))?(?:[-\s]?{_SCALE})?(?!\d)"
    r"(?P<adjective>[\s-](?:bill|note|coin|banknote)\b)?(?:\s?/\s?(?P<per>[a-z]+)\b)?"
)
_MONEY_AFTER = re.compile(
    rf"{START}(?P<minus>[-\u2212])?(?P<amount>{_DECIMAL})(?:{_TO}(?P<to>{_DECIMAL}))?(?:{_SCALE})?\s?"
    r"(?P<sign>\u20ac|\u00a3|\u20bd|USD|EUR|GBP|JPY|CHF|CAD|AUD|INR|CNY)(?!\w)"
)
_CENTS = re.compile(rf"{START}({NUMBER})\s?\u00a2")

# Unit -> one, many where it is no plain plural.
_UNITS = {
    "km/h": "kilometer per hour",
    "kmh": "kilometer per hour",
    "kph": "kilometer per hour",
    "mph": "mile per hour",
    "m/s\u00b2": "meter per second squared",
    "m/s": "meter per second",
    "km/s": "kilometer per second",
    "km\u00b2": "square kilometer",
    "m\u00b2": "square meter",
    "cm\u00b2": "square centimeter",
    "mm\u00b2": "square millimeter",
    "m\u00b3": "cubic meter",
    "cm\u00b3": "cubic centimeter",
    "ft\u00b2": "square foot",
    "sq ft": "square foot",
    "sq. ft.": "square foot",
    "sq mi": "square mile",
    "km": "kilometer",
    "cm": "centimeter",
    "mm": "millimeter",
    "\u00b5m": "micrometer",
    "\u03bcm": "micrometer",
    "nm": "nanometer",
    "m": "meter",
    "ft": "foot",
    "in.": "inch",
    "yd": "yard",
    "mi": "mile",
    "ha": "hectare",
    "kg": "kilogram",
    "mg": "milligram",
    "\u00b5g": "microgram",
    "\u03bcg": "microgram",
    "mcg": "microgram",
    "g": "gram",
    "lbs": "pound",
    "lb": "pound",
    "oz": "ounce",
    "ml": "milliliter",
    "mL": "milliliter",
    "cl": "centiliter",
    "dl": "deciliter",
    "l": "liter",
    "L": "liter",
    "gal": "gallon",
    "tsp": "teaspoon",
    "tbsp": "tablespoon",
    "\u00b0C": "degree Celsius",
    "\u00b0F": "degree Fahrenheit",
    "\u2103": "degree Celsius",
    "\u2109": "degree Fahrenheit",
    "\u00b0": "degree",
    "ms": "millisecond",
    "\u00b5s": "microsecond",
    "ns": "nanosecond",
    "s": "second",
    "sec": "second",
    "secs": "second",
    "min": "minute",
    "mins": "minute",
    "h": "hour",
    "hr": "hour",
    "hrs": "hour",
    "yrs": "year",
    "Hz": "hertz",
    "kHz": "kilohertz",
    "MHz": "megahertz",
    "GHz": "gigahertz",
    "kB": "kilobyte",
    "KB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "kbps": "kilobit per second",
    "Mbps": "megabit per second",
    "Gbps": "gigabit per second",
    "mW": "milliwatt",
    "W": "watt",
    "kW": "kilowatt",
    "MW": "megawatt",
    "GW": "gigawatt",
    "Wh": "watt hour",
    "kWh": "kilowatt hour",
    "mAh": "milliampere hour",
    "mA": "milliampere",
    "mV": "millivolt",
    "V": "volt",
    "kV": "kilovolt",
    "kJ": "kilojoule",
    "cal": "calorie",
    "kcal": "kilocalorie",
    "Pa": "pascal",
    "hPa": "hectopascal",
    "kPa": "kilopascal",
    "dB": "decibel",
    "px": "pixel",
    "rpm": "revolution per minute",
    "fps": "frame per second",
    "bpm": "beat per minute",
    "dpi": "dot per inch",
    "%": "percent",
    "\u2030": "per mille",
}
_SAME = ("hertz", "kilohertz", "megahertz", "gigahertz", "percent", "per mille")
_UNIT = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_MEASURE = re.compile(
    rf"(?:(?P<minus>{_MINUS})|{START})(?P<amount>{_DECIMAL})(?:{_TO}(?P<to>{_DECIMAL}))?"
    rf"(?P<hyphen>-)?\s?(?P<unit>{_UNIT})(?![\w\u00b0/]|\.[A-Za-z])(?P<dot>\.(?=\s[a-z]))?"
)
_PER_UNIT = re.compile(
    rf"(?P<amount>{_DECIMAL})\s?(?P<unit>{_UNIT})/(?P<per>s|h|min|day|week|month|year|kg|l|L)\b"
)
_PER = {
    **{"hr": "hour", "wk": "week", "mo": "month", "yr": "year"},
    **{"s": "second", "h": "hour", "min": "minute", "kg": "kilogram", "l": "liter", "L": "liter"},
}
_HEIGHT = re.compile(rf"{START}(\d)['\u2032\u2019]\s?(1[01]|\d)(?:[\"\u2033\u201d]|'')")
_FEET = re.compile(rf"{START}(\d)\s?ft\.?\s(1[01]|\d)\s?in\b\.?")
_TIMES = re.compile(rf"{START}({_DECIMAL})x(?!\w)")
_BY = re.compile(
    rf"{START}({_DECIMAL})\s?[x\u00d7]\s?({_DECIMAL})(?:\s?[x\u00d7]\s?({_DECIMAL}))?(?!\w|\s?=)"
)

_PHONE = re.compile(
    r"(?<![\w.,/-])(?:(\+?1)[-. ]?)?(?:\((\d{3})\)\s?|(\d{3})[-. ])(\d{3})[-. ](\d{4})(?![\w-])"
    r"|(?<![\w.,/-])(\d{3})-(\d{4})(?![\w-])"
    r"|(?<![\w.,/-])\+(\d{1,3}(?:[ -]?\(?\d{2,4}\)?){2,5})(?![\w-])"
)
_CODE = re.compile(r"(?<![\w.,/-])\d+(?:-\d+){2,}(?![\w-])")
_DOTTED = re.compile(r"(?<![\w.,-])(v)?(\d+(?:\.\d+){2,})(?![\w-]|\.\d)", re.IGNORECASE)

_VULGAR = re.compile(r"(?:(\d+)\s?)?([\u00bc-\u00be\u2150-\u215e])")
_MIXED = re.compile(rf"{START}(?:(\d+)[ -])?(\d{{1,2}})[/\u2044](\d{{1,3}})(?![\w/]|[.,]\d)")
_PARTS = {2: "half", 4: "quarter"}
_SAID_TOGETHER = {"24/7": "twenty-four seven", "9/11": "nine eleven", "50/50": "fifty fifty"}

_POWER = re.compile(
    rf"(?<![\w.])({NUMBER}|[A-Za-z])(?:\^(-?\d+)|([\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+))(?!\w)"
)
_RATIO = re.compile(rf"{START}(\d+):(\d+)(?![\w:])")
_RANGE = re.compile(rf"{START}({NUMBER})\s?[-\u2013\u2014]\s?({NUMBER})(?![\w/-]|[.,]\d)")
_THOUSANDS = re.compile(rf"{START}({NUMBER})(k|M)\b(?!['\u2019-])")
_ORDINAL = re.compile(rf"{START}({NUMBER})(?:st|nd|rd|th)\b")
_OPERATORS = (
    (re.compile(r"(?<=\w)\s?\+\s?(?=[\d(])|(?<=\w)\s\+\s(?=\w)"), " plus "),
    (re.compile(r"(?<=[\d)])\s?[\u00d7*]\s?(?=[\d(])"), " times "),
    (re.compile(r"(?<=[\d)])\s?\u00f7\s?(?=[\d(])"), " divided by "),
    (re.compile(r"(?<=\d)\s[-\u2212]\s(?=\d+(?:\.\d+)?\s?=)"), " minus "),
    (re.compile(r"(?<=\w)\s?\u2260\s?(?=\w)"), " is not equal to "),
    (re.compile(r"(?<=[\w)])\s?=\s?(?=[-\w(])"), " equals "),
    (re.compile(r"\s?[\u2264]\s?(?=[-\w])"), " at most "),
    (re.compile(r"\s?[\u2265]\s?(?=[-\w])"), " at least "),
    (re.compile(r"(?<=\w)\s<\s(?=\w)"), " is less than "),
    (re.compile(r"(?<=\w)\s>\s(?=\w)"), " is greater than "),
    (re.compile(r"<\s?(?=\d)"), "less than "),
    (re.compile(r">\s?(?=\d)"), "more than "),
    (re.compile(r"\s?\u00b1\s?(?=\d)"), " plus or minus "),
    (re.compile(r"(?<![\w~])[~\u2248]\s?(?=\d)"), "about "),
    (re.compile(r"(?<=\w)\s?\u2248\s?(?=\w)"), " is about "),
    (re.compile(r"(?<=\d)\+(?!\w)"), " plus"),
    (re.compile(r"(?<![\w)\]])[-\u2212](?=\d)"), "minus "),
)
_POINT_FIVE = re.compile(r"(?<![\w.])\.(\d+)\b")
_PLAIN = re.compile(rf"({NUMBER})")
# No rule knows what so many digits are.
_ENDLESS = re.compile(r"\d{40,}")
# A number below 1100 is a year after one of these.
_IN_YEAR = re.compile(r"\b(?:in|since|until|year)\s$", re.IGNORECASE)
_COUNTED = re.compile(
    r"\s(?:people|men|women|children|words|pages|votes|members|students|soldiers|troops|workers|jobs|"
    r"times|copies|miles|feet|steps|ships|cars|homes|houses|books|points|shares|employees|units|"
    r"characters|tokens|samples|users|days|hours|minutes|seconds|years|dollars|euros|pounds)\b"
)


def spell_long_rows(text: str) -> str:
    """Spell rows of digits that are longer than any number, code or address."""
    return _ENDLESS.sub(lambda match: spelled(match[0]), text)


def say_amounts(text: str) -> str:
    """Say money, measures, telephone numbers and codes, fractions, ratios and ranges in words."""
    text = _PHONE.sub(lambda match: spelled(match[0]), text)
    text = _CODE.sub(lambda match: spelled(match[0]), text)
    text = _MONEY.sub(_money, text)
    text = _MONEY_AFTER.sub(_money, text)
    text = _CENTS.sub(lambda m: f"{number(m[1])} {'cent' if m[1] == '1' else 'cents'}", text)
    text = _FEET.sub(_height, _HEIGHT.sub(_height, text))
    text = _VULGAR.sub(_vulgar, text)
    text = _PER_UNIT.sub(_per_unit, text)
    text = _MEASURE.sub(_measure, text)
    text = _BY.sub(lambda m: " by ".join(number(n) for n in m.groups() if n), text)
    text = _TIMES.sub(lambda match: f"{_decimal(match[1])} times", text)
    return _MIXED.sub(_fraction, text)


def say_numbers(text: str) -> str:
    """Say sums, versions, ordinals, years and all other numbers in words."""
    text = _DOTTED.sub(_dotted, text)
    text = _POWER.sub(_power, text)
    text = _RATIO.sub(lambda match: f"{number(match[1])} to {number(match[2])}", text)
    text = _RANGE.sub(_range, text)
    text = _THOUSANDS.sub(lambda match: f"{number(match[1])} {_SCALES[match[2]]}", text)
    text = _ORDINAL.sub(lambda match: _ordinal(match[1]), text)
    for pattern, words in _OPERATORS:
        text = pattern.sub(words, text)
    text = _POINT_FIVE.sub(lambda match: f"point {spelled(match[1])}", text)
    return _PLAIN.sub(_plain, text)


def _decimal(written: str) -> str:
    return f"zero point {spelled(written)}" if written.startswith(".") else number(written)


def _money(match: re.Match[str]) -> str:
    found = match.groupdict()
    one, many, part = _CURRENCIES[found["sign"]]
    minus = "minus " if found["minus"] or found.get("minus2") else ""
    scale = found["scale"] or _SCALES.get(found["short"] or "", "")
    amount, to = found["amount"], found["to"]
    if scale or to:
        said = _decimal(amount) + (f" to {_decimal(to)}" if to else "")
        said = f"{said} {scale}".rstrip() + f" {many}"
    else:
        said = _coins(amount, one, many, part)
    if found.get("adjective"):
        said = f"{_decimal(amount)} {scale}".rstrip() + f" {one} {found['adjective'][1:]}"
    return minus + said + _per(found.get("per"))


def _per(unit: str | None) -> str:
    return f" per {_PER.get(unit, unit)}" if unit else ""


def _coins(amount: str, one: str, many: str, part: str) -> str:
    whole, _, cents = amount.replace(",", "").partition(".")
    count = int(whole or 0)
    if not cents or len(cents) != 2 or not part:
        return f"{_decimal(amount)} {one if amount == '1' else many}"
    said = []
    if count or not int(cents):
        said.append(f"{cardinal(count)} {one if count == 1 else many}")
    if int(cents):
        parts = part if int(cents) == 1 else _PLURAL_PARTS.get(part) or plural(part)
        said.append(f"{cardinal(int(cents))} {parts}")
    return " and ".join(said)


def _many(unit: str) -> str:
    """More than one: square feet, degrees Celsius, kilometers per hour."""
    if unit in _SAME:
        return unit
    words = unit.split(" ")
    at = 1 if words[0] in ("square", "cubic") or (words[-1] == "hour" and "per" not in words) else 0
    at = min(at, len(words) - 1)
    words[at] = "feet" if words[at] == "foot" else plural(words[at])
    return " ".join(words)


def _measure(match: re.Match[str]) -> str:
    one = _UNITS[match["unit"]]
    said = _decimal(match["amount"]) + (f" to {_decimal(match['to'])}" if match["to"] else "")
    single = match["hyphen"] or (match["amount"] == "1" and not match["to"])
    return f"{'minus ' if match['minus'] else ''}{said} {one if single else _many(one)}"


def _per_unit(match: re.Match[str]) -> str:
    one = _UNITS[match["unit"]]
    said = one if match["amount"] == "1" else _many(one)
    return f"{_decimal(match['amount'])} {said} per {_PER.get(match['per'], match['per'])}"


def _height(match: re.Match[str]) -> str:
    feet, inches = int(match[1]), int(match[2])
    return (
        f"{cardinal(feet)} {'foot' if feet == 1 else 'feet'} "
        f"{cardinal(inches)} {'inch' if inches == 1 else 'inches'}"
    )


def _share(above: int, below: int) -> str:
    name = _PARTS.get(below) or ordinal(below)
    if above == 1:
        return f"one {name}"
    return f"{cardinal(above)} {'halves' if below == 2 else plural(name)}"


def _and_share(whole: str | None, above: int, below: int) -> str:
    if not whole:
        return _share(above, below)
    share = _share(above, below)
    article = "an eighth" if below == 8 else f"a {share[4:]}"
    return f"{cardinal(int(whole))} and {article if above == 1 else share}"


def _vulgar(match: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
    return _and_share(match[1], int(above), int(below))


def _fraction(match: re.Match[str]) -> str:
    if match[0] in _SAID_TOGETHER:
        return _SAID_TOGETHER[match[0]]
    above, below = int(match[2]), int(match[3])
    if 0 < above < below and (below <= 9 or below in (12, 16, 20, 32, 64)):
        return _and_share(match[1], above, below)
    if match[1]:
        return match[0]
    if below in (10, 100):
        return f"{cardinal(above)} out of {cardinal(below)}"
    return f"{cardinal(above)} over {cardinal(below)}"


def _dotted(match: re.Match[str]) -> str:
    parts = match[2].split(".")
    # Four parts are an address of the internet.
    said = (" dot " if len(parts) == 4 else " point ").join(number(part) for part in parts)
    return f"version {said}" if match[1] else said


def _power(match: re.Match[str]) -> str:
    exponent = match[2] or unicodedata.normalize("NFKC", match[3])
    base = number(match[1]) if match[1][0].isdigit() else match[1]
    if exponent in ("2", "3"):
        return f"{base} {'squared' if exponent == '2' else 'cubed'}"
    return f"{base} to the power of {cardinal(int(exponent))}"


def _range(match: re.Match[str]) -> str:
    first, last = match[1], match[2]
    if is_year(first) and is_year(last):
        return f"{year(int(first))} to {year(int(last))}"
    return f"{number(first)} to {number(last)}"


def _ordinal(written: str) -> str:
    digits = written.replace(",", "")
    return ordinal(int(digits)) if digits.isdigit() and len(digits) <= 15 else number(written)


def _plain(match: re.Match[str]) -> str:
    written, text = match[1], match.string
    before = text[match.start() - 1 : match.start()] if match.start() else ""
    after = text[match.end() : match.end() + 1]
    counted = _COUNTED.match(text, match.end()) is not None
    in_year = _IN_YEAR.search(text, max(0, match.start() - 8), match.start()) is not None
    apart = not before.isalpha() and not after.isalpha()
    early = in_year and re.fullmatch(r"10\d\d", written) is not None
    if apart and not counted and (early or is_year(written)):
        said = year(int(written))
    else:
        said = number(written)
    # Letters and digits of one code are said apart: "GPT-4", "H2O", "4K".
    left = " " if before.isalnum() or before in ("_", ".") else ""
    return left + said + (" " if after.isalnum() or after == "_" else "")

"""Abbreviations, Roman numerals and signs that stand for words."""

from __future__ import annotations

import re

from csm_ggml.text.english.numbers import cardinal, ordinal, roman
from csm_ggml.text.sentences import STARTERS

# Before a name. A full stop after them is never the end of a sentence.
_TITLES = {
    "Dr": "Doctor",
    "Mr": "Mister",
    "Mrs": "Missus",
    "Prof": "Professor",
    "Capt": "Captain",
    "Col": "Colonel",
    "Gen": "General",
    "Gov": "Governor",
    "Hon": "Honorable",
    "Lt": "Lieutenant",
    "Maj": "Major",
    "Pres": "President",
    "Rep": "Representative",
    "Rev": "Reverend",
    "Sen": "Senator",
    "Sgt": "Sergeant",
    "Cpl": "Corporal",
    "Cmdr": "Commander",
    "Adm": "Admiral",
    "St": "Saint",
    "Mt": "Mount",
    "Ft": "Fort",
}
_TITLE = re.compile(rf"\b({'|'.join(_TITLES)})\.? (?=[A-Z][\w'\u2019.-])")
# The others are words or names without a full stop.
_WITHOUT_STOP = ("Dr", "Mr", "Mrs", "Prof", "Capt", "Lt", "Sgt", "Cpl", "Cmdr")

# After a name of a street, before anything but a name.
_STREETS = {
    "St": "Street",
    "Ave": "Avenue",
    "Blvd": "Boulevard",
    "Rd": "Road",
    "Dr": "Drive",
    "Ln": "Lane",
    "Hwy": "Highway",
    "Sq": "Square",
}
_STREET = re.compile(
    rf"\b([A-Z][\w'\u2019]*|\d+(?:st|nd|rd|th)) ({'|'.join(_STREETS)})(?:\.|(?=,))(?=\s|,|$)"
)

# At the end of a sentence their full stop is its, too.
_ABBREVIATIONS = {
    "etc.": "et cetera",
    "vs.": "versus",
    "v.": "versus",
    "approx.": "approximately",
    "dept.": "department",
    "govt.": "government",
    "max.": "maximum",
    "min.": "minimum",
    "misc.": "miscellaneous",
    "intl.": "international",
    "est.": "established",
    "Inc.": "Incorporated",
    "Ltd.": "Limited",
    "Co.": "Company",
    "Corp.": "Corporation",
    "Bros.": "Brothers",
    "Assn.": "Association",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "Esq.": "Esquire",
    "et al.": "and others",
    "e.g.": "for example",
    "i.e.": "that is",
    "viz.": "namely",
    "cf.": "compare",
    "ca.": "around",
    "a.k.a.": "also known as",
    "aka": "also known as",
    "Ph.D.": "P H D",
    "w/o": "without",
    "w/": "with ",
    "b/c": "because",
    "vs": "versus",
}
_ONLY_AS_WRITTEN = ("v.", "Co.", "est.", "min.", "max.", "ca.")
_ABBREVIATION = re.compile(
    r"(?<![\w.])(?:"
    + "|".join(re.escape(short) for short in sorted(_ABBREVIATIONS, key=len, reverse=True))
    + r")(?!\w(?<!w/.))",
    re.IGNORECASE,
)
_LOOKUP = {short.lower(): words for short, words in _ABBREVIATIONS.items()}

# Before a number.
_REFERENCES = {
    "no": "number",
    "nos": "numbers",
    "nr": "number",
    "p": "page",
    "pp": "pages",
    "pg": "page",
    "ch": "chapter",
    "chap": "chapter",
    "chaps": "chapters",
    "sec": "section",
    "vol": "volume",
    "vols": "volumes",
    "fig": "figure",
    "figs": "figures",
    "eq": "equation",
    "art": "article",
    "ex": "example",
    "op": "opus",
    "c": "around",
    "ed": "edition",
}
_REFERENCE = re.compile(rf"\b({'|'.join(_REFERENCES)})\.\s?(?=\d|[IVXLC]+\b)", re.IGNORECASE)
_SECTION = re.compile(r"(\u00a7{1,2}|\u00b6)\s?(?=\d)")
_NUMBER_SIGN = re.compile(r"(?:(?<![\w#&])#|\u2116)\s?(?=\d)")

_PARTS = (
    "Chapter|Part|Book|Volume|Act|Scene|Section|Article|Appendix|Canto|Phase|Stage|Type|Class|Level|"
    "Episode|Season|Psalm|Figure|Table|Lesson|Unit|Step|War|Bowl|Apollo|Title|Schedule|Grade|Group|"
    "Mark|Plate|Verse|Letter|Movement|Symphony|Round|Exercise|Tier|Factor|Olympiad|Division"
)
_PART = re.compile(rf"\b({_PARTS})( )([IVXLCDM]+)\b(?!['\u2019.]\w)", re.IGNORECASE)
_KINGS = (
    "Albert|Alexander|Alfonso|Augustus|Baldwin|Benedict|Boniface|Carl|Catherine|Charles|Christian|"
    "Clement|Cleopatra|Constantine|Darius|David|Edward|Elizabeth|Emmanuel|Felipe|Ferdinand|Francis|"
    "Frederick|George|Gregory|Gustav|Haakon|Harald|Henry|Innocent|Isabella|Ivan|James|John|Joseph|"
    "Juan Carlos|Julius|Leo|Leopold|Louis|Malcolm|Margaret|Margrethe|Mary|Maximilian|Mehmed|Murad|"
    "Napoleon|Nicholas|Olav|Otto|Paul|Peter|Philip|Pius|Ptolemy|Ramesses|Ramses|Richard|Robert|Rudolf|"
    "Selim|Sixtus|Stephen|Suleiman|Theodosius|Thutmose|Umberto|Urban|Victoria|Wilhelm|William|Xerxes"
)
_KING = re.compile(rf"\b({_KINGS}) ([IVX]+)\b(?!['\u2019]m|\.\w)")
# "Mary I know" is no queen.
_I_DO = re.compile(
    r" (?:am|think|know|have|had|believe|guess|mean|love|hope|suppose|say|said|do|did|will|would|"
    r"can|could|want|like|need|never|once|also|still|saw|met|see)\b"
)
_HEADING = re.compile(r"([IVXLC]+)(?=[.:)]? ?$|[.:)]\s|\s[-\u2013\u2014]\s)")

_NEXT_NAME = re.compile(r"\s+([A-Z]\w*)")

_AND = re.compile(r"(?<=[\w.)])\s?&\s?(?=\w)")
_OR = re.compile(r"\b(and)/(or)\b", re.IGNORECASE)
_EITHER = re.compile(r"(?<![\w/.-])([A-Za-z][a-z]+)/([a-z]{2,})(?![\w/-])")
_SLASH = re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])")
_AT = re.compile(r"(?<=\w)\s@\s(?=\w)")
_ARROW = re.compile(r"\s?(?:-+>|=+>|[\u2192\u21d2])\s?")
_DASHES = re.compile(r"(?<=\w)--(?=\w)|(?<=\S)\s--(?=\s)\s")
_FLAG = re.compile(r"(?<![\w-])--(?=[A-Za-z])|(?<!\S)#+(?!\S)")
_SIGNS = re.compile(r"[_|\\^~\u2022]+")
_SILENT = re.compile(r"[<>{}*`]")


def say_headings(line: str, *, is_heading: bool) -> str:
    """Say a Roman numeral that a heading begins with, or that stands alone, in words."""
    match = _HEADING.match(line)
    if match is None or (not is_heading and match.end() < len(line.rstrip(".)"))):
        return line
    value = roman(match[1])
    if value is None or (line == "I" and not is_heading):
        return line
    said = cardinal(value)
    return said[0].upper() + said[1:] + line[match.end() :]


def say_words(text: str) -> str:
    """Say abbreviations and Roman numerals in words."""
    text = _NUMBER_SIGN.sub("number ", _SECTION.sub(_section, _REFERENCE.sub(_reference, text)))
    text = _KING.sub(_king, _PART.sub(_part, text))
    text = _STREET.sub(_street, text)
    text = _TITLE.sub(_title, text)
    return _ABBREVIATION.sub(_abbreviation, text)


def say_signs(text: str) -> str:
    """Say what is left of signs that are words, and drop those that are none."""
    text = _AT.sub(" at ", _AND.sub(" and ", text))
    text = _SLASH.sub(" ", _EITHER.sub(r"\1 or \2", _OR.sub(r"\1 \2", text)))
    text = _DASHES.sub("\u2014", _ARROW.sub(" to ", text))
    return _SILENT.sub("", _SIGNS.sub(" ", _FLAG.sub("", text)))


def _stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation where it ends the sentence, too."""
    following = match.string[match.end() : match.end() + 40].lstrip("\"'\u2019\u201d)")
    if not match[0].endswith("."):
        return ""
    first = _NEXT_NAME.match(following)
    ends = not following.strip() or (first is not None and first[1].lower() in STARTERS)
    return "." if ends else ""


def _street(match: re.Match[str]) -> str:
    name = _NEXT_NAME.match(match.string, match.end())
    # "Then Dr. Lee" is no street.
    if match[2] in _TITLES and name and name[1].lower() not in STARTERS:
        return match[0]
    return f"{match[1]} {_STREETS[match[2]]}{_stop(match)}"


def _title(match: re.Match[str]) -> str:
    short = match[1]
    if short not in _WITHOUT_STOP and not match[0].startswith(f"{short}."):
        return match[0]
    return f"{_TITLES[short]} "


def _abbreviation(match: re.Match[str]) -> str:
    short = match[0]
    words = _LOOKUP[short.lower()]
    if short in ("min.", "max.") and re.search(
        r"\d\s?$", match.string[max(0, match.start() - 2) : match.start()]
    ):
        return short
    as_written = next(s for s in _ABBREVIATIONS if s.lower() == short.lower())
    if as_written in _ONLY_AS_WRITTEN and short != as_written:
        return short
    if short[0].isupper():
        words = words[0].upper() + words[1:]
    return words + _stop(match)


def _reference(match: re.Match[str]) -> str:
    words = _REFERENCES[match[1].lower()]
    is_first = match.start() == 0 and match[1][0].isupper()
    return f"{words.capitalize() if is_first else words} "


def _section(match: re.Match[str]) -> str:
    if match[1] == "\u00b6":
        return "paragraph "
    return "sections " if len(match[1]) > 1 else "section "


def _part(match: re.Match[str]) -> str:
    value = roman(match[3])
    following = match.string[match.end() : match.end() + 5]
    goes_on = following.startswith((" of ", " and ", " to ", " is ", " was ", " or "))
    if value is None or (match[3] == "I" and re.match(r" [a-z]", following) and not goes_on):
        return match[0]
    return f"{match[1]} {cardinal(value)}"


def _king(match: re.Match[str]) -> str:
    value = roman(match[2])
    if value is None or (match[2] == "I" and _I_DO.match(match.string, match.end())):
        return match[0]
    return f"{match[1]} the {ordinal(value).capitalize()}"

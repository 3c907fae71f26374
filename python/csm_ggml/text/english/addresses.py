"""Addresses of the web and of e-mail, names of files and people online, as they are told aloud."""

from __future__ import annotations

import re

_ENDS = (
    "com|org|net|edu|gov|mil|int|info|biz|name|io|ai|app|dev|me|tv|co|us|uk|de|fr|es|it|nl|ch|at|be|"
    "se|no|dk|fi|pl|cz|ru|jp|cn|in|au|nz|ca|br|mx|za|eu|ie|pt|gr|kr|xyz|online|site|tech|blog|cloud"
)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PATH = r"(?:[/?#](?:[\w./?#&=%+~:@!$,;*-]*[\w/])?)?"
_URL = re.compile(
    rf"\b(?:(?:https?|ftp)://(?P<host>[\w.-]+\w)|(?P<www>www(?:\.{_LABEL})+)"
    rf"|(?P<bare>(?<![@\w.-])(?:{_LABEL}\.)+(?:{_ENDS})(?![\w-]|\.\w)))(?P<port>:\d{{2,5}})?"
    rf"(?P<path>{_PATH})"
)
_EMAIL = re.compile(
    rf"(?:mailto:)?\b(?P<user>[\w.+-]{{0,63}}\w)@(?P<host>(?:{_LABEL}\.)+[A-Za-z]{{2,}})\b"
)
_HANDLE = re.compile(r"(?<![\w@])@(?=[A-Za-z_]\w)")
_HASHTAG = re.compile(r"(?<![\w#&])#(?=[A-Za-z_]\w)")
_FILE = re.compile(
    r"\b([\w-]+)\.(pdf|txt|docx?|xlsx?|pptx?|csv|json|ya?ml|xml|html?|css|js|ts|py|cpp|sh|exe|zip|tar|gz|"
    r"jpe?g|png|gif|svg|mp3|mp4|wav|flac|ogg|gguf|md|log|ini|cfg|dll|so)\b"
)
_SIGNS = {"-": " dash ", "_": " underscore ", "+": " plus ", ".": " dot "}


def say_addresses(text: str) -> str:
    """Say URLs, e-mail addresses, file names, handles and hashtags in words and digits."""
    if "@" in text:
        text = _HANDLE.sub("at ", _EMAIL.sub(_email, text))
    if "." in text:
        text = _FILE.sub(lambda match: f"{_name(match[1])} dot {match[2]}", _URL.sub(_url, text))
    return _HASHTAG.sub("hashtag ", text)


def _email(match: re.Match[str]) -> str:
    return f"{_signs(match['user'])} at {_signs(match['host'])}"


def _url(match: re.Match[str]) -> str:
    host = match["host"] or match["www"] or match["bare"]
    # Nobody reads a query aloud.
    path = re.split(r"[?#]", match["path"])[0].strip("/")
    parts = [_signs(host.removeprefix("www."))]
    if match["port"]:
        parts.append(f"port {match['port'][1:]}")
    for part in path.split("/") if path else ():
        words = re.sub(r"%[0-9A-Fa-f]{2}|[^\w.]|_", " ", part).replace(".", " dot ")
        parts.append(f"slash {words}")
    return " ".join(" ".join(parts).split())


def _signs(address: str) -> str:
    return " ".join("".join(_SIGNS.get(c, c) for c in address).split())


def _name(name: str) -> str:
    return " ".join(re.split(r"[_-]+", name)).strip()

"""What whoever runs the server may set."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from csm_ggml.text.lexicon import Lexicon

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Settings of a server, apart from its address and its model.

    Attributes:
        voices: Folder of saved voices; None for none, and no uploads.
        default_voice: Id or name of the voice of requests that name none; None for the model's own
            speaker 0.
        aliases: Further names of voices, to their ids or names.
        models: Further names that requests may give the model.
        keys: SHA-256 of each key that lets requests in; empty for no keys.
        hosts: Values that the Host header may have, without ports; None for any.
        origins: Other origins whose pages may use the server.
        public_lists: Whether lists of models and voices need no key.
        public_metrics: Whether /metrics needs no key.
        normalize: "en" has numbers, dates and the like said in English words, unless a request
            says otherwise.
        lexicon: How words are pronounced.
        input_characters: Longest text of a request.
        json_bytes: Longest body of a request.
        upload_bytes: Longest body of a voice upload.
        body_seconds: A request's body must have come by then.
        stall_seconds: A client that takes nothing for so long is given up.
        chunk_frames: Frames in the parts of a live stream after the first; None for as many as the
            model makes in no time.
        unread_seconds: Speech that is made ahead of a slow client.
        drain_seconds: What is being said when the server is asked to stop may take so long.
        voices_kept: Uploaded voices at most.
        batch_items: Texts of one batch request at most.
        sessions: WebSocket and Wyoming connections at most.
        log_texts: Whether the log holds what was said.
    """

    voices: Path | None = None
    default_voice: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    keys: tuple[bytes, ...] = ()
    hosts: tuple[str, ...] | None = ("localhost", "127.0.0.1", "::1")
    origins: tuple[str, ...] = ()
    public_lists: bool = False
    public_metrics: bool = False
    normalize: str | None = None
    lexicon: Lexicon | None = None
    input_characters: int = 4096
    json_bytes: int = MEBIBYTE
    upload_bytes: int = 10 * MEBIBYTE
    body_seconds: float = 30.0
    stall_seconds: float = 60.0
    chunk_frames: int | None = None
    unread_seconds: float = 120.0
    drain_seconds: float = 120.0
    voices_kept: int = 1000
    batch_items: int = 64
    sessions: int = 64
    log_texts: bool = False


def key_digest(key: str) -> bytes:
    """What is kept of a key, and compared: it has the same length for all, and tells nothing."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def read_keys(lines: Iterable[str]) -> tuple[bytes, ...]:
    """The digests of keys, one a line; empty lines and those that begin with # are skipped."""
    stripped = (line.strip() for line in lines)
    return tuple(key_digest(line) for line in stripped if line and not line.startswith("#"))


def is_loopback(host: str) -> bool:
    """Whether a server at this address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Voices that requests may name: the model's own, saved ones, uploaded ones, and other names.

A saved voice is a file `ID.voice` in the folder, an uploaded one has `ID.json` beside it with its
name and the consent. Servers may share a folder: each sees what the others add and delete. Names
and ids of requests are looked up among what was found there, and never
become part of a path.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from csm_ggml.errors import VoiceFileError
from csm_ggml.files import write_file
from csm_ggml.server.problems import ApiError
from csm_ggml.server.settings import Settings
from csm_ggml.voices.voice import Voice

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "onyx"),
    *("nova", "sage", "shimmer", "verse", "marin", "cedar"),
)
# The model's own speakers that CSM was trained on most.
OWN_SPEAKERS = (0, 1)

# How often a folder is looked at.
_LOOK_SECONDS = 1.0

log = logging.getLogger("csm_ggml.server")

_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class VoiceEntry:
    """A voice as it is listed.

    Attributes:
        id: What names it for good.
        name: What people call it.
        created_at: Seconds since 1970.
        uploaded: Whether a client brought it, and may take it away.
        consent: What the one who uploaded it said of the speaker's consent.
    """

    id: str
    name: str
    created_at: int
    uploaded: bool = False
    consent: str | None = None


class VoiceStore:
    """The voices of one server. Its methods may be called from any thread."""

    def __init__(self, settings: Settings) -> None:
        """Read the folder.

        Raises:
            VoiceFileError: If a file in it is no voice.
            ValueError: If the default voice or an alias names none.
        """
        self._folder = settings.voices
        self._limit = settings.voices_kept
        self._aliases = dict(settings.aliases)
        self._default = settings.default_voice
        self._lock = threading.Lock()
        self._changed = -1
        self._looked = 0.0
        self._entries: dict[str, VoiceEntry] = {}
        self._loaded: dict[str, Voice] = {}
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self._folder.glob("*.voice")):
                self._read(path)
        for name in [*([self._default] if self._default else []), *self._aliases.values()]:
            if self._find(name) is None and _own_speaker(name) is None:
                raise ValueError(
                    f"there is no voice {name!r}; known are {', '.join(self._names())}"
                )

    def _read(self, path: Path) -> None:
        id = path.stem
        if not _ID.fullmatch(id):
            raise VoiceFileError(
                f"{path}: the name of a voice file is its id, and may have letters, digits and ._-"
            )
        voice = Voice.load(path)
        entry = VoiceEntry(id, id, int(path.stat().st_mtime))
        described = path.with_suffix(".json")
        if described.exists():
            try:
                entry = VoiceEntry(**json.loads(described.read_text(encoding="utf-8")))
            except (TypeError, ValueError) as error:
                raise VoiceFileError(
                    f"{described}: not the description of a voice: {error}"
                ) from None
        self._entries[id] = entry
        self._loaded[id] = voice

    def _refresh(self) -> None:
        """See what other servers have changed in the folder."""
        now = time.monotonic()
        if self._folder is None or now < self._looked + _LOOK_SECONDS:
            return
        self._looked = now
        try:
            if (changed := self._folder.stat().st_mtime_ns) == self._changed:
                return
            found = {path.stem: path for path in self._folder.glob("*.voice")}
        except OSError:
            return
        with self._lock:
            self._changed = changed
            for id in set(self._entries) - set(found):
                del self._entries[id], self._loaded[id]
            for id in sorted(set(found) - set(self._entries)):
                try:
                    self._read(found[id])
                except (OSError, VoiceFileError) as error:
                    log.warning("a voice is left out: %s", error)

    @property
    def can_upload(self) -> bool:
        """Whether there is a folder for uploaded voices."""
        return self._folder is not None

    def entries(self) -> list[VoiceEntry]:
        """All voices, OpenAI's names and other aliases included."""
        self._refresh()
        with self._lock:
            saved = list(self._entries.values())
        known = {entry.name for entry in saved}
        own = [VoiceEntry(f"speaker-{number}", f"speaker-{number}", 0) for number in OWN_SPEAKERS]
        names = [name for name in (*self._aliases, *OPENAI_VOICES) if name not in known]
        return [*saved, *own, *(VoiceEntry(name, name, 0) for name in dict.fromkeys(names))]

    def get(self, name: str | None) -> Voice | int:
        """The voice that a request means, or the number of one of the model's own speakers.

        Raises:
            ApiError: If there is none.
        """
        self._refresh()
        if name is None or name == "":
            name = self._default
        if name is None:
            return OWN_SPEAKERS[0]
        for candidate in (name, self._aliases.get(name), self._openai(name)):
            if candidate is None:
                continue
            if (voice := self._find(candidate)) is not None:
                return voice
            if (speaker := _own_speaker(candidate)) is not None:
                return speaker
        raise ApiError(
            400,
            "there is no such voice; GET /v1/audio/voices lists those that there are",
            param="voice",
            code="voice_not_found",
        )

    def _openai(self, name: str) -> str | None:
        if name.lower() not in OPENAI_VOICES:
            return None
        return self._default or f"speaker-{OWN_SPEAKERS[0]}"

    def _find(self, name: str) -> Voice | None:
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            for entry in self._entries.values():
                if entry.name == name:
                    return self._loaded[entry.id]
        return None

    def _names(self) -> Iterable[str]:
        return [entry.id for entry in self._entries.values()] + [
            f"speaker-{n}" for n in OWN_SPEAKERS
        ]

    def add(self, voice: Voice, name: str, consent: str) -> VoiceEntry:
        """Keep an uploaded voice.

        Raises:
            ApiError: If there is no folder, no room, or the name is taken.
        """
        if self._folder is None:
            raise ApiError(400, "this server keeps no voices; it was started without --voices")
        entry = VoiceEntry(
            f"voice_{secrets.token_hex(12)}", name, int(time.time()), uploaded=True, consent=consent
        )
        with self._lock:
            if sum(other.uploaded for other in self._entries.values()) >= self._limit:
                raise ApiError(409, f"{self._limit} voices are kept at most; delete one first")
            taken = {other.name for other in self._entries.values()} | set(self._entries)
            if name in taken or _own_speaker(name) is not None:
                raise ApiError(409, "there is a voice of this name already", param="name")
            path = self._folder / f"{entry.id}.voice"
            # The description first: a voice without one would be taken for one that was put there.
            write_file(path.with_suffix(".json"), json.dumps(asdict(entry)).encode())
            write_file(path, voice.to_bytes())
            self._entries[entry.id] = entry
            self._loaded[entry.id] = voice
        return entry

    def remove(self, id: str) -> VoiceEntry:
        """Delete an uploaded voice.

        Raises:
            ApiError: If there is none of this id, or it was not uploaded.
        """
        self._refresh()
        with self._lock:
            entry = self._entries.get(id)
            if entry is None:
                raise ApiError(404, "there is no voice of this id", code="voice_not_found")
            if not entry.uploaded or self._folder is None:
                raise ApiError(403, "this voice was not uploaded; whoever runs the server keeps it")
            path = self._folder / f"{entry.id}.voice"
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
            del self._entries[id], self._loaded[id]
        return entry


def _own_speaker(name: str) -> int | None:
    match = re.fullmatch(r"speaker-([0-9]{1,4})", name)
    return int(match[1]) if match else None

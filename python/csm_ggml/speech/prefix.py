"""KV prefixes: what many prompts begin with, such as a voice, is evaluated once and kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from csm_ggml.voices.prompt import EncodedSegment, PromptBuilder, Rows
from csm_ggml.voices.voice import VoicePrefix

# Prefixes that a model remembers; of a long voice of CSM-1B each holds up to 64 MB.
KEEP = 8


@dataclass(eq=False)
class KVPrefix:
    """Rows that a prompt begins with, and their keys and values once somebody has computed them.

    Attributes:
        rows: The rows, the one that ends the last audio included.
        data: What `_core.Engine.save_prefix` returned for all rows but the last, which is
            evaluated with whatever follows it; None until a prompt with this prefix was evaluated.
    """

    rows: Rows
    data: bytes | None = None


def prefix_key(segments: Sequence[EncodedSegment]) -> str:
    """A digest of the segments: speakers, texts and codes."""
    digest = hashlib.sha256()
    for segment in segments:
        text = segment.turn.text.encode()
        digest.update(b"%d %d %d\n" % (segment.turn.speaker, len(text), len(segment.codes)))
        digest.update(text)
        digest.update(segment.codes.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()


class PrefixCache:
    """The prefixes that one model has met; the least recently used one is dropped first.

    May be used from several threads.
    """

    def __init__(self) -> None:
        self._prefixes: OrderedDict[str, KVPrefix] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        segments: Sequence[EncodedSegment],
        prompts: PromptBuilder,
        saved: VoicePrefix | None = None,
    ) -> KVPrefix:
        """The prefix of these segments.

        Args:
            segments: What the prompt begins with; at least one.
            prompts: Builds the rows.
            saved: Keys and values from a voice's file, where it holds them. A prefix that came from
                a file is kept apart from the one that this model computes of the same segments, so
                that a wrong file harms only those who use it.
        """
        key = prefix_key(segments)
        if saved is not None:
            key += saved.digest
        with self._lock:
            if key not in self._prefixes:
                data = None if saved is None else saved.data
                self._prefixes[key] = KVPrefix(prompts.context_rows(segments), data)
            self._prefixes.move_to_end(key)
            if len(self._prefixes) > KEEP:
                self._prefixes.popitem(last=False)
            return self._prefixes[key]

"""What many utterances begin with - a voice - evaluated once: its keys and values are kept."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from csm_ggml.speech.engine import Costs, Engine, prefill
from csm_ggml.speech.options import Sampling
from csm_ggml.voices.prompt import PromptBuilder, Rows, SpokenSegment

# Voices that a model remembers; of a long voice of CSM-1B each holds up to 64 MB.
KEEP = 8


@dataclass(eq=False)
class Prefix:
    """Rows that a prompt may begin with.

    Attributes:
        rows: The rows, the one that ends the last audio included.
        data: What `_core.Engine.save_prefix` made of all but the last of them (that one is
            evaluated with whatever follows); None until somebody has evaluated them.
    """

    rows: Rows
    data: bytes | None = None

    def evaluate(self, engine: Engine) -> None:
        """Compute the keys and values in a slot of an idle engine."""
        slot = engine.open(seed=0, **Sampling().as_dict())
        try:
            prefill(engine, slot, self.rows, Costs())
            self.data = engine.save_prefix(slot)
        finally:
            engine.close(slot)


def prefix_key(segments: Sequence[SpokenSegment]) -> str:
    """A digest of who says what and how."""
    digest = hashlib.sha256()
    for segment in segments:
        text = segment.turn.text.encode()
        digest.update(b"%d %d %d\n" % (segment.turn.speaker, len(text), len(segment.codes)))
        digest.update(text)
        digest.update(segment.codes.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()


class PrefixCache:
    """The prefixes that one model has met, the least recently used one dropped first.

    May be used from several threads. Two that meet a new prefix at once both evaluate it, which
    costs time but gives the same.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, segments: Sequence[SpokenSegment], prompts: PromptBuilder, data: bytes | None = None
    ) -> Prefix:
        """The prefix of these segments.

        Args:
            segments: What the prompt begins with; at least one.
            prompts: Builds the rows.
            data: Keys and values from a voice's file, where it holds them.
        """
        key = prefix_key(segments)
        with self._lock:
            if key not in self._prefixes:
                self._prefixes[key] = Prefix(prompts.context_rows(segments))
            prefix = self._prefixes[key]
            self._prefixes.move_to_end(key)
            if len(self._prefixes) > KEEP:
                self._prefixes.popitem(last=False)
        if prefix.data is None:
            prefix.data = data
        return prefix

"""Rows for the language model: conversations of text and audio rows, packed side by side.

A training row of `length` positions holds several conversations; each is one or more segments
laid out as in CSM's prompt: BOS "[s]" text EOS, audio frames, one all-zero frame. The teacher's
timing becomes two aids that exist in training only: where in the text the coming frame is spoken,
and which phones it holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from features import COLUMNS
from models import CODEBOOKS
from tokenizer import build_tokenizer, special_ids
from tokens import HELD_OUT_SHARD, LEAD, SPEEDS

PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th "
    "uh uw v w y z zh"
).split()
PHONE_TIMES = (0.02, 0.06, 0.12)  # seconds after the start of the coming frame
COLUMN_S = 0.01
FRAME_S = 0.08


@dataclass
class Text:
    """One corpus text: token ids, audio codes of every variant, word timing and phone ends."""

    text: str
    ids: np.ndarray
    lower_ids: np.ndarray
    codes: list[list[np.ndarray]]
    words: np.ndarray  # [n, 4]: start s, end s, first token, token after the last
    phone_ends: np.ndarray
    phone_ids: np.ndarray


@dataclass
class Rows:
    """A batch [B, T]. Row t predicts row t + 1 where `valid`."""

    text: torch.Tensor  # text id or -1
    codes: torch.Tensor  # [B, T, 8]; zero for text rows
    group: torch.Tensor  # number of the conversation, the attention's border
    valid: torch.Tensor  # the next row is an audio row of the same segment
    look: torch.Tensor  # position in the row that the coming frame speaks, or -1
    phones: torch.Tensor  # [B, T, 3], -1 where unknown


def read_text(meta: dict, codes: list[list[np.ndarray]], tokenizer) -> Text:
    text = meta["text"]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    starts = np.array([a for a, _ in encoded.offsets])
    words, at = [], 0
    for name, begin, end in meta["tokens"]:
        found = text.find(name, at)
        if found < 0 or end <= begin:
            continue
        at = found + len(name)
        first = int(np.searchsorted(starts, found, "right")) - 1
        words.append((begin, end, first, int(np.searchsorted(starts, at, "left"))))
    known = {p: i for i, p in enumerate(PHONES)}
    return Text(
        text,
        np.array(encoded.ids),
        np.array(tokenizer.encode(text.lower(), add_special_tokens=False).ids),
        codes,
        np.array(words, np.float64).reshape(-1, 4),
        np.array([end for _, end in meta["phones"]]),
        np.array([known.get(name, -1) for name, _ in meta["phones"]]),
    )


def read_shard(path: Path, tokenizer) -> list[Text]:
    with np.load(path) as data:
        codes, lengths, meta = data["codes"], data["lengths"], json.loads(str(data["meta"]))
    cuts = np.split(codes, np.cumsum(lengths.reshape(-1))[:-1])
    count = lengths.shape[2]
    return [
        read_text(
            m,
            [
                [cuts[(v * COLUMNS + s) * count + i] for s in range(COLUMNS)]
                for v in range(len(SPEEDS))
            ],
            tokenizer,
        )
        for i, m in enumerate(meta)
    ]


class Conversations:
    """Source of batches; `held_out` is the validation shard."""

    def __init__(self, work_dir: Path, seed: int) -> None:
        self.tokenizer = build_tokenizer()
        self.special = special_ids(self.tokenizer)
        self.space = self.tokenizer.token_to_id("Ġ")
        self.rng = np.random.default_rng(seed)
        self.folder = work_dir / "tokens"
        self.held_out: list[Text] = []
        self.texts: list[Text] = []
        self.seen: set[str] = set()
        self.speeds = len(SPEEDS)
        self.refresh()

    def refresh(self) -> None:
        """Reads the shards that came since the last call."""
        paths = sorted(p for p in self.folder.glob("*.npz") if ".part" not in p.name)
        for index, path in enumerate(paths):
            if path.name not in self.seen:
                self.seen.add(path.name)
                target = self.held_out if index == HELD_OUT_SHARD else self.texts
                target.extend(read_shard(path, self.tokenizer))
        frames = sum(len(t.codes[0][0]) for t in self.texts)
        hours = frames * FRAME_S / 3600
        print(f"{len(self.texts)} texts, {hours:.2f} h, {len(self.held_out)} held out")

    def segment(self, texts: list[Text], speaker: int, vary: bool = True) -> list[np.ndarray]:
        """[text ids, codes, look, phones] of the texts spoken one after the other as one segment.

        `look` counts from the first row of the segment; text rows come first, then the frames.
        """
        rng = self.rng
        head = self.tokenizer.encode(f"[{speaker}]", add_special_tokens=False).ids
        ids = [self.special["bos"], *head]
        codes, looks, phones = [], [], []
        speed = int(rng.integers(self.speeds)) if vary else 0
        for number, text in enumerate(texts):
            shift = int(rng.integers(COLUMNS)) if vary else 0
            if number:
                ids.append(self.space)
            plain = not vary or rng.random() < 0.92 or len(text.lower_ids) != len(text.ids)
            base = len(ids)
            ids.extend((text.ids if plain else text.lower_ids).tolist())
            frames = text.codes[speed][shift]
            codes.append(frames)
            start = (np.arange(len(frames)) * COLUMNS + shift) * COLUMN_S
            looks.append(
                base + where(text, LEAD * COLUMN_S + (start + 0.045) * SPEEDS[speed], base)
            )
            at = LEAD * COLUMN_S + (start[:, None] + np.array(PHONE_TIMES)) * SPEEDS[speed]
            slot = np.searchsorted(text.phone_ends, at, "left")
            late = slot >= len(text.phone_ids)
            phones.append(
                np.where(late, 0, text.phone_ids[np.minimum(slot, len(text.phone_ids) - 1)])
            )
        if vary and len(texts[-1].ids) > 12 and texts[-1].text[-1] == "." and rng.random() < 0.07:
            ids.pop()
        ids.append(self.special["eos"])
        codes.append(np.zeros((1, CODEBOOKS), np.int16))
        looks.append(np.array([len(ids) - 1.0]))
        phones.append(np.zeros((1, len(PHONE_TIMES)), np.int64))
        return [np.array(ids), np.concatenate(codes), np.concatenate(looks), np.concatenate(phones)]

    def conversation(self) -> list[list[np.ndarray]]:
        rng = self.rng
        turns = 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
        speakers = (
            [int(rng.random() < 0.2)] * turns
            if rng.random() < 0.7
            else list(rng.integers(0, 2, turns))
        )
        out = []
        for speaker in speakers:
            count = int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
            picked = [self.texts[int(i)] for i in rng.integers(len(self.texts), size=count)]
            out.append(self.segment(picked, speaker))
        return out

    def batch(self, rows: int, length: int) -> Rows:
        out = empty_rows(rows, length)
        for row in range(rows):
            at, group = 0, 0
            while at < length:
                for segment in self.conversation():
                    at = put(out, row, at, group, segment)
                group += 1
        return out

    def validation(self, shuffled: bool, batch: int = 50) -> list[Rows]:
        """Each held-out text alone, unvaried; `shuffled` gives every audio the text of another."""
        texts = sorted(self.held_out, key=lambda t: len(t.codes[0][0]))
        batches = []
        for i in range(0, len(texts), batch):
            segments = [self.segment([t], 0, vary=False) for t in texts[i : i + batch]]
            if shuffled:
                others = [s[0] for s in segments[1:] + segments[:1]]
                segments = [[ids, *s[1:]] for ids, s in zip(others, segments, strict=True)]
            out = empty_rows(len(segments), max(len(s[0]) + len(s[1]) for s in segments))
            for row, segment in enumerate(segments):
                put(out, row, 0, 0, segment)
            batches.append(out)
        return batches


def where(text: Text, times: np.ndarray, base: int) -> np.ndarray:
    """Fractional token position spoken at each time; a pause looks at what is said next.

    The first word has nothing to follow on from, so the look ahead of it matters most. Without
    any word the answer is -base - 1, so that base + it is -1: unknown.
    """
    if not len(text.words):
        return np.full(len(times), -base - 1.0)
    begins, ends, firsts, lasts = text.words.T
    word = np.searchsorted(ends, times, "right")
    behind = word >= len(ends)
    word = np.minimum(word, len(ends) - 1)
    share = np.clip((times - begins[word]) / (ends - begins)[word], 0.0, 1.0)
    spoken = firsts[word] + share * (lasts - firsts)[word] - 0.5
    return np.where(behind, len(text.ids) - 1.0, np.maximum(spoken, 0.0))


def empty_rows(rows: int, length: int) -> Rows:
    return Rows(
        torch.full((rows, length), -1),
        torch.zeros(rows, length, CODEBOOKS, dtype=torch.long),
        torch.full((rows, length), -1),
        torch.zeros(rows, length, dtype=torch.bool),
        torch.full((rows, length), -1.0),
        torch.full((rows, length, len(PHONE_TIMES)), -1),
    )


def put(out: Rows, row: int, at: int, group: int, segment: list[np.ndarray]) -> int:
    """Writes one segment at column `at`, cut at the right edge; returns the column behind it."""
    ids, codes, look, phones = segment
    length = out.text.shape[1]
    total = len(ids) + len(codes)
    end = min(length, at + total)
    out.group[row, at:end] = group
    texts = min(len(ids), max(0, length - at))
    out.text[row, at : at + texts] = torch.from_numpy(ids[:texts])
    first = at + len(ids)
    frames = min(len(codes), length - first)
    if frames > 0:
        out.codes[row, first : first + frames] = torch.from_numpy(codes[:frames].astype(np.int64))
        before = slice(first - 1, first - 1 + frames)
        out.valid[row, before] = True
        moved = np.where(look[:frames] >= 0, look[:frames] + at, -1.0)
        out.look[row, before] = torch.from_numpy(moved).float()
        out.phones[row, before] = torch.from_numpy(phones[:frames].astype(np.int64))
    return at + total

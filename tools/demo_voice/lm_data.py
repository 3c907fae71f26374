"""Rows for the language model: conversations of text and audio rows, packed side by side.

A training row of `length` positions holds several conversations; each is one or more segments
laid out as in CSM's prompt: BOS "[s]" text EOS, audio frames, one all-zero frame. Tag [0] is the
woman and [1] the man, unless an earlier segment of that tag is of a guest: then the guest goes on.
A guest's first segment is context only, nothing is learned from it. The teacher's timing becomes
two aids that exist in training only: where in the text the coming frame is spoken, and which
phones it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from features import COLUMNS
from models import CODEBOOKS
from speakers import MAN, WOMAN
from tokenizer import build_tokenizer, special_ids
from tokens import HELD_OUT_SHARD, LEAD, load_coded

PHONES = (
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th "
    "uh uw v w y z zh"
).split()
PHONE_TIMES = (0.02, 0.06, 0.12)  # seconds after the start of the coming frame
COLUMN_S = 0.01
FRAME_S = 0.08
GUESTS = 0.45  # of the conversations
LONGEST = 200  # characters of a segment of several texts
VALIDATED = 80  # held-out texts


@dataclass
class Text:
    """One corpus text: token ids, audio codes of its speakers, word timing and phone ends."""

    text: str
    ids: np.ndarray
    lower_ids: np.ndarray
    codes: dict[int, list[np.ndarray]]  # of every grid shift
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


def read_text(meta: dict, codes: dict[int, list[np.ndarray]], tokenizer) -> Text:
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
    coded = load_coded(path)
    return [
        read_text(meta, dict(zip(meta["speakers"], codes, strict=True)), tokenizer)
        for meta, codes in zip(coded.meta, coded.codes, strict=True)
    ]


@dataclass
class Segment:
    """Text ids; codes, where it looks and phones of its frames; whether it is learned from.

    `look` counts from the first row of the segment; text rows come first, then the frames.
    """

    ids: np.ndarray
    codes: np.ndarray
    look: np.ndarray
    phones: np.ndarray
    learned: bool = True


class Conversations:
    """Source of batches; `held_out` is the validation shard, `long` the share of long segments."""

    def __init__(self, work_dir: Path, seed: int, long: float = 0.35) -> None:
        self.long = long
        self.tokenizer = build_tokenizer()
        self.special = special_ids(self.tokenizer)
        self.space = self.tokenizer.token_to_id("\u0120")
        self.rng = np.random.default_rng(seed)
        self.folder = work_dir / "tokens"
        self.held_out: list[Text] = []
        self.said_by: dict[int, list[Text]] = {}
        self.seen: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Reads the shards that came since the last call."""
        paths = sorted(p for p in self.folder.glob("*.npz") if ".part" not in p.name)
        for index, path in enumerate(paths):
            if path.name in self.seen:
                continue
            self.seen.add(path.name)
            texts = read_shard(path, self.tokenizer)
            if index == HELD_OUT_SHARD:
                self.held_out.extend(texts)
                continue
            for text in texts:
                for number in text.codes:
                    self.said_by.setdefault(number, []).append(text)
        frames = sum(len(t.codes[n][0]) for n, texts in self.said_by.items() for t in texts)
        hours, speakers = frames * FRAME_S / 3600, len(self.said_by)
        print(f"{hours:.2f} h of {speakers} speakers, {len(self.held_out)} texts held out")

    def pick(self, number: int, count: int) -> list[Text]:
        texts = self.said_by[number]
        return [texts[int(i)] for i in self.rng.integers(len(texts), size=count)]

    def segment(
        self, texts: list[Text], tag: int, number: int, vary: bool = True, learned: bool = True
    ) -> Segment:
        """The texts said one after the other by speaker `number` under a tag."""
        rng = self.rng
        head = self.tokenizer.encode(f"[{tag}]", add_special_tokens=False).ids
        ids = [self.special["bos"], *head]
        codes, looks, phones = [], [], []
        for index, text in enumerate(texts):
            shift = int(rng.integers(COLUMNS)) if vary else 0
            if index:
                ids.append(self.space)
            plain = not vary or rng.random() < 0.92 or len(text.lower_ids) != len(text.ids)
            base = len(ids)
            ids.extend((text.ids if plain else text.lower_ids).tolist())
            frames = text.codes[number][shift]
            codes.append(frames)
            start = (np.arange(len(frames)) * COLUMNS + shift) * COLUMN_S
            looks.append(base + where(text, LEAD * COLUMN_S + start + 0.045, base))
            at = LEAD * COLUMN_S + start[:, None] + np.array(PHONE_TIMES)
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
        return Segment(
            np.array(ids),
            np.concatenate(codes),
            np.concatenate(looks),
            np.concatenate(phones),
            learned,
        )

    def conversation(self) -> list[Segment]:
        """One to four segments: the two voices of the tags, or guests after their contexts."""
        rng = self.rng
        voices = [WOMAN, MAN if MAN in self.said_by else WOMAN]
        out: list[Segment] = []
        turns = 1 if rng.random() < 0.75 else int(rng.integers(2, 4))
        tags = [int(t) for t in rng.integers(0, 2, turns)]
        if rng.random() < 0.7:
            tags = [tags[0]] * turns
        if len(self.said_by) > len(voices) and rng.random() < GUESTS:
            for tag in sorted(set(tags)):
                voices[tag] = int(rng.choice(sorted(self.said_by)))
                said = self.pick(voices[tag], 1 if rng.random() < 0.6 else 2)
                out.append(self.segment(said, tag, voices[tag], learned=False))
        for tag in tags:
            out.append(self.segment(self.some(voices[tag]), tag, voices[tag]))
        return out

    def some(self, number: int) -> list[Text]:
        """Texts for one segment: often one, else as many as it takes to be long."""
        texts = self.pick(number, 1)
        if self.rng.random() < self.long:
            letters = int(self.rng.integers(40, LONGEST))
            while sum(len(t.text) for t in texts) < letters:
                texts += self.pick(number, 1)
            while len(texts) > 1 and sum(len(t.text) for t in texts) > LONGEST:
                texts.pop()
        return texts

    def batch(self, rows: int, length: int) -> Rows:
        out = empty_rows(rows, length)
        for row in range(rows):
            at, group = 0, 0
            while at < length:
                for segment in self.conversation():
                    at = put(out, row, at, group, segment)
                group += 1
        return out

    def validation(self, kind: str, batch: int = 40) -> list[Rows]:
        """The held-out texts, unvaried.

        Args:
            kind: "woman", "man": each text alone under its tag. "shuffled": the woman, with the
                text of another. "guest": a held-out speaker after a context of the same voice;
                "stranger": after another's context.
            batch: conversations in a batch.
        """
        texts = sorted(self.held_out[:VALIDATED], key=lambda t: len(t.ids))
        rows: list[list[Segment]] = []
        for index, text in enumerate(texts):
            guest = max(text.codes)
            number, tag = {"man": (MAN, 1), "woman": (WOMAN, 0), "shuffled": (WOMAN, 0)}.get(
                kind, (guest, 0)
            )
            said = self.segment([text], tag, number, vary=False)
            before = []
            if kind == "shuffled":
                said.ids = self.segment([texts[index - 1]], tag, number, vary=False).ids
            elif kind in ("guest", "stranger"):
                same = kind == "guest"
                other = next(
                    t for t in texts[index + 1 :] + texts[:index] if (max(t.codes) == guest) == same
                )
                before = [self.segment([other], 0, max(other.codes), vary=False, learned=False)]
            rows.append([*before, said])
        batches = []
        for i in range(0, len(rows), batch):
            part = rows[i : i + batch]
            length = max(sum(len(s.ids) + len(s.codes) for s in row) for row in part)
            out = empty_rows(len(part), length)
            for row, segments in enumerate(part):
                at = 0
                for segment in segments:
                    at = put(out, row, at, 0, segment)
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


def put(out: Rows, row: int, at: int, group: int, segment: Segment) -> int:
    """Writes one segment at column `at`, cut at the right edge; returns the column behind it."""
    ids, codes = segment.ids, segment.codes
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
        look = segment.look[:frames]
        moved = np.where(look >= 0, look + at, -1.0)
        out.valid[row, before] = segment.learned
        out.look[row, before] = torch.from_numpy(moved).float()
        out.phones[row, before] = torch.from_numpy(segment.phones[:frames].astype(np.int64))
    return at + total

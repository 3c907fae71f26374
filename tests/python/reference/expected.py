"""What the reference says of a recipe: computed here and now, or read from a fixture.

A fixture holds the same things as a live run, thinned where the whole would be large: logits of
every n-th code (with the whole row's range beside them), samples of some frames.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import scenes
from .checkpoint import draw_tensors
from .recipes import Recipe

if TYPE_CHECKING:
    from .runner import Reference

GOLDEN = Path(__file__).parents[2] / "golden"

# Fixtures keep no more than this many logits of one kind, and whole frames of samples up to this
# many samples.
_MOST_LOGITS = 40_000
_MOST_SAMPLES = 20_000


class Logits(NamedTuple):
    """Logits of some codes at some positions.

    Attributes:
        values: float32 (positions, ..., codes kept).
        spread: Largest less smallest logit over all codes, float32 (positions, ...).
        positions: Which positions, int (p,).
        codes: Which codes, int (c,); never those beyond the codec's codebook, which the engine does
            not compute.
    """

    values: NDArray[np.float32]
    spread: NDArray[np.float32]
    positions: NDArray[np.int64]
    codes: NDArray[np.int64]


class Encoded(NamedTuple):
    """A waveform's latents, codes and how clearly they were the nearest; see runner.Encoding."""

    latents: NDArray[np.float32]
    codes: NDArray[np.int32]
    gaps: NDArray[np.float32]


class Expected(NamedTuple):
    """The reference's word on a recipe.

    Attributes:
        digest: SHA-256 of the weights.
        prefill: By prompt: logits of the first codebook after every prompt row.
        forced: By prompt: logits (frame, codebook, code) while the recipe's forced codes are
            spoken.
        greedy: By prompt: greedy codes (frames, codebooks); only in fixtures.
        frames: Which frames of the decoding run `samples` holds.
        samples: float32 (frames kept, frame size).
        encoded: By length in samples.
    """

    digest: str
    prefill: dict[str, Logits]
    forced: dict[str, Logits]
    greedy: dict[str, NDArray[np.int32]]
    frames: NDArray[np.int64]
    samples: NDArray[np.float32]
    encoded: dict[int, Encoded]


def weights_digest(recipe: Recipe) -> str:
    """SHA-256 over names, shapes and bytes of the recipe's tensors."""
    digest = hashlib.sha256()
    for name, values in sorted(draw_tensors(recipe).items()):
        digest.update(f"{name} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    return digest.hexdigest()


def compute(reference: Reference, recipe: Recipe) -> Expected:
    """Ask the reference everything but the greedy run, which takes it minutes."""
    forced = scenes.forced_codes(recipe)
    prefill_logits, forced_logits = {}, {}
    for name, make in scenes.PROMPTS.items():
        prompt = make(recipe)
        prefill_logits[name] = whole(reference.prefill_logits(prompt), recipe)
        forced_logits[name] = whole(reference.forced_logits(prompt, forced), recipe)
    samples = reference.decode(scenes.decode_codes(recipe))
    encoded = {}
    for length in scenes.encode_lengths(recipe):
        encoding = reference.encode(scenes.waveform(recipe, length))
        gaps = encoding.gaps.astype(np.float32)
        encoded[length] = Encoded(encoding.latents, encoding.codes, gaps)
    return Expected(
        digest=weights_digest(recipe),
        prefill=prefill_logits,
        forced=forced_logits,
        greedy={},
        frames=np.arange(recipe.decode_frames),
        samples=samples.reshape(recipe.decode_frames, recipe.frame_size),
        encoded=encoded,
    )


def whole(logits: NDArray[np.float32], recipe: Recipe) -> Logits:
    """All of the reference's logits (positions, ..., codes), but for codes without sound."""
    kept = logits[..., : recipe.codebook_size]
    return Logits(kept, np.ptp(kept, axis=-1), np.arange(len(kept)), np.arange(kept.shape[-1]))


def _thin(logits: Logits) -> Logits:
    """Every n-th position (the last among them) and every m-th code: a fixture stays small."""
    positions, codes = logits.values.shape[0], logits.values.shape[-1]
    keep_positions = np.arange(positions)[:: -max(1, positions // 48)][::-1]
    each = int(np.prod(logits.values.shape[1:-1])) * len(keep_positions)
    keep_codes = np.arange(0, codes, max(1, -(-each * codes // _MOST_LOGITS)))
    return Logits(
        logits.values[keep_positions][..., keep_codes],
        logits.spread[keep_positions],
        keep_positions,
        keep_codes,
    )


def save(expected: Expected, recipe: Recipe) -> Path:
    """Write the fixture of a recipe; returns its path."""
    arrays: dict[str, NDArray[np.generic]] = {"digest": np.array(expected.digest)}
    for kind, by_prompt in (("prefill", expected.prefill), ("forced", expected.forced)):
        for prompt, logits in by_prompt.items():
            for field, values in _thin(logits)._asdict().items():
                arrays[f"{kind}/{prompt}/{field}"] = values
    for prompt, codes in expected.greedy.items():
        arrays[f"greedy/{prompt}"] = codes.astype(np.int16)
    most = max(_MOST_SAMPLES // recipe.frame_size, 1)
    keep = np.arange(recipe.decode_frames)
    if len(keep) > most:
        keep = np.concatenate([keep[: most // 2], keep[most // 2 - most :]])
    arrays["frames"], arrays["samples"] = keep, expected.samples[keep]
    for length, encoded in expected.encoded.items():
        arrays[f"encoded/{length}/latents"] = encoded.latents
        arrays[f"encoded/{length}/codes"] = encoded.codes.astype(np.int16)
        arrays[f"encoded/{length}/gaps"] = encoded.gaps.astype(np.float16)
    path = GOLDEN / f"{recipe.name}.npz"
    np.savez_compressed(path, **arrays)
    return path


def load(recipe: Recipe) -> Expected:
    """Read the fixture of a recipe."""
    with np.load(GOLDEN / f"{recipe.name}.npz") as data:
        arrays = {name: data[name] for name in data.files}

    def logits(kind: str) -> dict[str, Logits]:
        return {
            prompt: Logits(*(arrays[f"{kind}/{prompt}/{field}"] for field in Logits._fields))
            for prompt in scenes.PROMPTS
        }

    return Expected(
        digest=str(arrays["digest"]),
        prefill=logits("prefill"),
        forced=logits("forced"),
        greedy={name: arrays[f"greedy/{name}"].astype(np.int32) for name in scenes.PROMPTS},
        frames=arrays["frames"],
        samples=arrays["samples"],
        encoded={
            length: Encoded(
                arrays[f"encoded/{length}/latents"],
                arrays[f"encoded/{length}/codes"].astype(np.int32),
                arrays[f"encoded/{length}/gaps"].astype(np.float32),
            )
            for length in scenes.encode_lengths(recipe)
        },
    )

"""Does a recording decide the voice? Speaker embeddings of what is spoken and of its reference.

    python imitate.py --work-dir DIR --model demo.gguf

Held-out speakers say a held-out text as the reference; the model then says other sentences with
that voice. The cosine of (reference, spoken) should be well above that of (reference of another,
spoken). Embeddings are resemblyzer's, whose package has its weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soxr
from csm_ggml import CSM

import sentences
from common import one_thread
from speakers import HELD_OUT
from tokens import HELD_OUT_SHARD, load_shard, shards

RATE = 24_000
GUEST = 2  # the take of a held-out text that a held-out speaker says


class Ears:
    """Unit vectors of who speaks."""

    def __init__(self) -> None:
        from resemblyzer import VoiceEncoder

        self.encoder = VoiceEncoder("cpu", verbose=False)

    def hear(self, wave: np.ndarray) -> np.ndarray:
        return self.encoder.embed_utterance(soxr.resample(wave.astype(np.float32), RATE, 16_000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4, help="sentences of each speaker")
    args = parser.parse_args()
    one_thread(1)
    csm, ears = CSM.from_pretrained(str(args.model), threads=1), Ears()
    shard = load_shard(shards(args.work_dir)[HELD_OUT_SHARD])
    references, spoken = [], []
    for guest in range(HELD_OUT):
        # The longest text of the guest's that is short enough for a reference.
        own = [
            i for i in range(guest, len(shard.meta), HELD_OUT) if shard.meta[i]["samples"] < 240_000
        ]
        longest = max(own, key=lambda i: shard.meta[i]["samples"])
        wave = shard.waves[longest][GUEST]
        voice = csm.create_voice(wave, shard.meta[longest]["text"])
        references.append(ears.hear(wave))
        texts = sentences.FINAL[guest::HELD_OUT][: args.count]
        said = [csm.generate(f"[0]{t}", voice=voice, seed=i).samples for i, t in enumerate(texts)]
        spoken.append(np.mean([ears.hear(w) for w in said], axis=0))
    table = np.stack(references) @ np.stack([s / np.linalg.norm(s) for s in spoken]).T
    among = np.stack(references) @ np.stack(references).T
    others = ~np.eye(len(table), dtype=bool)
    print(f"own reference {table[~others].mean():.3f}, another's {table[others].mean():.3f}")
    print(f"references among themselves {among[others].mean():.3f}")
    right = (table.argmax(0) == np.arange(len(table))).sum()
    print(f"the nearest reference is the own: {right} of {len(table)}")


if __name__ == "__main__":
    main()

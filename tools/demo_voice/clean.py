"""Click, peaks and joins of GGUFs of the demo voice that say the same codes, and words misheard.

    python clean.py before.gguf demo.gguf
    python clean.py before.gguf demo.gguf --judge    # also whisper, on the same codes

The texts are `FINAL`, `TUNING` and `phrases.HELD_OUT`, none of which a decoder was trained on. The
codes are the first model's; the others must say the same.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from csm_ggml import CSM, LongForm

from phrases import HELD_OUT
from sentences import FINAL, TUNING

RATE = 24_000
SETS = {"FINAL": FINAL, "TUNING": TUNING, "HELD_OUT": list(HELD_OUT)}
CLICK_SECONDS = (0.005, 0.02)


def ordered(values: list[float]) -> str:
    """Median, the largest but one in a hundred, and the largest."""
    return "median {:.3f}, 99 % {:.3f}, largest {:.3f}".format(
        *np.percentile(values, [50, 99]), max(values)
    )


def joins(csm: CSM) -> list[float]:
    """The largest sample within 5 ms of either side of every pause of a long text."""
    form = LongForm(piece_characters=80, pause=0.1)
    audio = csm.generate(" ".join(FINAL + TUNING), long_form=form, seed=1)
    near = round(CLICK_SECONDS[0] * RATE)
    found = []
    for turn in audio.turns:
        sound = audio.samples[turn.sample_start : turn.sample_start + turn.samples]
        found += [float(np.abs(part).max()) for part in (sound[:near], sound[-near:])]
    return found


def measure(models: list[Path], seeds: int, judge: bool) -> None:
    spoken: dict[str, list[np.ndarray]] = {}
    for model in models:
        csm = CSM.from_pretrained(str(model), threads=1)
        for name, texts in SETS.items():
            said = [f"[0]{text}" for text in texts]
            codes = [csm.generate_codes(s, seed=1 + k) for k in range(seeds) for s in said]
            first = spoken.setdefault(name, codes)
            same = [np.array_equal(a, b) for a, b in zip(first, codes, strict=True)]
            if not all(same):
                raise SystemExit(f"{model} says other codes in {same.count(False)} texts")
        print(f"{model}, {model.stat().st_size} bytes")
        start = time.process_time()
        waves = {name: [csm.decode(c) for c in codes] for name, codes in spoken.items()}
        took = time.process_time() - start
        every = [wave for some in waves.values() for wave in some]
        for seconds in CLICK_SECONDS:
            starts = [float(np.abs(w[: round(seconds * RATE)]).max()) for w in every]
            print(f"  first {1000 * seconds:.0f} ms of {len(every)}: {ordered(starts)}")
        peaks = [float(np.abs(w).max()) for w in every]
        print(f"  peaks: {ordered(peaks)}, {sum(p > 1 for p in peaks)} over 1")
        asked = waves["HELD_OUT"][0 :: len(HELD_OUT)] + waves["HELD_OUT"][1 :: len(HELD_OUT)]
        print("  how (old) are you: " + " ".join(f"{np.abs(w).max():.2f}" for w in asked))
        print(f"  5 ms at joins: {ordered(joins(csm))}")
        print(f"  decoding, RTF of one thread: {took * RATE / sum(map(len, every)):.4f}")
        if judge:
            hear(waves)


def hear(waves: dict[str, list[np.ndarray]]) -> None:
    from judge import Judge, Score

    ears = Judge()
    for name, texts in SETS.items():
        score = Score()
        for i, wave in enumerate(waves[name]):
            score.add(texts[i % len(texts)], ears.hear(np.clip(wave, -1, 1)))
        print(f"  {name}: {score}, {score.word_errors} wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge", action="store_true")
    args = parser.parse_args()
    measure(args.models, args.seeds, args.judge)


if __name__ == "__main__":
    main()

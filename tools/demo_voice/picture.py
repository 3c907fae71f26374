"""The picture in the README: waveform and mel spectrogram of a sentence of the demo voice.

    python picture.py --text "[0]Hello." --output ../../docs/images/hello.png

Needs csm-ggml and matplotlib.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from csm_ggml import CSM
from PIL import Image

from features import HOP, log_mel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--text", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    audio = CSM.from_pretrained(args.model).generate(args.text, seed=args.seed)
    seconds = np.arange(len(audio.samples)) / audio.sample_rate
    mel = log_mel(audio.samples)
    figure, (wave, spectrum) = plt.subplots(
        2, 1, figsize=(8, 3.2), sharex=True, height_ratios=(1, 2), layout="constrained"
    )
    wave.plot(seconds, audio.samples, linewidth=0.4, color="#1f4e79")
    wave.set(ylim=(-0.8, 0.8), yticks=[], title=args.text)
    extent = (0.0, len(mel) * HOP / audio.sample_rate, 0.0, float(mel.shape[1]))
    spectrum.imshow(mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    spectrum.set(xlabel="seconds", ylabel="mel band")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    # 48 colours are enough, and make a small file.
    Image.open(drawn).convert("RGB").quantize(48).save(args.output, optimize=True)
    print(f"{args.output}: {audio.duration:.2f} s, {args.output.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()

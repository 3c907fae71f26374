"""Losses of the decoder: log-mel at five scales and small discriminators."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

RATE = 24_000
SCALES = ((128, 16), (256, 32), (512, 64), (1024, 96), (2048, 128))  # FFT size, mel bands
PERIODS = (2, 3, 5, 7, 11)
RESOLUTIONS = (512, 1024, 2048)
WIDTHS = (8, 16, 32, 64)


def mel_matrix(fft: int, bands: int) -> Tensor:
    """[fft / 2 + 1, bands] triangles up to 12 kHz; a very narrow band keeps its nearest bin."""
    mels = np.linspace(0.0, 2595.0 * np.log10(1.0 + RATE / 2 / 700.0), bands + 2)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(fft, 1.0 / RATE)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rise, fall))
    centres = np.abs(bins[:, None] - edges[1:-1]).argmin(0)
    weights[centres, np.arange(bands)] = np.maximum(weights[centres, np.arange(bands)], 0.5)
    return torch.tensor(weights / weights.sum(0), dtype=torch.float32)


class MelLoss(nn.Module):
    """Mean over scales of the L1 distance of log-mels, plus a small linear term."""

    def __init__(self) -> None:
        super().__init__()
        for fft, bands in SCALES:
            self.register_buffer(f"mel{fft}", mel_matrix(fft, bands))
            self.register_buffer(f"window{fft}", torch.hann_window(fft))

    def spectra(self, wave: Tensor) -> list[Tensor]:
        out = []
        for fft, _ in SCALES:
            window = getattr(self, f"window{fft}")
            spec = torch.stft(wave, fft, fft // 4, window=window, return_complex=True)
            power = spec.real.square() + spec.imag.square()
            magnitude = (power + 1e-9).sqrt().transpose(1, 2) @ getattr(self, f"mel{fft}")
            out.append(magnitude * (1024 / fft) ** 0.5)
        return out

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        with torch.no_grad():
            targets = self.spectra(real)
        loss = torch.zeros(())
        for got, want in zip(self.spectra(fake), targets, strict=True):
            log = (torch.log(got + 1e-3) - torch.log(want + 1e-3)).abs().mean()
            loss = loss + log + 0.3 * (got - want).abs().mean()
        return loss / len(SCALES)


class PeriodDiscriminator(nn.Module):
    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, *WIDTHS)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0)) for a, b in itertools.pairwise(widths)
        )
        self.out = nn.Conv2d(WIDTHS[-1], 1, (3, 1), 1, (1, 0))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        count = wave.shape[-1] // self.period
        x = wave[:, : count * self.period].reshape(len(wave), 1, count, self.period)
        maps = []
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), 0.1)
            maps.append(x)
        return self.out(x), maps


class SpectrumDiscriminator(nn.Module):
    def __init__(self, fft: int) -> None:
        super().__init__()
        self.fft = fft
        self.register_buffer("window", torch.hann_window(fft))
        widths = (2, 12, 16, 24, 32)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, (3, 7), (1, 3), (1, 3)) for a, b in itertools.pairwise(widths)
        )
        self.out = nn.Conv2d(widths[-1], 1, 3, 1, 1)

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        with torch.autocast("cpu", enabled=False):
            spec = torch.stft(
                wave.float(), self.fft, self.fft // 4, window=self.window, return_complex=True
            )
            power = spec.real.square() + spec.imag.square()
            log = 0.25 * torch.log(power + 1e-5)
            x = torch.stack([log, (power + 1e-9).sqrt().clamp(max=8.0)], 1).transpose(2, 3)
        maps = []
        for conv in self.convs:
            x = functional.leaky_relu(conv(x), 0.1)
            maps.append(x)
        return self.out(x), maps


class Discriminators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.all = nn.ModuleList(
            [PeriodDiscriminator(p) for p in PERIODS]
            + [SpectrumDiscriminator(r) for r in RESOLUTIONS]
        )

    def judge(self, fake: Tensor, real: Tensor) -> Tensor:
        """Least-squares loss of the discriminators; `fake` must be detached."""
        loss = torch.zeros(())
        for one in self.all:
            score, _ = one(torch.cat([fake, real]))
            bad, good = score.float().chunk(2)
            loss = loss + bad.square().mean() + (good - 1).square().mean()
        return loss / len(self.all)

    def teach(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Adversarial loss and feature distance for the generator."""
        adversarial, features = torch.zeros(()), torch.zeros(())
        for one in self.all:
            with torch.no_grad():
                _, wanted = one(real)
            score, maps = one(fake)
            adversarial = adversarial + (score.float() - 1).square().mean()
            for got, want in zip(maps, wanted, strict=True):
                features = features + (got.float() - want.float()).abs().mean() / len(maps)
        return adversarial / len(self.all), features / len(self.all)

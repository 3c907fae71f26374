"""What every training stage shares: checkpoints, resuming, averaged weights, loss curves."""

from __future__ import annotations

import copy
import csv
import signal
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

SAVE_EVERY_S = 300.0


def one_thread(seed: int) -> None:
    """Two OpenMP threads collapse beside a busy neighbour; one is steady."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)


class Average:
    """Exponential moving average of a module: the weights that are evaluated and exported."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        keep = min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.module.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs, 1 - keep)


class Run:
    """One stage on disk: NAME.pt (replaced atomically), NAME.csv (losses), NAME.png (curves)."""

    def __init__(self, work_dir: Path, name: str, parts: dict[str, Any]) -> None:
        self.path = work_dir / f"{name}.pt"
        self.log = work_dir / f"{name}.csv"
        self.parts = parts
        self.step = 0
        self.seconds = 0.0
        self.saved, self.clock = time.monotonic(), time.process_time()
        self.stopped = False
        signal.signal(signal.SIGTERM, self.stop)
        if self.path.exists():
            state = torch.load(self.path, weights_only=False)
            self.step, self.seconds = state["step"], state["seconds"]
            for key, part in parts.items():
                if key in state:
                    part.load_state_dict(state[key])
                else:
                    print(f"{self.path.name} has no {key}: it starts fresh")
            print(f"resumed {self.path.name} at step {self.step} after {self.seconds:.0f} s")

    def stop(self, *_: object) -> None:
        """SIGTERM: the loop ends after the step at hand, and what is learned is saved."""
        self.stopped = True

    def tick(self) -> None:
        """Counts one step and its seconds of the processor: neighbours and stops cost nothing."""
        now = time.process_time()
        self.seconds += now - self.clock
        self.clock = now
        self.step += 1
        if time.monotonic() - self.saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        state = {key: part.state_dict() for key, part in self.parts.items()}
        part_file = self.path.with_suffix(".part")
        torch.save({"step": self.step, "seconds": self.seconds, **state}, part_file)
        part_file.replace(self.path)
        self.saved = time.monotonic()
        self.plot()

    def write(self, **values: float) -> None:
        """Appends a row of figures to the CSV; new columns may come later in a run."""
        with self.log.open("a", newline="") as out:
            row = {"step": self.step, "seconds": round(self.seconds), **values}
            csv.writer(out).writerow([f"{k}={v:.5g}" for k, v in row.items()])

    def plot(self) -> None:
        if not self.log.exists():
            return
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        curves: dict[str, list[tuple[float, float]]] = {}
        for line in self.log.read_text().splitlines():
            row = {k: float(v) for k, v in (cell.split("=") for cell in line.split(","))}
            step = row.pop("step")
            row.pop("seconds")
            for key, value in row.items():
                curves.setdefault(key, []).append((step, value))
        figure, axes = pyplot.subplots(1, len(curves), figsize=(4 * len(curves), 3), squeeze=False)
        for axis, (key, points) in zip(axes[0], curves.items(), strict=True):
            axis.plot(*zip(*points, strict=True), linewidth=1)
            axis.set_title(key)
            axis.set_xlabel("step")
        figure.tight_layout()
        figure.savefig(self.log.with_suffix(".png"), dpi=70)
        pyplot.close(figure)

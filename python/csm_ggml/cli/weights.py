"""What the subcommands that write model files share: number formats, and a report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from csm_ggml.cli.common import size, tell

if TYPE_CHECKING:
    from csm_ggml.convert import Report


def add_type_arguments(
    parser: argparse.ArgumentParser,
    *,
    default: str | None,
    presets: bool = True,
) -> None:
    """The options that say which formats are written.

    Args:
        parser: Gets them.
        default: Of --type; without one, that or a preset must be given.
        presets: Whether there is --preset.
    """
    shown = "" if default is None else f" (default: {default})"
    group = parser.add_mutually_exclusive_group(required=default is None)
    group.add_argument(
        "--type",
        default=None if presets else default,
        help="of the language models: f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q4_0, ..." + shown,
    )
    if presets:
        group.add_argument(
            "--preset",
            help="types that go well together: fast (q4_0), balanced (q8_0, depth decoder q4_0), "
            "high (q8_0), exact (f32)",
        )
    parser.add_argument("--depth-type", help="of the depth decoder (default: as --type)")
    parser.add_argument(
        "--codec-type", default="f32", help="of the codec: f32 or f16 (default: %(default)s)"
    )


def tell_report(report: Report) -> None:
    """Say what was written."""
    for note in report.notes:
        tell(note)
    types = ", ".join(f"{kind} {size(count)}" for kind, count in report.types.items())
    tell(f"{report.path}: {size(report.bytes)} in {report.tensors} tensors ({types})")

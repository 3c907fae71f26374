"""What the subcommands that write model files share: number formats, and a report."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from csm_ggml.cli.common import size, tell

if TYPE_CHECKING:
    from csm_ggml.convert import Report


def add_type_arguments(parser: argparse.ArgumentParser, *, default: str | None) -> None:
    """The options that say which formats are written; without a default, --type must be given."""
    shown = "" if default is None else " (default: %(default)s)"
    parser.add_argument(
        "--type",
        default=default,
        required=default is None,
        help="of the language models: f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q4_0, ..." + shown,
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

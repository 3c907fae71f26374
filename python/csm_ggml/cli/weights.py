"""What the subcommands that write model files share: number formats, and a report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from csm_ggml.cli.common import UsageError, preset_name, size, tell
from csm_ggml.cli.parser import checked

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
        type=_type(),
        default=None if presets else default,
        metavar="T",
        help="of the language models: f32, f16, bf16, q8_0, q6_k, q5_k, q4_k, q4_0, ..." + shown,
    )
    if presets:
        group.add_argument(
            "--preset",
            type=checked(preset_name),
            metavar="NAME",
            help="types that go well together: fast (q4_0), balanced (q8_0, depth decoder q4_0), "
            "high (q8_0), exact (f32)",
        )
    parser.add_argument(
        "--depth-type", type=_type(), metavar="T", help="of the depth decoder (default: as --type)"
    )
    parser.add_argument(
        "--codec-type",
        choices=("f32", "f16"),
        default="f32",
        metavar="T",
        help="of the codec: f32 or f16 (default: %(default)s)",
    )


def check_types(args: argparse.Namespace) -> None:
    """Make sure that the options of `add_type_arguments` fit together.

    Raises:
        UsageError: If a preset is given beside a type that it says already.
    """
    if args.preset is not None and args.depth_type is not None:
        raise UsageError(
            "--preset says the type of the depth decoder already: leave out --depth-type"
        )


def _type() -> Callable[[str], str]:
    """The type of an argument that is a number format."""

    def check(name: str) -> str:
        from csm_ggml.convert import WEIGHT_TYPES

        if name.lower() not in WEIGHT_TYPES:
            known = ", ".join(WEIGHT_TYPES)
            raise ValueError(f"there is no type {name!r}, expected one of {known}")
        return name.lower()

    return checked(check)


def tell_report(report: Report) -> None:
    """Say what was written."""
    for note in report.notes:
        tell(note)
    types = ", ".join(f"{kind} {size(count)}" for kind, count in report.types.items())
    tell(f"{report.path}: {size(report.bytes)} in {report.tensors} tensors ({types})")

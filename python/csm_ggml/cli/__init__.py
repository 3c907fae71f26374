"""The command `csm-ggml`.

Each subcommand is a module here with `add_parser` and `run`; a new one is listed in COMMANDS.

The modules import what they need inside `run`, so that a command starts without loading what
others use.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from csm_ggml.cli.common import PROGRAM, UsageError

COMMANDS = (
    "speak",
    "voice",
    "convert",
    "quantize",
    "make_random",
    "info",
    "decode",
    "encode",
    "bench",
    "doctor",
)

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

DEBUG_VARIABLE = "CSM_GGML_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; default is those of the process.

    Returns:
        The exit code: 0 for success, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.
    """
    parser = _parser()
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_USAGE
    if not hasattr(parsed, "run"):
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    try:
        code = parsed.run(parsed)
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; nothing is left to be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except UsageError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"{PROGRAM}: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Speak with Sesame's CSM on ggml.",
        epilog=f"Set {DEBUG_VARIABLE}=1 to see where an error comes from.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"csm_ggml.cli.{name}").add_parser(commands)
    return parser


class _Version(argparse.Action):
    """Loads the compiled module only when its version is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from csm_ggml import _core

        print(f"{PROGRAM} {_core.__version__} (ggml {_core.ggml_version})")
        parser.exit()


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return f"{message} (`{PROGRAM} doctor` shows what is installed)"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return message or type(error).__name__

"""The command `csm-ggml`.

Each subcommand is a module here with `add_parser` and `run`; a new one is listed in COMMANDS.

The modules import what they need inside `run`, so that a command starts without loading what
others use.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from csm_ggml.cli import process
from csm_ggml.cli.common import PROGRAM, STDOUT, UsageError, printable, tell
from csm_ggml.cli.parser import Parser

COMMANDS = (
    "speak",
    "speak_many",
    "read",
    "voice",
    "serve",
    "models",
    "download",
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

DEBUG_VARIABLE = "CSM_GGML_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; default is those of the process.

    Returns:
        The exit code: 0 for success, 1 for an error, 2 for wrong usage, 128 and the number of the
        signal after one: 130 for Ctrl-C.
    """
    process.occupy_standard_descriptors()
    parsed = argparse.Namespace()
    with process.signals() as interruption, warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            parsed = _parser().parse_args(arguments, parsed)
            if not hasattr(parsed, "run"):
                parsed.parser.print_help(sys.stderr)
                return EXIT_USAGE
            if getattr(parsed, "verbose", 0):
                _log_to_stderr(parsed.verbose)
            if getattr(parsed, "quiet", False):
                warnings.simplefilter("ignore")
            code = parsed.run(parsed)
            _flush()
            return int(code or 0)
        except BaseException as error:
            code = _failed(error, parsed, interruption)
            if code is None:
                raise
        finally:
            try:
                _flush()
            except (OSError, ValueError):
                process.mute(sys.stdout)
    return code


def _failed(
    error: BaseException, parsed: argparse.Namespace, interruption: process.Interruption
) -> int | None:
    """Say what has ended the command; returns the exit code, or None to show where it was."""
    if interruption.number is not None or isinstance(error, KeyboardInterrupt):
        # Also if the interruption has made something else of itself on its way.
        number = interruption.number or signal.SIGINT
        what = "interrupted" if number == signal.SIGINT else "terminated"
        notes = [printable(str(note)) for note in getattr(error, "notes", ())]
        newline = "\n" if sys.stderr.isatty() else ""
        tell("; ".join([what, *notes]), before=newline)
        return process.SIGNAL_EXIT + number
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_USAGE
    if isinstance(error, BrokenPipeError) and error.filename in (None, STDOUT):
        # The reader has gone.
        return EXIT_ERROR
    if isinstance(error, UsageError):
        if (parser := getattr(parsed, "parser", None)) is not None:
            parser.print_usage(sys.stderr)
        tell(f"error: {error}")
        return EXIT_USAGE
    if not isinstance(error, Exception) or os.environ.get(DEBUG_VARIABLE):
        return None
    tell(f"error: {_one_line(error)}")
    return EXIT_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Speak with Sesame's CSM on ggml.",
        epilog=f"Set {DEBUG_VARIABLE}=1 to see where an error comes from.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"csm_ggml.cli.{name}").add_parser(commands)
    _add_verbose(parser)
    return parser


def _add_verbose(parser: argparse.ArgumentParser) -> None:
    """Give -v to the innermost subcommands: `voice create -v`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _add_verbose(inner)
            return
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="log what happens; -vv: in detail"
    )


def _log_to_stderr(verbose: int) -> None:
    level = logging.DEBUG if verbose > 1 else logging.INFO
    logging.basicConfig(format=f"{PROGRAM}: %(relativeCreated)d ms: %(message)s")
    logging.getLogger("csm_ggml").setLevel(level)


class _Version(argparse.Action):
    """Loads the compiled module only when its version is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            from csm_ggml import _core

            text = f"{_core.__version__} (ggml {_core.ggml_version})"
        except ImportError as error:
            import importlib.metadata

            try:
                version = importlib.metadata.version(PROGRAM)
            except importlib.metadata.PackageNotFoundError:
                version = "of unknown version"
            text = f"{version} (its compiled module cannot be loaded: {error})"
        print(f"{PROGRAM} {printable(text)}")
        parser.exit()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from None


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    tell(f"note: {message}")


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return f"{message} (`{PROGRAM} doctor` shows what is installed)"
    if isinstance(error, MemoryError):
        return f"out of memory: {message}" if message else "out of memory"
    if isinstance(error, OSError) and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        return f"{name}: {error.strerror}" if name else error.strerror
    return message or type(error).__name__

"""What several subcommands share: options that name a model, messages, loading."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csm_ggml.csm import CSM

PROGRAM = "csm-ggml"
DEFAULT_MODEL = "demo"

Subparsers = argparse._SubParsersAction


class UsageError(Exception):
    """Arguments that argparse cannot know to be wrong."""


def positive(text: str) -> int:
    """Type of arguments that are whole numbers of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which model is loaded, and onto what."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        help="demo, csm-1b, a .gguf file, a folder or a hub repository (default: %(default)s)",
    )
    group.add_argument("--revision", help="branch, tag or commit of a hub repository")
    group.add_argument("--local-files-only", action="store_true", help="never use the network")
    group.add_argument(
        "--device",
        default="auto",
        help="a device as `csm-ggml doctor` lists it (default: %(default)s)",
    )
    group.add_argument(
        "--threads", type=positive, help="CPU threads (default: physical cores that may be used)"
    )


def load_model(args: argparse.Namespace, *, quiet: bool = False) -> CSM:
    """Load what the options of `add_model_arguments` say, and tell on stderr what that is."""
    from csm_ggml.csm import CSM
    from csm_ggml.loading import hub

    files = hub.resolve(args.model, revision=args.revision, local_files_only=args.local_files_only)
    if not quiet:
        text = f"model {files.name}" + (f" ({files.note})" if files.note else "")
        if files.name == hub.DEMO:
            text += f"; --model {hub.CSM_1B} is the real one"
        tell(text)
    return CSM.from_pretrained(files.paths, device=args.device, threads=args.threads)


def tell(message: str) -> None:
    """One line for people, where it cannot get into the output."""
    print(f"{PROGRAM}: {message}", file=sys.stderr)


def check_output_folder(path: str) -> None:
    """Fail before the work and not after it if a file cannot be put there.

    Raises:
        UsageError: If the folder does not exist, or the path is one.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f"{path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise UsageError(f"{path} is a folder, expected a file name")


def binary_stdout() -> None:
    """Check that audio or codes may go to standard output.

    Raises:
        UsageError: If it is a terminal.
    """
    if sys.stdout.isatty():
        raise UsageError("standard output is a terminal: redirect it, or name a file with -o")


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"

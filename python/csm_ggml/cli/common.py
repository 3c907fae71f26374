"""What several subcommands share: options that name a model, messages, loading."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from csm_ggml.cli import process
from csm_ggml.cli.parser import checked, option

if TYPE_CHECKING:
    from csm_ggml.csm import CSM
    from csm_ggml.loading.hub import ModelFiles

PROGRAM = "csm-ggml"
STDOUT = "standard output"
DEFAULT_MODEL = "demo"

Subparsers = argparse._SubParsersAction


class UsageError(Exception):
    """Arguments that argparse cannot know to be wrong."""


def positive(text: str) -> int:
    """Type of arguments that are whole numbers of at least 1."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) < 10**9:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text[:40]!r}")
    return int(text)


def speaker(text: str) -> int:
    """Type of arguments that are a speaker's number."""
    from csm_ggml.text.turns import check_speaker

    try:
        number = int(text[:20])
    except ValueError:
        raise ValueError(f"a speaker must be a whole number, got {text[:40]!r}") from None
    return int(check_speaker(number))


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which model is loaded, and onto what."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="demo, csm-1b, a .gguf file, a folder or a hub repository (default: %(default)s)",
    )
    add_preset_argument(group)
    group.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of a hub repository"
    )
    group.add_argument("--local-files-only", action="store_true", help="never use the network")
    group.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="a device as `csm-ggml doctor` lists it (default: %(default)s)",
    )
    group.add_argument(
        "--threads",
        type=option("threads"),
        metavar="N",
        help="CPU threads (default: physical cores that may be used)",
    )


def add_text_arguments(
    group: argparse._ActionsContainer, *, tags: str = "those that stand where a turn begins"
) -> None:
    """The options that say how a text is read.

    Args:
        group: Gets them.
        tags: Which numbers in brackets are speaker tags unless asked otherwise.
    """
    group.add_argument(
        "--tags",
        action=argparse.BooleanOptionalAction,
        help=f"read every number in brackets as a speaker tag, or none (default: {tags})",
    )
    group.add_argument(
        "--normalize",
        action="store_const",
        const="en",
        help="say numbers, dates, money, units, abbreviations, addresses in English words",
    )
    group.add_argument(
        "--lexicon", metavar="FILE", help="how words are pronounced: 'word -> respelling' a line"
    )


def add_preset_argument(parser: argparse._ActionsContainer) -> None:
    """The option for number formats of a model that is loaded."""
    parser.add_argument(
        "--preset",
        type=checked(preset_name),
        metavar="NAME",
        help="number formats: fast (q4_0), balanced (q8_0, depth decoder q4_0), high (q8_0), exact "
        "(f32); the model is converted once, into the cache (default: as it is)",
    )


def preset_name(name: str) -> str:
    """Type of arguments that are a preset.

    Raises:
        ValueError: If there is none of this name.
    """
    from csm_ggml.convert import QUANTIZATION_PRESETS

    if name not in QUANTIZATION_PRESETS:
        known = ", ".join(QUANTIZATION_PRESETS)
        raise ValueError(f"there is no preset {name!r}, expected one of {known}")
    return name


def find_model(args: argparse.Namespace, *, quiet: bool = False) -> ModelFiles:
    """What the options of `add_model_arguments` name, converted if they ask for it."""
    from csm_ggml.loading import prepared

    if args.preset is not None and not quiet:
        tell(f"preset {args.preset}: {args.model} is converted into the cache at its first use")
    return prepared.find(
        args.model,
        args.preset,
        revision=args.revision,
        local_files_only=args.local_files_only,
        progress=not quiet,
    )


def load_model(args: argparse.Namespace, *, quiet: bool = False, slots: int | None = None) -> CSM:
    """Load what the options of `add_model_arguments` say, and tell on stderr what that is.

    Args:
        args: Of the command.
        quiet: Whether nothing is told.
        slots: As in `CSM.from_pretrained`; None for its default.
    """
    from csm_ggml.csm import CSM
    from csm_ggml.loading import hub
    from csm_ggml.speech.scheduler import SLOTS

    files = find_model(args, quiet=quiet)
    if not quiet:
        text = f"model {files.name}" + (f" ({files.note})" if files.note else "")
        if files.name == hub.DEMO:
            text += f"; --model {hub.CSM_1B} is the real one"
        tell(text)
    return CSM.from_pretrained(
        files.paths, device=args.device, threads=args.threads, slots=slots or SLOTS
    )


def tell_if_slow(args: argparse.Namespace, seconds: float, speech_seconds: float) -> None:
    """Say when speech took longer to make than to hear, and what would help.

    Args:
        args: With the options of `add_model_arguments`.
        seconds: What it took.
        speech_seconds: What can be heard.
    """
    if not seconds > speech_seconds > 0:
        return
    quicker = "a GPU makes" if args.preset == "fast" else "--preset fast, or a GPU, makes"
    share = speech_seconds / seconds
    tell(f"that was slower than real time ({share:.2f} times); {quicker} it quicker")


def tell(message: str, *, before: str = "") -> None:
    """One line for people, where it cannot get into the output; lost if nobody can get it."""
    try:
        print(f"{before}{PROGRAM}: {printable(message)}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        process.mute(sys.stderr)


def say(line: str) -> None:
    """Print a line of a result, on standard output.

    Raises:
        OSError: If that fails; the error names it.
    """
    try:
        print(printable(line), flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from None


def printable(text: str) -> str:
    """A text on one line, without what a terminal would obey: names come from files."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def write_stdout(data: bytes) -> None:
    """Write bytes to standard output, at once.

    Raises:
        OSError: If that fails; the error names it.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, STDOUT) from None


def stdout_position() -> int | None:
    """Where standard output is in a file that can be gone back in; None if it cannot."""
    try:
        number = sys.stdout.fileno()
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return None
        if sys.platform != "win32":
            import fcntl

            if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_APPEND:
                return None  # whatever is written goes to the end
        sys.stdout.buffer.flush()
        return os.lseek(number, 0, os.SEEK_CUR)
    except (OSError, ValueError):
        return None


def rewrite_stdout(position: int, data: bytes) -> None:
    """Write bytes over those at a position of `stdout_position`, and go back to where it was.

    Raises:
        OSError: If that fails.
    """
    sys.stdout.buffer.flush()
    number = sys.stdout.fileno()
    end = os.lseek(number, 0, os.SEEK_CUR)
    os.lseek(number, position, os.SEEK_SET)
    try:
        os.write(number, data)
    finally:
        os.lseek(number, end, os.SEEK_SET)


def check_output(
    path: str, *kinds: str, inputs: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Find out before the work whether a file can be written.

    Args:
        path: Its name.
        kinds: What is to be written; see `csm_ggml.files.OutputFile`.
        inputs: What will be read; None and names of what is no file do not count.

    Raises:
        UsageError: If the folder does not exist, the path is one or one of the inputs, or the name
            is that of another kind of file.
        OSError: If it cannot be written for another reason.
    """
    from csm_ggml import files

    try:
        files.check_output(path, *kinds, inputs=[name for name in inputs if name is not None])
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def add_samples_argument(parser: argparse._ActionsContainer) -> None:
    """The option that says how samples are stored."""
    parser.add_argument(
        "--bits",
        choices=("16", "24", "float"),
        default="16",
        help="of a sample in a WAV or FLAC file; float: 32-bit numbers, in WAV (default: 16)",
    )


def check_audio_output(
    path: str, inputs: Iterable[str | os.PathLike[str] | None] = (), samples: str = "16"
) -> None:
    """The same for an audio file, whose format its name picks.

    Args:
        path: As in `check_output`.
        inputs: As in `check_output`.
        samples: How they are stored; see `csm_ggml.audio.audio.output_format`.

    Raises:
        As `check_output`.
    """
    from csm_ggml.audio.audio import output_format

    try:
        output_format(path, samples)
    except ValueError as error:
        raise UsageError(str(error)) from None
    check_output(path, "audio", inputs=inputs)


def local_paths(name: str) -> list[str]:
    """What a command that reads model files is given: a path, or a model by its name.

    Raises:
        ModelNotFoundError: If it is neither.
    """
    from csm_ggml.loading import hub

    if os.path.exists(name) or name not in (hub.DEMO, hub.CSM_1B):
        return [name]
    return [str(path) for path in hub.resolve(name).paths]


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

"""Models in a number format of the user's choice, converted once into the cache.

The file is named by what it is made of: the source's files, their sizes and times, and the preset.
One process at a time makes one; others wait for it. It takes its name when it is complete, so that
an interruption leaves nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from csm_ggml import files as safe_files
from csm_ggml.errors import ModelNotFoundError
from csm_ggml.fetching import Hub, user_cache
from csm_ggml.loading import hub
from csm_ggml.loading.aliases import ALIASES, Alias
from csm_ggml.log import logger

# Of the contents of prepared files; another number makes them anew.
VERSION = 1
POLL_SECONDS = 0.2

_SETTINGS = (".json", ".jinja")
_WEIGHTS = (".safetensors", ".gguf", ".pt", ".pth", ".bin", ".ckpt")

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find(
    name_or_path: Source,
    preset: str | None = None,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    progress: bool = True,
) -> hub.ModelFiles:
    """Find a model, and convert it with a preset if one is asked for and that was not done yet.

    Args:
        name_or_path: As in `hub.resolve`; with a preset also PyTorch weights.
        preset: `fast`, `balanced`, `high` or `exact`; None takes the model as it is.
        revision: Branch, tag or commit of a hub repository.
        local_files_only: Never use the network.
        cache_dir: The hub cache.
        token: Hub access token.
        progress: Show a bar while converting, if stderr is a terminal.

    Raises:
        ValueError: If there is no such preset.
        OSError: If the cache cannot be written.
        As `hub.resolve` and `csm_ggml.convert.convert`.
    """
    where: dict[str, Any] = {
        "revision": revision,
        "local_files_only": local_files_only,
        "cache_dir": cache_dir,
        "token": token,
    }
    if preset is None:
        return hub.resolve(name_or_path, **where)
    from csm_ggml.convert import QUANTIZATION_PRESETS

    if preset not in QUANTIZATION_PRESETS:
        names = ", ".join(QUANTIZATION_PRESETS)
        raise ValueError(f"preset={preset!r}: expected one of {names}")
    try:
        found = hub.resolve(name_or_path, **where)
    except hub.NotConvertedError as error:
        name = os.fsdecode(error.source)
        found = hub.ModelFiles(name, (_checkpoint(name, where),), "")
    alias = ALIASES.get(found.name)
    output = _place(found, preset, alias)
    if not output.is_file():
        _make(found, preset, alias, output, where, progress=progress)
    return replace(found, paths=(output,))


def folder() -> Path:
    """Where prepared models lie."""
    return user_cache() / "models"


def is_here(alias: Alias) -> bool:
    """Whether a model with a short name can be loaded without the network."""
    where: dict[str, Any] = {"revision": None, "cache_dir": None, "token": None}
    where["local_files_only"] = True
    try:
        hub.resolve(alias.name, **where)
    except hub.NotConvertedError:
        with suppress(Exception):
            return any(_checkpoint(alias.name, where).glob("*.safetensors"))
        return False
    except ModelNotFoundError:
        return False
    return True


def _checkpoint(name: str, where: dict[str, Any]) -> Path:
    """The folder of weights that have to be converted."""
    from csm_ggml.convert import hub_source

    alias = ALIASES.get(name)
    source = name if alias is None or alias.repository is None else alias.repository
    return hub_source.find(os.path.expanduser(source), Hub(**where))


def _place(found: hub.ModelFiles, preset: str, alias: Alias | None) -> Path:
    from csm_ggml.convert import QUANTIZATION_PRESETS

    content = [
        VERSION,
        preset,
        astuple(QUANTIZATION_PRESETS[preset]),
        found.name if alias else None,
        sorted(entry for path in found.paths for entry in _identity(path)),
    ]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", hub.short_name(found.name))[:80].removesuffix(".gguf")
    return folder() / f"{name}-{preset}-{digest}.gguf"


def _identity(path: Path, *, bases: bool = True) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file that counts; with those of an adapter's base."""
    whole = Path(os.path.abspath(path))
    files = [whole]
    if whole.is_dir():
        files = [file for file in whole.iterdir() if file.suffix in (*_SETTINGS, *_WEIGHTS)]
    elif whole.suffix != ".gguf":
        files += [file for file in whole.parent.iterdir() if file.suffix in _SETTINGS]
    for file in files:
        real = Path(os.path.realpath(file))
        if real.is_file() and not file.name.startswith("."):
            status = real.stat()
            shown = os.fsencode(real).decode(errors="backslashreplace")
            yield shown, status.st_size, status.st_mtime_ns
        if bases and file.name == "adapter_config.json" and (base := _base(real)) is not None:
            yield from _identity(base, bases=False)


def _base(settings: Path) -> Path | None:
    """The local model that an adapter was trained on."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        base = Path(json.loads(settings.read_text("utf-8")).get("base_model_name_or_path"))
        return base if base.exists() else None
    return None


def _make(
    found: hub.ModelFiles,
    preset: str,
    alias: Alias | None,
    output: Path,
    where: dict[str, Any],
    *,
    progress: bool,
) -> None:
    from csm_ggml.convert import FAMILIES, convert, quantize_file
    from csm_ggml.convert.sources import is_own

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output.parent)) from None
    with _alone(output):
        if output.is_file():
            return
        logger.info("converting %s to %s, once, into %s", found.name, preset, output)
        if len(found.paths) == 1 and is_own(found.paths[0]):
            report = quantize_file(found.paths[0], output, preset=preset, progress=progress)
        else:
            more: dict[str, Any] = {}
            if alias is not None:
                more = {"mimi": alias.mimi, "tokenizer": alias.tokenizer}
                more["family"] = alias.name if alias.name in FAMILIES else None
            report = convert(
                found.paths[0] if len(found.paths) == 1 else found.paths,
                output,
                preset=preset,
                name=hub.short_name(found.name),
                local_files_only=where["local_files_only"],
                cache_dir=where["cache_dir"],
                token=where["token"],
                progress=progress,
                **more,
            )
        for note in report.notes:
            logger.info("%s: %s", found.name, note)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """While no other process makes the same file."""
    path = output.with_name(f".{output.name}.lock")
    waiting = False
    while (lock := safe_files.open_locked(path)) is None:
        if not waiting:
            logger.info("another process is converting %s; waiting for it", output)
            waiting = True
        time.sleep(POLL_SECONDS)
    with lock:
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(path)

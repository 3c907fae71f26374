"""A checkpoint's files together with the adapters that change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csm_ggml._core import ModelFormatError

from . import lora
from .sources import Kind, PathLike, SourceFile, merge, open_sources, without_strays

_LANGUAGE = (Kind.TRANSFORMERS, Kind.ORIGINAL)


@dataclass
class Opened:
    """Files that were opened, their adapters merged.

    Attributes:
        files: of the checkpoint.
        adapter: the adapter that was merged, if there was one of its own.
        base: name of the model that it was merged into.
        notes: what a user should know.
        strays: files that were opened and left out.
    """

    files: list[SourceFile]
    adapter: Path | None = None
    base: str | None = None
    notes: list[str] = field(default_factory=list)
    strays: list[SourceFile] = field(default_factory=list)


def open_checkpoint(
    source: PathLike | Sequence[PathLike],
    base: PathLike | None,
    find: Callable[[PathLike], Path],
) -> Opened:
    """Open what the user named; an adapter is merged into the model that it was trained on.

    Args:
        source: file, folder, or several of them.
        base: the model of an adapter, where its settings do not name it or name one that is
            elsewhere.
        find: turns what the settings name into a path.

    Raises:
        FileNotFoundError: a path does not exist.
        ModelFormatError: a file cannot be read, or an adapter does not fit.
    """
    opened = open_sources(source)
    files = without_strays(opened)
    adapters = [f for f in files if f.kind is Kind.ADAPTER]
    result = Opened([f for f in files if f.kind is not Kind.ADAPTER])
    result.strays = [f for f in opened if f not in files]
    if len(adapters) > 1:
        names = ", ".join(str(f.path) for f in adapters)
        raise ModelFormatError(f"several adapters ({names}), expected one; merge the others first")
    if adapters:
        _add_base(result, adapters[0], base, find)
    language = [f for f in result.files if f.kind in _LANGUAGE]
    inside = [f for f in language if f.changes]
    if inside:
        settings = lora.read_settings(inside[0].path.parent)
        if settings is None:
            raise ModelFormatError(
                f"{inside[0].path}: holds LoRA factors that were not merged, and nothing tells "
                f"how often they count; put the {lora.CONFIG} of the training next to it, or merge "
                "them with PEFT's merge_and_unload()"
            )
        _merge(language, inside, settings, result)
    return result


def _add_base(
    result: Opened, adapter: SourceFile, base: PathLike | None, find: Callable[[PathLike], Path]
) -> None:
    folder = adapter.path.parent
    settings = lora.read_settings(folder)
    if settings is None:
        raise ModelFormatError(
            f"{folder / lora.CONFIG}: missing; PEFT writes it next to the adapter's weights"
        )
    named = base if base is not None else settings.base
    if not any(f.kind in _LANGUAGE for f in result.files):
        if named is None:
            raise ModelFormatError(
                f"{settings.where}: names no base model; pass base= (--base), the model that the "
                "adapter was trained on"
            )
        result.files += without_strays(open_sources(find(named)))
    language = [f for f in result.files if f.kind in _LANGUAGE]
    if not language:
        raise ModelFormatError(f"{named}: no CSM weights there, which {adapter.path} changes")
    if any(f.kind is Kind.TRANSFORMERS for f in language):
        language = [f for f in language if f.kind is Kind.TRANSFORMERS]
    _merge(language, [adapter], settings, result)
    result.adapter = folder
    result.base = Path(named).name if named is not None else language[0].path.stem


def _merge(
    language: Sequence[SourceFile],
    changing: Sequence[SourceFile],
    settings: lora.Settings,
    result: Opened,
) -> None:
    tensors = merge(language)
    for file in changing:
        if file not in language:
            for name, stored in file.tensors.items():
                if name not in tensors:
                    raise ModelFormatError(
                        f"{file.path}: holds {stored.name!r}, which the model does not have"
                    )
                tensors[name] = stored
        lora.merge(tensors, file.changes, settings)
        result.notes.append(
            f"LoRA adapter of {file.path} merged: {len(file.changes)} matrices changed"
            + (f", {len(file.tensors)} tensors replaced" if file not in language else "")
        )
    for file in language:
        file.tensors = {name: tensors[name] for name in file.tensors}

"""From what a user calls a model to the files on disk: alias, hub repository, folder or file.

A model is one GGUF file of docs/GGUF.md, or the three files (backbone, decoder, Mimi) of
llama.cpp's pull request #12648, told apart by their file names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from csm_ggml import _core
from csm_ggml.errors import ModelFormatError, ModelNotFoundError
from csm_ggml.fetching import Hub, user_cache
from csm_ggml.loading.aliases import ALIASES
from csm_ggml.loading.backends import core_path
from csm_ggml.loading.foreign import check_layout

__all__ = ["CSM_1B", "DEMO", "ModelFiles", "resolve", "short_name", "user_cache"]

DEMO = "demo"
CSM_1B = "csm-1b"

# Trained for this package; docs/DEMO_VOICE.md says what it is.
_PACKAGED_DEMO = Path(__file__).parent.parent / "data" / "demo.gguf"

_TRIO_ROLES = ("backbone", "decoder", "mimi")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(/.+\.gguf)?")
_SETTINGS = ("config.json", "adapter_config.json", "tokenizer.json")
_CONVERTIBLE = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class ModelFiles:
    """A model that was found.

    Attributes:
        name: What to call it: the alias, the repository or the path.
        paths: The one file, or backbone, decoder and Mimi.
        note: One line on what it is, for aliases; else empty.
    """

    name: str
    paths: tuple[Path, ...]
    note: str = ""


def resolve(
    name_or_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> ModelFiles:
    """Find a model, and fetch it from the Hugging Face hub if it is not here yet.

    Args:
        name_or_path: A name of `ALIASES`, such as "demo" or "csm-1b"; a .gguf file, one of three
            files that belong together, or all three; a folder that holds a model; a hub repository
            "owner/name", or a file of one, "owner/name/file.gguf".
        revision: Branch, tag or commit of the hub repository.
        local_files_only: Never use the network.
        cache_dir: The hub cache; default is huggingface_hub's.
        token: Hub access token; default is the one of `hf auth login`.

    Raises:
        ModelNotFoundError: If there is no such model, or it cannot be fetched.
        ModelFormatError: If what is there is no model of this package.
        TypeError: If an argument is of the wrong type.
    """
    _check_types(name_or_path, revision, cache_dir, token)
    if not isinstance(name_or_path, str | os.PathLike):
        paths = [Path(path) for path in name_or_path]
        return ModelFiles(", ".join(map(str, paths)), _trio_or_single(paths, "the given files"))
    name = os.fsdecode(name_or_path)
    hub = Hub(revision, local_files_only, cache_dir, token)
    if (alias := ALIASES.get(name)) is not None:
        if alias.repository is None:
            return ModelFiles(name, (_PACKAGED_DEMO,), alias.note)
        if not alias.files:
            raise NotConvertedError(name, name)
        return ModelFiles(name, hub.files(alias.repository, alias.files), alias.note)
    path = Path(os.path.expanduser(name))
    if name and path.is_dir():
        return ModelFiles(name, _in_folder(path))
    if name and path.exists():
        return ModelFiles(name, _around_file(path))
    if _REPOSITORY.fullmatch(name) and not (name.count("/") == 1 and name.endswith(".gguf")):
        return ModelFiles(name, _on_hub(hub, name))
    raise ModelNotFoundError(
        f"{name}: no such file or folder, and neither an alias ({', '.join(ALIASES)}) nor a "
        "hub repository (owner/name)"
    )


def _check_types(name_or_path: object, revision: object, cache_dir: object, token: object) -> None:
    """Raise TypeError where an argument is none of those that `resolve` takes."""
    several = isinstance(name_or_path, Sequence) and not isinstance(name_or_path, str | bytes)
    paths = list(name_or_path) if several else [name_or_path]  # type: ignore[call-overload]
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                f"a model is a name, a path or a list of paths, got {path!r}: expected for example "
                f"{DEMO!r} or 'model.gguf'"
            )
    for what, value, kinds, expected in (
        ("revision", revision, str, "a str"),
        ("cache_dir", cache_dir, str | os.PathLike, "a path"),
        ("token", token, str | bool, "a str or a bool"),
    ):
        if value is not None and not isinstance(value, kinds):
            raise TypeError(f"{what} must be {expected}, got {value!r}")


def short_name(name: str) -> str:
    """What a model was loaded as, without the folders of this machine.

    Args:
        name: An alias, a hub repository, a path, or several paths with commas between.
    """
    return ", ".join(map(_without_folders, name.split(", ")))


def _without_folders(name: str) -> str:
    if _REPOSITORY.fullmatch(name) and not os.path.exists(name):
        return name
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1]


def _in_folder(folder: Path) -> tuple[Path, ...]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    try:
        return tuple(folder / name for name in _choose(names, str(folder)))
    except ModelNotFoundError:
        check_layout([folder / name for name in names])
        raise


def _around_file(path: Path) -> tuple[Path, ...]:
    if path.suffix.lower() in _CONVERTIBLE:
        # A folder made for a checkpoint is needed whole, shards and codec; of any other, the file.
        made_for_it = any((path.parent / name).is_file() for name in _SETTINGS)
        whole = made_for_it and path.suffix.lower() == ".safetensors"
        raise NotConvertedError(str(path), str(path.parent if whole else path))
    if (role := _role(path.name)) is None:
        return (path,)
    names = [entry.name for entry in path.parent.iterdir() if entry.suffix == ".gguf"]
    trio = [path.name if r == role else _partner(path.name, role, r, names) for r in _TRIO_ROLES]
    missing = [r for r, name in zip(_TRIO_ROLES, trio, strict=True) if name is None]
    if len(missing) == len(_TRIO_ROLES) - 1 and not _is_part(path):
        return (path,)  # a file of its own that merely has such a word in its name
    if missing:
        raise ModelNotFoundError(
            f"{path} is one of three files (backbone, decoder, Mimi), but {path.parent} holds no "
            f"{' and no '.join(missing)} file "
            "that goes with it; put them side by side or give all three"
        )
    return tuple(path.parent / name for name in trio if name is not None)


def _is_part(path: Path) -> bool:
    """Whether a file is one of llama.cpp's three: a GGUF file of another layout than ours."""
    try:
        keys = _core.gguf_info(core_path(path))["metadata"]
    except Exception:
        return False  # loading it says what is wrong
    return bool(keys.get("general.architecture") != "csm")


def _partner(name: str, role: str, other: str, names: Iterable[str]) -> str | None:
    """The file of another role that goes with this one: named alike, else the only one."""
    candidates = [n for n in names if _role(n) == other]
    alike = [n for n in candidates if n.lower() == name.lower().replace(role, other)]
    if alike:
        return alike[0]
    return candidates[0] if len(candidates) == 1 else None


def _role(name: str) -> str | None:
    return next((role for role in _TRIO_ROLES if role in PurePosixPath(name).name.lower()), None)


def _choose(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The one model among the files of a folder or repository."""
    gguf = [name for name in names if name.lower().endswith(".gguf")]
    if len(gguf) == 1 and _role(gguf[0]) is None:
        return (gguf[0],)
    trio = [[name for name in gguf if _role(name) == role] for role in _TRIO_ROLES]
    if len(gguf) == 3 and all(len(files) == 1 for files in trio):
        return tuple(files[0] for files in trio)
    roles = [role for role, files in zip(_TRIO_ROLES, trio, strict=True) if len(files) == 1]
    if 1 <= len(gguf) == len(roles) < len(_TRIO_ROLES):
        missing = " and no ".join(role for role in _TRIO_ROLES if role not in roles)
        raise ModelNotFoundError(
            f"{where} holds {', '.join(gguf)}, but no {missing} file: a model in three files is "
            "backbone, decoder and Mimi"
        )
    if gguf:
        listed = ", ".join(gguf[:8]) + (", ..." if len(gguf) > 8 else "")
        raise ModelNotFoundError(
            f"{where} holds {len(gguf)} .gguf files that are not one model ({listed}); name the "
            "file you mean"
        )
    if any(name.lower().endswith(_CONVERTIBLE) for name in names):
        raise NotConvertedError(where, where)
    raise ModelNotFoundError(f"{where} holds no .gguf file")


class NotConvertedError(ModelFormatError):
    """A checkpoint was found that has to be converted first.

    Attributes:
        source: What `csm-ggml convert` takes.
    """

    def __init__(self, what: str, source: str) -> None:
        """Say what was found, and what to do."""
        super().__init__(
            f"{what} holds PyTorch weights, expected a .gguf file; convert them once: "
            f"csm-ggml convert {source} -o model.gguf, or load them with a preset, which does it: "
            "preset='balanced' (--preset balanced)"
        )
        self.source = source


def _trio_or_single(paths: Sequence[Path], where: str) -> tuple[Path, ...]:
    for path in paths:
        if not path.is_file():
            raise ModelNotFoundError(f"{path}: no such file")
    if len(paths) == 1:
        return (paths[0],)
    by_role = {_role(path.name): path for path in paths}
    if len(paths) == 3 and set(by_role) == set(_TRIO_ROLES):
        return tuple(by_role[role] for role in _TRIO_ROLES)
    missing = [role for role in _TRIO_ROLES if role not in by_role]
    raise ModelNotFoundError(
        f"{where} are not one model: expected one .gguf file, or three whose names contain "
        "backbone, decoder and "
        f"mimi, got {', '.join(path.name for path in paths) or 'none'}"
        + (f"; there is no {' and no '.join(missing)} file" if missing and paths else "")
    )


def _on_hub(hub: Hub, name: str) -> tuple[Path, ...]:
    """The files of "owner/name" or "owner/name/file.gguf"."""
    owner, repository, *file = name.split("/", 2)
    repository = f"{owner}/{repository}"
    if file:
        return hub.files(repository, (file[0],))
    if (names := hub.names(repository)) is None:
        return _in_folder(hub.snapshot(repository, ["*.gguf"], local=True))
    return hub.files(repository, _choose(names, repository))

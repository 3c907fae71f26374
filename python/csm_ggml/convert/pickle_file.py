"""Reading the tensors of a PyTorch checkpoint (`.pt`, `.bin`) without running what is in it.

Such a file is a ZIP archive of a pickle and the tensors' bytes. A pickle is a program that may call
anything; this reader follows it with an unpickler that knows a handful of names, all of its own
making: those that build tensors become descriptions of where their bytes lie, some harmless ones
become placeholders, and any other ends the reading.
"""

from __future__ import annotations

import errno
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError

from .tensors import FileRows, Stored

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

NESTED = ("model", "model_state", "model_state_dict", "state_dict", "module")
"""Where training scripts put the weights beside their own state."""

_MOST_PICKLE = 256 << 20
_LOCAL_HEADER = 30

_TYPES = {
    "FloatStorage": ("f32", 4),
    "HalfStorage": ("f16", 2),
    "BFloat16Storage": ("bf16", 2),
    "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}


@dataclass(frozen=True)
class _StorageType:
    name: str


@dataclass(frozen=True)
class _Storage:
    """Bytes of the archive: a type's name, where they begin, how many numbers."""

    type: str
    width: int
    start: int
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Placeholder:
    """Stands for an object that is no tensor and is not wanted; takes anything, does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object, *_: object
) -> _Tensor:
    known = isinstance(storage, _Storage) and isinstance(offset, int)
    if not known or not _numbers(shape) or not _numbers(strides) or len(shape) != len(strides):  # type: ignore[arg-type]
        raise pickle.UnpicklingError("a tensor with a damaged description")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))  # type: ignore[arg-type]


def _numbers(value: object) -> bool:
    return isinstance(value, tuple | list) and all(type(n) is int and n >= 0 for n in value)


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda build, _, arguments, __: build(*arguments),
    ("torch", "Size"): tuple,
}

_DTYPES = {
    *("float64", "float32", "float16", "bfloat16"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
}

_HARMLESS = {
    ("argparse", "Namespace"),
    ("collections", "defaultdict"),
    ("collections", "Counter"),
    ("_codecs", "encode"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
    ("torch", "device"),
    ("types", "SimpleNamespace"),
}
"""What training scripts save beside the weights."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path, members: dict[str, tuple[int, int]]) -> None:
        super().__init__(file)
        self._path, self._members = path, members

    def find_class(self, module: str, name: str) -> Any:
        """One of the few known names; never an import."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _TYPES:
            return _StorageType(name)
        if (module, name) in _HARMLESS or (module == "torch" and name in _DTYPES):
            return _Placeholder
        raise ModelFormatError(
            f"{self._path}: the file calls {module}.{name} when it is read; only files of tensors "
            "are read: save the weights alone (torch.save(model.state_dict(), ...)) or as "
            "safetensors"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """The place of a storage's bytes."""
        try:
            kind, storage_type, key, _, count = pid
            type_name, width = _TYPES[storage_type.name]
            start, size = self._members[str(key)]
        except (TypeError, ValueError, KeyError, AttributeError):
            raise pickle.UnpicklingError(f"unknown tensor data {str(pid)[:80]}") from None
        if kind != "storage" or type(count) is not int or not 0 <= count * width <= size:
            raise pickle.UnpicklingError(f"tensor data of {count} numbers in {size} bytes")
        return _Storage(type_name, width, start, count)


def read_pickle(path: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint that `torch.save` wrote, by name.

    Raises:
        ModelFormatError: the file is damaged, of PyTorch before 1.6, calls what is not known, or
            holds no state dictionary where one is looked for.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpickle(path, archive)
    except ModelFormatError:
        raise
    except Exception as error:  # a damaged archive may fail in any way
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ModelFormatError(
            f"{path}: not a PyTorch checkpoint, truncated, damaged, or one of PyTorch before 1.6 "
            f"({error}); load and save it again with a newer PyTorch, or use safetensors"
        ) from None
    state = _state(content, path)
    return {
        name: _stored(path, name, tensor)
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, _Tensor)
    }


def _unpickle(path: Path, archive: zipfile.ZipFile) -> object:
    entries = archive.infolist()
    main = next((e for e in entries if e.filename.endswith("data.pkl")), None)
    if main is None:
        raise ModelFormatError(f"{path}: a ZIP archive without data.pkl: not a PyTorch checkpoint")
    root = main.filename.removesuffix("data.pkl")
    members: dict[str, tuple[int, int]] = {}
    with path.open("rb") as file:
        for entry in entries:
            if entry.filename == root + "byteorder" and archive.read(entry) != b"little":
                raise ModelFormatError(f"{path}: numbers of another byte order than little endian")
            if not entry.filename.startswith(root + "data/"):
                continue
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ModelFormatError(
                    f"{path}: {entry.filename} is compressed, expected plain as torch.save "
                    "writes it"
                )
            file.seek(entry.header_offset + _LOCAL_HEADER - 4)
            lengths = file.read(4)
            start = entry.header_offset + _LOCAL_HEADER
            start += int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            members[entry.filename.removeprefix(root + "data/")] = start, entry.file_size
    if main.file_size > _MOST_PICKLE:
        raise ModelFormatError(f"{path}: a pickle of {main.file_size:,} bytes, beyond reason")
    try:
        with archive.open(main) as file:
            return _Unpickler(file, path, members).load()
    except ModelFormatError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        raise ModelFormatError(f"{path}: the pickle is damaged: {error}") from None


def _state(content: object, path: Path) -> dict[Any, Any]:
    """The dictionary of tensors: the whole, or what lies under one of the usual keys."""
    found, under = content, ""
    for _ in range(len(NESTED)):
        if not isinstance(found, dict):
            break
        if any(isinstance(value, _Tensor) for value in found.values()):
            return found
        key = next((k for k in NESTED if isinstance(found.get(k), dict)), None)
        if key is None:
            keys = ", ".join(repr(k)[:40] for k in list(found)[:8]) or "nothing"
            raise ModelFormatError(
                f"{path}: no tensors{under}, which holds {keys}; expected names and tensors, or "
                f"these under one of {', '.join(NESTED)}"
            )
        found, under = found[key], f"{under} under {key!r}"
    raise ModelFormatError(f"{path}: holds no dictionary of tensors{under}")


def _stored(path: Path, name: str, tensor: _Tensor) -> Stored:
    storage, shape = tensor.storage, tensor.shape
    plain = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    strides = zip(shape, tensor.strides, plain, strict=True)
    if any(length > 1 and stride != usual for length, stride, usual in strides):
        raise ModelFormatError(
            f"{path}: tensor {name!r} of shape {list(shape)} lies in the file with strides "
            f"{list(tensor.strides)}, expected rows one after another; save it .contiguous()"
        )
    if tensor.offset < 0 or tensor.offset + prod(shape) > storage.count:
        raise ModelFormatError(
            f"{path}: tensor {name!r} of shape {list(shape)} at {tensor.offset} in data of "
            f"{storage.count} numbers"
        )
    width = storage.width
    rows = FileRows(
        path,
        storage.start + tensor.offset * width,
        prod(shape[:-1]),
        shape[-1] * width if shape else width,
    )
    return Stored(path, name, shape, storage.type, rows)

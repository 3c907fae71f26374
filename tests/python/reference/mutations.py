"""Damaged and malicious GGUF files, made from a valid one and a seed."""

from __future__ import annotations

import copy
import math
import random
import re
import struct

from .gguf_document import ARRAY, F32, SCALARS, STRING, U32, Document, Key, Tensor, parse

# Values at which sums, products and conversions go wrong.
_NASTY = [
    0,
    1,
    2,
    3,
    255,
    2**15,
    2**16,
    2**20,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 2,
    2**32 - 1,
    2**32,
]
_NASTY += [2**33 + 1, 2**40, 2**47, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]
_NASTY_FLOATS = [0.0, -0.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"), 1.0]


def mutate(valid: bytes, seed: int) -> tuple[bytes, str]:
    """One damaged file.

    Args:
        valid: A valid GGUF file of alignment 32.
        seed: Which damage.

    Returns:
        The file's bytes, and what was done to it in words.
    """
    rng = random.Random(seed)
    document = _parsed(valid)
    types = {key.type for key in document.keys}
    # a codec file of the three has one key only
    kinds = [kind for kind in _KINDS if _NEEDS.get(kind, types) & types]
    kind = rng.choice(kinds)
    damaged = kind(copy.deepcopy(document), bytearray(valid), rng)
    return bytes(damaged), kind.__name__.strip("_").replace("_", " ")


_cache: dict[int, Document] = {}


def _parsed(valid: bytes) -> Document:
    if id(valid) not in _cache:
        _cache[id(valid)] = parse(valid)
    return _cache[id(valid)]


# Bytes


def _flip_bits(document: Document, data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        data[rng.randrange(document.header_size)] ^= 1 << rng.randrange(8)
    return data


def _overwrite_bytes(document: Document, data: bytearray, rng: random.Random) -> bytes:
    at, size = rng.randrange(document.header_size), rng.choice([1, 4, 8, 40])
    data[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    return data


def _truncate(document: Document, data: bytearray, rng: random.Random) -> bytes:
    end = rng.randrange(document.header_size) if rng.random() < 0.7 else rng.randrange(len(data))
    return data[:end]


def _lengthen(document: Document, data: bytearray, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice([1, 31, 32, 4096, 100_000]))


def _remove_or_repeat_bytes(document: Document, data: bytearray, rng: random.Random) -> bytes:
    at, size = rng.randrange(document.header_size), rng.choice([1, 4, 8, 32, 200])
    piece = data[at : at + size]
    return data[:at] + (piece + piece if rng.random() < 0.5 else b"") + data[at + size :]


def _flip_weights(document: Document, data: bytearray, rng: random.Random) -> bytes:
    for _ in range(64):
        at = rng.randrange(document.header_size, len(data))
        data[at] = rng.choice([0, 0x7F, 0x80, 0xFF])
    return data


# Numbers of the header


def _nasty_number(document: Document, data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 2])):
        number = rng.choice(document.numbers)
        old = int.from_bytes(data[number.at : number.at + number.size], "little")
        new = rng.choice(
            [*_NASTY, old + 1, old - 1, old * 2, old << 32, len(data), rng.getrandbits(64)]
        )
        data[number.at : number.at + number.size] = (new % 256**number.size).to_bytes(
            number.size, "little"
        )
    return data


def _swap_numbers(document: Document, data: bytearray, rng: random.Random) -> bytes:
    a = rng.choice(document.numbers)
    b = rng.choice([n for n in document.numbers if n.size == a.size])
    first, second = data[a.at : a.at + a.size], data[b.at : b.at + b.size]
    data[a.at : a.at + a.size], data[b.at : b.at + b.size] = second, first
    return data


def _wrong_counts(document: Document, data: bytearray, rng: random.Random) -> bytes:
    tensors, keys = len(document.tensors), len(document.keys)
    if rng.random() < 0.3:
        return document.build(tensor_count=keys, key_count=tensors)
    delta = rng.choice([1, -1, 2**32, 2**63, 10**6])
    if rng.random() < 0.5:
        return document.build(tensor_count=(tensors + delta) % 2**64)
    return document.build(key_count=(keys + delta) % 2**64)


# Keys


def _nasty_hyper_parameter(document: Document, data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        key = rng.choice([k for k in document.keys if k.type in (U32, F32)])
        if key.type == F32:
            key.value = struct.pack("<f", rng.choice(_NASTY_FLOATS))
        else:
            old = int.from_bytes(key.value, "little")
            new = rng.choice([*_NASTY, old + 1, old - 1, old * 2, old // 2, rng.randrange(64)])
            key.value = struct.pack("<I", new % 2**32)
    return document.build()


def _nasty_array(document: Document, data: bytearray, rng: random.Random) -> bytes:
    """Another length, other element types, arrays of arrays, other elements."""
    key = rng.choice([k for k in document.keys if k.type == ARRAY])
    element, count = struct.unpack("<IQ", key.value[:12])
    body = key.value[12:]
    damage = rng.randrange(6)
    if damage == 0:
        count = rng.choice([*_NASTY, count + 1, max(count, 1) - 1]) % 2**64
    elif damage == 1:
        element = rng.choice([*range(16), 2**32 - 1])
    elif damage == 2:
        count, body = 0, b""
    elif damage == 3:
        element, body = ARRAY, struct.pack("<IQ", ARRAY, 2**40) + body
    elif damage == 4 and element in SCALARS:
        body = b"".join(
            (rng.choice(_NASTY) % 256 ** SCALARS[element]).to_bytes(SCALARS[element], "little")
            for _ in range(count)
        )
    else:
        count, body = 2 * count, body + body
    key.value = struct.pack("<IQ", element, count) + body
    return document.build()


def _other_value_type(document: Document, data: bytearray, rng: random.Random) -> bytes:
    """Well-formed, but not the type that the key has to have."""
    key = rng.choice(document.keys)
    values = {
        U32: struct.pack("<I", rng.choice(_NASTY) % 2**32),
        F32: struct.pack("<f", rng.choice(_NASTY_FLOATS)),
        STRING: struct.pack("<Q", 4) + b"\xff\0a\n",
        ARRAY: struct.pack("<IQ", U32, 2) + bytes(8),
        5: struct.pack("<i", rng.choice([-1, 0, 1, -(2**31), 5])),
        7: bytes([rng.choice([0, 1, 2])]),
        11: struct.pack("<q", rng.choice([-1, 7, -(2**63)])),
        10: struct.pack("<Q", rng.choice(_NASTY) % 2**64),
        12: struct.pack("<d", rng.choice(_NASTY_FLOATS)),
    }
    key.type = rng.choice([t for t in values if t != key.type])
    key.value = values[key.type]
    return document.build()


def _keys_missing_doubled_or_renamed(
    document: Document, data: bytearray, rng: random.Random
) -> bytes:
    at = rng.randrange(len(document.keys))
    key = document.keys[at]
    damage = rng.randrange(4)
    if damage == 0:
        document.keys.pop(at)
    elif damage == 1:
        document.keys.insert(rng.randrange(len(document.keys)), copy.copy(key))
    elif damage == 2:
        key.name = rng.choice(
            [b"", b"\0", key.name + b"\0", b"x" * 70_000, b"\xff\xfe", key.name[:-1]]
        )
    else:
        rng.shuffle(document.keys)
    return document.build()


def _alignment(document: Document, data: bytearray, rng: random.Random) -> bytes:
    document.keys = [key for key in document.keys if key.name != b"general.alignment"]
    value = rng.choice([0, 1, 2, 3, 8, 31, 33, 64, 4096, 2**20, 2**21, 2**31, 2**32 - 1])
    type, packed = rng.choice(
        [
            (U32, struct.pack("<I", value)),
            (10, struct.pack("<Q", value)),
            (F32, struct.pack("<f", value)),
        ]
    )
    document.keys.append(Key(b"general.alignment", type, packed))
    return document.build()


# Tensors


def _tensor_shape(document: Document, data: bytearray, rng: random.Random) -> bytes:
    tensor = rng.choice(document.tensors)
    damage = rng.randrange(7)
    if damage == 0:
        tensor.shape[rng.randrange(len(tensor.shape))] = rng.choice(_NASTY)
    elif damage == 1:
        tensor.shape.reverse()
    elif damage == 2:
        tensor.shape = tensor.shape + [1] * rng.choice([1, 2, 3, 4, 100])
    elif damage == 3:
        tensor.shape = []
    elif damage == 4:
        # the product of the sizes is right once it has overflowed
        tensor.shape = [2**32, 2**32, *tensor.shape]
    elif damage == 5:
        tensor.shape[-1] += rng.choice([1, -1])
    else:
        tensor.shape = list(rng.choice(document.tensors).shape)
    return document.build()


def _tensor_type(document: Document, data: bytearray, rng: random.Random) -> bytes:
    rng.choice(document.tensors).type = rng.choice([*range(45), 2**31, 2**32 - 1])
    return document.build()


def _tensor_offset(document: Document, data: bytearray, rng: random.Random) -> bytes:
    tensor = rng.choice(document.tensors)
    size = len(document.data)
    choices = [
        rng.choice(document.tensors).offset,
        tensor.offset + 1,
        tensor.offset + 32,
        tensor.offset - 32,
    ]
    choices += [size, size - 1, size - 32, size + 32, rng.choice(_NASTY), -32]
    tensor.offset = rng.choice(choices)
    return document.build()


def _tensor_names(document: Document, data: bytearray, rng: random.Random) -> bytes:
    a, b = rng.sample(document.tensors, 2)
    damage = rng.randrange(5)
    if damage == 0:
        a.name = b.name
    elif damage == 1:
        a.name, b.name = b.name, a.name
    elif damage == 2:
        document.tensors.remove(a)
    elif damage == 3:
        document.tensors.append(copy.copy(a))
    else:
        a.name = rng.choice(
            [b"", b"\0", a.name + b"\0", b"x" * 63, b"x" * 64, b"x" * 100_000, b"\xff\xfe%s%n"]
        )
    return document.build()


def _tensors_exchanged(document: Document, data: bytearray, rng: random.Random) -> bytes:
    a, b = rng.sample(document.tensors, 2)
    for attribute in rng.sample(["shape", "type", "offset"], rng.choice([1, 2, 3])):
        first, second = getattr(a, attribute), getattr(b, attribute)
        setattr(a, attribute, second)
        setattr(b, attribute, first)
    return document.build()


# Sizes, in all places that have to agree: such a file is as valid as its sizes are.

_BYTES = {0: 4, 1: 2, 30: 2}
_LARGEST = 4 << 20


def _lay_out(document: Document, rng: random.Random) -> bytes:
    """The file with room for its tensors as they are now, filled with small numbers."""
    parts, at = [], 0
    for tensor in document.tensors:
        size = math.prod(tensor.shape) * _BYTES.get(tensor.type, 4)
        if at + size > _LARGEST:
            size = 0
        tensor.offset = at
        parts.append(b"\0\0" * (size // 2) if rng.random() < 0.5 else b"\0\x3c" * (size // 2))
        parts.append(bytes(-size % 32))
        at += size + -size % 32
    document.data = b"".join(parts)
    return document.build()


def _kind_of(name: bytes) -> bytes:
    """The name without the number of its layer."""
    return re.sub(rb"\d+", b"#", name)


def _another_size(document: Document, data: bytearray, rng: random.Random) -> bytes:
    """A dimension of one tensor, of its like in all layers, or wherever it occurs."""
    tensor = rng.choice(document.tensors)
    at = rng.randrange(len(tensor.shape))
    old = tensor.shape[at]
    near = [old + 1, max(old - 1, 1), old // 2 or 1, 2 * old, old * 3]
    new = rng.choice([1, 1, 1, 2, 3, 31, 32, 33, 63, 64, 65, *near])
    reach = rng.randrange(4)
    for other in document.tensors:
        if reach == 0 and other is not tensor:
            continue
        if reach == 1 and _kind_of(other.name) != _kind_of(tensor.name):
            continue
        if reach <= 1:
            other.shape[min(at, len(other.shape) - 1)] = new
        else:
            other.shape = [new if size == old else size for size in other.shape]
    for key in document.keys if reach == 3 else []:
        if key.type == U32 and key.value == struct.pack("<I", old):
            key.value = struct.pack("<I", new)
    return _lay_out(document, rng)


def _fewer_or_more_of_a_kind(document: Document, data: bytearray, rng: random.Random) -> bytes:
    """Layers, codebooks or stages end earlier, are left out, or go on."""
    numbered = [t for t in document.tensors if re.search(rb"\d", t.name)]
    found = re.match(rb"(.*?)(\d+)(.*)", rng.choice(numbered).name, re.DOTALL)
    assert found is not None
    prefix, number = found[1], int(found[2])
    same = [t for t in document.tensors if re.match(re.escape(prefix) + rb"\d+", t.name)]

    def number_of(tensor: Tensor) -> int:
        digits = re.match(rb"\d+", tensor.name[len(prefix) :])
        assert digits is not None
        return int(digits[0])

    damage = rng.randrange(3)
    if damage == 2:
        last = max(map(number_of, same))
        for tensor in [t for t in same if number_of(t) == number]:
            rest = tensor.name[len(prefix) + len(b"%d" % number) :]
            added = copy.deepcopy(tensor)
            added.name = prefix + b"%d" % (last + rng.choice([1, 1, 2])) + rest
            document.tensors.append(added)
    else:
        gone = [t for t in same if number_of(t) == number or (damage and number_of(t) > number)]
        document.tensors = [t for t in document.tensors if t not in gone]
    if rng.random() < 0.5:
        for key in document.keys:
            if key.name.endswith((b"block_count", b"codebooks")):
                key.value = struct.pack("<I", rng.choice([0, 1, number, number + 1, number + 2]))
    return _lay_out(document, rng)


def _another_format(document: Document, data: bytearray, rng: random.Random) -> bytes:
    document.magic = rng.choice([b"GGUF", b"GGUF", b"FUGG", b"GGML", b"\0\0\0\0", b"PK\3\4"])
    document.version = rng.choice([0, 1, 2, 3, 4, 2**24 * 3, 2**32 - 1])
    return rng.choice([document.build(), document.build()[::-1], rng.randbytes(500), b"", b"GGUF"])


_KINDS = [
    _flip_bits,
    _flip_bits,
    _overwrite_bytes,
    _truncate,
    _lengthen,
    _remove_or_repeat_bytes,
    _flip_weights,
    _nasty_number,
    _nasty_number,
    _swap_numbers,
    _wrong_counts,
    _nasty_hyper_parameter,
    _nasty_hyper_parameter,
    _nasty_array,
    _other_value_type,
    _keys_missing_doubled_or_renamed,
    _alignment,
    _tensor_shape,
    _tensor_shape,
    _tensor_type,
    _tensor_offset,
    _tensor_names,
    _tensors_exchanged,
    _another_size,
    _another_size,
    _another_size,
    _fewer_or_more_of_a_kind,
    _another_format,
]

# Key types of which a file must have one for a kind of damage.
_NEEDS = {_nasty_hyper_parameter: {U32, F32}, _nasty_array: {ARRAY}}

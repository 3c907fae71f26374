"""States in a finished GGUF how long the pieces of a long text should be (`pieces.py` measures it).

    python state_pieces.py --model demo.gguf --characters 100 --output stated.gguf

A checkpoint that is converted anew has the option `--piece-characters` for it. Tensors keep their
bytes.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path

import gguf

KEY = "csm.generation.piece_characters"
AFTER = "csm.generation.depth_top_k"
COUNT_AT = 16  # of the number of keys: behind magic, version and the number of tensors
UINT32 = 4


def stated(data: bytes, path: Path, characters: int) -> bytes:
    """The file's bytes with the key; one that is there is replaced."""
    reader = gguf.GGUFReader(path)
    entry = struct.pack("<Q", len(KEY)) + KEY.encode() + struct.pack("<II", UINT32, characters)
    head = bytearray(data[: reader.data_offset])
    if known := reader.fields.get(KEY):
        head[known.offset : known.offset + len(entry)] = entry
        return bytes(head) + data[reader.data_offset :]
    end = max(
        info.offset + sum(part.nbytes for part in info.parts)
        for info in (tensor.field for tensor in reader.tensors)
    )
    before = reader.fields[AFTER]
    at = before.offset + sum(part.nbytes for part in before.parts)
    head = bytearray(data[:at] + entry + data[at:end])
    head[COUNT_AT : COUNT_AT + 8] = struct.pack("<Q", len(reader.fields) - 3 + 1)
    head += bytes(-len(head) % reader.alignment)
    return bytes(head) + data[reader.data_offset :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--characters", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.output.write_bytes(stated(args.model.read_bytes(), args.model, args.characters))


if __name__ == "__main__":
    main()

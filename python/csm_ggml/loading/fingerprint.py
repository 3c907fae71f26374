"""What tells one loaded model from another: its hyper-parameters and the bytes of its weights.

Keys and values in a voice's file are only right for the very weights they were computed with, down
to the number format. Hashing gigabytes at each start would cost more than it saves, so of each
file its size, its beginning, its end and blocks evenly between them are hashed: files of different
training, quantization or layout differ in all of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EDGE_BYTES = 1 << 20
BLOCKS = 64
BLOCK_BYTES = 1 << 12


def fingerprint(config: Mapping[str, Any], files: Sequence[Path]) -> str:
    """A model's fingerprint: 32 hexadecimal digits.

    Args:
        config: Its hyper-parameters.
        files: What it was loaded from, in order.

    Raises:
        OSError: If a file cannot be read any more.
    """
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True, default=str).encode())
    for path in files:
        size = path.stat().st_size
        digest.update(b"%d\n" % size)
        with path.open("rb") as file:
            digest.update(file.read(EDGE_BYTES))
            for block in range(BLOCKS):
                file.seek(size * block // BLOCKS)
                digest.update(file.read(BLOCK_BYTES))
            file.seek(max(0, size - EDGE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()[:32]

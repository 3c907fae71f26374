"""Tables to be spoken: rows of a JSON Lines, CSV or Parquet file."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from csm_ggml.cli.common import UsageError
from csm_ggml.inputs import read_whole

# Of a table of texts, which is held in memory.
_MOST_BYTES = 1 << 30

# Characters of a CSV field at most; Python's own limit is less than some texts have.
_FIELD_LIMIT = 10_000_000


def read_table(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All rows of a file, each with its columns by name; its extension tells the format.

    Args:
        path: .jsonl or .ndjson, an object a line; .csv or .tsv, names in the first line; or
            .parquet, which needs pyarrow.

    Raises:
        UsageError: If the extension is another, or a package is missing.
        ValueError: If the file is not what its extension says; the message names the line.
        OSError: If it cannot be read.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension in (".jsonl", ".ndjson"):
        return _json_lines(path)
    if extension in (".csv", ".tsv"):
        return _csv(path, "\t" if extension == ".tsv" else ",")
    if extension == ".parquet":
        return _parquet(path)
    raise UsageError(
        f"{path}: expected a table by its extension, .jsonl, .ndjson, .csv, .tsv or .parquet"
    )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, line {number}: expected an object such as "
                f'{{"id": "a", "text": "Hello."}}, got {type(row).__name__}'
            )
        rows.append(row)
    return rows


def _csv(path: Path, delimiter: str) -> list[dict[str, Any]]:
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, Any]] = []
    names: list[str] | None = None
    try:
        for fields in reader:
            if names is None:
                names = fields
                if len(set(names)) < len(names):
                    raise ValueError(f"{path}: two columns have the same name: {names}")
            elif fields:
                if len(fields) != len(names):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(fields)} fields, expected "
                        f"{len(names)}: {', '.join(names)}"
                    )
                rows.append(dict(zip(names, fields, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def _text(path: Path) -> str:
    try:
        return read_whole(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from None
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file: {error}") from None
    return rows

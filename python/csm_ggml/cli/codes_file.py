"""Codes on disk: text with one frame a line, or a NumPy array."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from csm_ggml.cli.common import write_stdout
from csm_ggml.files import write_file
from csm_ggml.inputs import read_standard_input, read_whole


def read_codes(name: str) -> npt.NDArray[np.int32]:
    """Read (frames, codebooks) codes from a .npy or text file; '-' is standard input, as text.

    In text, whitespace or commas part the codes of a line, empty lines and what follows a # do not
    count.

    Raises:
        ValueError: If a line holds something else than whole numbers, or not as many as the first
            one.
    """
    if name.lower().endswith(".npy"):
        try:
            return np.asarray(np.load(name, allow_pickle=False))
        except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError) as error:
            raise ValueError(f"{name} is no NumPy array of codes: {error}") from None
    where = "standard input" if name == "-" else name
    data = read_standard_input() if name == "-" else read_whole(name)
    frames: list[list[int]] = []
    for number, line in enumerate(data.decode("utf-8-sig", errors="replace").splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            frame = [int(word) for word in words]
        except ValueError:
            raise ValueError(
                f"{where}, line {number}: expected whole numbers, got {line[:60]!r}"
            ) from None
        if frames and len(frame) != len(frames[0]):
            raise ValueError(
                f"{where}, line {number}: expected {len(frames[0])} codes as in the first frame, "
                f"got {len(frame)}"
            )
        if not all(0 <= code < 2**31 for code in frame):
            raise ValueError(f"{where}, line {number}: codes must be in 0..2**31-1")
        frames.append(frame)
    if not frames:
        raise ValueError(f"{where} holds no codes")
    return np.array(frames, np.int32)


def write_codes(name: str, codes: npt.NDArray[np.int32]) -> None:
    """Write (frames, codebooks) codes as .npy or text; '-' is standard output, as text."""
    if name.lower().endswith(".npy"):
        array = io.BytesIO()
        np.save(array, codes)
        write_file(name, array.getvalue(), "codes", "text")
        return
    text = io.StringIO()
    np.savetxt(text, codes, fmt="%d")
    if name == "-":
        write_stdout(text.getvalue().encode())
    else:
        write_file(name, text.getvalue().encode(), "codes", "text")

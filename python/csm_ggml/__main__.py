"""The command `csm-ggml`, also as `python -m csm_ggml`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line of this process; returns its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Importing takes a while, and Ctrl-C meanwhile would print where.
        signal.signal(signal.SIGINT, _interrupted)
    from csm_ggml.cli import main as run

    code = run()
    # All is done; an interruption of Python's own end would be noise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return code


def _interrupted(number: int, frame: object) -> None:
    try:
        os.write(2, b"csm-ggml: interrupted\n")
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

"""`csm-ggml models`: the short names, and what of them is here."""

from __future__ import annotations

import argparse
import json
from typing import Any

from csm_ggml.cli.common import Subparsers, say, size, tell, write_stdout


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "models",
        help="list the models that have a short name, and those that were converted",
        description="List the models that have a short name, whether they are here, and the models "
        "that presets have converted into the cache.",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--clear", action="store_true", help="remove the converted models from the cache"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """List, or clear."""
    from csm_ggml.loading import prepared
    from csm_ggml.loading.aliases import ALIASES

    folder = prepared.folder()
    made = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    if args.clear:
        total = sum(path.stat().st_size for path in made)
        for path in made:
            path.unlink()
        tell(f"{len(made)} converted models removed from {folder}, {size(total)}")
        return
    listed = [(alias, prepared.is_here(alias)) for alias in ALIASES.values()]
    if args.json:
        document = {
            "models": [
                {
                    "name": alias.name,
                    "what": alias.note,
                    "repository": alias.repository,
                    "size": alias.size,
                    "needs_preset": alias.repository is not None and not alias.files,
                    "here": here,
                }
                for alias, here in listed
            ],
            "converted": [{"file": str(p), "bytes": p.stat().st_size} for p in made],
        }
        write_stdout((json.dumps(document, indent=2) + "\n").encode())
        return
    width = max(len(alias.name) for alias, _ in listed)
    for alias, here in listed:
        state = "here" if here else "not fetched"
        preset = "with --preset" if alias.repository is not None and not alias.files else ""
        more = ", ".join(part for part in (alias.size, preset) if part)
        say(f"{alias.name:{width}}  {state:11}  {alias.note}" + (f" ({more})" if more else ""))
    if made:
        say("")
        say(f"Converted, in {folder}")
        for path in made:
            say(f"  {path.name}  {size(path.stat().st_size)}")

"""`csm-ggml download`: a model fetched, and converted, before it is needed."""

from __future__ import annotations

import argparse
from typing import Any

from csm_ggml.cli.common import Subparsers, add_preset_argument, find_model, say, size, tell


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "download",
        help="fetch a model, so that it is there when it is needed",
        description="Fetch a model into the cache, convert it if a preset is asked for, and print "
        "its files. What loads it later with the same name and preset needs no network.",
    )
    parser.add_argument("model", help="as --model of speak; `csm-ggml models` lists short names")
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of a hub repository"
    )
    parser.add_argument("--local-files-only", action="store_true", help="never use the network")
    add_preset_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Fetch."""
    files = find_model(args)
    total = sum(path.stat().st_size for path in files.paths)
    count = f"{len(files.paths)} files" if len(files.paths) > 1 else "one file"
    tell(f"{files.name}: {size(total)} in {count}")
    for path in files.paths:
        say(str(path))

"""`csm-ggml info`: what is in a model file, without loading its weights."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from csm_ggml.cli.common import DEFAULT_MODEL, Subparsers, say, size, write_stdout

# Too long to be shown, and of no use to the eye.
_ARRAYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "info",
        help="show what is in a model file",
        description="Show hyper-parameters, tensor types and sizes; weights are not loaded.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        help="as --model of speak (default: %(default)s)",
    )
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--revision", metavar="NAME", help="branch, tag or commit of a Hugging Face repository"
    )
    parser.add_argument("--local-files-only", action="store_true", help="never use the network")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print it."""
    from csm_ggml import _core
    from csm_ggml.loading import hub
    from csm_ggml.loading.backends import core_path

    files = hub.resolve(args.model, revision=args.revision, local_files_only=args.local_files_only)
    contents = [(path, _core.gguf_info(core_path(path))) for path in files.paths]
    if args.json:
        document = [_as_json(path, info, _added(info)) for path, info in contents]
        write_stdout((json.dumps(document, indent=2) + "\n").encode())
        return
    for number, (path, info) in enumerate(contents):
        if number:
            say("")
        _print(path, info, _added(info), list_tensors=args.tensors)


def _added(info: dict[str, Any]) -> tuple[str, ...]:
    """The tokens that a fine-tune added."""
    from csm_ggml.text.tokenizer import added_tokens

    keys = info["metadata"]
    return added_tokens(
        *(keys.get(f"tokenizer.ggml.{key}", ()) for key in ("tokens", "token_type"))
    )


def _as_json(path: Path, info: dict[str, Any], added: tuple[str, ...]) -> dict[str, Any]:
    return {
        "file": os.fsencode(path).decode(errors="backslashreplace"),
        "bytes": path.stat().st_size,
        "version": info["version"],
        "metadata": {key: _short(key, value) for key, value in info["metadata"].items()},
        "added_tokens": list(added),
        "tensors": [{**tensor, "shape": list(tensor["shape"])} for tensor in info["tensors"]],
    }


def _print(path: Path, info: dict[str, Any], added: tuple[str, ...], *, list_tensors: bool) -> None:
    tensors = info["tensors"]
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors)
    say(str(path))
    say(
        f"GGUF version {info['version']}, {size(path.stat().st_size)}, {len(tensors)} tensors, "
        f"{parameters / 1e6:.2f} M parameters"
    )
    say("")
    say("Hyper-parameters")
    width = max((len(key) for key in info["metadata"]), default=0)
    for key, value in info["metadata"].items():
        say(f"  {key:{width}}  {_short(key, value)}")
    if added:
        say("")
        say(f"Tokens that a fine-tune added ({len(added)}), each matched whole")
        for token in added:
            say(f"  {token}")
    say("")
    say("Weights")
    _print_parts(tensors)
    if list_tensors:
        say("")
        say("Tensors")
        width = max((len(tensor["name"]) for tensor in tensors), default=0)
        for tensor in tensors:
            shape = ", ".join(map(str, tensor["shape"]))
            say(
                f"  {tensor['name']:{width}}  {tensor['type']:6}  "
                f"{size(tensor['bytes']):>9}  [{shape}]"
            )


def _print_parts(tensors: list[dict[str, Any]]) -> None:
    parts: dict[str, list[dict[str, Any]]] = {}
    for tensor in tensors:
        parts.setdefault(_part(tensor["name"]), []).append(tensor)
    width = max((len(part) for part in parts), default=0)
    for part, members in parts.items():
        parameters = sum(math.prod(tensor["shape"]) for tensor in members)
        total = sum(tensor["bytes"] for tensor in members)
        types = Counter(tensor["type"] for tensor in members)
        listed = ", ".join(f"{count} x {type_}" for type_, count in types.most_common())
        line = f"  {part:{width}}  {parameters / 1e6:10.2f} M  {size(total):>9}  {listed}"
        say(line)


def _part(name: str) -> str:
    """The part of the model that a tensor belongs to."""
    pieces = name.split(".")
    if pieces[0] == "mimi" and len(pieces) > 2:
        return f"mimi.{pieces[1]}"
    return pieces[0]


def _short(key: str, value: Any) -> Any:
    return f"{len(value)} entries" if key in _ARRAYS else value

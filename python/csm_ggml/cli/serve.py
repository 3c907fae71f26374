"""`csm-ggml serve`: the speech server."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_ggml.cli.common import Subparsers, UsageError, add_model_arguments, positive
from csm_ggml.cli.speak import watermark_function
from csm_ggml.inputs import read_whole

if TYPE_CHECKING:
    from csm_ggml.csm import CSM
    from csm_ggml.server.settings import Settings

KEYS_VARIABLE = "CSM_GGML_API_KEYS"

_EPILOG = f"""\
who may use it:
  By default it listens at 127.0.0.1 and serves programs of this machine alone; they need no key.
  At any other address a key is required: --api-key-file, or the environment variable
  {KEYS_VARIABLE} (several keys with commas between). Programs send it as
  "Authorization: Bearer KEY".
  Without a key anybody who reaches the port sees the page (/), /docs, /health, /ready and
  /version; with --public-lists also the lists of models and voices, with --public-metrics also
  /metrics. Wyoming clients send no keys: --wyoming is for 127.0.0.1, or needs --wyoming-open.
  Pages of other sites may not use the server, unless --allowed-origin names them.
"""


def _within(least: float, most: float, *, whole: bool = False) -> Callable[[str], Any]:
    """The type of arguments that are numbers between two limits."""

    def parse(text: str) -> Any:
        kind = "a whole number" if whole else "a number"
        try:
            number = int(text) if whole else float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be {kind} from {least} to {most}, got {text[:40]!r}"
            )
        return number

    return parse


_PORT = _within(0, 65_535, whole=True)


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "serve",
        help="serve speech to other programs over HTTP",
        description="Serve speech to other programs, as OpenAI's audio API has it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=_PORT, default=8080, help="port (default: %(default)s)")
    add_model_arguments(parser)
    group = parser.add_argument_group("load")
    group.add_argument(
        "--slots",
        type=positive,
        metavar="N",
        default=16,
        help="utterances side by side (default: %(default)s)",
    )
    group.add_argument(
        "--queue",
        type=_within(0, 1_000_000, whole=True),
        metavar="N",
        default=64,
        help="requests that may wait (default: %(default)s)",
    )
    group.add_argument(
        "--realtime",
        type=_within(0, 1),
        default=0.9,
        metavar="SHARE",
        help="live streams are admitted as long as a step takes less than this share of a frame; "
        "0 admits them to any free slot (default: %(default)s)",
    )
    group.add_argument(
        "--chunk-frames",
        type=positive,
        metavar="N",
        help="frames of 80 ms in the parts of a live stream (default: by the measured speed)",
    )
    group.add_argument(
        "--connections",
        type=positive,
        metavar="N",
        default=1000,
        help="open connections at most (default: %(default)s)",
    )
    group.add_argument(
        "--drain-seconds",
        type=_within(0, 86_400),
        metavar="SEC",
        default=120.0,
        help="after SIGTERM, what is being said may take so long (default: %(default)s)",
    )
    group = parser.add_argument_group("voices")
    group.add_argument(
        "--voices", type=Path, metavar="DIR", help="folder of saved voices, and of uploaded ones"
    )
    group.add_argument(
        "--default-voice", metavar="NAME", help="for requests without one (default: speaker-0)"
    )
    group.add_argument(
        "--alias",
        action="append",
        default=[],
        metavar="NAME=VOICE",
        help="another name of a voice, such as alloy=anna; again for more",
    )
    group.add_argument(
        "--model-alias",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of the model; again for more",
    )
    group = parser.add_argument_group("texts")
    group.add_argument(
        "--normalize",
        action="store_const",
        const="en",
        help="say numbers, dates, money, units, markup in English words, unless a request says "
        "otherwise",
    )
    group.add_argument(
        "--lexicon",
        metavar="FILE",
        help="how words are pronounced: 'word -> respelling' a line",
    )
    group = parser.add_argument_group("security")
    group.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="keys that let requests in, one a line"
    )
    group.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that clients call this server by; default: localhost at a loopback address, "
        "any at others; again for more",
    )
    group.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="URL",
        help="a site whose pages may use this server, such as https://example.org",
    )
    group.add_argument("--public-lists", action="store_true", help="models and voices need no key")
    group.add_argument("--public-metrics", action="store_true", help="/metrics needs no key")
    group.add_argument("--log-texts", action="store_true", help="write what is said into the log")
    group = parser.add_argument_group("more")
    group.add_argument(
        "--wyoming", type=_PORT, metavar="PORT", help="also serve Home Assistant's protocol"
    )
    group.add_argument(
        "--wyoming-open",
        action="store_true",
        help="serve Wyoming, which knows no keys, beyond this machine",
    )
    group.add_argument(
        "--watermark",
        metavar="MODULE:NAME",
        help="a Python function that sees each chunk first, as CSM.watermark does",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    packages = ["fastapi", "uvicorn", "prometheus_client", "multipart"]
    extra = "server"
    if args.wyoming is not None:
        packages, extra = [*packages, "wyoming"], "server,wyoming"
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UsageError(f'{missing[0]} is not installed: pip install "csm-ggml[{extra}]"')
    from csm_ggml.server.run import serve

    settings = _settings(args)
    hook = watermark_function(args.watermark) if args.watermark is not None else None
    return serve(
        settings,
        lambda: _load(args, hook),
        host=args.host,
        port=args.port,
        connections=args.connections,
        wyoming=args.wyoming,
    )


def _load(args: argparse.Namespace, hook: Any) -> CSM:
    from csm_ggml.csm import CSM

    csm = CSM.from_pretrained(
        args.model,
        preset=args.preset,
        device=args.device,
        threads=args.threads,
        revision=args.revision,
        local_files_only=args.local_files_only,
        slots=args.slots,
        queue=args.queue,
        realtime=args.realtime or None,
    )
    csm.watermark = hook
    return csm


def _settings(args: argparse.Namespace) -> Settings:
    """The server's settings.

    Raises:
        UsageError: If the server would be open to the network without a key, or a value is wrong.
    """
    from csm_ggml.server.settings import Settings, is_loopback, read_keys
    from csm_ggml.text.lexicon import as_lexicon

    lines = os.environ.get(KEYS_VARIABLE, "").split(",")
    if args.api_key_file is not None:
        try:
            lines += read_whole(args.api_key_file).decode("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UsageError(f"--api-key-file {args.api_key_file}: {error}") from None
    keys = read_keys(lines)
    if args.api_key_file is not None and not keys:
        raise UsageError(f"--api-key-file {args.api_key_file} holds no key")
    local = is_loopback(args.host)
    if not local and not keys:
        raise UsageError(
            f"--host {args.host} can be reached from other machines, so a key is required: "
            f"--api-key-file FILE, or the environment variable {KEYS_VARIABLE}"
        )
    if args.wyoming is not None and not local and not args.wyoming_open:
        raise UsageError(
            f"Wyoming knows no keys, and --host {args.host} can be reached from other machines: "
            "if all of them may speak, say --wyoming-open"
        )
    aliases = {}
    for text in args.alias:
        name, equals, voice = text.partition("=")
        if not (name and equals and voice):
            raise UsageError(f"--alias {text}: expected NAME=VOICE")
        aliases[name] = voice
    hosts = tuple(host.lower() for host in args.allowed_host)
    if local:
        hosts = (*hosts, "localhost", "127.0.0.1", "::1", args.host)
    return Settings(
        voices=args.voices,
        default_voice=args.default_voice,
        aliases=aliases,
        models=tuple(args.model_alias),
        normalize=args.normalize,
        lexicon=as_lexicon(args.lexicon),
        keys=keys,
        hosts=hosts or None,
        origins=tuple(args.allowed_origin),
        public_lists=args.public_lists,
        public_metrics=args.public_metrics,
        drain_seconds=args.drain_seconds,
        chunk_frames=args.chunk_frames,
        log_texts=args.log_texts,
    )

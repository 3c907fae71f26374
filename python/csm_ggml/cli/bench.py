"""`csm-ggml bench`: how fast a model speaks here, and how fast this machine could at best."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_ggml.cli.common import Subparsers, UsageError, check_output, positive, say, tell
from csm_ggml.cli.parser import checked, option

if TYPE_CHECKING:
    from csm_ggml.bench.runner import Configuration

_DEFAULT_TYPE = "q4_0"


def add_parser(commands: Subparsers[Any]) -> None:
    """Describe the arguments."""
    parser = commands.add_parser(
        "bench",
        help="measure speed and memory",
        description="Measure speed, memory and the least time that memory and arithmetic allow, "
        "with random weights of full size made on the spot, or with a model.",
        epilog="Let nothing else run meanwhile. Configurations are measured in turns.",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-m", "--model", metavar="NAME", help="as --model of speak, instead of random weights"
    )
    group.add_argument(
        "--synthetic",
        default="csm-1b",
        metavar="PRESET",
        help="sizes of the random weights: csm-1b or tiny (default: %(default)s)",
    )
    parser.add_argument(
        "--type",
        type=_list,
        metavar="T,T",
        help=f"of the random weights: q4_0,q8_0,... (default: {_DEFAULT_TYPE})",
    )
    parser.add_argument(
        "--depth-type", metavar="T", help="of their depth decoder (default: as --type)"
    )
    parser.add_argument(
        "--batch",
        type=_positive_list,
        default=[1, 4, 16],
        metavar="N,N",
        help="utterances side by side: 1,4,16 by default",
    )
    parser.add_argument(
        "--isa",
        type=_list,
        default=[None],
        metavar="A,B",
        help="instruction sets of the package's own kernels: avx512vnni,avx2,... (default: the one "
        "in use)",
    )
    parser.add_argument(
        "--threads",
        type=option("threads"),
        metavar="N",
        help="CPU threads (default: physical cores that may be used)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="as `csm-ggml doctor` lists it (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        type=positive,
        default=60,
        metavar="N",
        help="to time for each type and batch (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=3,
        metavar="N",
        help="turns in which they are timed, each in a new process (default: %(default)s)",
    )
    parser.add_argument(
        "--contention",
        action="store_true",
        help="also measure while another process keeps one core busy",
    )
    parser.add_argument(
        "--arrivals",
        action="store_true",
        help="also measure while requests of random lengths join and leave at random times",
    )
    parser.add_argument(
        "--callers",
        type=_positive_list,
        default=[],
        metavar="N,N",
        help="instead, measure so many threads that each ask the scheduler for speech",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results here, too")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw codes per second and real-time factor: .png, .svg, ..."
    )
    parser.add_argument(
        "--work-dir",
        metavar="DIR",
        help="where random weights are kept (default: the cache of `csm-ggml doctor`)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    _check(args)
    from csm_ggml.bench import machine
    from csm_ggml.bench.report import format_report
    from csm_ggml.bench.rows import make_row
    from csm_ggml.bench.runner import measure
    from csm_ggml.loading.threads import default_threads

    described = machine.describe()
    configurations = _of_model(args) if args.model else _of_random_weights(args)
    # Asked for late: making random weights is work, too.
    load = machine.load_average()
    if load is not None and load > machine.QUIET_LOAD:
        tell(f"load average {load:.1f}: other processes ran just now; if they still do, it shows")
    started = datetime.datetime.now(datetime.timezone.utc)
    threads = args.threads or default_threads()
    if args.callers:
        rows = _callers_rows(args, configurations, threads)
    else:
        measured = measure(
            configurations,
            device=args.device,
            threads=threads,
            frames=args.frames,
            rounds=args.rounds,
            contention=args.contention,
            arrivals=args.arrivals,
            on_start=lambda turn, what: tell(
                f"round {turn + 1} of {min(args.rounds, args.frames)}: {what}"
            ),
        )
        rows = [make_row(one) for one in measured]
    document = {
        "machine": described,
        "settings": {
            "model": args.model or f"random weights, {args.synthetic}",
            "device": rows[0]["device"],
            "threads": rows[0]["threads"],
            "frames": args.frames,
            "rounds": min(args.rounds, args.frames),
            "contention": args.contention,
            "arrivals": args.arrivals,
            "callers": args.callers,
            "started": started.isoformat(timespec="seconds"),
            "load_average_before": load,
            "load_average_after": machine.load_average(),
        },
        "rows": rows,
    }
    if args.json:
        from csm_ggml.files import write_file

        write_file(args.json, (json.dumps(document, indent=2) + "\n").encode(), "JSON", "text")
    if args.plot:
        from csm_ggml.bench.plot import save_plot

        save_plot(document, args.plot)
    # Last: where nobody gets it, the files are there.
    for line in format_report(document).splitlines():
        say(line)


def _callers_rows(
    args: argparse.Namespace, configurations: list[Configuration], threads: int
) -> list[dict[str, Any]]:
    """Rows of --callers: one for each type and number of callers."""
    from csm_ggml.bench.callers import measure_callers

    rows = []
    for files, one in {one.files: one for one in configurations}.items():
        for callers in args.callers:

            def on_start(turn: int, callers: int = callers, type: str = one.type) -> None:
                tell(f"round {turn + 1} of {args.rounds}: {type}, {callers} callers")

            row = measure_callers(
                files,
                device=args.device,
                threads=threads,
                callers=callers,
                frames=args.frames,
                rounds=args.rounds,
                on_start=on_start,
            )
            row |= {"type": one.type, "depth_type": one.depth_type, "batch": callers}
            rows.append(row | {"device": args.device, "threads": threads})
    return rows


def _check(args: argparse.Namespace) -> None:
    """Find out what cannot work before measuring for minutes."""
    if args.callers and args.frames < 2:
        raise UsageError("--callers needs at least 2 --frames: the first is not timed")
    if args.callers and (args.plot or args.arrivals or args.contention):
        raise UsageError("--callers is a measurement of its own, without the others and --plot")
    if args.callers and args.isa != [None]:
        raise UsageError("--callers runs in this process, with one instruction set: without --isa")
    _check_instruction_sets(args.isa)
    if args.model and (args.type or args.depth_type or args.work_dir):
        raise UsageError("--type, --depth-type and --work-dir are for random weights, not --model")
    if args.json:
        check_output(args.json, "JSON", "text", inputs=[args.model])
    if args.plot:
        check_output(args.plot, "picture", inputs=[args.model])
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        raise UsageError('--plot needs matplotlib: pip install "csm-ggml[plot]"')
    if args.plot and not Path(args.plot).suffix:
        raise UsageError(f"--plot {args.plot}: expected a name with an ending such as .png")


def _check_instruction_sets(wanted: list[str | None]) -> None:
    from csm_ggml.loading.backends import load_backends

    usable = load_backends().instruction_sets() if wanted != [None] else []
    for name in wanted:
        if name is not None and name not in usable:
            raise UsageError(
                f"--isa {name}: this processor or build cannot use it; expected of: "
                + ", ".join(usable)
            )


def _of_model(args: argparse.Namespace) -> list[Configuration]:
    from csm_ggml.bench.floor import dominant_types
    from csm_ggml.bench.runner import Configuration
    from csm_ggml.loading import hub

    files = hub.resolve(args.model).paths
    backbone, depth = dominant_types(files)
    return [
        Configuration(files, backbone, depth, batch, isa)
        for isa in args.isa
        for batch in args.batch
    ]


def _of_random_weights(args: argparse.Namespace) -> list[Configuration]:
    from csm_ggml.bench.runner import Configuration
    from csm_ggml.bench.synthetic import make_synthetic, synthetic_path
    from csm_ggml.loading import hub

    folder = Path(args.work_dir) if args.work_dir else hub.user_cache()
    types = args.type or [_DEFAULT_TYPE]
    paths = [synthetic_path(folder, args.synthetic, type, args.depth_type) for type in types]
    for path, type in zip(paths, types, strict=True):
        if not path.exists():
            tell(f"making random weights, kept for the next time: {path}")
            make_synthetic(path, args.synthetic, type, args.depth_type)
    return [
        Configuration((path,), type, args.depth_type or type, batch, isa)
        for path, type in zip(paths, types, strict=True)
        for isa in args.isa
        for batch in args.batch
    ]


def _list(text: str) -> list[str]:
    """Comma-separated values, each once, in lower case."""
    values = [value.strip().lower() for value in text.split(",")]
    if not all(values):
        raise argparse.ArgumentTypeError(f"expected values with commas between, got {text!r}")
    return list(dict.fromkeys(values))


def _positive_list(text: str) -> list[int]:
    from csm_ggml.limits import parse_option

    return [int(checked(lambda v: parse_option("batch_size", v))(value)) for value in _list(text)]

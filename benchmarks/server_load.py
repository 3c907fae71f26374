"""How a speech server holds up: time to first audio, gaps that a listener hears, throughput.

Against any server with OpenAI's `POST /v1/audio/speech`:

    python benchmarks/server_load.py --url http://127.0.0.1:8080/v1 --rates 1,4,8 --overload
    python benchmarks/server_load.py --url http://127.0.0.1:8080/v1 --listeners 1,2

`--rates` sends requests at random moments (Poisson), so many a second on average, whether earlier
ones are answered or not. `--listeners` has so many people ask, listen to the end, and ask again.
`--overload` finds out how many requests a second are answered at most, and sends twice as many.

A gap is heard when a player that starts with the first audio has played all that came so far. The
client counts at its end of the socket: samples of 16-bit pcm at 24 kHz.

    python benchmarks/server_load.py --own-share --model demo

starts `csm-ggml serve` and, alternately, streams from the server and in the process, with the same
model and texts: the difference is what the server adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import ssl
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BYTES_PER_SECOND = 48_000
TEXTS = (
    "Hello there, how are you today?",
    "The train to the coast leaves at half past nine from the other platform.",
    "I have put your appointment into the calendar, and told the others about it.",
    "Yes.",
    "It is going to be a warm and sunny afternoon, with a light wind from the west.",
    "Could you please say that again, a little more slowly this time?",
)


@dataclass
class Stream:
    """What came of one request.

    Attributes:
        status: HTTP status; 0 if the connection broke.
        first: Seconds until the first audio.
        total: Seconds until the last.
        audio: Seconds of speech.
        gaps: Seconds for which a listener heard nothing.
    """

    status: int = 0
    first: float = 0.0
    total: float = 0.0
    audio: float = 0.0
    gaps: float = 0.0


@dataclass
class Target:
    """A server."""

    url: str
    key: str | None
    model: str
    voice: str
    extra: dict[str, object] = field(default_factory=dict)

    async def ask(self, text: str, leave_after: float | None = None) -> Stream:
        """Have a text spoken.

        Args:
            text: What to say.
            leave_after: Close the connection after so many seconds.
        """
        stream = Stream()
        asking = asyncio.ensure_future(self._ask(text, stream))
        try:
            await asyncio.wait_for(asking, leave_after)
        except asyncio.TimeoutError:
            stream.status = -1
        except (OSError, ValueError, EOFError, asyncio.IncompleteReadError):
            stream.status = 0
        return stream

    async def _ask(self, text: str, stream: Stream) -> None:
        parts = urlsplit(self.url)
        secure = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if secure else 80)
        fields = {"model": self.model, "voice": self.voice, "input": text, **self.extra}
        body = json.dumps({**fields, "response_format": "pcm"}).encode()
        head = (
            f"POST {parts.path.rstrip('/')}/audio/speech HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        if self.key:
            head += f"Authorization: Bearer {self.key}\r\n"
        started = time.perf_counter()
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
        try:
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            status = int((await reader.readline()).split()[1])
            headers = {}
            while line := (await reader.readline()).strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            played_until = 0.0
            while data := await _part(reader, headers):
                if status != 200:
                    continue
                now = time.perf_counter()
                if not stream.audio:
                    stream.first = now - started
                    played_until = now
                stream.gaps += max(0.0, now - played_until)
                played_until = max(played_until, now) + len(data) / BYTES_PER_SECOND
                stream.audio += len(data) / BYTES_PER_SECOND
                stream.total = now - started
            stream.status = status
        finally:
            writer.close()


async def _part(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """The next part of a body."""
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read(1 << 16)
    length = int(await reader.readline(), 16)
    data = await reader.readexactly(length)
    await reader.readexactly(2)
    return data


Ask = Callable[[str, int], Awaitable[Stream]]


# How requests arrive


async def poisson(target: Target, rate: float, seconds: float, rng: random.Random) -> list[Stream]:
    """Requests at random moments."""
    started = time.perf_counter()
    at = rng.expovariate(rate)
    asked = []
    while at < seconds:
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        asked.append(asyncio.ensure_future(target.ask(rng.choice(TEXTS))))
        at += rng.expovariate(rate)
    return list(await asyncio.gather(*asked))


async def listeners(target: Target, count: int, seconds: float, rng: random.Random) -> list[Stream]:
    """People who ask, listen to the end, and ask again."""

    async def listen() -> list[Stream]:
        heard = []
        end = time.perf_counter() + seconds
        await asyncio.sleep(rng.random() * 2)
        while time.perf_counter() < end:
            stream = await target.ask(rng.choice(TEXTS))
            heard.append(stream)
            rest = stream.first + stream.audio + stream.gaps - stream.total
            await asyncio.sleep(max(0.1, rest))
        return heard

    heard = await asyncio.gather(*(listen() for _ in range(count)))
    return [stream for one in heard for stream in one]


async def capacity(target: Target, seconds: float, rng: random.Random, clients: int = 16) -> float:
    """Requests a second that are answered while so many are always under way."""
    end = time.perf_counter() + seconds
    answered = 0

    async def work() -> None:
        nonlocal answered
        while time.perf_counter() < end:
            stream = await target.ask(rng.choice(TEXTS))
            answered += stream.status == 200

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    return answered / (time.perf_counter() - started)


async def soak(target: Target, seconds: float, rng: random.Random, clients: int) -> None:
    """Mixed load: every third client leaves at some moment.

    Of our own server the memory and the slots in use are printed while it goes on and at its end.
    """
    started = time.perf_counter()
    end = started + seconds
    counts: dict[int, int] = {}

    async def watch() -> None:
        while time.perf_counter() < end:
            await tell()
            await asyncio.sleep(min(seconds / 12, max(0.0, end - time.perf_counter())))

    async def tell() -> None:
        values = await asyncio.to_thread(gauges, target)
        if not values:
            return
        print(
            f"after {time.perf_counter() - started:5.0f} s: "
            f"{values['process_resident_memory_bytes'] / 1e6:.1f} MB, "
            f"{values['csm_slots_busy']:.0f} of {values['csm_slots']:.0f} slots busy, "
            f"{values['csm_queue_depth']:.0f} queued",
            flush=True,
        )

    async def work() -> None:
        while time.perf_counter() < end:
            leave = rng.expovariate(20) if rng.random() < 1 / 3 else None
            text = " ".join(rng.choices(TEXTS, k=rng.choice((1, 1, 1, 4, 12))))
            status = (await target.ask(text, leave)).status
            counts[status] = counts.get(status, 0) + 1
            await asyncio.sleep(rng.expovariate(10))

    await asyncio.gather(watch(), *(work() for _ in range(clients)))
    await asyncio.sleep(1)  # those who left last are noticed
    await tell()
    names = {-1: "left", 0: "broken"}
    print(", ".join(f"{names.get(s, s)}: {n}" for s, n in sorted(counts.items())))


def gauges(target: Target) -> dict[str, float]:
    """Values without labels from our server's metrics; none of another server."""
    parts = urlsplit(target.url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/metrics")
    if target.key:
        request.add_header("Authorization", f"Bearer {target.key}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.split() for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


def report(name: str, streams: list[Stream]) -> None:
    """One row of the table."""
    spoken = [stream for stream in streams if stream.status == 200 and stream.audio]
    refused = sum(stream.status == 429 for stream in streams)
    failed = len(streams) - len(spoken) - refused
    first = sorted(1000 * stream.first for stream in spoken) or [float("nan")]
    gaps = [stream.gaps for stream in spoken] or [0.0]

    def at(share: float) -> float:
        return first[min(len(first) - 1, int(share * len(first)))]

    print(
        f"{name:>14} {len(streams):>9} {refused:>8} {failed:>7} {at(0.5):>9.0f} {at(0.95):>7.0f} "
        f"{at(0.99):>7.0f} {sum(gap > 0 for gap in gaps):>10} {1000 * max(gaps):>9.0f} ms",
        flush=True,
    )


HEAD = (
    f"{'load':>14} {'requests':>9} {'refused':>8} {'failed':>7} {'first p50':>9} {'p95':>7} "
    f"{'p99':>7} {'with gaps':>10} {'longest':>12}"
)


# What the server adds


def serve(model: str, slots: int, threads: int | None) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server of ours."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "csm_ggml", "serve", "--model", model, "--port", str(port)]
    command += ["--slots", str(slots), *(["--threads", str(threads)] if threads else [])]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        address = ("127.0.0.1", port)
        with suppress(OSError), socket.create_connection(address, timeout=5) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if b" 200 " in connection.recv(100):
                return process, f"http://127.0.0.1:{port}/v1"
        time.sleep(0.1)
    raise SystemExit("the server did not start")


async def own_share(args: argparse.Namespace) -> None:
    """First audio of one stream, and frames a second of many, with and without the server."""
    from csm_ggml.csm import CSM

    csm = CSM.from_pretrained(args.model, threads=args.threads, slots=args.slots)
    process, url = serve(args.model, args.slots, args.threads)
    limit = {} if args.max_seconds is None else {"max_seconds": args.max_seconds}
    target = Target(url, None, "tts-1", "speaker-0")

    async def direct(text: str, seed: int) -> Stream:
        stream = Stream(200)
        started = time.perf_counter()
        async for chunk in csm.astream(text, seed=seed, chunk_frames=args.chunk_frames, **limit):
            now = time.perf_counter()
            stream.first = stream.first or now - started
            stream.audio += chunk.duration
            stream.total = now - started
        return stream

    async def served(text: str, seed: int, priority: str = "live") -> Stream:
        target.extra = {"seed": seed, "priority": priority, **limit}
        return await target.ask(text)

    async def served_bulk(text: str, seed: int) -> Stream:
        # Live streams are admitted only as long as the machine keeps up with them, which is not the
        # server's own share.
        return await served(text, seed, "bulk")

    async def many(ask: Ask) -> float:
        started = time.perf_counter()
        calls = [ask(TEXTS[n % len(TEXTS)], n) for n in range(args.slots * 4)]
        streams = await asyncio.gather(*calls)
        return sum(stream.audio for stream in streams) / (time.perf_counter() - started)

    ways: dict[str, tuple[Ask, Ask]] = {
        "in process": (direct, direct),
        "server": (served, served_bulk),
    }
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for turn in range(args.rounds + 1):
            for name, (ask, ask_many) in ways.items():
                once = [await ask(text, turn) for text in TEXTS]
                speed = await many(ask_many)
                if turn:  # the first one warms up
                    firsts[name] += [1000 * stream.first for stream in once]
                    speeds[name].append(speed)
    finally:
        process.terminate()
        process.wait()
        csm.close()
    print(f"{'':>12} {'first audio, ms':>28} {'seconds of speech a second':>32}")
    for name in ways:
        first, speed = firsts[name], speeds[name]
        print(
            f"{name:>12} {statistics.median(first):>12.1f} (least {min(first):.1f})"
            f"{statistics.median(speed):>18.1f} (best {max(speed):.1f})"
        )
    added = statistics.median(firsts["server"]) - statistics.median(firsts["in process"])
    lost = 1 - statistics.median(speeds["server"]) / statistics.median(speeds["in process"])
    print(f"added to the first audio: {added:.1f} ms; speed lost: {100 * lost:.1f} %")


async def run(args: argparse.Namespace) -> None:
    """Measure."""
    if args.own_share:
        await own_share(args)
        return
    rng = random.Random(args.seed)
    target = Target(args.url, args.key, args.served_model, args.voice)
    if args.max_seconds is not None:
        target.extra = {"max_seconds": args.max_seconds}
    await target.ask(TEXTS[0])
    if args.soak:
        await soak(target, args.soak, rng, args.clients)
        return
    print(HEAD)
    for rate in args.rates:
        report(f"{rate:g}/s", await poisson(target, rate, args.seconds, rng))
    for count in args.listeners:
        streams = await listeners(target, int(count), args.seconds, rng)
        report(f"{count:g} listening", streams)
    if args.overload:
        most = await capacity(target, min(10.0, args.seconds), rng)
        if not most:
            raise SystemExit("the server answers nothing")
        report(f"2 x {most:.1f}/s", await poisson(target, 2 * most, args.seconds, rng))


def numbers(text: str) -> list[float]:
    """Numbers with commas between."""
    return [float(part) for part in text.split(",") if part]


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080/v1", help="with /v1")
    parser.add_argument("--key", help="the server's API key")
    parser.add_argument("--served-model", default="tts-1", help="name that the requests give")
    parser.add_argument("--voice", default="alloy")
    parser.add_argument("--rates", type=numbers, default=[], help="requests a second: 1,4,8")
    parser.add_argument("--listeners", type=numbers, default=[], help="people: 1,2,4")
    parser.add_argument("--overload", action="store_true")
    parser.add_argument("--soak", type=float, help="mixed load with clients that leave, seconds")
    parser.add_argument("--clients", type=int, default=12, help="for --soak")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each load")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max-seconds",
        type=float,
        help="cut speech there (our servers only): for random weights, which never end",
    )
    parser.add_argument("--own-share", action="store_true", help="what our server adds")
    parser.add_argument("--model", default="demo", help="for --own-share")
    parser.add_argument("--slots", type=int, default=8, help="for --own-share")
    parser.add_argument("--threads", type=int, help="for --own-share")
    parser.add_argument("--rounds", type=int, default=5, help="for --own-share")
    parser.add_argument("--chunk-frames", type=int, default=6, help="for --own-share")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

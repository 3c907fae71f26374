"""The server's state, and the way from a request to a stream of speech that all its faces share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csm_ggml.audio.encoders import Encoder, encode_whole, make_encoder
from csm_ggml.audio.tempo import Tempo
from csm_ggml.csm import CSM
from csm_ggml.server.capacity import MOST_CHUNK_FRAMES, chunk_frames, promised, warm_up
from csm_ggml.server.fields import SpeechFields, VoiceId
from csm_ggml.server.flow import Flow, Manner, Sound, pieces_of
from csm_ggml.server.metrics import Metrics
from csm_ggml.server.problems import ApiError, unavailable
from csm_ggml.server.settings import Settings
from csm_ggml.server.voicestore import VoiceStore
from csm_ggml.speech.options import resolve_seed
from csm_ggml.text.characters import clean, has_sound
from csm_ggml.voices.voice import Voice

# Names that clients give the model although they mean whichever there is.
OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")

log = logging.getLogger("csm_ggml.server")


@dataclass(frozen=True)
class Order:
    """A request that was checked: what to say, how, and in which format.

    Attributes:
        csm: The model.
        text: What to say.
        manner: How.
        format: Of the bytes.
        speed: How much faster than it was made.
        whole: Whether it is one utterance, however long.
    """

    csm: CSM
    text: str
    manner: Manner
    format: str
    speed: float
    whole: bool


class Service:
    """What the faces of one server share.

    Attributes:
        settings: The server's.
        metrics: The server's.
        csm: The model, once it is loaded.
        voices: The voices, once the model is loaded.
        draining: Whether the server is about to end, and takes no more requests.
        active: Requests that are being answered.
        failure: Why the model cannot be loaded, if it cannot.
        measured: Seconds from frame to frame, by utterances side by side, measured at the start.
    """

    def __init__(self, settings: Settings, load: Callable[[], CSM]) -> None:
        """Take what is needed.

        Args:
            settings: The server's.
            load: Loads the model; called in a thread.
        """
        self.settings = settings
        self.metrics = Metrics()
        self.csm: CSM | None = None
        self.voices = VoiceStore(settings)
        self.draining = False
        self.active = 0
        self.failure: str | None = None
        self.measured: dict[int, float] = {}
        self._load = load
        self._instructions_told = False

    async def start(self) -> None:
        """Load the model and try it out; until then requests are told to come again."""
        try:
            csm = await asyncio.to_thread(self._load)
            self.measured = await warm_up(csm)
        except Exception as error:
            self.failure = str(error)
            raise
        self.metrics.watch(csm)
        self.csm = csm
        log.info("ready", extra={"fields": {"event": "ready", "model": public_name(csm)}})

    def model(self) -> CSM:
        """The model, if requests are taken.

        Raises:
            ApiError: If the server is loading or about to end.
        """
        if self.draining:
            raise unavailable("the server is shutting down")
        if self.csm is None:
            raise unavailable("the model is being loaded")
        return self.csm

    def model_names(self) -> list[str]:
        """Names that requests may give the model; the first one is its own."""
        own = public_name(self.csm) if self.csm is not None else "csm"
        return list(dict.fromkeys([own, *self.settings.models, *OPENAI_MODELS]))

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests are taken, and what there is room for."""
        if self.csm is None or self.draining:
            return False, {"status": "draining" if self.draining else "loading", "warm": False}
        stats = self.csm.scheduler.stats()
        live = promised(self.csm, self.measured)
        return True, {
            "status": "ready",
            "warm": True,
            "model": public_name(self.csm),
            "slots": stats.slots,
            "queued": stats.queued,
            "prefilling": stats.prefilling,
            "speaking": stats.speaking,
            "paused": stats.paused,
            "live_streams": live,
        }

    # Requests

    def order(
        self,
        fields: SpeechFields,
        text: str,
        *,
        bulk: bool = False,
        streamed: bool = True,
        default_format: str = "mp3",
    ) -> Order:
        """Check a request.

        Args:
            fields: Of the request.
            text: What to say.
            bulk: Whether nobody listens, unless the request tells.
            streamed: Whether the speech is handed out while it is made.
            default_format: Where the request names none.

        Raises:
            ApiError: If something of it cannot be done.
        """
        csm = self.model()
        self._check_model(fields.model)
        if len(text) > self.settings.input_characters:
            raise ApiError(
                400,
                f"input may have {self.settings.input_characters} characters at most, "
                f"got {len(text)}",
                param="input",
                code="string_above_max_length",
            )
        try:
            heard = has_sound(clean(text))
        except ValueError:
            raise ApiError(400, "input is not valid Unicode", param="input") from None
        if not heard:
            raise ApiError(400, "input is empty: there is nothing to say", param="input")
        if fields.instructions and not self._instructions_told:
            self._instructions_told = True
            log.warning("instructions are accepted, but this model cannot follow any")
        dialogue = bool(fields.dialogue)
        options: dict[str, Any] = {
            name: value
            for name in ("temperature", "top_k", "max_seconds")
            if (value := getattr(fields, name)) is not None
        }
        voices, speaker = self._voices(fields.voice, dialogue=dialogue)
        if speaker is not None:
            options["speaker"] = speaker
        # For these clients a number in brackets is a citation.
        options["tags"] = dialogue
        normalize = fields.normalize or self.settings.normalize
        if normalize not in (None, "off"):
            options["normalize"] = normalize
        if self.settings.lexicon is not None:
            options["lexicon"] = self.settings.lexicon
        options["priority"] = fields.priority or ("bulk" if bulk else "live")
        options["first_chunk_frames"] = 1 if streamed else MOST_CHUNK_FRAMES
        options["chunk_frames"] = self.settings.chunk_frames or (
            chunk_frames(csm, self.measured) if streamed else MOST_CHUNK_FRAMES
        )
        options["buffer"] = self.settings.unread_seconds
        format = fields.response_format or default_format
        speed = 1.0 if fields.speed is None else fields.speed
        return Order(
            csm=csm,
            text=text,
            manner=Manner(seed=resolve_seed(fields.seed), options=options, voices=voices),
            format=format,
            speed=speed,
            whole=dialogue,
        )

    def _check_model(self, name: str | None) -> None:
        if name and name not in self.model_names():
            raise ApiError(
                404,
                "there is no such model; GET /v1/models lists the names that this one goes by",
                param="model",
                code="model_not_found",
            )

    def _voices(
        self, voice: str | VoiceId | list[str] | None, *, dialogue: bool
    ) -> tuple[tuple[Voice, ...], int | None]:
        """The voices of a request, and who says untagged text."""
        if isinstance(voice, list):
            if not dialogue:
                raise ApiError(400, "several voices need dialogue: true", param="voice")
            if not 1 <= len(voice) <= 8:
                raise ApiError(400, "voice may list 1 to 8 voices", param="voice")
            found = [self.voices.get(name) for name in voice]
            spoken = tuple(
                one.with_speaker(number)
                for number, one in enumerate(found)
                if isinstance(one, Voice)
            )
            return spoken, 0
        one = self.voices.get(voice.id if isinstance(voice, VoiceId) else voice)
        return ((one,), one.speaker) if isinstance(one, Voice) else ((), one)

    def sink(self, order: Order) -> Sink:
        """Where the speech of an order becomes bytes.

        Raises:
            ApiError: If a package for it is not installed.
        """
        return _sink(order.format, order.speed, order.csm.sample_rate)

    def flow(
        self,
        order: Order,
        pieces: AsyncGenerator[str, None] | None = None,
        *,
        patient: bool = False,
    ) -> tuple[Flow, AsyncGenerator[Sound, None]]:
        """The speech of an order, or of pieces that are still to come; patient as in `Flow`."""
        flow = Flow(order.csm, order.manner, patient=patient)
        if pieces is None:
            pieces = pieces_of(order.text, whole=order.whole, config=order.csm.config)
        return flow, flow.sound(pieces)

    # The end

    @contextmanager
    def working(self) -> Iterator[None]:
        """A request is being answered: the end waits for it."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def drain(self) -> None:
        """Take no more requests."""
        self.draining = True

    async def drained(self) -> None:
        """Wait until all requests are answered, for as long as the settings allow."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.settings.drain_seconds
        while self.active and loop.time() < end:
            await asyncio.sleep(0.05)


def public_name(csm: CSM) -> str:
    """What a model is called to clients: a file or a folder without where it is."""
    name = csm.model.label
    return Path(name).name if Path(name).is_absolute() or name.startswith(".") else name


def whole_file(order: Order, samples: npt.NDArray[np.float32]) -> bytes:
    """All the speech of an order as one file."""
    rate = order.csm.sample_rate
    tempo = Tempo(order.speed, rate)
    samples = np.concatenate([tempo.change(samples), tempo.finish()])
    return encode_whole(order.format, samples, rate)


class Sink:
    """Samples in, bytes out: the speed and the format of one stream."""

    def __init__(self, encoder: Encoder, tempo: Tempo) -> None:
        """Take the two steps."""
        self._encoder = encoder
        self._tempo = tempo

    def take(self, samples: npt.NDArray[np.float32]) -> bytes:
        """Bytes that are ready after more samples."""
        return self._encoder.encode(self._tempo.change(samples))

    def finish(self) -> bytes:
        """The bytes that are left."""
        return self._encoder.encode(self._tempo.finish()) + self._encoder.finish()

    def close(self) -> None:
        """Free what is held."""
        self._encoder.close()


def _sink(format: str, speed: float, sample_rate: int) -> Sink:
    try:
        tempo = Tempo(speed, sample_rate)
    except ImportError:
        raise ApiError(
            400, "another speed than 1 needs the package av on the server", param="speed"
        ) from None
    try:
        return Sink(make_encoder(format, sample_rate), tempo)
    except ImportError:
        raise ApiError(
            400,
            "aac needs the package av on the server; ask for mp3, opus, flac, wav or pcm",
            param="response_format",
            code="unsupported_format",
        ) from None

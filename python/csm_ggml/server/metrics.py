"""What the server counts, for Prometheus. No label holds a value that a client chose."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from csm_ggml.csm import CSM
from csm_ggml.server.flow import Sound

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 120)
_FACTORS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1, 1.2, 1.5, 2, 5)
# A listener hears a gap from about here on.
GAP_MILLISECONDS = (0, 50, 200)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("csm_requests", "Requests", "endpoint", "format", "status")
        self.request_seconds = self._histogram(
            "csm_request_seconds", "Until the last byte of an answer", _SECONDS, "endpoint"
        )
        self.queue_wait = self._histogram(
            "csm_queue_wait_seconds",
            "From asking to the first audio, less the work for it",
            _SECONDS,
        )
        self.first_audio = self._histogram(
            "csm_time_to_first_audio_seconds",
            "From the request until the first audio was ready to be sent",
            _SECONDS,
        )
        self.factor = self._histogram(
            "csm_real_time_factor", "Time that making speech took, over its duration", _FACTORS
        )
        self.audio = self._counter("csm_audio_seconds", "Seconds of speech handed out")
        self.underrun = self._counter(
            "csm_underrun_seconds",
            "How long players that start at the first chunk would have had nothing to play",
        )
        self.continuity = self._counter(
            "csm_continuity_ok",
            "Streams whose gaps together stay within the threshold",
            "threshold_ms",
        )
        self.finish = self._counter("csm_finish", "How streams ended", "reason")
        self.voice_prefix = self._counter(
            "csm_voice_prefix", "Pieces spoken with a voice, by whether it was known already", "hit"
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _histogram(
        self, name: str, help: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self.registry)

    def watch(self, csm: CSM) -> None:
        """Also show what the model's scheduler tells."""
        self.registry.register(_SchedulerCollector(csm))

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)


class _SchedulerCollector(Collector):
    def __init__(self, csm: CSM) -> None:
        self._csm = csm

    def collect(self) -> Iterable[Metric]:
        stats = self._csm.scheduler.stats()
        yield GaugeMetricFamily("csm_slots", "Utterances that fit side by side", stats.slots)
        busy = stats.prefilling + stats.speaking
        yield GaugeMetricFamily("csm_slots_busy", "Slots that are spoken in", busy)
        yield GaugeMetricFamily("csm_queue_depth", "Requests that wait for a slot", stats.queued)
        yield GaugeMetricFamily("csm_step_requests", "Utterances in a step now", stats.speaking)
        steps = GaugeMetricFamily(
            "csm_step_seconds", "Measured time of a step, by utterances in it", labels=["batch"]
        )
        for batch, seconds in sorted(stats.step_seconds.items()):
            steps.add_metric([str(batch)], seconds)
        yield steps


class Meter:
    """Watches one stream on its way out.

    Attributes:
        first_audio: Seconds from the request to the first audio; None before.
        audio_seconds: Handed out so far.
        underrun: Seconds for which a player that started at the first chunk had nothing to play.
    """

    def __init__(self, metrics: Metrics, sample_rate: int) -> None:
        """Start the clock."""
        self.first_audio: float | None = None
        self.audio_seconds = 0.0
        self.underrun = 0.0
        self._metrics = metrics
        self._sample_rate = sample_rate
        self._started = time.perf_counter()
        self._played_until = 0.0

    def saw(self, sound: Sound) -> None:
        """Speech is about to be sent."""
        now = time.perf_counter()
        seconds = len(sound.samples) / self._sample_rate
        if seconds:
            if self.first_audio is None:
                self.first_audio = now - self._started
                self._metrics.first_audio.observe(self.first_audio)
                self._played_until = now
            if now > self._played_until:
                self.underrun += now - self._played_until
                self._played_until = now
            self._played_until += seconds
            self.audio_seconds += seconds
        if sound.waited is not None:
            self._metrics.queue_wait.observe(sound.waited)
        if sound.known is not None:
            self._metrics.voice_prefix.labels(str(sound.known).lower()).inc()
        if sound.finish_reason is not None and sound.stats is not None:
            length = sound.stats.audio_seconds
            if length:
                self._metrics.factor.observe(sound.stats.total_seconds / length)

    def end(self, reason: str) -> None:
        """The stream ended: a finish reason, or "cancelled" or "error"."""
        self._metrics.finish.labels(reason).inc()
        self._metrics.audio.inc(self.audio_seconds)
        self._metrics.underrun.inc(self.underrun)
        if self.first_audio is not None:
            for threshold in GAP_MILLISECONDS:
                self._metrics.continuity.labels(str(threshold)).inc(
                    1000 * self.underrun <= threshold
                )

"""The speech server in replicas, under Ray Serve.

Nothing is batched by Serve: a request would wait for a batch to fill, and nobody could join a
running one. Each replica is the server's own application with the scheduler that it has everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ray import serve
from ray.serve.config import BackpressureConfig

from csm_ggml.audio.watermark import Watermark
from csm_ggml.csm import CSM
from csm_ggml.limits import check_count
from csm_ggml.loading import hub
from csm_ggml.ray.speaker import assigned_threads
from csm_ggml.server.app import create_app
from csm_ggml.server.settings import Settings
from csm_ggml.speech.scheduler import QUEUE, SLOTS

# Requests that a full replica may be refusing at a time. The server refuses with its own error and
# with a wait that it has measured, and tells of itself when it is full; Serve refuses what comes
# beyond these with a line of plain text, and with a wait that is a guess.
_REFUSALS = 64
_RETRY_SECONDS = 2
# Beside the longest utterance, a replica that is to end needs this to let go of its model.
_CLOSE_SECONDS = 10.0
# How often a replica that is to end looks whether all is said.
_WAIT_LOOP_SECONDS = 0.5


def app(
    model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = hub.DEMO,
    *,
    settings: Settings | None = None,
    replicas: int | tuple[int, int] = 1,
    target_ongoing_requests: float | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    device: str = "auto",
    threads: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    slots: int = SLOTS,
    queue: int = QUEUE,
    realtime: float | None = 0.9,
    watermark: Watermark | None = None,
) -> Any:
    """The speech server as an application of Ray Serve, for `serve.run` and `serve run`.

    A replica takes requests when its model is loaded; Serve gives each request to the less busy of
    two. One whose slots and queue are full answers 429, as the server does everywhere.

    Args:
        model: As in `CSM.from_pretrained`; each replica loads it for itself.
        settings: Of the server. The default lets requests in without a key, and only under this
            machine's own names; others need `Settings(hosts=None, keys=...)`. A folder of voices
            must be one that all machines see.
        replicas: How many; or the fewest and the most, between which Serve chooses by load.
        target_ongoing_requests: Requests of one replica that are just right, for that choice;
            default is half of its slots. `/ready` tells how many a machine keeps up with.
        num_cpus: CPUs that Ray reserves for each replica.
        num_gpus: GPUs that Ray reserves for each replica.
        device: As in `CSM.from_pretrained`.
        threads: CPU threads of a replica; default is num_cpus.
        revision: As in `CSM.from_pretrained`.
        local_files_only: As in `CSM.from_pretrained`.
        slots: Utterances side by side in a replica.
        queue: Requests that may wait in a replica.
        realtime: As in `CSM.from_pretrained`.
        watermark: As `CSM.watermark`.

    Returns:
        A `ray.serve.Application`.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If one is none.
    """
    settings = settings or Settings()
    slots, queue = check_count("slots", slots), check_count("queue", queue, least=0)
    fewest, most = (replicas, replicas) if isinstance(replicas, int) else replicas
    check_count("replicas", fewest)
    if check_count("replicas", most) < fewest:
        raise ValueError(f"replicas must be the fewest and the most, got {replicas}")

    def load() -> CSM:
        csm = CSM.from_pretrained(
            model,
            device=device,
            threads=assigned_threads() if threads is None else threads,
            revision=revision,
            local_files_only=local_files_only,
            slots=slots,
            queue=queue,
            realtime=realtime,
        )
        csm.watermark = watermark
        return csm

    def build() -> Any:
        return create_app(settings, load=load, eager=True)

    class Speech:
        """One replica."""

        app: Any

        def check_health(self) -> None:
            """Asked by Serve, which replaces a replica that raises.

            Raises:
                RuntimeError: If the model is gone.
            """
            service = self.app.state.service
            if service.csm is None:
                raise RuntimeError(f"there is no model: {service.failure}")

    deployment = serve.deployment(
        serve.ingress(build)(Speech),
        name="Speech",
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        max_ongoing_requests=slots + queue + _REFUSALS,
        max_queued_requests=_REFUSALS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=_RETRY_SECONDS),
        graceful_shutdown_wait_loop_s=_WAIT_LOOP_SECONDS,
        graceful_shutdown_timeout_s=settings.drain_seconds + _CLOSE_SECONDS,
        **(
            {"num_replicas": fewest}
            if fewest == most
            else {
                "autoscaling_config": {
                    "min_replicas": fewest,
                    "max_replicas": most,
                    "target_ongoing_requests": target_ongoing_requests or max(1.0, slots / 2),
                }
            }
        ),
    )
    return deployment.bind()

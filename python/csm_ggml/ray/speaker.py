"""Batches of rows in, rows with speech out: a function for Ray Data's `map_batches`.

What a row sounds like depends on its text, its id, the seed and the options alone; not on the
number of actors, on the size of batches, on its neighbours or on its place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from csm_ggml.csm import BATCH_SIZE, CSM
from csm_ggml.errors import NoSpeechError
from csm_ggml.limits import check_count
from csm_ggml.loading import hub
from csm_ggml.loading.threads import default_threads
from csm_ggml.ray.rows import (
    OUTPUTS,
    Row,
    check_columns,
    failed_columns,
    plain,
    row_seed,
    spoken_columns,
)
from csm_ggml.speech.options import resolve_seed

# A row may have no id; then its text is it.
_ID_COLUMN = "id"
# What is wrong with a row, not with the model or the machine.
_ROW_ERRORS = (ValueError, TypeError, OSError, NoSpeechError)


class Speaker:
    """Speaks rows. An actor of Ray Data, or an object to call.

    Attributes:
        csm: The model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | CSM = hub.DEMO,
        *,
        voice: Any = None,
        threads: int | None = None,
        device: str = "auto",
        revision: str | None = None,
        local_files_only: bool = False,
        seed: int = 0,
        batch_size: int = BATCH_SIZE,
        text_column: str = "text",
        id_column: str | None = _ID_COLUMN,
        voice_column: str | None = None,
        output: str = "flac",
        on_error: str = "record",
        **options: Any,
    ) -> None:
        """Load the model.

        Args:
            model: As in `CSM.from_pretrained`; or one that is loaded.
            voice: As in `GenerateOptions`, of all rows.
            threads: CPU threads; default is the CPUs that Ray has given the actor, without Ray the
                physical cores that may be used.
            device: As in `CSM.from_pretrained`.
            revision: As in `CSM.from_pretrained`.
            local_files_only: As in `CSM.from_pretrained`.
            seed: Mixed with the id of each row, gives the row's seed.
            batch_size: Rows that are spoken side by side. Batches should hold several times as
                many, or slots stay empty towards the end of each.
            text_column: Name of the column of texts.
            id_column: Name of the column of ids, strings or whole numbers, each of one row. None:
                a row's text is its id, as it is if there is no column named "id".
            voice_column: Name of the column of voices, files or `Voice`; an empty value is the
                voice of all.
            output: "flac", "wav", "mp3", "opus", "aac" or "pcm", for a file in the column `audio`;
                or "amplitude", for columns `amplitude`, (1, n) float32, and `sample_rate`.
            on_error: "record": a row that cannot be spoken has the reason in the column `error`;
                "raise": it is raised. What is not the row's fault is raised in any case.
            **options: As in `CSM.generate`.

        Raises:
            ValueError: If an option is out of range.
            TypeError: If an option is unknown or of the wrong type.
            As `CSM.from_pretrained`.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(OUTPUTS)}, got {output!r}")
        if on_error not in ("record", "raise"):
            raise ValueError(f'on_error must be "record" or "raise", got {on_error!r}')
        self._seed = resolve_seed(check_count("seed", seed, least=0))
        self._batch_size = check_count("batch_size", batch_size)
        self._text_column, self._id_column = text_column, id_column
        self._voice_column = voice_column
        self._output, self._on_error = output, on_error
        self._options = options
        self._voice = voice
        self._own = not isinstance(model, CSM)
        self.csm = (
            model
            if isinstance(model, CSM)
            else CSM.from_pretrained(
                model,
                device=device,
                threads=assigned_threads() if threads is None else threads,
                revision=revision,
                local_files_only=local_files_only,
                slots=self._batch_size,
            )
        )
        # A mistake in the options is one of all rows: it is told here.
        self.csm.as_completed(["Hello."], seed=0, **self._per_row([None]))
        if output == "aac":
            import av  # noqa: F401

    def __call__(self, batch: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Speak a batch, and hand out each row when it and those before it are done.

        Long texts are begun first. The order of the rows is fixed by the batch: Ray, which speaks
        a batch again whose worker has died, drops as many rows as it had before.

        Args:
            batch: Columns of equal length, numpy arrays or lists, by their names.

        Returns:
            Rows, each as columns with one value: the row's own; `audio` (or `amplitude` and
            `sample_rate`), `duration` in seconds, `frames`, `finish_reason`, `seed`, `error` (empty
            if there is none).

        Raises:
            KeyError: If a column is missing.
            TypeError: If the batch is no mapping of columns.
            ValueError: If they are not equally long; with on_error="raise" as `CSM.generate`.
        """
        columns = check_columns(batch)
        # Errors of the batch are raised by the call, not by the first row.
        order, spoken = self._begin(columns)
        return self._in_order(columns, order, spoken)

    def as_completed(
        self, batch: Mapping[str, Any]
    ) -> Generator[tuple[int, dict[str, Any]], None, None]:
        """The same, each row as soon as it is done, with its number in the batch.

        Args:
            batch: As in a call.

        Raises:
            As a call.
        """
        columns = check_columns(batch)
        _, spoken = self._begin(columns)
        return self._with_own(columns, spoken)

    def close(self) -> None:
        """Free the engine, unless the model was given loaded."""
        if self._own:
            self.csm.close()

    # Inside

    def _per_row(self, voices: Sequence[Any]) -> dict[str, Any]:
        """The options of rows, each with its own voice or that of all."""
        if self._voice is None and self._voice_column is None:
            return self._options
        return {
            **self._options,
            "voice": [_voices(self._voice if voice is None else voice) for voice in voices],
        }

    def _begin(
        self, columns: Mapping[str, Any]
    ) -> tuple[list[int], Iterator[tuple[int, dict[str, Any]]]]:
        rows = self._rows(columns)
        order = sorted(range(len(rows)), key=lambda number: -_length(rows[number].text))
        return order, self._spoken(rows, order)

    def _rows(self, columns: Mapping[str, Any]) -> list[Row]:
        texts = [plain(text) for text in _column(columns, self._text_column)]
        ids: list[Any] = texts
        if self._id_column is not None and not (
            self._id_column == _ID_COLUMN and _ID_COLUMN not in columns
        ):
            ids = [plain(id) for id in _column(columns, self._id_column)]
            for id in ids:
                if isinstance(id, bool) or not isinstance(id, str | int):
                    raise TypeError(
                        f"ids must be strings or whole numbers, got {id!r} in the column "
                        f"{self._id_column!r}"
                    )
        voices: list[Any] = [None] * len(texts)
        if self._voice_column is not None:
            voices = [plain(voice) for voice in _column(columns, self._voice_column)]
        return [
            Row(text, row_seed(self._seed, id), voice or None)
            for text, id, voice in zip(texts, ids, voices, strict=True)
        ]

    def _spoken(
        self, rows: Sequence[Row], order: Sequence[int]
    ) -> Generator[tuple[int, dict[str, Any]], None, None]:
        """New columns of each row, as they come, with the row's number."""
        results = self.csm.as_completed(
            [rows[number].text for number in order],
            seed=[rows[number].seed for number in order],
            batch_size=self._batch_size,
            return_exceptions=True,
            **self._per_row([rows[number].voice for number in order]),
        )
        with closing(results):  # type: ignore[type-var]
            for index, result in results:
                number = order[index]
                seed = rows[number].seed
                if not isinstance(result, Exception) and not len(result.codes):
                    result = NoSpeechError.of([turn.text for turn in result.turns])
                if not isinstance(result, Exception):
                    yield number, spoken_columns(result, seed, self._output)
                elif self._on_error == "record" and isinstance(result, _ROW_ERRORS):
                    rate = self.csm.sample_rate
                    yield number, failed_columns(result, seed, self._output, rate)
                else:
                    raise result

    def _with_own(
        self, columns: Mapping[str, Any], spoken: Iterator[tuple[int, dict[str, Any]]]
    ) -> Generator[tuple[int, dict[str, Any]], None, None]:
        with closing(spoken):  # type: ignore[type-var]
            for number, made in spoken:
                own = {name: column[number : number + 1] for name, column in columns.items()}
                yield number, {**own, **made}

    def _in_order(
        self,
        columns: Mapping[str, Any],
        order: Sequence[int],
        spoken: Iterator[tuple[int, dict[str, Any]]],
    ) -> Generator[dict[str, Any], None, None]:
        done: dict[int, dict[str, Any]] = {}
        following = iter(order)
        wanted = next(following, None)
        with closing(self._with_own(columns, spoken)) as rows:
            for number, row in rows:
                done[number] = row
                while wanted in done:
                    yield done.pop(wanted)
                    wanted = next(following, None)


def assigned_threads() -> int | None:
    """The threads that fit the CPUs that Ray has given this worker; None outside of Ray."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    cpus = context.get_assigned_resources().get("CPU", 0)
    return max(1, min(int(cpus), default_threads()))


def _column(columns: Mapping[str, Any], name: str) -> Any:
    if name not in columns:
        raise KeyError(f"there is no column {name!r}, only {', '.join(columns) or 'none at all'}")
    return columns[name]


def _voices(voice: Any) -> list[Any] | None:
    """The voices of one row: a list of them would be taken for one voice for each row."""
    if voice is None:
        return None
    return list(voice) if isinstance(voice, list | tuple) else [voice]


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0

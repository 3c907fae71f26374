"""What a generation cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """Counts and wall-clock times of one request. Times are in seconds.

    In a batch the requests share each step, so `lm_seconds` and `codec_seconds` count every step
    that the request took part in, whole: the sum over a batch exceeds the time that the batch took.
    Codec and language models run at the same time, so the two may also exceed `total_seconds`.

    Attributes:
        frames: Frames spoken; the frames that only said "end" are not counted.
        codebooks: Codes in a frame.
        audio_seconds: Duration of the speech.
        prefill_rows: Prompt rows given to the backbone: texts, context, ends of audio.
        prefill_seconds: Evaluating them; a step of other requests that they went with counts whole.
        lm_seconds: The frame steps: backbone, depth decoder, sampling.
        codec_seconds: Mimi decoding.
        time_to_first_audio: From the call until the first samples existed; None if there were none.
        total_seconds: From the call until the last samples existed.
    """

    frames: int
    codebooks: int
    audio_seconds: float
    prefill_rows: int
    prefill_seconds: float
    lm_seconds: float
    codec_seconds: float
    time_to_first_audio: float | None
    total_seconds: float

    @property
    def codes_per_second(self) -> float:
        """Codes drawn per second of the whole call: frames * codebooks / total_seconds."""
        return self.frames * self.codebooks / self.total_seconds if self.total_seconds > 0 else 0.0

    @property
    def rtf(self) -> float:
        """Real-time factor, total_seconds / audio_seconds; infinite without audio.

        Below 1 is faster than speech.
        """
        return self.total_seconds / self.audio_seconds if self.audio_seconds > 0 else float("inf")

    def __repr__(self) -> str:
        """One line for people."""
        first = "none" if self.time_to_first_audio is None else f"{self.time_to_first_audio:.3f} s"
        return (
            f"Stats(frames={self.frames}, codes_per_second={self.codes_per_second:.1f}, "
            f"rtf={self.rtf:.3f}, "
            f"time_to_first_audio={first}, prefill={self.prefill_rows} rows in "
            f"{self.prefill_seconds:.3f} s, "
            f"lm={self.lm_seconds:.3f} s, codec={self.codec_seconds:.3f} s, "
            f"total={self.total_seconds:.3f} s)"
        )

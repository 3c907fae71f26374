"""The reference implementation: transformers' CSM and Mimi in float32 on the CPU.

Inputs and outputs are numpy arrays, so that nothing else in the tests touches PyTorch. The language
model is stepped by a loop of its own, which can force codes and keeps every logit; `generate` runs
transformers' own loop to confirm it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CsmForConditionalGeneration, DynamicCache

from .scenes import Prompt

# one thread: these models are too small to share among several
torch.set_num_threads(1)


class Greedy(NamedTuple):
    """A greedy run.

    Attributes:
        codes: int32 (frames, codebooks).
        margin: Smallest lead of a chosen code over the next best, as part of that position's range
            of logits.
    """

    codes: NDArray[np.int32]
    margin: float


class Encoding(NamedTuple):
    """What the codec's encoder made of a waveform.

    Attributes:
        latents: float32 (frames, hidden), before the quantizer.
        codes: int32 (frames, codebooks).
        gaps: float64 (frames, codebooks), lead of the nearest codebook entry over the next: the
            difference of the squared distances as part of the squared length of what is quantized,
            computed in float64.
    """

    latents: NDArray[np.float32]
    codes: NDArray[np.int32]
    gaps: NDArray[np.float64]


class Reference:
    """A checkpoint folder in transformers, float32, CPU."""

    def __init__(self, folder: Path) -> None:
        model, report = CsmForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        complaints = {key: value for key, value in report.items() if value}
        if complaints:
            raise AssertionError(f"{folder}: transformers loaded it only in part: {complaints}")
        self.model = model.eval()
        self.codebooks: int = model.config.num_codebooks
        table = model.backbone_model.embed_tokens.embed_audio_tokens.weight
        if not torch.equal(table, model.depth_decoder.model.embed_tokens.weight):
            raise AssertionError(f"{folder}: the audio tables of the two models differ")

    def _embed(self, prompt: Prompt) -> torch.Tensor:
        """Rows to backbone inputs (1, n, width)."""
        text = torch.from_numpy(prompt.text.astype(np.int64))
        audio = torch.from_numpy(prompt.audio.astype(np.int64))
        of_text = self.model.embed_text_tokens(text.clamp(min=0))
        of_audio = self.model.backbone_model.embed_tokens(audio[None])[0]
        return torch.where((text >= 0)[:, None], of_text, of_audio)[None]

    @torch.no_grad()
    def prefill_logits(self, prompt: Prompt) -> NDArray[np.float32]:
        """Logits of the first codebook after every row, float32 (n, codes)."""
        hidden = self.model.backbone_model(inputs_embeds=self._embed(prompt)).last_hidden_state
        return np.asarray(self.model.lm_head(hidden)[0])

    @torch.no_grad()
    def forced_logits(self, prompt: Prompt, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Logits (frames, codebooks, codes) when codes (frames, codebooks) are spoken."""
        spoken = Prompt(np.full(len(codes) - 1, -1, np.int32), codes[:-1])
        rows = Prompt(
            np.concatenate([prompt.text, spoken.text]), np.concatenate([prompt.audio, spoken.audio])
        )
        hidden = self.model.backbone_model(inputs_embeds=self._embed(rows)).last_hidden_state
        hidden = hidden[0, len(prompt.text) - 1 :]
        first = self.model.lm_head(hidden)
        return np.concatenate([first[:, None], self._depth_logits(hidden, codes)], axis=1)

    def _depth_logits(self, hidden: torch.Tensor, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Logits (frames, codebooks - 1, codes) after states (frames, width), codes forced."""
        ids = np.concatenate([np.zeros((len(codes), 1), np.int64), codes[:, :-1]], axis=1)
        logits = self.model.depth_decoder(
            input_ids=torch.from_numpy(ids), backbone_last_hidden_state=hidden
        ).logits
        return np.asarray(logits)

    @torch.no_grad()
    def greedy(self, prompt: Prompt, frames: int) -> Greedy:
        """Speak so many frames of likeliest codes; an all-zero frame does not stop it."""
        cache = DynamicCache(config=self.model.config)
        inputs = self._embed(prompt)
        spoken, margin = [], np.inf
        for _ in range(frames):
            state = self.model.backbone_model(
                inputs_embeds=inputs, past_key_values=cache, use_cache=True
            ).last_hidden_state[:, -1]
            code, lead = _argmax(self.model.lm_head(state)[0])
            margin = min(margin, lead)
            frame = [code]
            depth_cache = DynamicCache(config=self.model.depth_decoder.config)
            ids = torch.tensor([[0, code]])
            for _ in range(1, self.codebooks):
                logits = self.model.depth_decoder(
                    input_ids=ids,
                    backbone_last_hidden_state=state if len(frame) == 1 else None,
                    past_key_values=depth_cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[0, -1]
                code, lead = _argmax(logits)
                margin = min(margin, lead)
                frame.append(code)
                ids = torch.tensor([[code]])
            spoken.append(frame)
            inputs = self.model.backbone_model.embed_tokens(torch.tensor([[frame]]))
        return Greedy(np.array(spoken, np.int32), margin)

    @torch.no_grad()
    def generate(
        self,
        ids: NDArray[np.int32],
        frames: int,
        sounds: Sequence[NDArray[np.float32]] = (),
    ) -> NDArray[np.int32]:
        """transformers' own greedy generation.

        Args:
            ids: Prompt ids as its processor writes them.
            frames: The most frames to make.
            sounds: Waveforms of the prompt's AUDIO ids, one for each run of them.

        Returns:
            int32 (frames, codebooks), its last frame being all zero if the model stopped by itself.
        """
        heard = {}
        if sounds:
            heard["input_values"] = torch.from_numpy(np.concatenate(sounds))[None, None]
            heard["input_values_cutoffs"] = torch.from_numpy(np.cumsum([[len(s) for s in sounds]]))[
                None
            ]
        # without a mask, generate takes the ids of audio for padding: csm-1b uses one id for both
        codes = self.model.generate(
            input_ids=torch.from_numpy(ids.astype(np.int64))[None],
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            do_sample=False,
            depth_decoder_do_sample=False,
            max_new_tokens=frames,
            **heard,
        )
        return np.asarray(codes[0], np.int32)

    @torch.no_grad()
    def decode(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Codes (frames, q) to samples (frames * frame size,)."""
        wanted = torch.from_numpy(codes.T.astype(np.int64).copy())[None]
        return np.asarray(self.model.codec_model.decode(wanted).audio_values[0, 0])

    @torch.no_grad()
    def encode(self, samples: NDArray[np.float32]) -> Encoding:
        """Samples (n,) to latents and codes."""
        codec = self.model.codec_model
        latents = codec.encoder(torch.from_numpy(samples)[None, None]).latents
        codes = codec.encode(torch.from_numpy(samples)[None, None]).audio_codes[0].T
        quantizer, gaps = codec.quantizer, []
        for part, begin, count in (
            (quantizer.semantic_residual_vector_quantizer, 0, quantizer.num_semantic_quantizers),
            (
                quantizer.acoustic_residual_vector_quantizer,
                quantizer.num_semantic_quantizers,
                quantizer.num_acoustic_quantizers,
            ),
        ):
            rest = (part.input_proj.weight[:, :, 0].double() @ latents[0].double()).T
            for layer in range(count):
                table = part.layers[layer].codebook.embed.double()
                distances = (
                    (rest**2).sum(-1, keepdim=True) - 2 * rest @ table.T + (table**2).sum(-1)
                )
                nearest = distances.topk(2, dim=-1, largest=False).values
                gaps.append((nearest[:, 1] - nearest[:, 0]) / (rest**2).sum(-1).clamp(min=1e-30))
                rest = rest - table[codes[:, begin + layer]]
        return Encoding(
            np.asarray(latents[0].T), np.asarray(codes, np.int32), np.asarray(torch.stack(gaps, -1))
        )


def _argmax(logits: torch.Tensor) -> tuple[int, float]:
    """The largest logit's index and its lead over the next, as part of the range."""
    best = logits.topk(2)
    spread = float(logits.max() - logits.min())
    lead = float(best.values[0] - best.values[1]) / spread if spread else 0.0
    return int(best.indices[0]), lead

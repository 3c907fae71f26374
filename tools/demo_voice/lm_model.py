"""CSM for training: packed rows, guided heads, one batched pass of the depth decoder.

transformers' own classes run one conversation per row and hide the attention weights; here
several conversations share a row and two heads are told where to look. The weights move over name
by name (`export_names`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CsmConfig
from transformers.models.csm.modeling_csm import CsmRotaryEmbedding

from lm_data import PHONE_TIMES, PHONES, Rows

GUIDED_LAYERS = (1, 2)
GUIDED_HEADS = slice(0, 2)
WIDTH = 1.5  # text tokens; the standard deviation of the guide's window


class Norm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out = functional.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)
        # One cast here instead of one in front of every product.
        return out.bfloat16() if torch.is_autocast_enabled("cpu") else out


class Attention(nn.Module):
    def __init__(self, config) -> None:
        super().__init__()
        self.heads, self.kv = config.num_attention_heads, config.num_key_value_heads
        self.dim = config.head_dim
        size = config.hidden_size
        self.q_proj = nn.Linear(size, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(size, self.kv * self.dim, bias=False)
        self.v_proj = nn.Linear(size, self.kv * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, size, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, guide: bool):
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, self.kv, self.dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv, self.dim).transpose(1, 2)
        q, k = rotate(q, *rope), rotate(k, *rope)
        share = self.heads // self.kv
        k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        if mask is None:
            out, look = functional.scaled_dot_product_attention(q, k, v, is_causal=True), None
        else:  # spelled out: the fused backward pass is slow on a CPU, the guide needs the scores
            scores = (q * self.dim**-0.5) @ k.transpose(2, 3) + mask
            out, look = scores.softmax(-1) @ v, scores[:, GUIDED_HEADS] if guide else None
        return self.o_proj(out.transpose(1, 2).reshape(b, t, -1)), look


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return (x * cos + torch.cat([-high, low], -1) * sin).to(x.dtype)


class Mlp(nn.Module):
    def __init__(self, config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, guide: bool):
        out, look = self.self_attn(self.input_layernorm(x), rope, mask, guide)
        x = x + out
        return x + self.mlp(self.post_attention_layernorm(x)), look


class Stack(nn.Module):
    """Layers and final norm of the backbone or of the depth decoder."""

    def __init__(self, config, guided: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.guided = guided
        rotary = CsmRotaryEmbedding(config)
        length = min(config.max_position_embeddings, 1024)
        with torch.no_grad():
            cos, sin = rotary(torch.zeros(1, 1), torch.arange(length)[None])
        self.register_buffer("cos", cos[0].float(), persistent=False)
        self.register_buffer("sin", sin[0].float(), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None, guide: bool = False):
        kind = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        rope = (self.cos[: x.shape[1]].to(kind), self.sin[: x.shape[1]].to(kind))
        looks = []
        for index, layer in enumerate(self.layers):
            x, look = layer(x, rope, mask, guide and index in self.guided)
            if look is not None:
                looks.append(look)
        return self.norm(x), looks


class Speech(nn.Module):
    """Backbone, depth decoder, and the training-only phone head."""

    def __init__(self, config: CsmConfig) -> None:
        super().__init__()
        depth = config.depth_decoder_config
        self.books, self.vocab = config.num_codebooks, config.vocab_size
        self.text = nn.Embedding(config.text_vocab_size, config.hidden_size)
        self.audio = nn.Embedding(self.books * self.vocab, config.hidden_size)
        self.backbone = Stack(config, GUIDED_LAYERS)
        self.depth = Stack(depth)
        self.project = nn.Linear(config.hidden_size, depth.hidden_size, bias=False)
        self.head = nn.Linear(config.hidden_size, self.vocab, bias=False)
        self.depth_heads = nn.Parameter(
            torch.randn(self.books - 1, depth.hidden_size, self.vocab) * 0.02
        )
        self.phone_head = nn.Linear(config.hidden_size, len(PHONE_TIMES) * len(PHONES))
        nn.init.normal_(self.text.weight, std=0.3)
        nn.init.normal_(self.audio.weight, std=0.1)
        nn.init.normal_(self.head.weight, std=0.02)
        self.neighbours: Tensor | None = None  # [books, codes, n]: what sampling mixes up
        self.register_buffer("offsets", torch.arange(self.books) * self.vocab, persistent=False)

    def embed(self, rows: Rows, drop: float) -> Tensor:
        """Text embeddings and sums of code embeddings; `drop` of the frames lose finer codes."""
        spoken = (rows.text < 0) & (rows.group >= 0)
        codes = rows.codes[spoken]
        weights = torch.ones(codes.shape)
        if drop > 0:
            kept = torch.randint(1, self.books + 1, (len(codes),))
            kept = torch.where(torch.rand(len(codes)) < drop, kept, self.books)
            kept = torch.where(torch.rand(len(codes)) < 0.08, 0, kept)
            kept = torch.where((codes == 0).all(-1), self.books, kept)
            weights = (torch.arange(self.books) < kept[:, None]).float()
        table = self.audio.weight
        sums = functional.embedding_bag(
            codes + self.offsets, table, mode="sum", per_sample_weights=weights
        )
        read = rows.text >= 0
        out = torch.zeros(*rows.text.shape, table.shape[1])
        return out.masked_scatter(spoken[..., None], sums).masked_scatter(
            read[..., None], self.text(rows.text[read])
        )

    def hidden(self, rows: Rows, drop: float = 0.0, guide: bool = False):
        """Final hidden states [B, T, C] and the guided heads' scores."""
        length = rows.text.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = (rows.group[:, None, :] == rows.group[:, :, None]) & causal
        mask = (
            torch.zeros(mask.shape)
            .masked_fill(~mask, -1e4)[:, None]
            .to(torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32)
        )
        return self.backbone(self.embed(rows, drop), mask, guide)

    def depth_logits(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """[n, C] and codes [n, 8] -> logits [n, 7, vocab] of codebooks 1..7."""
        known = self.audio(codes[:, :-1] + self.offsets[:-1])
        x, _ = self.depth(self.project(torch.cat([hidden[:, None], known], 1)))
        return torch.einsum("npc,pcv->npv", x[:, 1:].to(self.depth_heads.dtype), self.depth_heads)

    def losses(
        self, rows: Rows, drop: float, depth_share: float, noise: float = 0.0
    ) -> dict[str, Tensor]:
        """c0, depth, guide and phone losses of a batch, in nats per prediction."""
        goal = rows.codes[:, 1:][rows.valid[:, :-1]]
        if noise > 0:
            spoken = ~(rows.codes == 0).all(-1, keepdim=True)
            codes = rows.codes
            if self.neighbours is not None:
                which = torch.randint(0, self.neighbours.shape[2], codes.shape)
                near = self.neighbours[torch.arange(self.books), codes, which]
                codes = torch.where((torch.rand(codes.shape) < 5 * noise) & spoken, near, codes)
            other = torch.randint(0, self.vocab - 3, codes.shape)
            codes = torch.where((torch.rand(codes.shape) < noise) & spoken, other, codes)
            heard = Rows(rows.text, codes, rows.group, rows.valid, rows.look, rows.phones)
        else:
            heard = rows
        hidden, looks = self.hidden(heard, drop, guide=True)
        at = hidden[rows.valid]
        out = {"c0": functional.cross_entropy(self.head(at).float(), goal[:, 0])}
        ends = (goal == 0).all(-1)
        picked = (torch.rand(len(goal)) < depth_share) | ends
        logits = self.depth_logits(at[picked], goal[picked]).float()
        out["depth"] = functional.cross_entropy(logits.flatten(0, 1), goal[picked][:, 1:].flatten())
        phones = self.phone_head(at).float().view(-1, len(PHONES))
        said = rows.phones[rows.valid].view(-1)
        out["phone"] = functional.cross_entropy(phones, said, ignore_index=-1)
        out["guide"] = guide_loss(looks, rows)
        return out


def guide_loss(looks: list[Tensor], rows: Rows) -> Tensor:
    """Cross entropy of the guided heads' attention against a bell around the spoken text token."""
    row, query = torch.nonzero(rows.valid & (rows.look >= 0), as_tuple=True)
    distance = torch.arange(rows.text.shape[1])[None] - rows.look[row, query][:, None]
    bell = torch.exp(-0.5 * (distance / WIDTH) ** 2) * (rows.text[row] >= 0)
    bell = bell / bell.sum(1, keepdim=True).clamp(min=1e-6)
    loss = torch.zeros(())
    for look in looks:
        log = torch.log_softmax(look[row, :, query].float(), -1)
        loss = loss - (bell[:, None] * log).sum(-1).mean()
    return loss / max(1, len(looks))


def export_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameter names of CsmForConditionalGeneration, the audio table in both of its places."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("phone_head"):
            continue
        if name == "audio.weight":
            out["backbone_model.embed_tokens.embed_audio_tokens.weight"] = value
            out["depth_decoder.model.embed_tokens.weight"] = value.clone()
            continue
        for ours, theirs in (
            ("text.", "embed_text_tokens."),
            ("backbone.", "backbone_model."),
            ("depth.", "depth_decoder.model."),
            ("project.", "depth_decoder.model.inputs_embeds_projector."),
            ("head.", "lm_head."),
            ("depth_heads", "depth_decoder.codebooks_head.weight"),
        ):
            if name.startswith(ours):
                out[theirs + name[len(ours) :]] = value
                break
    return out

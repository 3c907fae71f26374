"""The CSM-shaped models that are known by name, and what their files do not tell.

Heads of 64 and of 128 values give matrices of the same shapes, and nothing in a tensor tells how
its model was trained to be asked. So sizes without a configuration are only believed where they are
those of a known model; all others are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from csm_ggml._core import ModelFormatError
from csm_ggml.text.prompt_format import MATCH, PromptFormat

from .config import ModelConfig, TransformerConfig
from .rope import Llama3Scaling, Rope

LLAMA3_ROPE = Rope(500_000.0, Llama3Scaling())
"""The rotary embedding of both models of csm-1b."""

CONTEXT = 2048
CSM_PROMPT = PromptFormat()

FLAVORS = {
    "llama-1B": TransformerConfig(16, 2048, 8192, 32, 8, 64),
    "llama-8B": TransformerConfig(32, 4096, 14336, 32, 8, 128),
    "llama-100M": TransformerConfig(4, 1024, 8192, 8, 2, 128),
    "llama-300M": TransformerConfig(8, 1536, 6912, 24, 6, 64),
    "llama-250M": TransformerConfig(6, 1536, 8192, 12, 3, 128),
    "llama-60M": TransformerConfig(4, 1024, 4096, 8, 2, 128),
}


@dataclass(frozen=True)
class Family:
    """A model by name.

    Attributes:
        name: what it is called here.
        backbone: its flavor.
        depth: its flavor.
        prompt: how it was trained to be asked.
        marks: texts of the tokens before and after a segment.
        rope: of both models; None where only a configuration tells it.
    """

    name: str
    backbone: str
    depth: str
    prompt: PromptFormat = CSM_PROMPT
    marks: tuple[str, str] = ("<|begin_of_text|>", "<|end_of_text|>")
    rope: Rope | None = LLAMA3_ROPE

    def flavor(self, part: str) -> TransformerConfig:
        """Sizes of `backbone` or `depth`."""
        return FLAVORS[self.backbone if part == "backbone" else self.depth]


FAMILIES = {
    family.name: family
    for family in (
        Family("csm-1b", "llama-1B", "llama-100M"),
        Family("miso-tts", "llama-8B", "llama-300M", PromptFormat("[{speaker}] {text}")),
        Family(
            "marvis-250m",
            "llama-250M",
            "llama-60M",
            PromptFormat(voice=MATCH),
            ("<|im_start|>", "<|im_end|>"),
            None,
        ),
    )
}


@dataclass(frozen=True)
class Widths:
    """What the matrices of one of the two models tell.

    Attributes:
        layers: how many.
        width: of the residual stream.
        query: rows of a query projection, all heads.
        key: rows of a key projection.
        hidden: of the feed-forward part.
    """

    layers: int
    width: int
    query: int
    key: int
    hidden: int

    @classmethod
    def of(cls, sizes: TransformerConfig) -> Widths:
        """Of known sizes."""
        return cls(
            sizes.block_count,
            sizes.embedding_length,
            sizes.head_count * sizes.head_dim,
            sizes.head_count_kv * sizes.head_dim,
            sizes.feed_forward_length,
        )

    def __str__(self) -> str:
        return (
            f"{self.layers} layers of {self.width}, projections to {self.query} and {self.key}, "
            f"feed-forward {self.hidden}"
        )


def by_name(name: str) -> Family:
    """A family.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in FAMILIES:
        raise ValueError(f"family={name!r}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def by_config(config: ModelConfig) -> Family | None:
    """The family of a model whose sizes are told; None if it is of none."""
    for family in FAMILIES.values():
        if all(_same(family.flavor(part), getattr(config, part)) for part in ("backbone", "depth")):
            return family
    return None


def _same(flavor: TransformerConfig, sizes: TransformerConfig) -> bool:
    told = replace(sizes, rms_epsilon=flavor.rms_epsilon, freq_base=flavor.freq_base)
    return told == flavor


def by_widths(widths: Mapping[str, Widths], settings: Mapping[str, Any], where: str) -> Family:
    """The family of a checkpoint whose sizes nobody tells but its matrices.

    Args:
        widths: of `backbone` and `depth`.
        settings: its config.json, which may name flavors; empty if there is none.
        where: for messages.

    Raises:
        ModelFormatError: it is of none, or the flavors that are named have other sizes.
    """
    named = {part: settings.get(f"{part}_flavor") for part in ("backbone", "decoder")}
    for family in FAMILIES.values():
        if any(Widths.of(family.flavor(part)) != found for part, found in widths.items()):
            continue
        wanted = {"backbone": family.backbone, "decoder": family.depth}
        if all(named[part] in (None, flavor) for part, flavor in wanted.items()):
            return family
    if (pair := _named_flavors(named, widths)) is not None:
        return pair
    shown = "; ".join(f"{part}: {found}" for part, found in widths.items())
    flavors = ", ".join(f"{part}_flavor {flavor!r}" for part, flavor in named.items() if flavor)
    known = ", ".join(FAMILIES)
    raise ModelFormatError(
        f"{where}: "
        + (f"config.json names {flavors}, but " if flavors else "")
        + f"these are not the sizes of a known model ({shown}), so that its heads, its RoPE and "
        f"its prompts are unknown; put a config.json with num_hidden_layers, num_attention_heads, "
        f"head_dim and the like next to the weights, or name the model whose head widths and "
        f"prompts it has: family= (--family): {known}"
    )


def _named_flavors(named: Mapping[str, object], widths: Mapping[str, Widths]) -> Family | None:
    """A CSM of two flavors that its configuration names and its matrices confirm."""
    backbone, depth = named["backbone"], named["decoder"]
    if not (isinstance(backbone, str) and isinstance(depth, str)):
        return None
    for flavor, found in ((backbone, widths["backbone"]), (depth, widths["depth"])):
        if flavor not in FLAVORS or Widths.of(FLAVORS[flavor]) != found:
            return None
    told = {"llama-250M", "llama-60M"}.isdisjoint((backbone, depth))
    return Family(f"{backbone} and {depth}", backbone, depth, rope=LLAMA3_ROPE if told else None)


def sizes_like(family: Family, part: str, found: Widths, where: str) -> TransformerConfig:
    """Sizes of a model that has the head widths of a family.

    Raises:
        ModelFormatError: its projections are no multiple of them.
    """
    flavor = family.flavor(part)
    width = flavor.head_dim
    for rows in (found.query, found.key):
        if rows % width:
            raise ModelFormatError(
                f"{where}: the {part}'s attention projects to {rows} values, expected a multiple "
                f"of {family.name}'s head width {width}"
            )
    return replace(
        flavor,
        block_count=found.layers,
        embedding_length=found.width,
        feed_forward_length=found.hidden,
        head_count=found.query // width,
        head_count_kv=found.key // width,
    )

"""Tensor names as training leaves them, to the names of the release they were trained from.

PyTorch's wrappers put words before or into a name. MLX has the names of transformers' blocks inside
the original release's models, with the original order of rows in q and k.
"""

from __future__ import annotations

import re

from .codec_names import flat_name

_WRAPPERS = ("base_model.model.", "module.", "model.", "_forward_module.")
_INSIDE = ("_orig_mod.", "base_layer.")

_CODEC = "codec_model."

_MLX_BLOCK = {
    "self_attn.q_proj.weight": "attn.q_proj.weight",
    "self_attn.k_proj.weight": "attn.k_proj.weight",
    "self_attn.v_proj.weight": "attn.v_proj.weight",
    "self_attn.o_proj.weight": "attn.output_proj.weight",
    "mlp.gate_proj.weight": "mlp.w1.weight",
    "mlp.up_proj.weight": "mlp.w3.weight",
    "mlp.down_proj.weight": "mlp.w2.weight",
    "input_layernorm.weight": "sa_norm.scale",
    "post_attention_layernorm.weight": "mlp_norm.scale",
}
_MLX_LAYER = re.compile(r"((?:backbone|decoder)\.layers\.\d+)\.(.+)")
_MLX_NORM = re.compile(r"(backbone|decoder)\.norm\.weight")


def plain_name(name: str) -> str:
    """The name without wrappers, MLX's ones as in the original release."""
    for word in _INSIDE:
        name = name.replace(word, "")
    while wrapper := next((w for w in _WRAPPERS if name.startswith(w)), None):
        name = name.removeprefix(wrapper)
    if name.startswith(_CODEC):
        return _CODEC + flat_name(name.removeprefix(_CODEC))
    if layer := _MLX_LAYER.fullmatch(name):
        return f"{layer[1]}.{_MLX_BLOCK.get(layer[2], layer[2])}"
    if norm := _MLX_NORM.fullmatch(name):
        return f"{norm[1]}.norm.scale"
    return name

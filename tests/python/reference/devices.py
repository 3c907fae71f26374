"""The devices that the tests run on.

The CPU treated as a GPU is always there. CSM_GGML_TEST_DEVICE names one more, as
`_core.devices()` lists it: a GPU, or Mesa's lavapipe, which runs ggml's Vulkan backend on an
ordinary processor.
"""

from __future__ import annotations

import os

CPU = "cpu"
GENERIC = "cpu-generic"
TEST_DEVICE = os.environ.get("CSM_GGML_TEST_DEVICE") or None

# Those that run graphs as GPUs do.
GPU_LIKE = [GENERIC, *([TEST_DEVICE] if TEST_DEVICE else [])]
ALL = [CPU, *GPU_LIKE]

# Where voices, conversations, long texts and the scheduler are tested.
SPEECH = TEST_DEVICE or CPU


def exact(device: str) -> bool:
    """Whether products of F32 matrices are computed in F32, and sums in an order of their own.

    ggml's Vulkan backend multiplies them in F16 unless GGML_VK_DISABLE_F16 is set.
    """
    return device in (CPU, GENERIC) or os.environ.get("GGML_VK_DISABLE_F16") == "1"


def rounds_alike(device: str) -> bool:
    """Whether samples are the same bits in whatever pieces and batches a stream is decoded."""
    return device in (CPU, GENERIC)

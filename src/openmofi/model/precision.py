"""In which numbers a network reads fastest on a device, where rounding does not matter."""

from __future__ import annotations

import torch

_BF16 = ("avx512_bf16", "amx_bf16")
"""Instructions of a processor that multiply bfloat16; others would imitate them."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 if the device multiplies it in hardware, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()
        return torch.bfloat16 if any(able.get(name) for name in _BF16) else torch.float32
    return torch.float32

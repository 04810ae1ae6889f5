"""What may not happen in a step on a GPU, found on a processor."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class RefuseToWait(TorchDispatchMode):
    """Fails on what makes the host wait for a GPU: numbers read, shapes that depend on data."""

    waiting = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "item", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not any(word in name for word in self.waiting), f"{name} waits"
        by_mask = name.startswith("index") and any(
            isinstance(part, torch.Tensor) and part.dtype == torch.bool
            for part in (args[1] if len(args) > 1 and isinstance(args[1], list) else [])
        )
        assert not by_mask, f"{name} by a mask waits"
        return func(*args, **(kwargs or {}))

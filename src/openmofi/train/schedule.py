"""Step sizes: warm-up, then a cosine down to zero."""

import math

from openmofi.config import OptimSettings


def learning_rate_factor(step: int, *, steps: int, settings: OptimSettings) -> float:
    """Returns the share of the peak step size at a step counted from 0."""
    warmup = max(int(steps * settings.warmup), 1)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

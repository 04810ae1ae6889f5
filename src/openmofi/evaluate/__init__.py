"""Stage 9a, evaluate: a checkpoint and benchmarks -> numbers."""

from openmofi.evaluate import gpr1200, revisited
from openmofi.evaluate.evaluate import evaluate

__all__ = ["evaluate", "gpr1200", "revisited"]

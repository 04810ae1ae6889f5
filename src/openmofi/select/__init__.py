"""Stage 5, select: decide which labels and images to keep, and show why."""

from openmofi.select.select import select

__all__ = ["select"]

"""Between select and export, diff: what changed between two versions of labels, and why."""

from openmofi.diff.diff import diff

__all__ = ["diff"]

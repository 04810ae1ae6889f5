"""Stage 4, label: look at the image; candidates -> scored candidates."""

from openmofi.label.label import label

__all__ = ["label"]

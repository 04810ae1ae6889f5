"""Stage 9b, tag: name what new images show, or say nothing where unsure."""

from openmofi.tag.tagger import Tag, Tagger, tag

__all__ = ["Tag", "Tagger", "tag"]

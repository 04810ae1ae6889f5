"""What a reader hands on in place of a row, an image or an entity that it leaves out."""

import msgspec


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Something that is left out while everything else goes on; counted by its reason."""

    reason: str
    """Snake_case; of an error that nobody foresaw, the name of its type."""
    line: int = 0
    """Line of the source, from 1, where it has lines."""
    text: str = ""
    """The beginning of what is refused, for inspection; empty where it is sound, but not asked for:
    a whole Wikidata dump has 80 million such lines, and they are only counted."""

"""What a reader yields instead of a row, an image or an entity that it leaves out."""

import msgspec


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Something left out while the rest of the work goes on; counted by reason."""

    reason: str
    """In snake_case; for an unforeseen error, the name of its type."""
    line: int = 0
    """Line of the source, from 1; 0 if it has no lines."""
    text: str = ""
    """The beginning of what is refused, for inspection; empty where it is valid but was not asked
    for: a whole Wikidata dump has 80 million such lines, which are only counted."""

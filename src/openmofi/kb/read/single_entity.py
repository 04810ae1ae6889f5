"""Reads files with one entity on many lines, as Special:EntityData returns them.

In: the chunks of a pretty-printed entity, or of {"entities": {id: entity}}. Out: an EntityRecord or
a Refused for each. The lines of a dump go through `decode.py`.
"""

from collections.abc import Iterable

import msgspec

from openmofi.files.tables import beginning
from openmofi.kb.read.chunks import Chunk
from openmofi.kb.read.decode import LineDecoder
from openmofi.kb.read.records import Records
from openmofi.refused import Refused

# The largest entities have less than 10 MB.
_MAX_WHOLE_FILE_BYTES = 1 << 28
_PEEK_BYTES = 4096


def is_whole_file(chunk: Chunk) -> bool:
    """Returns whether a file that begins with a chunk is one entity, not one entity a line."""
    if chunk.first_line != 1:
        return False
    first = chunk.data[:_PEEK_BYTES].lstrip(b"[ \t\r\n").partition(b"\n")[0].strip()
    return first == b"{" or first.startswith(b'{"entities"')


def read_whole(first: Chunk, rest: Iterable[Chunk], decoder: LineDecoder) -> Records:
    """Yields the records of one pretty-printed entity, or of {"entities": {id: entity}}."""
    raw = bytearray(first.data)
    for chunk in rest:
        raw += chunk.data
        if len(raw) > _MAX_WHOLE_FILE_BYTES:
            break
    try:
        whole = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield Refused("bad_json", 1, beginning(bytes(raw[:_PEEK_BYTES])))
        return
    if not isinstance(whole, dict):
        yield Refused("bad_structure", 1, beginning(bytes(raw[:_PEEK_BYTES])))
        return
    entities = whole.get("entities", {"": whole})
    entities = entities.values() if isinstance(entities, dict) else [entities]
    for number, entity in enumerate(entities, 1):
        yield decoder.item(msgspec.json.encode(entity), number)

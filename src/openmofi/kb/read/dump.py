"""Reads a Wikidata JSON dump (https://doc.wikimedia.org/Wikibase/master/php/docs_topics_json.html).

In: .json, .json.gz, .json.bz2, .json.zst or standard input ("-"), one entity a line between
brackets; or one pretty-printed entity. Out: an EntityRecord per item that the settings keep, a
Rejection for every other line. `read.py` does the same for hours-long dumps in many processes.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from openmofi.config import KBSettings
from openmofi.kb.read.chunks import Chunk, read_chunks
from openmofi.kb.read.decode import LineDecoder
from openmofi.kb.read.lines import Blocks
from openmofi.kb.read.records import Records, Rejection, beginning

# A single pretty-printed entity (Special:EntityData) is below 10 MB.
_MAX_WHOLE_FILE_BYTES = 1 << 28
_PEEK_BYTES = 4096


def read_dump(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Rejection for every entity of a dump, in its order.

    Reasons of damage: bad_json, not_utf8, bad_structure (fields of unexpected types), no_id,
    truncated_file. Reasons to leave a sound line out: property_not_item, not_an_item (lexemes),
    wikimedia_page, no_name (none in the wanted languages), and by preset no_sitelink, no_article,
    scholarly_article, name_item.
    """
    decoder = LineDecoder(settings)
    with Blocks(path) as blocks:
        chunks = read_chunks(blocks)
        for chunk in chunks:
            if is_whole_file(chunk):
                yield from read_whole(chunk, chunks, decoder)
                return
            yield from decoder.lines(chunk.data, chunk.first_line, chunk.damage)


def is_whole_file(chunk: Chunk) -> bool:
    """Says whether a file that begins so is one entity on many lines, and no list of lines."""
    if chunk.first_line != 1:
        return False
    first = chunk.data[:_PEEK_BYTES].lstrip(b"[ \t\r\n").partition(b"\n")[0].strip()
    return first == b"{" or first.startswith(b'{"entities"')


def read_whole(first: Chunk, rest: Iterable[Chunk], decoder: LineDecoder) -> Records:
    """Yields what one pretty-printed entity, or {"entities": {id: entity}}, gives."""
    raw = bytearray(first.data)
    for chunk in rest:
        raw += chunk.data
        if len(raw) > _MAX_WHOLE_FILE_BYTES:
            break
    try:
        whole = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield Rejection("bad_json", 1, beginning(bytes(raw[:_PEEK_BYTES])))
        return
    if not isinstance(whole, dict):
        yield Rejection("bad_structure", 1, beginning(bytes(raw[:_PEEK_BYTES])))
        return
    entities = whole.get("entities", {"": whole})
    entities = entities.values() if isinstance(entities, dict) else [entities]
    for number, entity in enumerate(entities, 1):
        yield decoder.item(msgspec.json.encode(entity), number)

"""Reads a Wikidata JSON dump (https://doc.wikimedia.org/Wikibase/master/php/docs_topics_json.html).

In: .json, .json.gz, .json.bz2 or .json.zst, one entity a line between brackets; or one
pretty-printed entity. Out: an EntityRecord per item that has a name in the wanted languages, a
Rejection for every other line. Only the needed fields are decoded: msgspec skips the rest without
making objects.

Traps met in real dumps: an empty map is written []; old dumps give P31 without "id"; statements may
be deprecated or without a value; `mul` holds labels common to all languages; lines end in a comma.
"""

from functools import cache
from pathlib import Path
from typing import Any, Union

import msgspec

from openmofi.config import KBSettings
from openmofi.kb.lines import TruncatedFile, read_lines
from openmofi.kb.records import REJECT_CHARS, EntityRecord, Records, Rejection

# Pages that serve Wikimedia's wikis and name no thing; their labels would shadow real entities.
# Each is an item of that id at https://www.wikidata.org.
_WIKIMEDIA_PAGES = frozenset(
    {
        "Q4167410",  # disambiguation page
        "Q22808320",  # human name disambiguation page
        "Q4167836",  # category
        "Q11266439",  # template
        "Q13406463",  # list article
        "Q15184295",  # module
        "Q14204246",  # project page
    }
)

# A single pretty-printed entity (Special:EntityData) is below 10 MB.
_MAX_WHOLE_FILE_BYTES = 1 << 28


class _Term(msgspec.Struct, gc=False):
    value: str = ""


class _ItemId(msgspec.Struct, gc=False):
    id: str = ""
    numeric_id: int = msgspec.field(default=0, name="numeric-id")


class _ItemValue(msgspec.Struct, gc=False):
    value: _ItemId | None = None


class _TextValue(msgspec.Struct, gc=False):
    value: str = ""


class _ItemSnak(msgspec.Struct, gc=False):
    datavalue: _ItemValue | None = None


class _TextSnak(msgspec.Struct, gc=False):
    datavalue: _TextValue | None = None


class _ItemStatement(msgspec.Struct, gc=False):
    mainsnak: _ItemSnak | None = None
    rank: str = "normal"


class _TextStatement(msgspec.Struct, gc=False):
    mainsnak: _TextSnak | None = None
    rank: str = "normal"


class _Claims(msgspec.Struct, gc=False):
    P31: list[_ItemStatement] = []
    P18: list[_TextStatement] = []


class _Site(msgspec.Struct, gc=False):
    title: str = ""


@cache
def _terms_type(languages: tuple[str, ...], content: Any) -> Any:
    """Returns a struct with one field per wanted language; the others are skipped unread."""
    names = [f"language_{i}" for i in range(len(languages))]
    return msgspec.defstruct(
        "Terms",
        [(name, content | None, None) for name in names],
        rename=dict(zip(names, languages, strict=True)),
        gc=False,
    )


@cache
def _decoder(languages: tuple[str, ...], *, with_claims: bool = True) -> msgspec.json.Decoder:
    one, many = _terms_type(languages, _Term), _terms_type(languages, list[_Term])
    empty = Union[list[Any], None]  # noqa: UP007 - the members are values here
    claims = Union[_Claims, empty] if with_claims else msgspec.Raw  # noqa: UP007
    fields: list[tuple[str, Any, Any]] = [
        ("id", str, ""),
        ("type", str, ""),
        ("labels", Union[one, empty], None),  # noqa: UP007
        ("descriptions", Union[one, empty], None),  # noqa: UP007
        ("aliases", Union[many, empty], None),  # noqa: UP007
        ("claims", claims, None),
        ("sitelinks", Union[dict[str, msgspec.Raw], empty], None),  # noqa: UP007
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Item", fields, gc=False))


def read_dump(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Rejection for every entity of a dump, in its order.

    Reasons: bad_json, not_utf8, bad_structure (fields of unexpected types), no_id,
    property_not_item, not_an_item (lexemes), no_name (none in the wanted languages),
    wikimedia_page, truncated_file.
    """
    number = 0
    try:
        for number, line in read_lines(path):
            content = line.strip().lstrip(b"[").rstrip(b"],").strip()
            if content == b"{" or content.startswith(b'{"entities"'):
                yield from _read_whole(path, settings)
                return
            if content:
                yield _read_item(content, number, settings)
    except TruncatedFile as error:
        last = _read_item(error.rest.strip().rstrip(b","), number + 1, settings)
        if isinstance(last, EntityRecord):
            yield last
        yield Rejection("truncated_file", number + 1, str(error))


def _read_whole(path: Path, settings: KBSettings) -> Records:
    """Reads a file that is one pretty-printed entity, or {"entities": {id: entity}}."""
    raw = b"\n".join(line for _, line in read_lines(path))
    try:
        whole = msgspec.json.decode(raw[:_MAX_WHOLE_FILE_BYTES])
    except msgspec.DecodeError:
        yield _reject("bad_json", 1, raw)
        return
    entities = whole.get("entities", {"": whole})
    for entity in entities.values():
        yield _read_item(msgspec.json.encode(entity), 1, settings)


def _reject(reason: str, number: int, line: bytes) -> Rejection:
    return Rejection(
        reason, number, line[: 4 * REJECT_CHARS].decode(errors="replace")[:REJECT_CHARS]
    )


def _read_item(line: bytes, number: int, settings: KBSettings) -> EntityRecord | Rejection:
    item = _decode(line, settings.languages)
    if isinstance(item, str):
        return _reject(item, number, line)
    if not item.id:
        return _reject("no_id", number, line)
    if item.type == "property" or item.id.startswith("P"):
        return _reject("property_not_item", number, line)
    if item.type != "item" and (item.type or not item.id.startswith("Q")):
        return _reject("not_an_item", number, line)
    types = _types(item.claims)
    if not _WIKIMEDIA_PAGES.isdisjoint(types):
        return _reject("wikimedia_page", number, line)
    record = _record(item, number, types, settings.languages)
    return record or _reject("no_name", number, line)


def _decode(line: bytes, languages: tuple[str, ...]) -> Any:
    """Returns the decoded item, or the reason why there is none."""
    try:
        return _decoder(languages).decode(line)
    except msgspec.ValidationError:
        return _decode_leniently(line, languages)
    except msgspec.DecodeError:
        return "bad_json"
    except UnicodeDecodeError:
        return "not_utf8"


def _decode_leniently(line: bytes, languages: tuple[str, ...]) -> Any:
    """Keeps the names of an item whose statements have unexpected types."""
    try:
        item = _decoder(languages, with_claims=False).decode(line)
    except msgspec.DecodeError:
        return "bad_structure"
    item.claims = None
    return item


def _record(
    item: Any, number: int, types: list[str], languages: tuple[str, ...]
) -> EntityRecord | None:
    labels = _by_language(item.labels, languages)
    # The first spelling wins; a label outranks an alias, whatever the language.
    names = {term.value: (language, "label") for language, term in labels.items() if term.value}
    enwiki, sitelinks = _sitelinks(item.sitelinks)
    title = enwiki.split(" (")[0]
    if title and "en" in languages:
        names.setdefault(title, ("en", "title"))
    for language, aliases in _by_language(item.aliases, languages).items():
        for alias in aliases:
            names.setdefault(alias.value, (language, "alias"))
    names.pop("", None)
    if not names:
        return None
    descriptions = _by_language(item.descriptions, languages)
    return EntityRecord(
        id=item.id,
        label=next(iter(names)),
        names=[(name, language, kind) for name, (language, kind) in names.items()],
        line=number,
        description=next((term.value for term in descriptions.values()), ""),
        types=types,
        image=_image(item.claims),
        enwiki=enwiki,
        sitelinks=sitelinks,
        popularity=float(sitelinks),
    )


def _by_language(terms: Any, languages: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(terms, msgspec.Struct):
        return {}
    found = {lang: getattr(terms, f"language_{i}") for i, lang in enumerate(languages)}
    return {language: value for language, value in found.items() if value}


def _sitelinks(sites: Any) -> tuple[str, int]:
    """Returns the title of the English article and the number of sitelinks."""
    if not isinstance(sites, dict):
        return "", 0
    raw = sites.get("enwiki")
    return (msgspec.json.decode(raw, type=_Site).title if raw else ""), len(sites)


def _best(statements: list[Any]) -> list[Any]:
    """Returns the preferred statements, or the normal ones if none is preferred."""
    preferred = [s for s in statements if s.rank == "preferred"]
    chosen = preferred or [s for s in statements if s.rank != "deprecated"]
    values = [s.mainsnak.datavalue for s in chosen if s.mainsnak]
    return [value.value for value in values if value and value.value]


def _types(claims: Any) -> list[str]:
    if not isinstance(claims, _Claims):
        return []
    ids = [value.id or f"Q{value.numeric_id}" for value in _best(claims.P31)]
    return list(dict.fromkeys(ids))


def _image(claims: Any) -> str:
    images = _best(claims.P18) if isinstance(claims, _Claims) else []
    return images[0] if images else ""
